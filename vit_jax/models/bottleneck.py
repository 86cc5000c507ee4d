"""ResNet's bottleneck units and stages, after the first paper and with norms in front (BiT)."""

import flax.linen as nn
import jax

from vit_jax.models.convs import Conv, ConvOptions, max_pool, norm, relu_of_sum
from vit_jax.models.stack import traced_once


class Root(nn.Module):
  """7x7 convolution, norm, ReLU and max pooling: a quarter of the height and width."""

  options: ConvOptions
  width: int

  @nn.compact
  def __call__(self, x: jax.Array, train: bool) -> jax.Array:
    x = Conv(self.options, self.width, 7, 2, name='conv')(x)
    x = nn.relu(norm(self.options, 'norm', train)(x))
    return max_pool(x, self.options.padding)


class PreactRoot(nn.Module):
  """7x7 convolution and max pooling over zero padding; the first unit begins with the norm."""

  options: ConvOptions
  width: int

  @nn.compact
  def __call__(self, x: jax.Array, train: bool) -> jax.Array:
    del train  # no statistics here
    x = Conv(self.options, self.width, 7, 2, name='conv')(x)
    return max_pool(x, self.options.padding, fill_zero=True)


class Unit(nn.Module):
  """A bottleneck with norms after the convolutions and the last ReLU after the sum.

  Args:
    options: of convolutions and norms.
    width: inner channels, a quarter of the outer ones.
    stride: of the unit.
    stride_in_conv: which convolution takes the stride: 2, or 1 as the paper has it.

  Source: He et al. 2015 (1512.03385), figure 5.
  """

  options: ConvOptions
  width: int
  stride: int = 1
  stride_in_conv: int = 2

  @nn.compact
  def __call__(self, x: jax.Array, train: bool) -> jax.Array:
    o = self.options
    strides = (self.stride, 1) if self.stride_in_conv == 1 else (1, self.stride)
    shortcut = x
    if x.shape[-1] != 4 * self.width or self.stride != 1:
      shortcut = Conv(o, 4 * self.width, 1, self.stride, name='conv_proj')(x)
      shortcut = norm(o, 'norm_proj', train)(shortcut)
    y = Conv(o, self.width, 1, strides[0], name='conv1')(x)
    y = nn.relu(norm(o, 'norm1', train)(y))
    y = Conv(o, self.width, 3, strides[1], name='conv2')(y)
    y = nn.relu(norm(o, 'norm2', train)(y))
    y = Conv(o, 4 * self.width, 1, name='conv3')(y)
    # The branch starts at zero, so that a deep network starts as a shallow one.
    y = norm(o, 'norm3', train, nn.initializers.zeros)(y)
    y = relu_of_sum(shortcut, y)
    self.sow('intermediates', 'output', y)
    return y


class PreactUnit(nn.Module):
  """A bottleneck with a norm and ReLU before each convolution and nothing after the sum.

  Args:
    options: of convolutions and norms.
    width: inner channels, a quarter of the outer ones.
    stride: of the 3x3 convolution.

  Source: He et al. 2016 (1603.05027), figure 4e; BiT (1912.11370), section 3.
  """

  options: ConvOptions
  width: int
  stride: int = 1

  @nn.compact
  def __call__(self, x: jax.Array, train: bool) -> jax.Array:
    o = self.options
    y = nn.relu(norm(o, 'norm1', train)(x))
    shortcut = x
    if x.shape[-1] != 4 * self.width or self.stride != 1:
      shortcut = Conv(o, 4 * self.width, 1, self.stride, name='conv_proj')(y)
    y = Conv(o, self.width, 1, name='conv1')(y)
    y = nn.relu(norm(o, 'norm2', train)(y))
    y = Conv(o, self.width, 3, self.stride, name='conv2')(y)
    y = nn.relu(norm(o, 'norm3', train)(y))
    y = Conv(o, 4 * self.width, 1, name='conv3')(y) + shortcut
    self.sow('intermediates', 'output', y)
    return y


class Stage(nn.Module):
  """Units at one resolution; the first one changes resolution and width.

  Args:
    options: of convolutions and norms.
    units: how many.
    width: inner channels.
    stride: of the first unit.
    preact: norms in front of the convolutions.
    stride_in_conv: as in `Unit`.
  """

  options: ConvOptions
  units: int
  width: int
  stride: int
  preact: bool = False
  stride_in_conv: int = 2

  @nn.compact
  def __call__(self, x: jax.Array, train: bool) -> jax.Array:
    unit_type = traced_once(self, PreactUnit if self.preact else Unit, x)
    fields = {} if self.preact else {'stride_in_conv': self.stride_in_conv}
    for j in range(self.units):
      stride = self.stride if j == 0 else 1
      unit = unit_type(self.options, self.width, stride, **fields, name=f'unit{j + 1:02d}')
      x = unit(x, train)
    return x
