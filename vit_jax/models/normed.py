"""A LayerNorm and the dense layer that reads it as one operation, for one CPU device.

Of the two apart, what the norm reads and what it gives are both kept for the gradient. Here the
norm's output is not: the kernel's gradient is taken of rows that are only normalised, computed
again, and those of the norm's scale and bias follow from it, since both are factors of the kernel,
in place of two sums over all rows.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp


@dataclasses.dataclass(frozen=True)
class Normed:
  """The output of a LayerNorm, left to the dense layer that reads it.

  Args:
    x: what the norm reads [..., d].
    scale, bias: of the norm [d].
    epsilon: added to the variance.
  """

  x: jax.Array
  scale: jax.Array
  bias: jax.Array
  epsilon: float

  @property
  def shape(self) -> tuple[int, ...]:
    return self.x.shape

  def dot_general(self, rows: jax.Array, kernel: jax.Array, *args: Any, **kwargs: Any) -> jax.Array:
    """The product of normed rows [n, d] of x with a kernel [d, f], as Flax's dense layers ask."""
    del args, kwargs
    return normed_dot(rows, self.scale, self.bias, kernel, self.epsilon)


class DeferredNorm(nn.Module):
  """`nn.LayerNorm`'s parameters, for the dense layer that computes it."""

  epsilon: float

  @nn.compact
  def __call__(self, x: jax.Array) -> Normed:
    d = x.shape[-1:]
    scale = self.param('scale', nn.initializers.ones, d).astype(x.dtype)
    bias = self.param('bias', nn.initializers.zeros, d).astype(x.dtype)
    return Normed(x, scale, bias, self.epsilon)


def rows_and_product(x: jax.Array | Normed) -> tuple[jax.Array, Callable[..., jax.Array]]:
  """What a dense layer reads, as rows [n, d], and its `dot_general`."""
  if isinstance(x, Normed):
    return x.x.reshape(-1, x.shape[-1]), x.dot_general
  return x.reshape(-1, x.shape[-1]), jax.lax.dot_general


@functools.partial(jax.custom_vjp, nondiff_argnums=(4,))
def normed_dot(
  x: jax.Array, scale: jax.Array, bias: jax.Array, kernel: jax.Array, epsilon: float
) -> jax.Array:
  """layer_norm(x) @ kernel.

  Args:
    x: [n, d].
    scale, bias: of the norm [d].
    kernel: [d, f].
    epsilon: added to the variance.

  Returns:
    [n, f].
  """
  return _computed(x, scale, bias, kernel, epsilon)[0]


def _computed(x, scale, bias, kernel, epsilon: float) -> tuple[jax.Array, jax.Array, jax.Array]:
  """The product, and mean and inverse deviation of each row, as Flax computes a LayerNorm."""
  mean = x.mean(axis=-1, keepdims=True)
  variance = jnp.maximum(jnp.square(x).mean(axis=-1, keepdims=True) - jnp.square(mean), 0.0)
  inverse = jax.lax.rsqrt(variance + epsilon)
  return ((x - mean) * (inverse * scale) + bias) @ kernel, mean, inverse


def _forward(x, scale, bias, kernel, epsilon):
  trained = kernel.perturbed
  x, scale, bias, kernel = (a.value for a in (x, scale, bias, kernel))
  y, mean, inverse = _computed(x, scale, bias, kernel, epsilon)
  # Blocks of one trace share the structure of what is kept, also where only some are frozen.
  return y, (x, mean, inverse, scale, bias if trained else bias[:0], kernel)


def _backward(epsilon: float, saved, dy: jax.Array):
  """`bias` is empty where the kernel is frozen: its gradient would cost a product of all rows."""
  del epsilon
  x, mean, inverse, scale, bias, kernel = saved
  # The rows wait for dy, or XLA computes them in the forward pass, where they were kept. A barrier
  # is gone before XLA orders operations.
  first = dy[:, :1]
  inverse = jnp.where(jnp.isnan(first), first, inverse)
  rows = (x - mean) * inverse
  dnormed = dy @ kernel.T
  if not bias.size:
    dscale, dbias, dkernel = (dnormed * rows).sum(axis=0), dnormed.sum(axis=0), None
  else:
    product, total = rows.T @ dy, dy.sum(axis=0)
    dscale, dbias = (product * kernel).sum(axis=1), kernel @ total
    dkernel = scale[:, None] * product + bias[:, None] * total
  drows = dnormed * scale
  along = (drows * rows).mean(axis=-1, keepdims=True)
  dx = inverse * (drows - drows.mean(axis=-1, keepdims=True) - rows * along)
  return dx, dscale, dbias, dkernel


normed_dot.defvjp(_forward, _backward, symbolic_zeros=True)
