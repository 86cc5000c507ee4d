"""MLP-Mixer: MLPs across patches and across channels in turn."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from vit_jax.models import layers
from vit_jax.models.attention import BlockOptions, layer_norm
from vit_jax.models.base import DTYPES, check_images, register
from vit_jax.models.stack import run_blocks
from vit_jax.options import option


class Mixer(nn.Module):
  """An image as a table of patches by channels, mixed along one side and then the other.

  The token MLPs are made for one number of patches: weights fit one image size.

  Source: Tolstikhin et al. 2021 (2105.01601), section 2.
  """

  num_classes: int
  patch_size: tuple[int, int] = option(
    (16, 16), 'pixels of the input image per token, (height, width)', low=1, high=1024
  )
  width: int = option(768, 'channels of a token', low=1, high=1 << 16)
  depth: int = option(12, 'blocks', low=1, high=1000)
  token_mlp_dim: int = option(384, 'hidden units of the MLPs across patches', low=1, high=1 << 20)
  mlp_dim: int = option(3072, 'hidden units of the MLPs across channels', low=1, high=1 << 20)
  dropout: float = option(0.0, 'rate in both MLPs', low=0, below=1)
  drop_path_rate: float = option(0.0, "stochastic depth: the last block's rate", low=0, below=1)
  drop_path_schedule: str = option(
    'linear',
    "'linear' (grows evenly from 0 at the first), 'constant'",
    choices=layers.DROP_PATH_SCHEDULES,
  )
  gelu: str = option('tanh', "'tanh' (official weights) or 'exact'", choices=layers.GELUS)
  norm_epsilon: float = option(1e-6, "added to LayerNorm's variance", low=0, high=1)
  head_bias_init: float = option(0.0, "start of the head's bias", low=-100, high=100)
  remat: str = option(
    'none', "'block': recompute blocks in the backward pass to save memory", choices=layers.REMATS
  )
  scan: bool | None = option(None, 'whether blocks are a loop, quick to compile; None: by backend')
  dtype: str = option(
    'float32', 'precision of the computation; parameters are float32', choices=DTYPES
  )

  num_prefix_tokens = 0  # no tokens but the patches

  @nn.compact
  def __call__(self, images: jax.Array, train: bool = False) -> jax.Array:
    """Classifies images [b, h, w, c]; logits [b, num_classes], or features where that is 0."""
    check_images(self, images)
    options = BlockOptions(
      num_heads=0,
      mlp_dim=self.mlp_dim,
      gelu=self.gelu,
      norm_epsilon=self.norm_epsilon,
      dropout=self.dropout,
      remat=self.remat,
      scan=self.scan,
      dtype=self.dtype,
    )
    x = images.astype(jnp.dtype(self.dtype))
    x = layers.PatchEmbedding(
      self.patch_size, self.width, dtype=self.dtype, name='patch_embedding'
    )(x)
    x = x.reshape(x.shape[0], -1, self.width)
    x = MixerEncoder(
      self.depth,
      self.token_mlp_dim,
      options,
      self.drop_path_rate,
      self.drop_path_schedule,
      name='encoder',
    )(x, train)
    return layers.classify(self, images, x, x.mean(axis=1))


class MixerEncoder(nn.Module):
  """Mixer blocks one after another and a LayerNorm; arguments as of `layers.Encoder`."""

  depth: int
  token_mlp_dim: int
  options: BlockOptions
  drop_path_rate: float
  drop_path_schedule: str

  @nn.compact
  def __call__(self, x: jax.Array, train: bool) -> jax.Array:
    rates = layers.drop_path_rates(self.drop_path_rate, self.depth, self.drop_path_schedule)
    fields = {'token_mlp_dim': self.token_mlp_dim}
    x = run_blocks(self, MixerBlock, fields, self.options, rates, x, train)
    return layer_norm(self.options, 'norm')(x)


class MixerBlock(nn.Module):
  """x + MLP across patches, then x + MLP across channels.

  Args:
    token_mlp_dim: hidden units of the MLP across patches.
    options: the rest, shared by all blocks.
    drop_path: this block's rate of stochastic depth.
  """

  token_mlp_dim: int
  options: BlockOptions
  drop_path: float = 0.0

  @nn.compact
  def __call__(self, x: jax.Array, train: bool) -> jax.Array:
    o = self.options

    def mlp(hidden, name):
      return layers.Mlp(
        hidden, o.gelu, o.dropout, o.dtype, layers.lecun, nn.initializers.zeros, name=name
      )

    y = layer_norm(o, 'norm1')(x).swapaxes(1, 2)  # [b, d, n]
    y = mlp(self.token_mlp_dim, 'token_mixing')(y, train).swapaxes(1, 2)
    x = x + layers.DropPath(self.drop_path, name='drop_path1')(y, train)
    y = mlp(o.mlp_dim, 'channel_mixing')(layers.norm_before_dense(self, o, 'norm2', x), train)
    x = x + layers.DropPath(self.drop_path, name='drop_path2')(y, train)
    self.sow('intermediates', 'output', x)
    return x


# Table 1 of the paper.
_SIZES = {
  's': {'width': 512, 'depth': 8, 'token_mlp_dim': 256, 'mlp_dim': 2048},
  'b': {'width': 768, 'depth': 12, 'token_mlp_dim': 384, 'mlp_dim': 3072},
  'l': {'width': 1024, 'depth': 24, 'token_mlp_dim': 512, 'mlp_dim': 4096},
  'h': {'width': 1280, 'depth': 32, 'token_mlp_dim': 640, 'mlp_dim': 5120},
}

for _name in ('s32', 's16', 'b32', 'b16', 'l32', 'l16', 'h14'):
  _patch = int(_name[1:])
  register(f'mixer_{_name}', Mixer, **_SIZES[_name[0]], patch_size=(_patch, _patch))
