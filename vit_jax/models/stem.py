"""The ResNet in front of a hybrid's transformer: GroupNorm and weight-standardised convolutions."""

import flax.linen as nn
import jax

from vit_jax.models.bottleneck import Root, Stage
from vit_jax.models.convs import ConvOptions


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

  Source: ViT (2010.11929), section 3.1, "Hybrid Architecture".
  """

  blocks: tuple[int, ...]
  width: int = 64
  norm_epsilon: float = 1e-6
  dtype: str = 'float32'

  @nn.compact
  def __call__(self, x: jax.Array, train: bool) -> jax.Array:
    options = ConvOptions(
      norm='group',
      norm_epsilon=self.norm_epsilon,
      padding='same',
      standardise=1e-5,
      epsilon_in_variance=False,
      dtype=self.dtype,
    )
    x = Root(options, self.width, name='root')(x, train)
    for i, units in enumerate(self.blocks):
      stride = 1 if i == 0 else 2
      x = Stage(options, units, self.width * 2**i, stride, name=f'block{i + 1}')(x, train)
    return x
