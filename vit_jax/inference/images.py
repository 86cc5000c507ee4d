"""Images as callers give them: paths, encoded bytes, open files, PIL images or arrays."""

import contextlib
import io
import pathlib
import threading
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
from PIL import Image

from vit_jax.data.decode import pixels_of
from vit_jax.data.depth import to_uint8
from vit_jax.errors import ImageError, UserError

_BYTES = bytes | bytearray | memoryview
_PATH = str | pathlib.PurePath
_TAKEN = (
  'a path, bytes, a file opened in binary mode, a PIL image, or an array [h, w] or [h, w, c] with '
  'c from 1 to 4'
)

# An object that is given twice is read by one thread at a time, and others at once.
_LOCKS = tuple(threading.Lock() for _ in range(16))


def as_list(images: Any) -> list:
  """One image or several as a list; an array [b, h, w, c] is a list too."""
  if _is_one(images):
    return [images]
  if hasattr(images, '__array__'):  # of NumPy, JAX or PyTorch
    try:
      array = np.asarray(images)
    except (TypeError, ValueError, RuntimeError):  # `content_of` says what is wrong with it
      return [images]
    return list(array) if array.ndim == 4 else [array]
  if isinstance(images, Iterable) and not isinstance(images, dict):
    return list(images)
  return [images]


def _is_one(image: Any) -> bool:
  return isinstance(image, _PATH | _BYTES | Image.Image) or hasattr(image, 'read')


def name_of(image: Any) -> str:
  """How an image is called in messages: by its path, where it has one."""
  if isinstance(image, _PATH):
    return str(image)
  named = getattr(image, 'filename', '') or getattr(image, 'name', '')
  return named if named and isinstance(named, str) else f'({type(image).__name__})'


def content_of(image: Any) -> bytes | np.ndarray:
  """What a transform takes: encoded bytes, or uint8 pixels [h, w, c].

  A PIL image gives the pixels that its file gives: turned upright by its EXIF orientation, and its
  values brought to 8 bits, as those of an array are (`depth.to_uint8`).

  Raises:
    ImageError: the file cannot be read, or the array is no image.
  """
  name = name_of(image)
  if isinstance(image, _PATH):
    try:
      return pathlib.Path(image).read_bytes()
    except (OSError, ValueError) as e:  # a path with a zero byte is a ValueError
      reason = getattr(e, 'strerror', None) or e
      raise ImageError(f'cannot read {str(image)!r}: {reason}') from e
  if isinstance(image, _BYTES):
    return bytes(image)
  with _LOCKS[id(image) // 16 % len(_LOCKS)]:
    if isinstance(image, Image.Image):
      return pixels_of(image, name)
    if hasattr(image, 'read'):
      return _content_of_file(image, name)
  return _pixels_of_array(image, name)


def _content_of_file(file: Any, name: str) -> bytes:
  """All of an open file, wherever it has been read to."""
  try:
    with contextlib.suppress(AttributeError, io.UnsupportedOperation):
      file.seek(0)  # a stream is read from where it is
    data = file.read()
  except (OSError, ValueError) as e:  # closed
    raise ImageError(f'cannot read image {name}: {e}') from e
  if not isinstance(data, bytes):
    raise ImageError(f'image {name} gives {type(data).__name__}, not bytes: open it in mode "rb"')
  return data


def _pixels_of_array(array: Any, name: str) -> np.ndarray:
  try:
    pixels = np.asarray(array)
  except (TypeError, ValueError, RuntimeError) as e:  # ragged, or a tensor that cannot be copied
    raise ImageError(f'image {name} is no array ({e}): an image must be {_TAKEN}') from e
  shape = f'{pixels.dtype} {pixels.shape}'
  if pixels.ndim == 3 and pixels.shape[2] > 4 and pixels.shape[0] <= 4:
    raise ImageError(
      f'image {name} is {shape}, which has its channels first: give np.moveaxis(image, 0, -1)'
    )
  if pixels.ndim not in (2, 3) or pixels.ndim == 3 and not 1 <= pixels.shape[2] <= 4:
    raise ImageError(f'an image must be {_TAKEN}; got {shape} of {type(array).__name__}')
  pixels = to_uint8(pixels, name)
  return pixels if pixels.ndim == 3 else pixels[..., None]


@contextlib.contextmanager
def named(name: str) -> Iterator[None]:
  """Puts an image's name into an error that lacks it."""
  try:
    yield
  except UserError as e:
    if name in str(e):
      raise
    raise type(e)([f'{name}: {p}' for p in e.problems]) from e
