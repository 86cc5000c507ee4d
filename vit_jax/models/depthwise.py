"""Depthwise convolutions for the CPU: sums of shifted images, and so are their gradients.

XLA has no kernel for them there and convolves channel by channel. A sum of k * k shifted products
is one loop over contiguous channels. The gradient of the kernel, sums over all pixels, is added up
in a tree of such loops: XLA's own reduction of shifted products takes ten times as long.
"""

import functools
from collections.abc import Iterator

import jax
import jax.numpy as jnp

# Terms of one sum: few enough for the compiler to keep the loop over channels in vectors.
_TERMS = 8

Pads = tuple[tuple[int, int], tuple[int, int]]


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def convolve(x: jax.Array, kernel: jax.Array, stride: int, pads: Pads) -> jax.Array:
  """Convolves every channel on its own.

  Args:
    x: [b, h, w, c].
    kernel: [k, k, 1, c].
    stride: in pixels, the same both ways.
    pads: zeros before and after, of height and of width; at most k - 1 each.

  Returns:
    [b, h', w', c] in x's precision; sums are float32.
  """
  k = kernel.shape[0]
  height, width = (
    (size + sum(pad) - k) // stride + 1 for size, pad in zip(x.shape[1:3], pads, strict=True)
  )
  return _sum_of_shifts(_pad(x, pads), kernel, stride, height, width)


def _forward(x: jax.Array, kernel: jax.Array, stride: int, pads: Pads):
  return convolve(x, kernel, stride, pads), (x, kernel)


def _backward(stride: int, pads: Pads, saved, dy: jax.Array):
  x, kernel = saved
  return _gradient_of_image(x, kernel, stride, pads, dy), _gradient_of_kernel(
    x, kernel, stride, pads, dy
  )


convolve.defvjp(_forward, _backward)


def _sum_of_shifts(x: jax.Array, kernel: jax.Array, stride: int, height: int, width: int):
  total = jnp.zeros((), jnp.float32)
  for i, j in _offsets(kernel):
    total = total + _shifted(x, i, j, stride, height, width) * kernel[i, j, 0].astype(jnp.float32)
  return total.astype(x.dtype)


def _gradient_of_image(x, kernel, stride: int, pads: Pads, dy: jax.Array) -> jax.Array:
  """The convolution, with the kernel turned round, of dy spread to the stride."""
  k, zero = kernel.shape[0], jnp.zeros((), dy.dtype)
  spread = []
  for size, out, (before, _) in zip(x.shape[1:3], dy.shape[1:3], pads, strict=True):
    covered = (out - 1) * stride + 1
    spread.append((k - 1 - before, size + before - covered, stride - 1))
  dy = jax.lax.pad(dy, zero, ((0, 0, 0), *spread, (0, 0, 0)))
  return _sum_of_shifts(dy, kernel[::-1, ::-1], 1, *x.shape[1:3])


def _gradient_of_kernel(x, kernel, stride: int, pads: Pads, dy: jax.Array) -> jax.Array:
  """Of each offset, the sum of dy times the image that was shifted by it."""
  b, height, width, c = dy.shape
  groups, terms = _tree(height)
  x = _pad(x, pads)
  after = max(0, (groups * terms - 1) * stride + kernel.shape[0] - x.shape[1])
  x = _pad(x, ((0, after), (0, 0)))
  dy = _pad(dy, ((0, groups * terms - height), (0, 0))).astype(jnp.float32)
  span = b, (groups * terms - 1) * stride + 1, (width - 1) * stride + 1, c

  def of_offset(offset: jax.Array) -> jax.Array:
    zero = jnp.zeros((), offset.dtype)  # a plain 0 is another type where JAX_ENABLE_X64 is set
    shifted = jax.lax.dynamic_slice(x, (zero, offset[0], offset[1], zero), span)
    shifted = shifted[:, ::stride, ::stride].astype(jnp.float32)
    rows = [slice(n * groups, (n + 1) * groups) for n in range(terms)]
    return functools.reduce(jnp.add, [shifted[:, r] * dy[:, r] for r in rows])

  # A loop, so that one program is compiled for all offsets.
  total = jax.lax.map(of_offset, jnp.asarray(list(_offsets(kernel)), jnp.int32))
  offsets = total.shape[0]
  total = total.reshape(offsets, b, groups * width, c)
  while (n := total.shape[2]) > 1:
    groups, terms = _tree(n)
    total = jnp.pad(total, ((0, 0), (0, 0), (0, groups * terms - n), (0, 0)))
    total = total.reshape(offsets, b, terms, groups, c)
    # The barrier keeps each level a loop of its own, not part of the next one's.
    total = jax.lax.optimization_barrier(sum(total[:, :, t] for t in range(terms)))
  return total.sum(axis=(1, 2)).reshape(kernel.shape).astype(kernel.dtype)


def _tree(n: int) -> tuple[int, int]:
  """(groups, terms of each): at least n in all, with the fewest groups of at most 8 terms."""
  groups = -(-n // _TERMS)
  return groups, -(-n // groups)


def _offsets(kernel: jax.Array) -> Iterator[tuple[int, int]]:
  for i in range(kernel.shape[0]):
    for j in range(kernel.shape[1]):
      yield i, j


def _shifted(x: jax.Array, i: int, j: int, stride: int, height: int, width: int) -> jax.Array:
  """The pixels that the kernel's element (i, j) meets, [b, height, width, c]."""
  ends = x.shape[0], i + (height - 1) * stride + 1, j + (width - 1) * stride + 1, x.shape[3]
  return jax.lax.slice(x, (0, i, j, 0), ends, (1, stride, stride, 1)).astype(jnp.float32)


def _pad(x: jax.Array, pads: Pads) -> jax.Array:
  return jnp.pad(x, ((0, 0), *pads, (0, 0)))
