"""Images as inputs of a model: as it would see them, or whole."""

import dataclasses
import math
import pathlib
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import numpy as np

from vit_jax.data import Preprocess, decode_image, parse_transform
from vit_jax.data.transforms.geometry import resize_pixels
from vit_jax.errors import ModelError
from vit_jax.inference.images import content_of
from vit_jax.inference.loaded import Loaded
from vit_jax.visualization.activations import (
  TENSORS,
  Captured,
  Variables,
  capture,
  capture_gradients,
)
from vit_jax.visualization.request import ImageSize
from vit_jax.weights import resize


@dataclasses.dataclass(frozen=True)
class ModelInput:
  """An image as the model gets it.

  Attributes:
    path: its file.
    pixels: uint8 [h, w, c], what the model sees.
    images: float [1, h, w, c], the same in the value range of the weights.
  """

  path: pathlib.Path
  pixels: np.ndarray
  images: np.ndarray


def read_image(
  path: pathlib.Path,
  preprocess: Preprocess,
  patch_size: tuple[int, int],
  image_size: ImageSize = None,
) -> ModelInput:
  """Reads a file.

  Args:
    path: of the image.
    preprocess: that belongs to the weights.
    patch_size: (height, width) that sides must be multiples of.
    image_size: None for what the weights were trained with, (height, width) to which the whole
      image is stretched, or 'whole' for the image in its own shape, its shorter side as long as in
      training.

  Raises:
    ImageError: the file cannot be read or decoded.
  """
  data = content_of(path)
  if image_size is None:
    transform = parse_transform(preprocess.transform)
    pixels = transform({'image': data, 'id': str(path)}, np.random.default_rng(0))['image']
  else:
    pixels = decode_image(data, str(path))
    if image_size == 'whole':
      h, w, _ = pixels.shape
      image_size = whole_size((h, w), preprocess.image_size, patch_size)
    pixels = resize_pixels(pixels, image_size, 'bicubic')
  return ModelInput(path, pixels, np.asarray(preprocess.normalize(pixels[None])))


def capture_image(
  loaded: Loaded,
  image: Any,
  tensors: Sequence[str] = TENSORS,
  class_index: int | None = None,
) -> tuple[np.ndarray, Captured]:
  """What a model that is ready to use computes from one image.

  Args:
    loaded: by `vit_jax.load`.
    image: as `Loaded.predict` takes it.
    tensors: which to keep, as `capture` takes them.
    class_index: also the gradient of this class's logit by the attention weights, which are then
      all that is kept.

  Returns:
    The image as the model sees it, uint8 [h, w, c], and the tensors, of a batch of one.

  Raises:
    ImageError: the image cannot be read.
    NotApplicable: the model has no tokens.
    ModelError: no such class.
  """
  pixels = loaded.read(image)
  images = np.asarray(loaded.preprocess.normalize(pixels[None]))
  if class_index is None:
    return pixels, capture(loaded.module, loaded.variables, images, tensors)
  return pixels, capture_gradients(loaded.module, loaded.variables, images, class_index)


def whole_size(
  hw: tuple[int, int], trained: tuple[int, int], patch_size: tuple[int, int]
) -> tuple[int, int]:
  """The size in whole patches nearest to an image's shape, its shorter side as in training."""
  factor = min(trained) / min(hw)
  rows, columns = (max(1, round(side * factor / p)) for side, p in zip(hw, patch_size))
  return rows * patch_size[0], columns * patch_size[1]


def variables_for(
  module: nn.Module, variables: Variables, image_size: tuple[int, int], trained: tuple[int, int]
) -> Variables:
  """Variables for another image size: learned position embeddings are resampled.

  Args:
    module, variables: of a transformer or Mixer.
    image_size: (height, width) in pixels that the model shall take.
    trained: (height, width) that the variables are for.

  Raises:
    ModelError: the model is for one image size (MLP-Mixer).
  """
  if tuple(image_size) == tuple(trained):
    return variables
  params = variables['params']
  grid, known = (
    (size[0] // module.patch_size[0], size[1] // module.patch_size[1])
    for size in (image_size, trained)
  )
  if 'position_embedding' in params:
    table = np.asarray(params['position_embedding'])[0]
    slots = len(table) - math.prod(known)
    patches = resize.resize_grid(table[slots:].reshape(*known, -1), grid, 'bilinear')
    resized = np.concatenate([table[:slots], patches.reshape(math.prod(grid), -1)])
    return {**variables, 'params': {**params, 'position_embedding': resized[None]}}
  if 'token_mixing' in params.get('encoder', {}).get('block_00', {}) and grid != known:
    raise ModelError(
      f'a {type(module).__name__} takes only images of {trained[0]}x{trained[1]} pixels, not '
      f'{image_size[0]}x{image_size[1]}: leave --image_size out'
    )
  return variables
