"""Pictures on their way into a model, as it would see them or whole."""

import dataclasses
import math
import pathlib
from typing import Any

import numpy as np

from vit_jax.data import decode_image, parse_transform
from vit_jax.data.transforms.geometry import resize_pixels
from vit_jax.errors import UserError
from vit_jax.weights import resize


@dataclasses.dataclass(frozen=True)
class Picture:
  """A picture as the model gets it.

  Args:
    path: its file.
    pixels: uint8 [h, w, c], what the model sees.
    images: float [1, h, w, c], the same in the value range of the weights.
  """

  path: pathlib.Path
  pixels: np.ndarray
  images: np.ndarray


def read_picture(
  path: pathlib.Path, preprocess: Any, patch_size: tuple[int, int], image_size: Any = None
) -> Picture:
  """Reads a file.

  Args:
    path: of the picture.
    preprocess: that belongs to the weights.
    patch_size: (height, width) that sides must be multiples of.
    image_size: None for what the weights were trained with, (height, width) to which the whole
      picture is stretched, or 'whole' for the picture in its own shape, its shorter side as long as
      the weights have it.
  """
  data = path.read_bytes()
  if image_size is None:
    transform = parse_transform(preprocess.transform)
    pixels = transform({'image': data, 'id': str(path)}, np.random.default_rng(0))['image']
  else:
    pixels = decode_image(data, str(path))
    if image_size == 'whole':
      image_size = whole_size(pixels.shape[:2], preprocess.image_size, patch_size)
    pixels = resize_pixels(pixels, image_size, 'bicubic')
  return Picture(path, pixels, np.asarray(preprocess.normalize(pixels[None])))


def whole_size(
  hw: tuple[int, int], trained: tuple[int, int], patch_size: tuple[int, int]
) -> tuple[int, int]:
  """The size in whole patches nearest to a picture's shape, its shorter side as in training."""
  factor = min(trained) / min(hw)
  return tuple(max(1, round(side * factor / p)) * p for side, p in zip(hw, patch_size))


def variables_for(
  module: Any, variables: Any, image_size: tuple[int, int], trained: tuple[int, int]
) -> Any:
  """Variables for another image size: learned position embeddings are resampled.

  Args:
    module, variables: of a transformer or Mixer.
    image_size: (height, width) in pixels that the model shall take.
    trained: (height, width) that the variables are for.

  Raises:
    UserError: the model's weights are made for one image size (MLP-Mixer).
  """
  if tuple(image_size) == tuple(trained):
    return variables
  params = variables['params']
  grid, known = (
    tuple(side // p for side, p in zip(size, module.patch_size)) for size in (image_size, trained)
  )
  if 'position_embedding' in params:
    table = np.asarray(params['position_embedding'])[0]
    slots = len(table) - math.prod(known)
    patches = resize.resize_grid(table[slots:].reshape(*known, -1), grid, 'bilinear')
    resized = np.concatenate([table[:slots], patches.reshape(math.prod(grid), -1)])
    return {**variables, 'params': {**params, 'position_embedding': resized[None]}}
  if 'token_mixing' in params.get('encoder', {}).get('block_00', {}) and grid != known:
    raise UserError(
      f'a {type(module).__name__} takes {trained[0]}x{trained[1]} pixels alone, not '
      f'{image_size[0]}x{image_size[1]}: leave --image_size out'
    )
  return variables
