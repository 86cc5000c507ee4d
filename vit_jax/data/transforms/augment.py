"""Augmentations for the transformation string. Mixup and CutMix happen on the device."""

import dataclasses
from collections.abc import Callable

import numpy as np

from vit_jax.data.transforms import pixels
from vit_jax.data.transforms.base import Op, arg, register

GEOMETRIC = {
  'rotate': pixels.rotate,
  'shear_x': pixels.shear_x,
  'shear_y': pixels.shear_y,
  'translate_x': pixels.translate_x,
  'translate_y': pixels.translate_y,
}
COLOUR = {
  'autocontrast': pixels.autocontrast,
  'equalize': pixels.equalize,
  'solarize': pixels.solarize,
  'posterize': pixels.posterize,
  'color': pixels.color,
  'contrast': pixels.contrast,
  'brightness': pixels.brightness,
  'sharpness': pixels.sharpness,
}
FURTHER = {'invert': pixels.invert, 'solarize_add': pixels.solarize_add}
CHANGES = ('identity', *COLOUR, *GEOMETRIC)


@dataclasses.dataclass(frozen=True)
class AugReg:
  """One line of AugReg's table.

  Args:
    layers: RandAugment's number of changes; 0 is none.
    magnitude: RandAugment's magnitude.
    mixup: Mixup's alpha, for the device.
  """

  layers: int
  magnitude: int
  mixup: float


# Source: 2106.10270, section 3.2.
AUGREG = {
  'none': AugReg(0, 0, 0.0),
  'light1': AugReg(2, 0, 0.0),
  'light2': AugReg(2, 10, 0.2),
  'medium1': AugReg(2, 15, 0.2),
  'medium2': AugReg(2, 15, 0.5),
  'strong1': AugReg(2, 20, 0.5),
  'strong2': AugReg(2, 20, 0.8),
}


def change(example: dict, name: str, value: float) -> dict:
  """Applies one change of `CHANGES` or `FURTHER` with its own number."""
  if name in GEOMETRIC:
    return GEOMETRIC[name](example, value)
  of_pixels = COLOUR.get(name) or FURTHER.get(name)
  if of_pixels:
    return {**example, 'image': of_pixels(example['image'], value)}
  return example


# By magnitude on the scale of 10, as RandAugment continues it beyond. Solarize and posterize weaken
# as the magnitude grows, as published. Source: 1805.09501, table 6; 1909.13719, section 3.
_RAND: dict[str, Callable[[float], float]] = {
  'rotate': lambda m: 30 * m / 10,
  'shear_x': lambda m: 0.3 * m / 10,
  'shear_y': lambda m: 0.3 * m / 10,
  'translate_x': lambda m: 150 / 331 * m / 10,
  'translate_y': lambda m: 150 / 331 * m / 10,
  'solarize': lambda m: min(256 * m / 10, 256),
  'posterize': lambda m: min(4 + 4 * m / 10, 8),
  'color': lambda m: 0.1 + 1.8 * m / 10,
  'contrast': lambda m: 0.1 + 1.8 * m / 10,
  'brightness': lambda m: 0.1 + 1.8 * m / 10,
  'sharpness': lambda m: 0.1 + 1.8 * m / 10,
}
# By a strength from 0 to 1. Source: 2103.10158, table 1 (the wide space).
_TRIVIAL: dict[str, Callable[[float], float]] = {
  'rotate': lambda s: 135 * s,
  'shear_x': lambda s: 0.99 * s,
  'shear_y': lambda s: 0.99 * s,
  'translate_x': lambda s: 32 / 224 * s,
  'translate_y': lambda s: 32 / 224 * s,
  'solarize': lambda s: 256 * (1 - s),
  'posterize': lambda s: 8 - round(6 * s),
  'color': lambda s: 0.99 * s,
  'contrast': lambda s: 0.99 * s,
  'brightness': lambda s: 0.99 * s,
  'sharpness': lambda s: 0.99 * s,
}
# By a level from 0 to 1, all of them stronger as it grows. Source: timm's increasing RandAugment.
_INCREASING: dict[str, Callable[[float], float]] = {
  'autocontrast': lambda s: 0.0,
  'equalize': lambda s: 0.0,
  'invert': lambda s: 0.0,
  'rotate': lambda s: 30 * s,
  'posterize': lambda s: 4 - int(4 * s),
  'solarize': lambda s: 256 - int(256 * s),
  'solarize_add': lambda s: int(110 * s),
  'color': lambda s: 0.9 * s,
  'contrast': lambda s: 0.9 * s,
  'brightness': lambda s: 0.9 * s,
  'sharpness': lambda s: 0.9 * s,
  'shear_x': lambda s: 0.3 * s,
  'shear_y': lambda s: 0.3 * s,
  'translate_x': lambda s: 0.45 * s,
  'translate_y': lambda s: 0.45 * s,
}
_ENHANCE = ('color', 'contrast', 'brightness', 'sharpness')


def _sign(rng: np.random.Generator) -> int:
  return 1 if rng.random() < 0.5 else -1


@register('randaugment')
class RandAugment(Op):
  """Several changes of one magnitude, each drawn from the same fourteen, one of which is none.

  Args:
    layers: number of changes.
    magnitude: 0 to 30; 10 is the far end of AutoAugment's ranges. 0 is not nothing: the colour
      changes are strongest there.

  Source: 1909.13719, figure 2.
  """

  random = True
  layers: int = arg('int', 2, low=1)
  magnitude: float = arg('float', 9.0, low=0, high=30)

  def __call__(self, example: dict, rng: np.random.Generator) -> dict:
    for _ in range(self.layers):
      name = CHANGES[int(rng.integers(len(CHANGES)))]
      value = _RAND[name](self.magnitude) if name in _RAND else 0.0
      example = change(example, name, value * _sign(rng) if name in GEOMETRIC else value)
    return example


@register('randaugment_increasing')
class RandAugmentIncreasing(Op):
  """Several changes, each done or not, whose strengths scatter about a magnitude; DeiT's kind.

  `randaugment_increasing(2, 9)` is what timm writes rand-m9-mstd0.5-inc1, but for the grey that
  fills what comes in from outside (timm: the mean colour) and for bilinear pixels throughout.

  Args:
    layers: number of changes drawn.
    magnitude: 0 to 10, mean strength.
    std: standard deviation of the strength, which is cut at 0 and 10.
    p: probability that a change drawn is done.

  Source: DeiT (2012.12877), table 9; the changes and ranges are timm's.
  """

  random = True
  layers: int = arg('int', 2, low=1)
  magnitude: float = arg('float', 9.0, low=0, high=10)
  std: float = arg('float', 0.5, low=0)
  p: float = arg('float', 0.5, low=0, high=1)

  def __call__(self, example: dict, rng: np.random.Generator) -> dict:
    names = tuple(_INCREASING)
    for name in [names[i] for i in rng.integers(len(names), size=self.layers)]:
      if rng.random() >= self.p:
        continue
      level = float(np.clip(rng.normal(self.magnitude, self.std), 0, 10)) / 10
      value = _INCREASING[name](level)
      if name in GEOMETRIC:
        value *= _sign(rng)
      elif name in _ENHANCE:
        value = max(0.1, 1 + value * _sign(rng))
      example = change(example, name, value)
    return example


@register('augreg')
class AugRegOp(Op):
  """RandAugment at one of AugReg's settings; the setting's Mixup is the training step's.

  Args:
    setting: 'none', 'light1', 'light2', 'medium1', 'medium2', 'strong1' or 'strong2'.

  Source: 2106.10270, section 3.2.
  """

  random = True
  setting: str = arg('name', choices=tuple(AUGREG))

  def __call__(self, example: dict, rng: np.random.Generator) -> dict:
    line = AUGREG[self.setting]
    return RandAugment(line.layers, line.magnitude)(example, rng) if line.layers else example


@register('trivial_augment')
class TrivialAugment(Op):
  """One change of random strength: nothing to tune.

  Source: 2103.10158, algorithm 1, with the wide space; 31 strengths.
  """

  random = True

  def __call__(self, example: dict, rng: np.random.Generator) -> dict:
    name = CHANGES[int(rng.integers(len(CHANGES)))]
    value = _TRIVIAL[name](int(rng.integers(31)) / 30) if name in _TRIVIAL else 0.0
    if name in GEOMETRIC:
      value *= _sign(rng)
    elif name in _ENHANCE:
      value = 1 + value * _sign(rng)
    return change(example, name, value)


@register('random_erasing')
class RandomErasing(Op):
  """Covers a rectangle with noise.

  Args:
    p: probability.
    area_min: smallest area, in percent of the picture's.
    area_max: largest area, in percent.
    value: 'noise' for random pixels, 'black', or 'grey' for 128.

  Source: 1708.04896, algorithm 1; aspect ratio log-uniform in [0.3, 3.3].
  """

  random = True
  p: float = arg('float', 0.25, low=0, high=1)
  area_min: float = arg('float', 2.0, low=0, high=100)
  area_max: float = arg('float', 33.0, low=0, high=100)
  value: str = arg('name', 'noise', choices=('noise', 'black', 'grey'))

  def __call__(self, example: dict, rng: np.random.Generator) -> dict:
    if rng.random() >= self.p:
      return example
    h, w, c = example['image'].shape
    for _ in range(10):
      area = h * w * rng.uniform(self.area_min, self.area_max) / 100
      ratio = np.exp(rng.uniform(np.log(0.3), np.log(3.3)))
      new_h, new_w = round(np.sqrt(area * ratio)), round(np.sqrt(area / ratio))
      if 0 < new_h < h and 0 < new_w < w:
        top, left = rng.integers(h - new_h + 1), rng.integers(w - new_w + 1)
        image = example['image'].copy()
        fill = {'black': 0, 'grey': 128}.get(self.value)
        noise = rng.integers(0, 256, (new_h, new_w, c), np.uint8) if fill is None else fill
        image[top : top + new_h, left : left + new_w] = noise
        return {**example, 'image': image}
    return example


@register('color_jitter')
class ColorJitter(Op):
  """Brightness, contrast and saturation by random factors, in random order.

  Args:
    brightness: factors are drawn from 1 minus to 1 plus this.
    contrast: likewise.
    saturation: likewise.
    p: probability of any change.
  """

  random = True
  brightness: float = arg('float', 0.4, low=0, high=1)
  contrast: float = arg('float', 0.4, low=0, high=1)
  saturation: float = arg('float', 0.4, low=0, high=1)
  p: float = arg('float', 1.0, low=0, high=1)

  def __call__(self, example: dict, rng: np.random.Generator) -> dict:
    if rng.random() >= self.p:
      return example
    steps = [
      ('brightness', self.brightness),
      ('contrast', self.contrast),
      ('color', self.saturation),
    ]
    for i in rng.permutation(3):
      name, strength = steps[i]
      factor = rng.uniform(1 - strength, 1 + strength)
      example = change(example, name, factor)
    return example


@register('three_augment')
class ThreeAugment(Op):
  """One of greyscale, solarize and Gaussian blur, with equal chances.

  Source: 2204.07118, section 3.
  """

  random = True

  def __call__(self, example: dict, rng: np.random.Generator) -> dict:
    image = example['image']
    which = int(rng.integers(3))
    if which == 0:
      image = pixels.greyscale(image)
    elif which == 1:
      image = pixels.solarize(image, 128)
    else:
      image = pixels.gaussian_blur(image, rng.uniform(0.1, 2.0))
    return {**example, 'image': image}
