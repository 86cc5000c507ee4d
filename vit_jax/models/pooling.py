"""Max pooling for the CPU, and its gradient, as loops over shifted images.

XLA's own gradient of max pooling goes through pairs of values and indices, one window after the
other: 144 ms for 16 images of 112 x 112 pixels and 64 channels, where these loops take 14 ms.

Barriers mark the arrays that XLA writes to memory anyway, for the plan's estimate (`liveness`).
"""

import functools

import jax
import jax.numpy as jnp

from vit_jax.models.depthwise import Pads

_SIDE, _STRIDE = 3, 2


@functools.partial(jax.custom_vjp, nondiff_argnums=(1, 2))
def max_pool(x: jax.Array, pads: Pads, fill: float) -> jax.Array:
  """The maximum of 3x3 windows two pixels apart.

  Args:
    x: [b, h, w, c].
    pads: pixels before and after, of height and of width.
    fill: value of those pixels.

  Returns:
    [b, h', w', c]. The gradient goes to the first of equal maxima, as XLA's does.
  """
  return functools.reduce(jnp.maximum, _shifted(x, pads, fill))


def _forward(x: jax.Array, pads: Pads, fill: float):
  first, *others = _shifted(x, pads, fill)
  y, place = first, jnp.zeros(first.shape, jnp.int8)
  for i, shifted in enumerate(others, start=1):
    place = jnp.where(shifted > y, jnp.int8(i), place)
    y = jnp.maximum(y, shifted)
  return y, (place, x.shape)


def _backward(pads: Pads, fill: float, saved, dy: jax.Array):
  """Each pixel's sum over the windows that it is the maximum of.

  A pixel whose row is even is in two windows' rows, their first and the last of the one before; one
  whose row is odd is in the middle of one. So with columns: four kinds of pixels.
  """
  del fill
  place, shape = saved
  zero = jnp.zeros((), dy.dtype)
  edge = (0, 0), (1, 1), (1, 1), (0, 0)
  place = jax.lax.optimization_barrier(jnp.pad(place, edge, constant_values=-1))
  dy = jax.lax.optimization_barrier(jnp.pad(dy, edge))
  rows, columns = dy.shape[1] - 1, dy.shape[2] - 1

  def from_windows(i: int, j: int) -> jax.Array:
    """The gradient of the windows whose pixel (i, j) it is."""
    window = slice(1 - i // 2, 1 - i // 2 + rows), slice(1 - j // 2, 1 - j // 2 + columns)
    return jnp.where(place[:, *window] == _SIDE * i + j, dy[:, *window], zero)

  def pixels(of_rows: tuple[int, ...], of_columns: tuple[int, ...]) -> jax.Array:
    return functools.reduce(jnp.add, [from_windows(i, j) for i in of_rows for j in of_columns])

  even, odd = (0, 2), (1,)
  lines = [jnp.stack([pixels(r, even), pixels(r, odd)], axis=3) for r in (even, odd)]
  dx = jnp.stack(lines, axis=2).reshape(len(dy), 2 * rows, 2 * columns, dy.shape[3])
  (top, _), (left, _) = pads
  dx = dx[:, top : top + shape[1], left : left + shape[2]]
  return (jax.lax.optimization_barrier(dx),)


max_pool.defvjp(_forward, _backward)


def _shifted(x: jax.Array, pads: Pads, fill: float) -> list[jax.Array]:
  """The first pixels of all windows, the second ones and so on, each [b, h', w', c]."""
  x = jnp.pad(x, ((0, 0), *pads, (0, 0)), constant_values=fill)
  x = jax.lax.optimization_barrier(x)
  height, width = ((size - _SIDE) // _STRIDE * _STRIDE + 1 for size in x.shape[1:3])
  return [
    x[:, i : i + height : _STRIDE, j : j + width : _STRIDE]
    for i in range(_SIDE)
    for j in range(_SIDE)
  ]
