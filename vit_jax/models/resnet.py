"""ResNet-50 with BatchNorm, and BiT: ResNets with GroupNorm and standardised kernels."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from vit_jax.models.base import DTYPES, register
from vit_jax.models.bottleneck import PreactRoot, Root, Stage
from vit_jax.models.convs import PADDINGS, ConvOptions, norm
from vit_jax.models.layers import head, headless
from vit_jax.options import option


class ResNet(nn.Module):
  """A ResNet as first published, with BatchNorm.

  The defaults are those of torchvision and timm. Keras's weights need stride_in_conv=1,
  conv_bias=True, norm_epsilon=1.001e-5.

  Source: He et al. 2015 (1512.03385), table 1.
  """

  num_classes: int
  blocks: tuple[int, ...] = option(
    (3, 4, 6, 3), 'bottleneck units in each stage', low=1, high=1000, lengths=(1, 2, 3, 4, 5, 6)
  )
  width: int = option(
    64, 'channels of the root; stage i (from 0) has 4 * width * 2^i', low=1, high=1 << 16
  )
  stride_in_conv: int = option(
    2, 'which convolution of a unit takes its stride: 1 (paper, Keras) or 2', choices=(1, 2)
  )
  conv_bias: bool = option(False, 'biases on convolutions (Keras)')
  padding: str = option(
    'symmetric', "of strided convolutions and pooling: 'symmetric' or 'same'", choices=PADDINGS
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
      use_bias=self.conv_bias,
      dtype=self.dtype,
    )
    x = images.astype(jnp.dtype(self.dtype))
    x = Root(options, self.width, name='root')(x, train)
    for i, units in enumerate(self.blocks):
      x = Stage(
        options,
        units,
        self.width * 2**i,
        stride=1 if i == 0 else 2,
        stride_in_conv=self.stride_in_conv,
        name=f'block{i + 1}',
      )(x, train)
    return classify(self, x, train)


class BiT(nn.Module):
  """Big Transfer: a ResNet with norms before convolutions, GroupNorm and standardised kernels.

  Source: Kolesnikov et al. 2020 (1912.11370), section 3.
  """

  num_classes: int
  blocks: tuple[int, ...] = option(
    (3, 4, 6, 3), 'bottleneck units in each stage', low=1, high=1000, lengths=(1, 2, 3, 4, 5, 6)
  )
  width: int = option(
    64, 'channels of the root: 64 times the published width factor', low=1, high=1 << 16
  )
  norm_epsilon: float = option(1e-5, "added to GroupNorm's variance", low=0, high=1)
  kernel_epsilon: float = option(
    1e-10, 'added to the variance of kernels (timm: 1e-8)', low=0, high=1
  )
  dropout: float = option(0.0, 'rate on the pooled features', low=0, below=1)
  head_bias_init: float = option(0.0, "start of the head's bias", low=-100, high=100)
  dtype: str = option(
    'float32', 'precision of the computation; parameters are float32', choices=DTYPES
  )

  def problems(self) -> list[str]:
    """Says which field values do not fit together."""
    return [f'width={self.width} must be a multiple of 32 groups'] if self.width % 32 else []

  @nn.compact
  def __call__(self, images: jax.Array, train: bool = False) -> jax.Array:
    """Classifies images [b, h, w, c]; logits [b, num_classes], or features where that is 0."""
    options = ConvOptions(
      norm='group',
      norm_epsilon=self.norm_epsilon,
      standardise=self.kernel_epsilon,
      dtype=self.dtype,
    )
    x = images.astype(jnp.dtype(self.dtype))
    x = PreactRoot(options, self.width, name='root')(x, train)
    for i, units in enumerate(self.blocks):
      stride = 1 if i == 0 else 2
      x = Stage(options, units, self.width * 2**i, stride, preact=True, name=f'block{i + 1}')(
        x, train
      )
    x = nn.relu(norm(options, 'norm', train)(x))
    return classify(self, x, train)


def classify(module: nn.Module, x: jax.Array, train: bool) -> jax.Array:
  """Mean over height and width, and the head, as submodules of the calling network.

  Args:
    module: has num_classes, dropout, head_bias_init and dtype.
    x: [b, h, w, c].
    train: whether dropout acts.

  Returns:
    Logits [b, num_classes] in float32; without classes what `layers.headless` returns.
  """
  pooled = x.mean(axis=(1, 2))
  module.sow('intermediates', 'pooled', pooled)
  if not module.num_classes:
    return headless(module, pooled, x)
  pooled = nn.Dropout(module.dropout, name='dropout')(pooled, deterministic=not train)
  last = head(module.num_classes, module.dtype, 'head', module.head_bias_init)
  return last(pooled).astype(jnp.float32)


register('resnet50', ResNet)

_DEPTHS = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}
# The depths and width factors of the released weights, paper's section 3.1 and appendix.
for _depth, _factor in ((50, 1), (50, 3), (101, 1), (101, 3), (152, 2), (152, 4)):
  register(f'bit_r{_depth}x{_factor}', BiT, blocks=_DEPTHS[_depth], width=64 * _factor)
