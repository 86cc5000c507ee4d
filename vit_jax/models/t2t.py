"""T2T-ViT: overlapping splits and small attention layers build the tokens, then a narrow ViT."""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp

from vit_jax.models import layers, posemb
from vit_jax.models.attention import (
  ATTENTIONS,
  BlockOptions,
  HeadsDense,
  MergeHeads,
  layer_norm,
  softmax,
)
from vit_jax.models.base import DTYPES, check_images, register
from vit_jax.options import option

TOKENS = ('performer', 'transformer')


class T2TViT(nn.Module):
  """Tokens-to-token: three soft splits with attention between them, then transformer blocks.

  Source: Yuan et al. 2021 (2101.11986), section 3.
  """

  num_classes: int
  tokens: str = option(
    'performer', "attention between soft splits: 'performer' or 'transformer'", choices=TOKENS
  )
  token_width: int = option(64, 'channels between soft splits', low=1, high=1 << 16)
  token_dropout: float = option(
    0.0,
    'rate in the layers between soft splits; the released code has 0.1 for performers, always',
    low=0,
    below=1,
  )
  width: int = option(384, 'channels of a token', low=1, high=1 << 16)
  depth: int = option(14, 'encoder blocks', low=1, high=1000)
  num_heads: int = option(6, 'attention heads; they divide width', low=1, high=1024)
  mlp_dim: int = option(1152, 'hidden units of the MLPs', low=1, high=1 << 20)
  query_scale: float | None = option(
    None, 'factor on queries; None: 1/sqrt(head width). See below', above=0, high=100
  )
  dropout: float = option(0.0, 'rate on embeddings, attention outputs and MLPs', low=0, below=1)
  attention_dropout: float = option(0.0, 'rate on attention weights', low=0, below=1)
  drop_path_rate: float = option(0.0, "stochastic depth: the last block's rate", low=0, below=1)
  drop_path_schedule: str = option(
    'linear',
    "'linear' (grows evenly from 0 at the first), 'constant'",
    choices=layers.DROP_PATH_SCHEDULES,
  )
  gelu: str = option('exact', "'exact' (published weights) or 'tanh'", choices=layers.GELUS)
  norm_epsilon: float = option(1e-5, "added to LayerNorm's variance", low=0, high=1)
  head_bias_init: float = option(0.0, "start of the head's bias", low=-100, high=100)
  attention: str = option(
    'auto', "'auto' (by backend), 'einsum', 'deferred', 'cudnn'; of the encoder", choices=ATTENTIONS
  )
  remat: str = option(
    'none', "'block': recompute blocks in the backward pass to save memory", choices=layers.REMATS
  )
  scan: bool | None = option(None, 'whether blocks are a loop, quick to compile; None: by backend')
  dtype: str = option(
    'float32', 'precision of the computation; parameters are float32', choices=DTYPES
  )

  patch_size = (16, 16)  # three splits with strides 4, 2 and 2
  num_prefix_tokens = 1  # the class token
  position_embedding = 'sinusoid_1d'

  def problems(self) -> list[str]:
    """Says which field values do not fit together."""
    if self.width % self.num_heads:
      return [f'num_heads={self.num_heads} does not divide width={self.width}']
    return []

  @nn.compact
  def __call__(self, images: jax.Array, train: bool = False) -> jax.Array:
    """Classifies images [b, h, w, c]; logits [b, num_classes], or features where that is 0.

    The authors' code scales queries by 1/sqrt(head width) unless it loads released weights: some
    of those were trained with 1/sqrt(width), which `query_scale` is for.
    """
    check_images(self, images)
    options = BlockOptions(
      num_heads=self.num_heads,
      mlp_dim=self.mlp_dim,
      gelu=self.gelu,
      norm_epsilon=self.norm_epsilon,
      dropout=self.dropout,
      attention_dropout=self.attention_dropout,
      qkv_bias=False,
      query_scale=self.query_scale,
      attention=self.attention,
      remat=self.remat,
      scan=self.scan,
      dtype=self.dtype,
    )
    x = images.astype(jnp.dtype(self.dtype))
    x = TokensToToken(
      self.tokens, self.token_width, self.width, self.token_dropout, options, name='tokens_to_token'
    )(x, train)
    token = self.param('class_token', nn.initializers.truncated_normal(0.02), (1, 1, self.width))
    token = jnp.broadcast_to(token, (x.shape[0], 1, self.width)).astype(x.dtype)
    x = jnp.concatenate([token, x], axis=1)
    x = x + posemb.sinusoid_1d(x.shape[1], self.width).astype(x.dtype)
    x = nn.Dropout(self.dropout, name='dropout')(x, deterministic=not train)
    x = layers.Encoder(
      self.depth, options, self.drop_path_rate, self.drop_path_schedule, name='encoder'
    )(x, train)
    return layers.classify(self, images, x, x[:, 0])


class TokensToToken(nn.Module):
  """Images [b, h, w, c] to tokens [b, h * w / 256, features].

  Args:
    tokens: 'performer' or 'transformer'.
    width: channels between the splits.
    features: channels of the result.
    dropout: rate in the layers between the splits.
    options: activation, norm and dtype.
  """

  tokens: str
  width: int
  features: int
  dropout: float
  options: BlockOptions

  @nn.compact
  def __call__(self, x: jax.Array, train: bool) -> jax.Array:
    layer = TokenPerformer if self.tokens == 'performer' else TokenTransformer
    x = soft_split(x, 7, 4)
    for i in (1, 2):
      b, h, w, c = x.shape
      x = x.reshape(b, h * w, c)
      x = layer(self.width, self.dropout, self.options, name=f'attention{i}')(x, train)
      x = soft_split(x.reshape(b, h, w, self.width), 3, 2)  # the grid again, then windows of it
    b, h, w, c = x.shape
    dtype = jnp.dtype(self.options.dtype)
    x = x.reshape(b * h * w, c)
    x = nn.Dense(self.features, dtype=dtype, name='project')(x)
    return x.reshape(b, h * w, self.features)


def soft_split(x: jax.Array, k: int, stride: int) -> jax.Array:
  """Cuts overlapping windows out of a zero-padded grid (an "unfold").

  Args:
    x: [b, h, w, c].
    k: side of the windows; the padding is half of it, rounded up to whole strides.
    stride: between windows.

  Returns:
    [b, h / stride, w / stride, c * k * k], channels slowest, as the published weights have it.
  """
  b, h, w, c = x.shape
  pad = (k - stride + 1) // 2
  rows, columns = (h + 2 * pad - k) // stride + 1, (w + 2 * pad - k) // stride + 1
  x = jnp.pad(x, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
  windows = [
    x[:, i : i + (rows - 1) * stride + 1 : stride, j : j + (columns - 1) * stride + 1 : stride]
    for i in range(k)
    for j in range(k)
  ]
  return jnp.stack(windows, axis=-1).reshape(b, rows, columns, c * k * k)


class TokenTransformer(nn.Module):
  """Attention with one head narrower than its input, so that the values are the shortcut.

  Args:
    width: channels of the result.
    dropout: rate after attention and in the MLP.
    options: activation, norm and dtype.
  """

  width: int
  dropout: float
  options: BlockOptions

  @nn.compact
  def __call__(self, x: jax.Array, train: bool) -> jax.Array:
    o = self.options
    y = layer_norm(o, 'norm1')(x)
    qkv = HeadsDense((3, 1), self.width, False, o.dtype, name='qkv')(y)
    q, k, v = qkv.transpose(2, 0, 3, 1, 4)  # [b, 1, n, k]
    # The released code scales by the width of the input, not of the head.
    weights = softmax(jnp.einsum('bhnk,bhmk->bhnm', q * x.shape[-1] ** -0.5, k))
    self.sow('intermediates', 'weights', weights)
    y = jnp.einsum('bhnm,bhmk->bhnk', weights, v)
    y = MergeHeads(self.width, dtype=o.dtype, name='out')(y.transpose(0, 2, 1, 3))
    x = v[:, 0] + nn.Dropout(self.dropout, name='dropout')(y, deterministic=not train)
    mlp = layers.Mlp(self.width, o.gelu, self.dropout, o.dtype, name='mlp')
    return x + mlp(layer_norm(o, 'norm2')(x), train)


class TokenPerformer(nn.Module):
  """As `TokenTransformer`, with attention linear in the number of tokens.

  The random features are drawn once and belong to the weights, but no gradient or weight decay may
  touch them: they are state ('batch_stats'), not a parameter.

  Source: Choromanski et al. 2020 (2009.14794), section 2.3; T2T-ViT (2101.11986), section 3.1.
  """

  width: int
  dropout: float
  options: BlockOptions

  @nn.compact
  def __call__(self, x: jax.Array, train: bool) -> jax.Array:
    o = self.options
    dtype = jnp.dtype(o.dtype)
    b, n, _ = x.shape
    y = layer_norm(o, 'norm1')(x)
    kqv = nn.Dense(3 * self.width, dtype=dtype, name='kqv')(y.reshape(b * n, -1))
    k, q, v = jnp.split(kqv.reshape(b, n, -1), 3, axis=-1)
    features = self.variable('batch_stats', 'features', self._draw_features).value
    features = features.astype(dtype)
    k, q = positive_features(k, features), positive_features(q, features)  # [b, n, m] float32
    total = jnp.sum(q * k.sum(axis=1, keepdims=True), axis=-1, keepdims=True)
    mixed = jnp.einsum('bnm,bnk->bmk', k.astype(dtype), v)
    y = jnp.einsum('bnm,bmk->bnk', q.astype(dtype), mixed)
    y = (y / (total + 1e-8)).astype(dtype)
    y = nn.Dense(self.width, dtype=dtype, name='out')(y.reshape(b * n, -1)).reshape(b, n, -1)
    x = v + nn.Dropout(self.dropout, name='dropout')(y, deterministic=not train)
    y = layers.Mlp(self.width, o.gelu, dtype=o.dtype, name='mlp')(layer_norm(o, 'norm2')(x), train)
    return x + nn.Dropout(self.dropout, name='dropout_mlp')(y, deterministic=not train)

  def _draw_features(self) -> jax.Array:
    m = self.width // 2
    orthogonal = nn.initializers.orthogonal(math.sqrt(m))
    return orthogonal(self.make_rng('params'), (m, self.width), jnp.float32)


def positive_features(x: jax.Array, features: jax.Array) -> jax.Array:
  """Random features whose products approximate exp(x . y), up to one factor.

  Args:
    x: [b, n, k].
    features: [m, k].

  Returns:
    exp(features . x - |x|^2 / 2) / sqrt(m): [b, n, m] in float32, as exponents must be.
  """
  wide = x.astype(jnp.float32)
  half_norm = jnp.sum(wide * wide, axis=-1, keepdims=True) / 2
  return jnp.exp(_project(x, features) - half_norm) / math.sqrt(features.shape[0])


@jax.custom_vjp
def _project(x: jax.Array, features: jax.Array) -> jax.Array:
  """x . features in float32 from operands of any dtype, backwards in that dtype too.

  Without the rule the backward pass would multiply a float32 gradient with half-precision operands.
  """
  return jnp.einsum('bnk,mk->bnm', x, features, preferred_element_type=jnp.float32)


def _project_forward(x, features):
  return _project(x, features), (x, features)


def _project_backward(residuals, gradient):
  x, features = residuals
  gradient = gradient.astype(x.dtype)
  return (
    jnp.einsum('bnm,mk->bnk', gradient, features),
    jnp.einsum('bnm,bnk->mk', gradient, x),
  )


_project.defvjp(_project_forward, _project_backward)


# Table 2 of the paper: width, depth, heads, MLP ratio; '_t' has transformers between the splits.
_SIZES = {
  7: (256, 7, 4, 2),
  10: (256, 10, 4, 2),
  12: (256, 12, 4, 2),
  14: (384, 14, 6, 3),
  19: (448, 19, 7, 3),
  24: (512, 24, 8, 3),
}

for _tokens, _infix, _members in (
  ('performer', '', _SIZES),
  ('transformer', 't_', (14, 19, 24)),
):
  for _member in _members:
    _width, _depth, _heads, _ratio = _SIZES[_member]
    register(
      f't2t_vit_{_infix}{_member}',
      T2TViT,
      tokens=_tokens,
      token_dropout=0.1 if _tokens == 'performer' else 0.0,
      width=_width,
      depth=_depth,
      num_heads=_heads,
      mlp_dim=_ratio * _width,
    )
