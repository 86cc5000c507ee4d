"""CaiT: deep transformers with LayerScale, talking heads, and class attention at the end."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from vit_jax.models import layers
from vit_jax.models.attention import (
  BlockOptions,
  CrossAttention,
  HeadsDense,
  MergeHeads,
  layer_norm,
  softmax,
)
from vit_jax.models.base import DTYPES, check_images, register
from vit_jax.models.stack import run_blocks
from vit_jax.options import option


class CaiT(nn.Module):
  """Patches alone through self-attention blocks, then a class token that reads them.

  The class token is not among the tokens of `encoder`; it is the first of the final 'tokens'.

  Source: Touvron et al. 2021 (2103.17239), sections 2 and 3.
  """

  num_classes: int
  patch_size: tuple[int, int] = option(
    (16, 16), 'pixels of the input image per token, (height, width)', low=1, high=1024
  )
  width: int = option(384, 'channels of a token', low=1, high=1 << 16)
  depth: int = option(24, 'self-attention blocks', low=1, high=1000)
  class_depth: int = option(2, 'class-attention blocks', low=1, high=1000)
  num_heads: int = option(8, 'attention heads; they divide width', low=1, high=1024)
  mlp_dim: int = option(1536, 'hidden units of the MLPs', low=1, high=1 << 20)
  dropout: float = option(
    0.0, 'rate on embeddings, attention outputs and MLPs of self-attention blocks', low=0, below=1
  )
  attention_dropout: float = option(
    0.0, 'rate on attention weights of self-attention blocks', low=0, below=1
  )
  drop_path_rate: float = option(
    0.0, 'stochastic depth, the same in every self-attention block', low=0, below=1
  )
  layer_scale: float = option(1e-5, 'initial gain of residual branches', low=0, high=100)
  gelu: str = option('exact', "'exact' (published weights) or 'tanh'", choices=layers.GELUS)
  norm_epsilon: float = option(1e-6, "added to LayerNorm's variance", low=0, high=1)
  head_bias_init: float = option(0.0, "start of the head's bias", low=-100, high=100)
  remat: str = option(
    'none', "'block': recompute blocks in the backward pass to save memory", choices=layers.REMATS
  )
  scan: bool | None = option(None, 'whether blocks are a loop, quick to compile; None: by backend')
  dtype: str = option(
    'float32', 'precision of the computation; parameters are float32', choices=DTYPES
  )

  num_prefix_tokens = 1  # the class token, once it has joined

  def problems(self) -> list[str]:
    """Says which field values do not fit together."""
    if self.width % self.num_heads:
      return [f'num_heads={self.num_heads} does not divide width={self.width}']
    return []

  @nn.compact
  def __call__(self, images: jax.Array, train: bool = False) -> jax.Array:
    """Classifies images [b, h, w, c]; logits [b, num_classes], or features where that is 0."""
    check_images(self, images)
    options = BlockOptions(
      num_heads=self.num_heads,
      mlp_dim=self.mlp_dim,
      gelu=self.gelu,
      norm_epsilon=self.norm_epsilon,
      dropout=self.dropout,
      attention_dropout=self.attention_dropout,
      layer_scale=self.layer_scale,
      remat=self.remat,
      scan=self.scan,
      dtype=self.dtype,
    )
    x = images.astype(jnp.dtype(self.dtype))
    x = layers.PatchEmbedding(
      self.patch_size, self.width, dtype=self.dtype, name='patch_embedding'
    )(x)
    x = x.reshape(x.shape[0], -1, self.width)
    init = nn.initializers.truncated_normal(0.02)
    x = x + self.param('position_embedding', init, (1, *x.shape[1:])).astype(x.dtype)
    x = nn.Dropout(self.dropout, name='dropout')(x, deterministic=not train)
    x = TalkingEncoder(self.depth, options, self.drop_path_rate, name='encoder')(x, train)
    token = self.param('class_token', init, (1, 1, self.width))
    token = jnp.broadcast_to(token, (x.shape[0], 1, self.width)).astype(x.dtype)
    token = ClassEncoder(self.class_depth, options, name='class_encoder')(token, x)
    x = layer_norm(options, 'norm')(jnp.concatenate([token, x], axis=1))
    return layers.classify(self, images, x, x[:, 0])


class TalkingEncoder(nn.Module):
  """Self-attention blocks with talking heads; arguments as of `layers.Encoder`."""

  depth: int
  options: BlockOptions
  drop_path: float

  @nn.compact
  def __call__(self, x: jax.Array, train: bool) -> jax.Array:
    rates = layers.drop_path_rates(self.drop_path, self.depth, 'constant')
    fields = {'attention_type': TalkingHeads}
    return run_blocks(self, layers.Block, fields, self.options, rates, x, train)


class TalkingHeads(nn.Module):
  """Self-attention whose logits, and then weights, are mixed across heads.

  Source: Shazeer et al. 2020 (2003.02436), section 4.
  """

  options: BlockOptions

  @nn.compact
  def __call__(self, x: jax.Array, train: bool) -> jax.Array:
    o = self.options
    d = x.shape[-1]
    head_dim = d // o.num_heads
    qkv = HeadsDense((3, o.num_heads), head_dim, o.qkv_bias, o.dtype, name='qkv')(x)
    q, k, v = qkv.transpose(2, 0, 3, 1, 4)  # [b, h, n, k]
    logits = jnp.einsum('bhnk,bhmk->bhnm', q * head_dim**-0.5, k)
    weights = softmax(MixHeads(o.num_heads, o.dtype, name='heads_before')(logits))
    weights = MixHeads(o.num_heads, o.dtype, name='heads_after')(weights)
    for name, value in {'query': q, 'key': k, 'value': v, 'weights': weights}.items():
      self.sow('intermediates', name, value)
    if self.has_variable('perturbations', 'weights'):  # zeros, to differentiate by
      weights += self.get_variable('perturbations', 'weights')
    weights = nn.Dropout(o.attention_dropout, name='dropout')(weights, deterministic=not train)
    y = jnp.einsum('bhnm,bhmk->bhnk', weights, v).transpose(0, 2, 1, 3)
    return MergeHeads(d, dtype=o.dtype, name='out')(y)


class MixHeads(nn.Module):
  """A dense layer across the heads of [b, h, n, m], every pair of tokens alike."""

  num_heads: int
  dtype: str

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    h = self.num_heads
    kernel = self.param('kernel', nn.initializers.xavier_uniform(), (h, h)).astype(x.dtype)
    bias = self.param('bias', nn.initializers.zeros, (h,)).astype(x.dtype)
    return jnp.einsum('bhnm,hi->binm', x, kernel) + bias[:, None, None]


class ClassEncoder(nn.Module):
  """Class-attention blocks: the class token alone changes."""

  depth: int
  options: BlockOptions

  @nn.compact
  def __call__(self, token: jax.Array, x: jax.Array) -> jax.Array:
    for i in range(self.depth):
      token = ClassBlock(self.options, name=f'block_{i:02d}')(token, x)
    return token


class ClassBlock(nn.Module):
  """The class token [b, 1, d] attends to itself and the patches, then passes an MLP.

  No dropout here, as published.
  """

  options: BlockOptions

  @nn.compact
  def __call__(self, token: jax.Array, x: jax.Array) -> jax.Array:
    o = self.options
    assert o.layer_scale is not None
    y = layer_norm(o, 'norm1')(jnp.concatenate([token, x], axis=1))
    y = CrossAttention(o, name='attention')(y[:, :1], y)
    token = token + layers.LayerScale(o.layer_scale, name='scale1')(y)
    y = layer_norm(o, 'norm2')(token)
    y = layers.Mlp(o.mlp_dim, o.gelu, dtype=o.dtype, name='mlp')(y, False)
    token = token + layers.LayerScale(o.layer_scale, name='scale2')(y)
    self.sow('intermediates', 'output', token)
    return token


# Table 3 of the paper: width, depth, heads; LayerScale's start as released.
_SIZES = {
  'xxs24': (192, 24, 4, 1e-5),
  'xxs36': (192, 36, 4, 1e-5),
  'xs24': (288, 24, 6, 1e-5),
  's24': (384, 24, 8, 1e-5),
  's36': (384, 36, 8, 1e-6),
  'm36': (768, 36, 16, 1e-6),
  'm48': (768, 48, 16, 1e-6),
}

for _name, (_width, _depth, _heads, _gain) in _SIZES.items():
  register(
    f'cait_{_name}',
    CaiT,
    width=_width,
    depth=_depth,
    num_heads=_heads,
    mlp_dim=4 * _width,
    layer_scale=_gain,
  )
