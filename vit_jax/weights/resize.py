"""Brings weights to another image size, patch size or number of input channels."""

import functools
import math

import numpy as np

from vit_jax.errors import WeightsError

RESIZES = ('bilinear', 'bicubic')


def resize_matrix(old: int, new: int, method: str, antialias: bool) -> np.ndarray:
  """The matrix [new, old] that resamples one axis, pixel centres at half-integers.

  Args:
    old, new: lengths.
    method: 'bilinear' or 'bicubic' (Keys' kernel with a = -1/2).
    antialias: widens the kernel when the axis shrinks.
  """
  scale = new / old
  width = max(1.0, 1.0 / scale) if antialias else 1.0
  centres = (np.arange(new) + 0.5) / scale - 0.5
  x = np.abs(centres[:, None] - np.arange(old)[None, :]) / width
  if method == 'bilinear':
    weights = np.maximum(0.0, 1.0 - x)
  else:
    near = (1.5 * x - 2.5) * x * x + 1.0
    far = ((-0.5 * x + 2.5) * x - 4.0) * x + 2.0
    weights = np.where(x < 1.0, near, np.where(x < 2.0, far, 0.0))
  return weights / weights.sum(1, keepdims=True)  # at the borders the kernel is cut off


def resize_grid(grid: np.ndarray, size: tuple[int, int], method: str) -> np.ndarray:
  """Resamples a grid of embeddings.

  Args:
    grid: [h, w, d].
    size: new (h, w).
    method: 'bilinear' is what the official code does before fine-tuning, corner to corner;
      'bicubic' is antialiased and keeps half-pixel centres, as timm does.

  Returns:
    [*size, d].
  """
  h, w, _ = grid.shape
  if (h, w) == tuple(size):
    return grid
  if method == 'bilinear':
    import scipy.ndimage  # slow to import, and needed here alone

    return scipy.ndimage.zoom(grid, (size[0] / h, size[1] / w, 1), order=1)
  rows = resize_matrix(h, size[0], 'bicubic', antialias=True)
  columns = resize_matrix(w, size[1], 'bicubic', antialias=True)
  return np.einsum('yh,xw,hwd->yxd', rows, columns, grid, optimize=True).astype(grid.dtype)


def source_grid(tokens: int, slots: int, known: tuple[int, int] | None = None) -> tuple[int, int]:
  """The grid of a file's position embeddings.

  Args:
    tokens: how many there are in the file.
    slots: how many of them are for class tokens.
    known: the grid, where the file's config states it.

  Returns:
    (h, w) of the grid.

  Raises:
    WeightsError: the tokens do not make a square and nothing else is known.
  """
  if known and tokens - slots == math.prod(known):
    return known
  side = math.isqrt(max(tokens - slots, 0))
  if side and side * side == tokens - slots:
    return side, side
  behind = f' behind {slots} for class tokens' if slots else ''
  raise WeightsError(
    f'{tokens} position embeddings do not make a square grid{behind}: give their rows '
    'and columns with source_grid=(h, w)'
  )


def position_embedding(
  x: np.ndarray,
  slots: int,
  prefix: int,
  grid: tuple[int, int],
  known: tuple[int, int] | None,
  method: str = 'bilinear',
) -> np.ndarray:
  """Brings position embeddings to a model's slots and grid.

  Args:
    x: [1, m, d], of the file; slots of class tokens first.
    slots: of the file.
    prefix: slots that the model has in front of the grid.
    grid: (h, w) of the model.
    known: grid of the file where it is known.
    method: as in `resize_grid`.

  Returns:
    [1, prefix + h * w, d]. A slot that the file has not is zero, which adds nothing.
  """
  old = source_grid(x.shape[1], slots, known)
  resized = resize_grid(x[0, slots:].reshape(*old, -1), grid, method)
  tokens = resized.reshape(1, grid[0] * grid[1], -1)
  empty = np.zeros((1, prefix - slots, x.shape[2]), x.dtype)
  return np.concatenate([x[:, :slots], empty, tokens], axis=1)


@functools.lru_cache(8)
def _patch_matrix(old: tuple[int, int], new: tuple[int, int]) -> np.ndarray:
  rows = resize_matrix(old[0], new[0], 'bilinear', antialias=False)
  columns = resize_matrix(old[1], new[1], 'bilinear', antialias=False)
  return np.linalg.pinv(np.kron(rows, columns).T)  # [new, old]


def patch_kernel(kernel: np.ndarray, size: tuple[int, int]) -> np.ndarray:
  """Patch weights for another patch size: tokens of a resized image stay as they were.

  Args:
    kernel: [p, q, c, d].
    size: new (p, q).

  Returns:
    [*size, c, d].

  Source: Beyer et al. 2023 (2212.08013, FlexiViT), section 3.4: the pseudo-inverse of the
  transposed bilinear resize.
  """
  p, q, c, d = kernel.shape
  if (p, q) == tuple(size):
    return kernel
  flat = kernel.reshape(p * q, c * d).astype(np.float64)
  resized = _patch_matrix((p, q), tuple(size)) @ flat
  return resized.reshape(*size, c, d).astype(kernel.dtype)


def input_channels(kernel: np.ndarray, channels: int) -> np.ndarray:
  """A first layer for another number of channels.

  One channel gets the sum over the file's, so that a grey image gives what its three equal channels
  gave. More channels repeat the file's, scaled so that images of equal channels give the same.

  Args:
    kernel: [p, q, c, d].
    channels: new c.
  """
  c = kernel.shape[2]
  if c == channels:
    return kernel
  if channels == 1:
    return kernel.sum(2, keepdims=True)
  repeated = np.take(kernel, np.arange(channels) % c, axis=2)
  return (repeated * (c / channels)).astype(kernel.dtype)
