"""Pixels of any type of number to bytes: which value is black and which is white."""

import logging

import numpy as np

from vit_jax.console import warn_once
from vit_jax.errors import ImageError

log = logging.getLogger(__name__)

_ROUNDING = 1e-3  # how far floats of 0 to 1 may lie outside
_HELP = 'save it with 8 bits, or as floats of 0 to 1'
_first: dict[
  tuple[int, int], str
] = {}  # the first image of each kind of guess, to name in warnings


def to_uint8(values: np.ndarray, name: str = '', white: int | None = None) -> np.ndarray:
  """Pixels of any type as uint8, black 0 and white 255.

  Integers keep their highest 8 bits. Of how many bits they are is what `white` says. Where nothing
  says it, it is the type's number of bits if the brightest pixel is near that, and else the
  smallest even number of bits that holds the brightest pixel: 12 for X-rays and microscopes, which
  a file of 16 bits holds as they are. That is a guess, so a warning says it. Floats are of 0 to 1,
  or of 0 to 255. True is white.

  Args:
    values: of any shape.
    name: image to name in errors.
    white: the value of white, where the file says it.

  Raises:
    ImageError: negative, not finite or of no known range.
  """
  kind = values.dtype.kind
  if not values.size or kind not in 'buif':
    shape = 'x'.join(map(str, values.shape))
    raise ImageError(f'image {name} is {shape} values of type {values.dtype}, which is no image')
  if values.dtype == np.uint8 and white in (None, 255):
    return values
  if kind == 'b':
    return np.where(values, np.uint8(255), np.uint8(0))
  low, high = values.min(), values.max()
  if kind == 'f':
    return _floats(values, float(low), float(high), name)
  if low < 0:
    raise _unknown_range(name, f'{low} to {high}')
  if white is not None and white & (white + 1):  # not all bits set
    scaled = values.astype(np.float64) * (255 / white)
    return np.minimum(np.rint(scaled), 255).astype(np.uint8)
  bits = white.bit_length() if white else _bits(values.dtype.itemsize * 8, int(high), name)
  return np.minimum(values >> max(bits - 8, 0), 255).astype(np.uint8)


def _bits(stored: int, high: int, name: str) -> int:
  """Bits of a value, for integers of `stored` bits that are `high` at most."""
  used = next(bits for bits in range(8, 65, 2) if high < 1 << bits)
  # Programs take int32 and int64 for bytes without a thought; that is no guess.
  if used < stored and (stored == 16 or used > 8):
    first = _first.setdefault((stored, used), name)
    warn_once(
      log,
      f'images of {stored} bits whose brightest pixel needs {used} at most are read as {used} bits '
      f'(the first is {first}): save them with 8 bits if that makes them too bright',
    )
  return used


def _floats(values: np.ndarray, low: float, high: float, name: str) -> np.ndarray:
  if not np.isfinite(low) or not np.isfinite(high):
    raise ImageError(f'image {name} has pixels that are not finite: {_HELP}')
  if low >= -_ROUNDING and high <= 1 + _ROUNDING:
    values = values.astype(np.float64) * 255
  elif low < -0.5 or not 16 <= high <= 255.5:  # 0 to 2, for example, would be black as 0 to 255
    raise _unknown_range(name, f'{low:.6g} to {high:.6g}')
  return np.clip(np.rint(values), 0, 255).astype(np.uint8)


def _unknown_range(name: str, values: str) -> ImageError:
  return ImageError(
    f'image {name} has pixels of {values}, which say neither what is black nor what is white: '
    f'{_HELP}'
  )
