"""MobileNetV2: inverted residuals with linear bottlenecks."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from vit_jax.models.base import DTYPES, register
from vit_jax.models.convs import PADDINGS, Conv, ConvOptions, norm
from vit_jax.models.resnet import classify
from vit_jax.models.stack import traced_once
from vit_jax.options import option

# Table 2 of the paper: expansion, output channels, stride of the first block of each stage.
STAGES = ((1, 16, 1), (6, 24, 2), (6, 32, 2), (6, 64, 2), (6, 96, 1), (6, 160, 2), (6, 320, 1))


class MobileNetV2(nn.Module):
  """A small network of depthwise convolutions.

  The defaults are those of torchvision and timm. Keras's weights need padding='same' and
  norm_epsilon=1e-3 (and were trained with norm_momentum=0.999).

  Source: Sandler et al. 2018 (1801.04381), table 2.
  """

  num_classes: int
  repeats: tuple[int, ...] = option(
    (1, 2, 3, 4, 3, 3, 1), 'blocks in each of the seven stages', low=1, high=100
  )
  width_multiplier: float = option(1.0, 'scales channels, to multiples of 8', above=0, high=100)
  padding: str = option(
    'symmetric',
    "of strided convolutions: 'symmetric', or 'same' (TensorFlow, Keras)",
    choices=PADDINGS,
  )
  norm_epsilon: float = option(1e-5, "added to BatchNorm's variance", low=0, high=1)
  norm_momentum: float = option(
    0.9, 'share of the old running statistics kept at each step', low=0, below=1
  )
  norm_frozen: bool = option(False, 'use and keep the running statistics in training too')
  axis_name: str | None = option(None, 'mapped axis over which batch statistics are averaged')
  dropout: float = option(0.0, 'rate on the pooled features', low=0, below=1)
  head_bias_init: float = option(0.0, "start of the head's bias", low=-100, high=100)
  dtype: str = option(
    'float32', 'precision of the computation; parameters are float32', choices=DTYPES
  )

  def problems(self) -> list[str]:
    """Says which field values do not fit together."""
    if len(self.repeats) != len(STAGES):
      return [f'repeats must have {len(STAGES)} stages, got {self.repeats}']
    return []

  @nn.compact
  def __call__(self, images: jax.Array, train: bool = False) -> jax.Array:
    """Classifies images [b, h, w, c]; logits [b, num_classes], or features where that is 0."""
    options = ConvOptions(
      norm='batch',
      norm_epsilon=self.norm_epsilon,
      norm_momentum=self.norm_momentum,
      norm_frozen=self.norm_frozen,
      axis_name=self.axis_name,
      padding=self.padding,
      dtype=self.dtype,
    )
    x = images.astype(jnp.dtype(self.dtype))
    x = ConvNorm(options, self._channels(32), 3, 2, name='stem')(x, train)
    block_type = traced_once(self, InvertedResidual, x)
    i = 0
    for repeats, (expansion, channels, stride) in zip(self.repeats, STAGES, strict=True):
      for j in range(repeats):
        x = block_type(
          options,
          expansion,
          self._channels(channels),
          stride if j == 0 else 1,
          name=f'block_{i:02d}',
        )(x, train)
        i += 1
    # The last convolution never has fewer channels than published, whatever the multiplier.
    last = max(1280, self._channels(1280))
    x = ConvNorm(options, last, 1, name='last')(x, train)
    return classify(self, x, train)

  def _channels(self, channels: int) -> int:
    """Scaled channels as a multiple of 8, never more than a tenth below the scaled number."""
    scaled = channels * self.width_multiplier
    rounded = max(8, int(scaled + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * scaled else rounded


class ConvNorm(nn.Module):
  """A convolution, a norm and, unless linear, ReLU6."""

  options: ConvOptions
  features: int
  kernel_size: int
  stride: int = 1
  depthwise: bool = False
  linear: bool = False

  @nn.compact
  def __call__(self, x: jax.Array, train: bool) -> jax.Array:
    x = Conv(
      self.options, self.features, self.kernel_size, self.stride, self.depthwise, name='conv'
    )(x)
    x = norm(self.options, 'norm', train)(x)
    return x if self.linear else nn.relu6(x)


class InvertedResidual(nn.Module):
  """Widen, convolve each channel, narrow; the shortcut joins the narrow ends.

  Args:
    options: of convolutions and norms.
    expansion: how many times wider inside; 1 for no widening layer.
    features: output channels.
    stride: of the depthwise convolution.
  """

  options: ConvOptions
  expansion: int
  features: int
  stride: int

  @nn.compact
  def __call__(self, x: jax.Array, train: bool) -> jax.Array:
    o = self.options
    c = x.shape[-1]
    wide = c * self.expansion
    y = x
    if self.expansion != 1:
      y = ConvNorm(o, wide, 1, name='expand')(y, train)
    y = ConvNorm(o, wide, 3, self.stride, depthwise=True, name='depthwise')(y, train)
    y = ConvNorm(o, self.features, 1, linear=True, name='project')(y, train)
    if self.stride == 1 and c == self.features:
      y = x + y
    self.sow('intermediates', 'output', y)
    return y


register('mobilenet_v2', MobileNetV2)
