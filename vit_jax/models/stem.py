"""The ResNet in front of a hybrid's transformer: GroupNorm and weight-standardised convolutions."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from vit_jax.models.convs import StdConv


def stem_stride(blocks: tuple[int, ...] | None) -> int:
  """How many input pixels one step on a stem's output grid is; 1 without a stem."""
  if blocks is None:
    return 1
  return 4 * 2 ** max(0, len(blocks) - 1)


class ResNetStem(nn.Module):
  """A root convolution with pooling and stages of bottleneck units.

  Args:
    blocks: residual units in each stage; () for the root alone.
    width: channels of the root; stage i (from 0) has 4 * width * 2^i.
    norm_epsilon: added to GroupNorm's variance.
    dtype: of the computation.

  Source: ViT (2010.11929), section 3.1, "Hybrid Architecture"; BiT (1912.11370), section 3.
  """

  blocks: tuple[int, ...]
  width: int = 64
  norm_epsilon: float = 1e-6
  dtype: str = 'float32'

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    x = Root(self.width, self.norm_epsilon, self.dtype, name='root')(x)
    for i, units in enumerate(self.blocks):
      stride = 1 if i == 0 else 2
      x = Stage(
        units, self.width * 2**i, stride, self.norm_epsilon, self.dtype, name=f'block{i + 1}'
      )(x)
    return x


class Root(nn.Module):
  """7x7 convolution, GroupNorm, ReLU and max pooling: a quarter of the height and width."""

  width: int
  norm_epsilon: float
  dtype: str

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    x = StdConv(self.width, 7, 2, dtype=self.dtype, name='conv')(x)
    x = nn.relu(group_norm(self.norm_epsilon, self.dtype, 'norm')(x))
    return nn.max_pool(x, (3, 3), strides=(2, 2), padding='SAME')


class Stage(nn.Module):
  """Bottleneck units at one resolution; the first one changes resolution and width."""

  units: int
  width: int
  stride: int
  norm_epsilon: float
  dtype: str

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    for j in range(self.units):
      stride = self.stride if j == 0 else 1
      x = Unit(self.width, stride, self.norm_epsilon, self.dtype, name=f'unit{j + 1:02d}')(x)
    return x


class Unit(nn.Module):
  """A bottleneck with the norms after the convolutions and the last ReLU after the sum.

  Args:
    width: inner channels, a quarter of the outer ones.
    stride: of the 3x3 convolution.
    norm_epsilon: added to GroupNorm's variance.
    dtype: of the computation.
  """

  width: int
  stride: int
  norm_epsilon: float
  dtype: str

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    def conv(features, k, stride, name):
      return StdConv(features, k, stride, dtype=self.dtype, name=name)

    def norm(name, scale_init=nn.initializers.ones):
      return group_norm(self.norm_epsilon, self.dtype, name, scale_init)

    shortcut = x
    if x.shape[-1] != 4 * self.width or self.stride != 1:
      shortcut = conv(4 * self.width, 1, self.stride, 'conv_proj')(x)
      shortcut = norm('norm_proj')(shortcut)
    y = nn.relu(norm('norm1')(conv(self.width, 1, 1, 'conv1')(x)))
    y = nn.relu(norm('norm2')(conv(self.width, 3, self.stride, 'conv2')(y)))
    y = norm('norm3', nn.initializers.zeros)(conv(4 * self.width, 1, 1, 'conv3')(y))
    return nn.relu(shortcut + y)


def group_norm(
  epsilon: float, dtype: str, name: str, scale_init=nn.initializers.ones
) -> nn.GroupNorm:
  """GroupNorm with 32 groups, as in all of these networks."""
  return nn.GroupNorm(32, epsilon=epsilon, dtype=jnp.dtype(dtype), scale_init=scale_init, name=name)
