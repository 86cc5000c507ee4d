"""3x3 convolutions for the CPU by Winograd's minimal filtering: 16 products where there are 36.

Tiles of 2 x 2 pixels are computed from the 4 x 4 pixels d around each and the kernel g:
A^T [(G g G^T) * (B^T d B)] A. The transforms are sums; the products of each of the 16 elements,
summed over channels, are matmuls over all tiles. Rounding errors are as large as XLA's own.

Transforms go along one axis of the image, then along the other, each a loop of its own (the
barriers): XLA would make sixteen loops of both together, or four that each compute what is before
or behind them, which take longer to compile.

Source: Lavin and Gray 2015 (1509.09308), section 4.1, F(2 x 2, 3 x 3).
"""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp

# Below them the transforms take longer than the matmuls spare: those of the image where there are
# few channels, those of the kernel where there are few tiles.
_MIN_CHANNELS, _MIN_TILES = 32, 512

Transform = Callable[[Sequence[jax.Array]], Sequence[jax.Array]]


def suits(x: jax.Array, features: int) -> bool:
  """Whether `convolve` is quicker on CPU than XLA's convolution.

  Args:
    x: [b, h, w, c].
    features: output channels.
  """
  b, h, w, c = x.shape
  tiles = b * -(-h // 2) * -(-w // 2)
  return min(c, features) >= _MIN_CHANNELS and tiles >= _MIN_TILES and x.dtype == jnp.float32


@jax.custom_vjp
def convolve(x: jax.Array, kernel: jax.Array) -> jax.Array:
  """Convolves with stride 1 and one pixel of zeros around.

  Args:
    x: [b, h, w, c].
    kernel: [3, 3, c, f].

  Returns:
    [b, h, w, f].
  """
  return _filtered(jax.lax.optimization_barrier(x), kernel, transposed=False)


def _forward(x: jax.Array, kernel: jax.Array):
  return convolve(x, kernel), (x, kernel)


def _backward(saved, dy: jax.Array):
  x, kernel = saved
  dy = jax.lax.optimization_barrier(dy)
  return _filtered(dy, kernel[::-1, ::-1], transposed=True), _gradient_of_kernel(x, dy)


convolve.defvjp(_forward, _backward)


def _filtered(x: jax.Array, kernel: jax.Array, transposed: bool) -> jax.Array:
  """The convolution; `transposed` sums over the kernel's features instead of its channels."""
  b, h, w, _ = x.shape
  kernel = _apply(_of_kernel, _apply(_of_kernel, kernel, 0), 1).reshape(16, *kernel.shape[2:])
  summed = 2 if transposed else 1
  y = jax.lax.dot_general(_of_tiles(x, (1, 2)), kernel, (((2,), (summed,)), ((0,), (0,))))
  y = y.reshape(4, 4, b, -(-h // 2), -(-w // 2), -1)
  y = _apply(_to_image, jax.lax.optimization_barrier(_apply(_to_image, y, 0)), 1)
  y = y.transpose(2, 3, 0, 4, 1, 5)
  return jax.lax.optimization_barrier(y.reshape(b, 2 * y.shape[1], 2 * y.shape[3], -1)[:, :h, :w])


def _gradient_of_kernel(x: jax.Array, dy: jax.Array) -> jax.Array:
  """G^T [(A dy A^T) * (B^T d B)] G, the products summed over all tiles: [3, 3, c, f].

  Width comes first here: in the forward pass's order XLA would find that it has computed the same
  tiles before, and keep them from there, four times the memory of x.
  """
  h, w, f = dy.shape[1:]
  dy = jnp.pad(dy, ((0, 0), (0, h % 2), (0, w % 2), (0, 0)))
  dy = jnp.stack(_from_image([dy[:, :, i::2] for i in range(2)]))
  dy = jax.lax.optimization_barrier(dy)
  dy = jnp.stack(_from_image([dy[:, :, i::2] for i in range(2)]), axis=1)
  tiles = _of_tiles(x, (2, 1))
  sums = jax.lax.dot_general(tiles, dy.reshape(16, -1, f), (((1,), (1,)), ((0,), (0,))))
  sums = sums.reshape(4, 4, -1, f)
  return _apply(_to_kernel, _apply(_to_kernel, sums, 0), 1).swapaxes(0, 1)


def _of_tiles(x: jax.Array, axes: tuple[int, int]) -> jax.Array:
  """B^T d B of all tiles of x with zeros around, by element: [16, tiles, c].

  Args:
    x: [b, h, w, c].
    axes: height and width, or width and height, in the order of the transforms and elements.
  """
  _, h, w, c = x.shape
  x = jnp.pad(x, ((0, 0), (1, 1 + h % 2), (1, 1 + w % 2), (0, 0)))
  first, second = axes
  x = jax.lax.optimization_barrier(jnp.stack(_of_image(_pixels(x, first))))
  x = jax.lax.optimization_barrier(jnp.stack(_of_image(_pixels(x, second + 1)), axis=1))
  return x.reshape(16, -1, c)


def _pixels(x: jax.Array, axis: int) -> Sequence[jax.Array]:
  """The first, second, third and fourth pixel of all tiles, which are two apart."""
  size = x.shape[axis]
  return [jax.lax.slice_in_dim(x, i, size - 3 + i, 2, axis) for i in range(4)]


def _apply(transform: Transform, x: jax.Array, axis: int) -> jax.Array:
  return jnp.stack(transform(jnp.unstack(x, axis=axis)), axis=axis)


def _of_image(d: Sequence[jax.Array]) -> Sequence[jax.Array]:
  """B^T d."""
  return d[0] - d[2], d[1] + d[2], d[2] - d[1], d[1] - d[3]


def _of_kernel(g: Sequence[jax.Array]) -> Sequence[jax.Array]:
  """G g."""
  ends, middle = (g[0] + g[2]) / 2, g[1] / 2
  return g[0], ends + middle, ends - middle, g[2]


def _to_image(m: Sequence[jax.Array]) -> Sequence[jax.Array]:
  """A^T m."""
  return m[0] + m[1] + m[2], m[1] - m[2] - m[3]


def _from_image(y: Sequence[jax.Array]) -> Sequence[jax.Array]:
  """A y."""
  return y[0], y[0] + y[1], y[0] - y[1], -y[1]


def _to_kernel(u: Sequence[jax.Array]) -> Sequence[jax.Array]:
  """G^T u."""
  half_sum, half_difference = (u[1] + u[2]) / 2, (u[1] - u[2]) / 2
  return u[0] + half_sum, half_difference, half_sum + u[3]
