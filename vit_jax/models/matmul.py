"""Matmuls for one CPU device whose gradient of the kernel has a quick form.

It sums over all rows, of which there are many more than channels. XLA's matmul for that takes up to
twice as long where the rows' channels, its first ones, are more than the features; the product the
other way round and a transpose of the result, which is small, do not. And the two halves of very
many rows, each with a sum of its own, keep several cores busy.

Several devices multiply plainly: XLA would gather what fsdp divides once more for these forms.
"""

from typing import Any

import jax
import jax.numpy as jnp

# Rows of a half that are worth a sum of their own.
_MANY_ROWS = 6144


def matmul(x: jax.Array, kernel: jax.Array) -> jax.Array:
  """x @ kernel.

  Args:
    x: [rows, c].
    kernel: [c, f].
  """
  return _matmul(x, kernel) if on_one_cpu(x, kernel) else x @ kernel


def on_one_cpu(*arrays: jax.Array) -> bool:
  """Whether they are float32 and there is one device, a CPU: what such forms are for."""
  one = jax.default_backend() == 'cpu' and jax.device_count() == 1
  return one and all(a.dtype == jnp.float32 for a in arrays)


def dot_general(x: jax.Array, kernel: jax.Array, *args: Any, **kwargs: Any) -> jax.Array:
  """`matmul` as Flax's dense layers ask for it, of rows and a kernel alone."""
  del args, kwargs
  return matmul(x, kernel)


@jax.custom_vjp
def _matmul(x: jax.Array, kernel: jax.Array) -> jax.Array:
  return x @ kernel


def _forward(x: jax.Array, kernel: jax.Array):
  return x @ kernel, (x, kernel)


def _backward(saved, dy: jax.Array):
  x, kernel = saved
  if x.shape[1] > dy.shape[1]:  # the barrier keeps XLA from turning it back
    dkernel = jax.lax.optimization_barrier(_summed(dy, x)).T
  else:
    dkernel = _summed(x, dy)
  return dy @ kernel.T, dkernel


_matmul.defvjp(_forward, _backward)


def _summed(x: jax.Array, y: jax.Array) -> jax.Array:
  """x^T y of [rows, c] and [rows, f]."""
  rows = len(x)
  if rows % 2 or rows < 2 * _MANY_ROWS:
    return x.T @ y
  x, y = (a.reshape(2, rows // 2, -1) for a in (x, y))
  return jax.lax.dot_general(x, y, (((1,), (1,)), ((0,), (0,)))).sum(0)
