"""The operations that augmentation policies draw from.

Each states all about itself in one place: `@operation` gives its name, whether it moves pixels, and
its range in each policy. A function registered in any file of this package, or in one that
$VIT_JAX_PLUGINS names, joins the policies for which it gives a range.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from PIL import Image, ImageEnhance, ImageFilter, ImageOps

from vit_jax.data.transforms import geometry
from vit_jax.registry import Registry

Range = Callable[[float], float]  # a policy's strength -> the operation's value


@dataclasses.dataclass(frozen=True)
class Operation:
  """One operation and its use in policies.

  Args:
    name: unique.
    function: changes an image, uint8 `[h, w, c]` with c 1 or 3, by a value. A geometric one changes
      an example, so that boxes follow.
    geometric: whether it moves pixels; policies draw the value's sign.
    factor: whether the value is a factor that changes nothing at 1; a policy whose range is the
      distance from 1 draws the side.
    ranges: by policy; a policy without an entry does not draw the operation.
  """

  name: str
  function: Callable[[Any, float], Any]
  geometric: bool
  factor: bool
  ranges: Mapping[str, Range]

  def __call__(self, example: dict, value: float) -> dict:
    """Applies the operation to an example."""
    if self.geometric:
      return self.function(example, value)
    return {**example, 'image': self.function(example['image'], value)}


OPERATIONS: Registry[Operation] = Registry('augmentation operation', 'vit_jax.data.transforms')


def operation(
  name: str,
  *,
  geometric: bool = False,
  factor: bool = False,
  randaugment: Range | None = None,
  trivial_augment: Range | None = None,
  randaugment_increasing: Range | None = None,
) -> Callable[[Callable], Callable]:
  """Registers a function as an operation and leaves it as it is; see `Operation`.

  Args:
    name: unique.
    geometric: the function moves pixels, so it takes an example.
    factor: its value changes nothing at 1.
    randaugment: value by magnitude, 0 to 30; for a factor, the factor itself. None here and below:
      the policy does not draw it.
    trivial_augment: value by strength, 0 to 1; for a factor, its distance from 1.
    randaugment_increasing: value by level, 0 to 1; for a factor, its distance from 1.
  """
  ranges = {
    'randaugment': randaugment,
    'trivial_augment': trivial_augment,
    'randaugment_increasing': randaugment_increasing,
  }
  given = {policy: values for policy, values in ranges.items() if values is not None}

  def add(function: Callable) -> Callable:
    OPERATIONS.add(name, Operation(name, function, geometric, factor, given))
    return function

  return add


def no_value(_: float) -> float:
  """The range of an operation that takes no value."""
  return 0.0


# Sources of the ranges below. RandAugment: AutoAugment (1805.09501), table 6, and RandAugment
# (1909.13719), section 3, which continues the scale of 10 beyond its end; solarize and posterize
# weaken as the magnitude grows, as published. TrivialAugment: 2103.10158, table 1, the wide space.
# The increasing RandAugment, in which every operation strengthens with its level: timm.


@operation('identity', randaugment=no_value, trivial_augment=no_value)
def identity(image: np.ndarray, _: float = 0) -> np.ndarray:
  """Changes nothing."""
  return image


def _pillow(image: np.ndarray, change: Callable[[Image.Image], Image.Image]) -> np.ndarray:
  """Changes an array by a function of Pillow images."""
  grey = image.shape[2] == 1
  pixels = np.asarray(change(Image.fromarray(image[:, :, 0] if grey else image)))
  return pixels[:, :, None] if grey else pixels


@operation(
  'autocontrast',
  randaugment=no_value,
  trivial_augment=no_value,
  randaugment_increasing=no_value,
)
def autocontrast(image: np.ndarray, _: float = 0) -> np.ndarray:
  """Stretches each channel to the full range of values."""
  return _pillow(image, ImageOps.autocontrast)


@operation(
  'equalize',
  randaugment=no_value,
  trivial_augment=no_value,
  randaugment_increasing=no_value,
)
def equalize(image: np.ndarray, _: float = 0) -> np.ndarray:
  """Gives each channel a flat histogram."""
  return _pillow(image, ImageOps.equalize)


@operation('invert', randaugment_increasing=no_value)
def invert(image: np.ndarray, _: float = 0) -> np.ndarray:
  """Dark for light."""
  return 255 - image


@operation(
  'solarize',
  randaugment=lambda m: min(256 * m / 10, 256),
  trivial_augment=lambda s: 256 * (1 - s),
  randaugment_increasing=lambda s: 256 - int(256 * s),
)
def solarize(image: np.ndarray, threshold: float) -> np.ndarray:
  """Inverts values from `threshold` (0 to 256) up."""
  return np.where(image < threshold, image, 255 - image)


@operation('solarize_add', randaugment_increasing=lambda s: int(110 * s))
def solarize_add(image: np.ndarray, added: float) -> np.ndarray:
  """Brightens values below 128 by `added` (0 to 255)."""
  brighter = np.minimum(image.astype(np.int32) + int(added), 255).astype(np.uint8)
  return np.where(image < 128, brighter, image)


@operation(
  'posterize',
  randaugment=lambda m: min(4 + 4 * m / 10, 8),
  trivial_augment=lambda s: 8 - round(6 * s),
  randaugment_increasing=lambda s: 4 - int(4 * s),
)
def posterize(image: np.ndarray, bits: float) -> np.ndarray:
  """Keeps the highest `bits` (0 to 8) of each value."""
  return image & np.uint8(256 - (1 << (8 - int(bits))))


@operation(
  'color',
  factor=True,
  randaugment=lambda m: 0.1 + 1.8 * m / 10,
  trivial_augment=lambda s: 0.99 * s,
  randaugment_increasing=lambda s: 0.9 * s,
)
def color(image: np.ndarray, factor: float) -> np.ndarray:
  """Saturation times `factor`: 0 is grey."""
  return _pillow(image, lambda i: ImageEnhance.Color(i).enhance(factor))


@operation(
  'contrast',
  factor=True,
  randaugment=lambda m: 0.1 + 1.8 * m / 10,
  trivial_augment=lambda s: 0.99 * s,
  randaugment_increasing=lambda s: 0.9 * s,
)
def contrast(image: np.ndarray, factor: float) -> np.ndarray:
  """Distance from the mean grey times `factor`."""
  return _pillow(image, lambda i: ImageEnhance.Contrast(i).enhance(factor))


@operation(
  'brightness',
  factor=True,
  randaugment=lambda m: 0.1 + 1.8 * m / 10,
  trivial_augment=lambda s: 0.99 * s,
  randaugment_increasing=lambda s: 0.9 * s,
)
def brightness(image: np.ndarray, factor: float) -> np.ndarray:
  """Values times `factor`: 0 is black."""
  return _pillow(image, lambda i: ImageEnhance.Brightness(i).enhance(factor))


@operation(
  'sharpness',
  factor=True,
  randaugment=lambda m: 0.1 + 1.8 * m / 10,
  trivial_augment=lambda s: 0.99 * s,
  randaugment_increasing=lambda s: 0.9 * s,
)
def sharpness(image: np.ndarray, factor: float) -> np.ndarray:
  """Distance from the smoothed image times `factor`: 0 is smooth."""
  return _pillow(image, lambda i: ImageEnhance.Sharpness(i).enhance(factor))


@operation(
  'rotate',
  geometric=True,
  randaugment=lambda m: 30 * m / 10,
  trivial_augment=lambda s: 135 * s,
  randaugment_increasing=lambda s: 30 * s,
)
def rotate(example: dict, degrees: float) -> dict:
  """Turns clockwise about the middle."""
  h, w = example['image'].shape[:2]
  cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
  x, y = w / 2, h / 2
  return geometry.affine(
    example, [[cos, -sin, x - cos * x + sin * y], [sin, cos, y - sin * x - cos * y]]
  )


@operation(
  'shear_x',
  geometric=True,
  randaugment=lambda m: 0.3 * m / 10,
  trivial_augment=lambda s: 0.99 * s,
  randaugment_increasing=lambda s: 0.3 * s,
)
def shear_x(example: dict, slope: float) -> dict:
  """Shifts each row by `slope` times its distance from the top, to the right."""
  return geometry.affine(example, [[1, slope, 0], [0, 1, 0]])


@operation(
  'shear_y',
  geometric=True,
  randaugment=lambda m: 0.3 * m / 10,
  trivial_augment=lambda s: 0.99 * s,
  randaugment_increasing=lambda s: 0.3 * s,
)
def shear_y(example: dict, slope: float) -> dict:
  """Shifts each column by `slope` times its distance from the left, down."""
  return geometry.affine(example, [[1, 0, 0], [slope, 1, 0]])


@operation(
  'translate_x',
  geometric=True,
  randaugment=lambda m: 150 / 331 * m / 10,
  trivial_augment=lambda s: 32 / 224 * s,
  randaugment_increasing=lambda s: 0.45 * s,
)
def translate_x(example: dict, fraction: float) -> dict:
  """Shifts to the right by a fraction of the width."""
  pixels = round(fraction * example['image'].shape[1])
  return geometry.affine(example, [[1, 0, pixels], [0, 1, 0]])


@operation(
  'translate_y',
  geometric=True,
  randaugment=lambda m: 150 / 331 * m / 10,
  trivial_augment=lambda s: 32 / 224 * s,
  randaugment_increasing=lambda s: 0.45 * s,
)
def translate_y(example: dict, fraction: float) -> dict:
  """Shifts down by a fraction of the height."""
  pixels = round(fraction * example['image'].shape[0])
  return geometry.affine(example, [[1, 0, 0], [0, 1, pixels]])


def greyscale(image: np.ndarray) -> np.ndarray:
  """Luma in every channel; no policy draws it."""
  return _pillow(image, lambda i: i.convert('L').convert('RGB')) if image.shape[2] == 3 else image


def gaussian_blur(image: np.ndarray, sigma: float) -> np.ndarray:
  """Blurs by a Gaussian of `sigma` pixels; no policy draws it."""
  return _pillow(image, lambda i: i.filter(ImageFilter.GaussianBlur(sigma)))
