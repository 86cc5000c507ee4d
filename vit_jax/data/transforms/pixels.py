"""Changes of colour and shape that augmentations are made of, each by one number.

Uint8 `[h, w, c]` with c 1 or 3. Ranges are the augmentations' business.
"""

import math
from collections.abc import Callable

import numpy as np
from PIL import Image, ImageEnhance, ImageFilter, ImageOps

from vit_jax.data.transforms import geometry

Change = Callable[[np.ndarray, float], np.ndarray]


def _by_pillow(change: Callable[[Image.Image, float], Image.Image]) -> Change:
  """A change of arrays from a change of Pillow pictures."""

  def apply(image: np.ndarray, value: float = 0) -> np.ndarray:
    grey = image.shape[2] == 1
    picture = Image.fromarray(image[:, :, 0] if grey else image)
    pixels = np.asarray(change(picture, value))
    return pixels[:, :, None] if grey else pixels

  return apply


def solarize(image: np.ndarray, threshold: float) -> np.ndarray:
  """Inverts values from `threshold` (0 to 256) up."""
  return np.where(image < threshold, image, 255 - image)


def solarize_add(image: np.ndarray, added: float) -> np.ndarray:
  """Brightens values below 128 by `added` (0 to 255)."""
  brighter = np.minimum(image.astype(np.int32) + int(added), 255).astype(np.uint8)
  return np.where(image < 128, brighter, image)


def invert(image: np.ndarray, _: float = 0) -> np.ndarray:
  """Dark for light."""
  return 255 - image


def posterize(image: np.ndarray, bits: float) -> np.ndarray:
  """Keeps the highest `bits` (0 to 8) of each value."""
  return image & np.uint8(256 - (1 << (8 - int(bits))))


def greyscale(image: np.ndarray) -> np.ndarray:
  """Luma in every channel."""
  return _luma(image) if image.shape[2] == 3 else image


autocontrast = _by_pillow(lambda picture, _: ImageOps.autocontrast(picture))
equalize = _by_pillow(lambda picture, _: ImageOps.equalize(picture))
# Factor 1 changes nothing; 0 is grey, flat grey, black and smooth; above 1 exaggerates.
color = _by_pillow(lambda picture, factor: ImageEnhance.Color(picture).enhance(factor))
contrast = _by_pillow(lambda picture, factor: ImageEnhance.Contrast(picture).enhance(factor))
brightness = _by_pillow(lambda picture, factor: ImageEnhance.Brightness(picture).enhance(factor))
sharpness = _by_pillow(lambda picture, factor: ImageEnhance.Sharpness(picture).enhance(factor))
gaussian_blur = _by_pillow(lambda picture, s: picture.filter(ImageFilter.GaussianBlur(s)))
_luma = _by_pillow(lambda picture, _: picture.convert('L').convert('RGB'))


def rotate(example: dict, degrees: float) -> dict:
  """Turns clockwise about the middle."""
  h, w = example['image'].shape[:2]
  cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
  x, y = w / 2, h / 2
  return geometry.affine(
    example, [[cos, -sin, x - cos * x + sin * y], [sin, cos, y - sin * x - cos * y]]
  )


def shear_x(example: dict, slope: float) -> dict:
  """Shifts each row by `slope` times its distance from the top, to the right."""
  return geometry.affine(example, [[1, slope, 0], [0, 1, 0]])


def shear_y(example: dict, slope: float) -> dict:
  """Shifts each column by `slope` times its distance from the left, down."""
  return geometry.affine(example, [[1, 0, 0], [slope, 1, 0]])


def translate_x(example: dict, share: float) -> dict:
  """Shifts to the right by a share of the width."""
  pixels = round(share * example['image'].shape[1])
  return geometry.affine(example, [[1, 0, pixels], [0, 1, 0]])


def translate_y(example: dict, share: float) -> dict:
  """Shifts down by a share of the height."""
  pixels = round(share * example['image'].shape[0])
  return geometry.affine(example, [[1, 0, 0], [0, 1, pixels]])
