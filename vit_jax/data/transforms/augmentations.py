"""Augmentations that are no policies: random erasing, colour jitter, 3-Augment.

Mixup and CutMix happen on the device, in the training step.
"""

import numpy as np

from vit_jax.data.transforms import operations
from vit_jax.data.transforms.base import Op, arg, register


@register('random_erasing')
class RandomErasing(Op):
  """Covers a rectangle with noise.

  Args:
    p: probability.
    area_min: smallest area, in percent of the image's.
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
      (operations.brightness, self.brightness),
      (operations.contrast, self.contrast),
      (operations.color, self.saturation),
    ]
    image = example['image']
    for i in rng.permutation(3):
      change, strength = steps[i]
      image = change(image, rng.uniform(1 - strength, 1 + strength))
    return {**example, 'image': image}


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
      image = operations.greyscale(image)
    elif which == 1:
      image = operations.solarize(image, 128)
    else:
      image = operations.gaussian_blur(image, rng.uniform(0.1, 2.0))
    return {**example, 'image': image}
