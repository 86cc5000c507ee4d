"""Images as callers give them: paths, encoded bytes, PIL images or arrays."""

import contextlib
import pathlib
from collections.abc import Iterable, Iterator
from typing import Any

import jax
import numpy as np

from vit_jax.errors import ImageError, UserError


def as_list(images: Any) -> list:
  """One image or several as a list; an array [b, h, w, c] is a list too."""
  if isinstance(images, str | bytes | pathlib.PurePath) or hasattr(images, 'convert'):
    return [images]
  if isinstance(images, np.ndarray | jax.Array):
    images = np.asarray(images)
    return list(images) if images.ndim == 4 else [images]
  if isinstance(images, Iterable):
    return list(images)
  return [images]


def name_of(image: Any) -> str:
  """How an image is called in messages."""
  return str(image) if isinstance(image, str | pathlib.PurePath) else f'a {type(image).__name__}'


def content_of(image: Any) -> bytes | np.ndarray:
  """What a transform takes: encoded bytes, or uint8 pixels [h, w, c].

  Raises:
    ImageError: the file cannot be read, or the array is no image.
  """
  if isinstance(image, str | pathlib.PurePath):
    try:
      return pathlib.Path(image).read_bytes()
    except OSError as e:
      raise ImageError(f'cannot read {image}: {e.strerror or e}') from e
  if isinstance(image, bytes):
    return image
  if hasattr(image, 'convert'):  # a PIL image
    pixels = np.asarray(image if image.mode in ('RGB', 'L') else image.convert('RGB'))
  else:
    pixels = np.asarray(image)
  if pixels.dtype != np.uint8 or pixels.ndim not in (2, 3):
    raise ImageError(
      'an image must be a path, bytes, a PIL image or uint8 [h, w, c]; got '
      f'{pixels.dtype} {pixels.shape}'
    )
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
