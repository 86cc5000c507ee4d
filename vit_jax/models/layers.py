"""What transformers are made of: MLP, stochastic depth, LayerScale, blocks, pooling, heads."""

import functools
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from vit_jax.models.attention import (
  Attention,
  BlockOptions,
  CrossAttention,
  layer_norm,
  xavier,
)
from vit_jax.models.matmul import dot_general, on_one_cpu
from vit_jax.models.normed import DeferredNorm, Normed, rows_and_product
from vit_jax.models.stack import only_computed, run_blocks

# Flax has no public way to ask whether someone intercepts the calls of modules.
_interceptors = getattr(nn.module, '_global_interceptor_stack', ())

GELUS = ('tanh', 'exact')
REMATS = ('none', 'block')

lecun = nn.initializers.lecun_normal()
tiny_normal = nn.initializers.normal(1e-6)


def gelu(x: jax.Array, kind: str) -> jax.Array:
  """GELU, with tanh or exactly (PyTorch's and timm's weights were trained with the exact one).

  Of its steps only x is kept for the backward pass, which computes them again.
  """
  return jax.checkpoint(functools.partial(jax.nn.gelu, approximate=kind == 'tanh'))(x)


DROP_PATH_SCHEDULES = ('linear', 'constant')


def drop_path_rates(rate: float, depth: int, schedule: str = 'linear') -> list[float]:
  """Stochastic depth's rate in each block.

  Args:
    rate: of the last block.
    depth: number of blocks.
    schedule: 'linear' grows evenly from 0 at the first block (Huang et al. 2016, 1603.09382,
      section 3); 'constant' is the same in all (DeiT III, 2204.07118, section 3).
  """
  if schedule == 'constant':
    return [rate] * depth
  return [rate * i / max(depth - 1, 1) for i in range(depth)]


class DropPath(nn.Module):
  """Drops a residual branch for whole examples and scales up the ones kept."""

  rate: float | jax.Array

  @nn.compact
  def __call__(self, x: jax.Array, train: bool) -> jax.Array:
    if not train or (not isinstance(self.rate, jax.Array) and self.rate == 0):
      return x
    shape = (x.shape[0],) + (1,) * (x.ndim - 1)
    kept = jax.random.bernoulli(self.make_rng('dropout'), 1.0 - self.rate, shape)
    return jnp.where(kept, x / (1.0 - self.rate), jnp.zeros_like(x))


class LayerScale(nn.Module):
  """A learned gain for each channel of a residual branch. Source: CaiT (2103.17239), section 2."""

  initial: float

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    gamma = self.param('gamma', nn.initializers.constant(self.initial), (x.shape[-1],))
    return x * gamma.astype(x.dtype)


def norm_before_dense(
  module: nn.Module, options: BlockOptions, name: str, x: jax.Array
) -> jax.Array | Normed:
  """LayerNorm of x as a named submodule, for `Attention` or `Mlp`, which may compute it.

  They do not where modules are looked at or intercepted.

  Args:
    module: the one that is being called.
    options: of its block.
    name: of the submodule.
    x: [b, n, d].
  """
  own_form = options.dtype == 'float32' and on_one_cpu(x)
  if own_form and only_computed(module, x) and not _interceptors:
    return DeferredNorm(options.norm_epsilon, name=name)(x)
  return layer_norm(options, name)(x)


class Mlp(nn.Module):
  """Two dense layers with a GELU between them, on tokens laid out as rows of one matrix.

  Args:
    hidden: hidden units.
    gelu, dropout, dtype: as in `BlockOptions`.
    kernel_init, bias_init: how both layers start.
  """

  hidden: int
  gelu: str = 'tanh'
  dropout: float = 0.0
  dtype: str = 'float32'
  kernel_init: Callable = xavier
  bias_init: Callable = tiny_normal

  @nn.compact
  def __call__(self, x: jax.Array | Normed, train: bool) -> jax.Array:
    *batch, d = x.shape

    dtype = jnp.dtype(self.dtype)
    inits: dict[str, Any] = {'kernel_init': self.kernel_init, 'bias_init': self.bias_init}
    # [b n, d]: one plain matmul is quicker than a batch of them on CPU
    rows, product = rows_and_product(x)
    y = nn.Dense(self.hidden, dtype=dtype, dot_general=product, name='fc1', **inits)(rows)
    y = gelu(y, self.gelu)
    y = nn.Dropout(self.dropout, name='dropout1')(y, deterministic=not train)
    y = nn.Dense(d, dtype=dtype, dot_general=dot_general, name='fc2', **inits)(y)
    y = nn.Dropout(self.dropout, name='dropout2')(y, deterministic=not train)
    return y.reshape(*batch, d)


class Block(nn.Module):
  """A transformer block: x + attention(norm(x)), then x + mlp(norm(x)).

  Args:
    options: shared by all blocks of the encoder.
    drop_path: this block's rate of stochastic depth.
    attention_type: the module class that mixes tokens, called as `Attention` is.
  """

  options: BlockOptions
  drop_path: float = 0.0
  attention_type: type[nn.Module] = Attention

  @nn.compact
  def __call__(self, x: jax.Array, train: bool) -> jax.Array:
    o = self.options
    if self.attention_type is Attention:
      y = norm_before_dense(self, o, 'norm1', x)
    else:
      y = layer_norm(o, 'norm1')(x)
    y = self.attention_type(o, name='attention')(y, train)
    y = nn.Dropout(o.dropout, name='dropout')(y, deterministic=not train)
    x = x + self._branch(y, 1, train)
    y = norm_before_dense(self, o, 'norm2', x)
    y = Mlp(o.mlp_dim, o.gelu, o.dropout, o.dtype, name='mlp')(y, train)
    x = x + self._branch(y, 2, train)
    self.sow('intermediates', 'output', x)
    return x

  def _branch(self, y: jax.Array, number: int, train: bool) -> jax.Array:
    if self.options.layer_scale is not None:
      y = LayerScale(self.options.layer_scale, name=f'scale{number}')(y)
    return DropPath(self.drop_path, name=f'drop_path{number}')(y, train)


class Encoder(nn.Module):
  """Blocks one after another and a LayerNorm.

  Args:
    depth: number of blocks.
    options: of every block.
    drop_path_rate: stochastic depth of the last block.
    drop_path_schedule: how stochastic depth grows to that; see `drop_path_rates`.
  """

  depth: int
  options: BlockOptions
  drop_path_rate: float = 0.0
  drop_path_schedule: str = 'linear'

  @nn.compact
  def __call__(self, x: jax.Array, train: bool) -> jax.Array:
    rates = drop_path_rates(self.drop_path_rate, self.depth, self.drop_path_schedule)
    x = run_blocks(self, Block, {}, self.options, rates, x, train)
    return layer_norm(self.options, 'norm')(x)


class MapPool(nn.Module):
  """Pools tokens by attention from one learned probe, followed by an MLP.

  Source: Scaling Vision Transformers (2106.04560), section 3.2.
  """

  options: BlockOptions

  @nn.compact
  def __call__(self, x: jax.Array, train: bool) -> jax.Array:
    o = self.options
    b, _, d = x.shape
    probe = self.param('probe', xavier, (1, 1, d))
    probe = jnp.broadcast_to(probe, (b, 1, d)).astype(x.dtype)
    y = CrossAttention(o, name='attention')(probe, x)
    z = layer_norm(o, 'norm')(y)
    return (y + Mlp(o.mlp_dim, o.gelu, o.dropout, o.dtype, name='mlp')(z, train))[:, 0]


def head(num_classes: int, dtype: str, name: str, bias_init: float = 0.0) -> nn.Dense:
  """The last layer, started at zero so that fine-tuning begins with equal logits."""
  return nn.Dense(
    num_classes,
    dtype=jnp.dtype(dtype),
    kernel_init=nn.initializers.zeros,
    bias_init=nn.initializers.constant(bias_init),
    name=name,
  )


def headless(model: nn.Module, pooled: jax.Array, patches: jax.Array):
  """What a model without a head of its own returns.

  Args:
    model: num_classes is 0, or None.
    pooled: [b, d].
    patches: patch features [b, h, w, d].

  Returns:
    The pooled features in float32, and with None the pair of them and the patches.
  """
  pooled = pooled.astype(jnp.float32)
  return pooled if model.num_classes == 0 else (pooled, patches)


def grid(images: jax.Array, tokens: jax.Array, patch_size: tuple[int, int]) -> jax.Array:
  """Patch features [b, h, w, d], from tokens [b, n, d] whose last h * w are the patches."""
  h, w = images.shape[1] // patch_size[0], images.shape[2] // patch_size[1]
  return tokens[:, -h * w :].reshape(len(tokens), h, w, tokens.shape[-1])


def classify(model: nn.Module, images: jax.Array, tokens: jax.Array, pooled: jax.Array):
  """The end of a model, inside its compact method: its head on pooled features.

  Args:
    model: has num_classes, patch_size, dtype and head_bias_init.
    images: [b, h, w, c].
    tokens: [b, n, d], the patches last; to be collected among the intermediates.
    pooled: [b, d].

  Returns:
    Logits [b, num_classes] in float32, or what `headless` returns where there are no classes.
  """
  model.sow('intermediates', 'tokens', tokens)
  model.sow('intermediates', 'pooled', pooled)
  if not model.num_classes:
    return headless(model, pooled, grid(images, tokens, model.patch_size))
  logits = head(model.num_classes, model.dtype, 'head', model.head_bias_init)(pooled)
  return logits.astype(jnp.float32)


class PatchEmbedding(nn.Module):
  """Cuts images into patches and maps each to a token; a strided convolution written as a matmul.

  Args:
    patch_size: (height, width) of a patch in input pixels.
    features: width of the tokens.
    use_bias: adds a bias.
    dtype: of the computation.
  """

  patch_size: tuple[int, int]
  features: int
  use_bias: bool = True
  dtype: str = 'float32'

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    dtype = jnp.dtype(self.dtype)
    p, q = self.patch_size
    b, h, w, c = x.shape
    kernel = self.param('kernel', nn.initializers.lecun_normal(), (p, q, c, self.features))
    x = x.astype(dtype).reshape(b, h // p, p, w // q, q, c).transpose(0, 1, 3, 2, 4, 5)
    y = jnp.dot(x.reshape(-1, p * q * c), kernel.reshape(-1, self.features).astype(dtype))
    if self.use_bias:
      y = y + self.param('bias', nn.initializers.zeros, (self.features,)).astype(dtype)
    return y.reshape(b, h // p, w // q, self.features)
