"""Multi-head attention with fused projections, and the options that an encoder's blocks share."""

import dataclasses
import functools

import flax.linen as nn
import jax
import jax.numpy as jnp

from vit_jax.models.normed import Normed, rows_and_product

ATTENTIONS = ('auto', 'einsum', 'deferred', 'cudnn')

xavier = nn.initializers.xavier_uniform()


@dataclasses.dataclass(frozen=True)
class BlockOptions:
  """What all blocks of an encoder have in common.

  Args:
    num_heads: attention heads.
    mlp_dim: hidden units of the MLP.
    gelu: 'tanh' (the approximation of the official ViT) or 'exact' (erf; PyTorch's default).
    norm_epsilon: added to LayerNorm's variance.
    dropout: rate after attention, after the MLP's activation and after the MLP.
    attention_dropout: rate on the attention weights.
    layer_scale: initial value of the learned gain of each residual branch; None for no gain.
    qk_norm: LayerNorm on every head's queries and keys.
    qkv_bias: whether queries, keys and values have a bias.
    query_scale: factor on the queries; None for 1 / sqrt(head width).
    attention: 'einsum', 'deferred' (see `deferred_attention`), 'cudnn' (fused; NVIDIA GPU, half
      precision) or 'auto', by backend.
    remat: 'block' recomputes each block in the backward pass instead of keeping its activations.
    scan: whether a loop runs over the blocks; None for `stack.chosen_scan`.
    dtype: of the computation; parameters are float32.
  """

  num_heads: int
  mlp_dim: int
  gelu: str = 'tanh'
  norm_epsilon: float = 1e-6
  dropout: float = 0.0
  attention_dropout: float = 0.0
  layer_scale: float | None = None
  qk_norm: bool = False
  qkv_bias: bool = True
  query_scale: float | None = None
  attention: str = 'auto'
  remat: str = 'none'
  scan: bool | None = None
  dtype: str = 'float32'


def layer_norm(options: BlockOptions, name: str) -> nn.LayerNorm:
  return nn.LayerNorm(epsilon=options.norm_epsilon, dtype=jnp.dtype(options.dtype), name=name)


class HeadsDense(nn.Module):
  """A dense layer whose outputs are heads: kernel [d, *heads, k], one matmul for all of them.

  Args:
    heads: the shape between inputs and head width, (3, h) for fused queries, keys and values.
    head_dim: k.
    use_bias: adds a bias [*heads, k].
    dtype: of the computation.
  """

  heads: tuple[int, ...]
  head_dim: int
  use_bias: bool = True
  dtype: str = 'float32'

  @nn.compact
  def __call__(self, x: jax.Array | Normed) -> jax.Array:
    dtype = jnp.dtype(self.dtype)
    *batch, d = x.shape
    shape = (*self.heads, self.head_dim)
    kernel = self.param('kernel', self._init_kernel, (d, *shape))
    rows, dot_general = rows_and_product(x)
    kernel = kernel.reshape(d, -1).astype(dtype)
    y = dot_general(rows.astype(dtype), kernel, (((1,), (0,)), ((), ())))
    if self.use_bias:
      bias = self.param('bias', nn.initializers.zeros, shape)
      y = y + bias.reshape(-1).astype(dtype)
    return y.reshape(*batch, *shape)

  def _init_kernel(self, key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Xavier for each projection on its own, as if they were not fused."""
    d, *parts, h, k = shape
    keys = jax.random.split(key, max(1, len(parts) and parts[0]))
    kernels = [xavier(key, (d, h * k)).reshape(d, h, k) for key in keys]
    return jnp.stack(kernels, 1) if parts else kernels[0]


class MergeHeads(nn.Module):
  """The dense layer after attention: heads [b, n, h, k] to channels [b, n, features]."""

  features: int
  use_bias: bool = True
  dtype: str = 'float32'

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    dtype = jnp.dtype(self.dtype)
    *batch, h, k = x.shape

    def init(key, shape):
      return xavier(key, (h * k, self.features)).reshape(shape)

    kernel = self.param('kernel', init, (h, k, self.features))
    y = jnp.dot(x.reshape(-1, h * k).astype(dtype), kernel.reshape(h * k, -1).astype(dtype))
    if self.use_bias:
      y = y + self.param('bias', nn.initializers.zeros, (self.features,)).astype(dtype)
    return y.reshape(*batch, self.features)


def softmax(logits: jax.Array) -> jax.Array:
  """Softmax over the last axis, summed in float32 and returned in the dtype of its input."""
  return jax.nn.softmax(logits.astype(jnp.float32), axis=-1).astype(logits.dtype)


def can_use_cudnn(head_dim: int, dtype: str) -> bool:
  """Whether the fused kernel serves these shapes: NVIDIA GPU, half precision, narrow heads."""
  if jax.default_backend() != 'gpu' or jnp.dtype(dtype).itemsize != 2:
    return False
  return head_dim % 8 == 0 and head_dim <= 128


def chosen_attention(attention: str, head_dim: int, dtype: str) -> str:
  """What 'auto' means on this backend; any other choice is returned as it is."""
  if attention != 'auto':
    return attention
  if can_use_cudnn(head_dim, dtype):
    return 'cudnn'
  on_cpu = jax.default_backend() == 'cpu' and jnp.dtype(dtype) == jnp.float32
  return 'deferred' if on_cpu else 'einsum'


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def deferred_attention(q: jax.Array, k: jax.Array, v: jax.Array, scale: float) -> jax.Array:
  """softmax(scale q k^T) v, divided by the softmax's sum after the product with the values.

  One array of tokens x tokens is written in each direction instead of several, which pays where
  memory is what attention waits for: on CPU. The softmax's own gradient needs only the sum of
  dy * y (Rabe and Staats, 2112.05682; Dao et al., 2205.14135, appendix B.2). Its output is laid out
  as the dense layer after it keeps it for its own gradient, so that it is kept once.

  Args:
    q: queries [b, h, n, k].
    k, v: keys and values [b, h, m, k].
    scale: factor on the products of queries and keys.

  Returns:
    [b, n, h, k].
  """
  return _deferred_forward(q, k, v, scale)[0]


def _deferred_forward(q, k, v, scale):
  logits = scale * jnp.einsum('bhnk,bhmk->bhnm', q, k).astype(jnp.float32)
  largest = logits.max(axis=-1, keepdims=True)
  unnormalized = jnp.exp(logits - largest)
  inverse = (1.0 / unnormalized.sum(axis=-1, keepdims=True)).astype(q.dtype)
  unnormalized = unnormalized.astype(q.dtype)
  y = (jnp.einsum('bhnm,bhmk->bhnk', unnormalized, v) * inverse).transpose(0, 2, 1, 3)
  b, n, h, width = y.shape  # XLA lays out what the barrier holds, once for all that read it
  y = jax.lax.optimization_barrier(y.reshape(b * n, h * width)).reshape(y.shape)
  return y, (q, k, v, unnormalized, inverse, y)


def _deferred_backward(scale, saved, dy):
  q, k, v, unnormalized, inverse, y = saved
  shares = (dy * y).sum(axis=-1, keepdims=True).transpose(0, 2, 1, 3) * inverse
  dy = dy.transpose(0, 2, 1, 3) * inverse
  dv = jnp.einsum('bhnm,bhnk->bhmk', unnormalized, dy)
  dweights = jnp.einsum('bhnk,bhmk->bhnm', dy, v)
  dlogits = unnormalized * (dweights - shares)
  dq = scale * jnp.einsum('bhnm,bhmk->bhnk', dlogits, k)
  dk = scale * jnp.einsum('bhnm,bhnk->bhmk', dlogits, q)
  return dq, dk, dv


deferred_attention.defvjp(_deferred_forward, _deferred_backward)


class Attention(nn.Module):
  """Multi-head self-attention with fused projections.

  Where 'intermediates' are collected, or attention dropout is on, the weights are computed
  explicitly, regardless of `options.attention`.
  """

  options: BlockOptions

  @nn.compact
  def __call__(self, x: jax.Array | Normed, train: bool) -> jax.Array:
    o = self.options
    d = x.shape[-1]
    head_dim = d // o.num_heads
    qkv = HeadsDense((3, o.num_heads), head_dim, o.qkv_bias, o.dtype, name='qkv')(x)
    scale = head_dim**-0.5 if o.query_scale is None else o.query_scale
    captured = self.is_mutable_collection('intermediates')
    explicit = captured or (train and o.attention_dropout > 0.0)
    chosen = 'einsum' if explicit else chosen_attention(o.attention, head_dim, o.dtype)
    if chosen == 'cudnn':
      q, k, v = (qkv[:, :, i] for i in range(3))  # [b, n, h, k]
      q, k = self._normed(q, k)
      y = jax.nn.dot_product_attention(q, k, v, scale=scale, implementation='cudnn')
    elif chosen == 'deferred' and not self.has_variable('perturbations', 'weights'):
      q, k, v = qkv.transpose(2, 0, 3, 1, 4)  # [b, h, n, k]
      q, k = self._normed(q, k)
      y = deferred_attention(q, k, v, scale)
    else:
      q, k, v = qkv.transpose(2, 0, 3, 1, 4)  # [b, h, n, k]
      q, k = self._normed(q, k)
      weights = softmax(jnp.einsum('bhnk,bhmk->bhnm', q * scale, k))
      for name, value in {'query': q, 'key': k, 'value': v, 'weights': weights}.items():
        self.sow('intermediates', name, value)
      if self.has_variable('perturbations', 'weights'):  # zeros, to differentiate by
        weights += self.get_variable('perturbations', 'weights')
      weights = nn.Dropout(o.attention_dropout, name='dropout')(weights, deterministic=not train)
      y = jnp.einsum('bhnm,bhmk->bhnk', weights, v).transpose(0, 2, 1, 3)
    return MergeHeads(d, dtype=o.dtype, name='out')(y)

  def _normed(self, q: jax.Array, k: jax.Array) -> tuple[jax.Array, jax.Array]:
    if not self.options.qk_norm:
      return q, k
    return layer_norm(self.options, 'query_norm')(q), layer_norm(self.options, 'key_norm')(k)


class CrossAttention(nn.Module):
  """Multi-head attention from queries [b, n, d] to tokens [b, m, d], projections apart."""

  options: BlockOptions

  @nn.compact
  def __call__(self, queries: jax.Array, tokens: jax.Array) -> jax.Array:
    o = self.options
    d = tokens.shape[-1]
    head_dim = d // o.num_heads

    def heads(x, name):
      y = HeadsDense((o.num_heads,), head_dim, o.qkv_bias, o.dtype, name=name)(x)
      return y.transpose(0, 2, 1, 3)  # [b, h, n, k]

    q, k, v = heads(queries, 'query'), heads(tokens, 'key'), heads(tokens, 'value')
    scale = head_dim**-0.5 if o.query_scale is None else o.query_scale
    weights = softmax(jnp.einsum('bhnk,bhmk->bhnm', q * scale, k))
    self.sow('intermediates', 'weights', weights)
    if self.has_variable('perturbations', 'weights'):  # zeros, to differentiate by
      weights += self.get_variable('perturbations', 'weights')
    y = jnp.einsum('bhnm,bhmk->bhnk', weights, v).transpose(0, 2, 1, 3)
    return MergeHeads(d, dtype=o.dtype, name='out')(y)
