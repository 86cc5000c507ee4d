"""The ops that decode, resize, crop, pad and flip. Names follow big_vision's."""

import math

import numpy as np

from vit_jax.data import boxes
from vit_jax.data.decode import decode_image, with_channels
from vit_jax.data.depth import to_uint8
from vit_jax.data.transforms import geometry
from vit_jax.data.transforms.base import METHODS, ImageSpec, Op, Size, arg, image_name, register
from vit_jax.options import LARGEST_SIDE


def _sized(spec: ImageSpec, hw: Size | None) -> ImageSpec:
  return ImageSpec(hw, spec.decoded, spec.channels)


def _scaled(hw: Size, side: int, new_side: int) -> Size:
  """Height and width when `side` (one of them) becomes `new_side`; the other rounds down."""
  h, w = (new_side if s == side else max(1, int(new_side * s / side)) for s in hw)
  return h, w


class Framing(Op):
  """An op that shows another part of the plane that an image lies in, black around the image.

  Where it moves, and how boxes follow, is a function of the image's height and width alone, so that
  several of them and a crop are done in one go (`fused.DecodeCropFlip`).
  """

  def frame(self, hw: Size) -> tuple[int, int, Size]:
    """Top, left and (height, width) of what is shown, for an image of `hw` pixels."""
    raise NotImplementedError

  def follow(self, example: dict, hw: Size) -> dict:
    """Moves the boxes alone, of an image of `hw` pixels."""
    return geometry.follow_crop(example, hw, *self.frame(hw))

  def __call__(self, example: dict, rng: np.random.Generator) -> dict:
    return geometry.crop(example, *self.frame(example['image'].shape[:2]))


@register('decode')
class Decode(Op):
  """File bytes to upright pixels; pixels of an array source pass through.

  Args:
    channels: 3, or 1 for grey.
  """

  channels: int = arg('int', 3, choices=(3, 1))

  def __call__(self, example: dict, rng: np.random.Generator) -> dict:
    image = example['image']
    if isinstance(image, np.ndarray):
      image = with_channels(to_uint8(image, image_name(example)), self.channels)
    else:
      image = decode_image(image, image_name(example), self.channels)
    return {**example, 'image': image}

  def output(self, spec: ImageSpec) -> ImageSpec:
    return ImageSpec(None, True, self.channels)


@register('resize')
class Resize(Op):
  """Scales to exactly this size, whatever the aspect ratio was.

  Args:
    size: pixels; `resize(h, w)` too.
    method: filter, antialiased as Pillow does.
  """

  two_ints = True
  size: Size = arg('size')
  method: str = arg('name', 'bilinear', choices=METHODS)

  def __call__(self, example: dict, rng: np.random.Generator) -> dict:
    return geometry.resize(example, self.size, self.method)

  def output(self, spec: ImageSpec) -> ImageSpec:
    return _sized(spec, self.size)


@register('resize_small')
class ResizeSmall(Op):
  """Scales so that the smaller side has this length, keeping the aspect ratio.

  The longer side rounds down, as torchvision's and Hugging Face's do. Without an argument it is
  256/224 of the image size, the margin that `central_crop` usually cuts away.

  Args:
    size: pixels.
    method: filter, antialiased as Pillow does.
  """

  size: int = arg('int', low=1, high=LARGEST_SIDE)
  method: str = arg('name', 'bilinear', choices=METHODS)

  def __call__(self, example: dict, rng: np.random.Generator) -> dict:
    return geometry.resize(example, self.scaled(example['image'].shape[:2]), self.method)

  def scaled(self, hw: Size) -> Size:
    """Height and width of the result, for an image of `hw` pixels."""
    return _scaled(hw, min(hw), self.size)

  def output(self, spec: ImageSpec) -> ImageSpec:
    return _sized(spec, spec.hw and self.scaled(spec.hw))

  @classmethod
  def default_size(cls, image_size: Size) -> int:
    return round(max(image_size) * 256 / 224)


@register('resize_long')
class ResizeLong(ResizeSmall):
  """Scales so that the longer side has this length, keeping the aspect ratio.

  Args:
    size: pixels; the image size's larger side where none is given.
    method: filter, antialiased as Pillow does.
  """

  def scaled(self, hw: Size) -> Size:
    return _scaled(hw, max(hw), self.size)

  @classmethod
  def default_size(cls, image_size: Size) -> int:
    return max(image_size)


@register('central_crop')
class CentralCrop(Framing):
  """Cuts the middle out; a smaller image gets a black margin, as in torchvision.

  Args:
    size: pixels; `central_crop(h, w)` too.
  """

  two_ints = True
  size: Size = arg('size')

  def frame(self, hw: Size) -> tuple[int, int, Size]:
    return round((hw[0] - self.size[0]) / 2), round((hw[1] - self.size[1]) / 2), self.size

  def output(self, spec: ImageSpec) -> ImageSpec:
    return _sized(spec, self.size)


@register('central_fraction')
class CentralFraction(Framing):
  """Cuts the middle out by a fraction of each side, as tf.image.central_crop does.

  Args:
    fraction: of height and of width that stays.
  """

  fraction: float = arg('float', 0.875, low=0.01, high=1)

  def _hw(self, hw: Size) -> Size:
    # The margin is rounded down on both sides alike, so the crop stays centred.
    h, w = (s - 2 * int((s - s * self.fraction) / 2) for s in hw)
    return h, w

  def frame(self, hw: Size) -> tuple[int, int, Size]:
    new = self._hw(hw)
    return (hw[0] - new[0]) // 2, (hw[1] - new[1]) // 2, new

  def output(self, spec: ImageSpec) -> ImageSpec:
    return _sized(spec, spec.hw and self._hw(spec.hw))


@register('inception_crop')
class InceptionCrop(Op):
  """A window of random area and aspect ratio, scaled to one size (RandomResizedCrop).

  Ten windows are tried; where none fits, the largest central one of an allowed aspect ratio is
  taken.

  Args:
    size: pixels, an integer or (h, w).
    area_min: smallest area, in percent of the image's.
    area_max: largest area, in percent.
    method: filter, antialiased as Pillow does.
    object_min: percentage of the box that must be inside the window, for images with a box; the
      whole image is taken where ten windows miss it.

  Source: 1409.4842, section 6; aspect ratio log-uniform in [3/4, 4/3].
  """

  random = True
  size: Size = arg('size')
  area_min: float = arg('float', 5.0, low=0.01, high=100)
  area_max: float = arg('float', 100.0, low=0.01, high=100)
  method: str = arg('name', 'bilinear', choices=METHODS)
  object_min: float = arg('float', 0.0, low=0, high=100)

  def window(
    self, hw: Size, rng: np.random.Generator, box: np.ndarray | None = None
  ) -> tuple[int, int, Size]:
    """Top, left and (height, width) of the window, for an image of `hw` pixels."""
    needed = box if self.object_min > 0 else None
    h, w = hw
    low, high = sorted((self.area_min, self.area_max))
    edge = math.log(4 / 3)
    for _ in range(10):
      area = h * w * rng.uniform(low, high) / 100
      ratio = math.exp(rng.uniform(-edge, edge))
      new_h, new_w = round(math.sqrt(area / ratio)), round(math.sqrt(area * ratio))
      if 0 < new_h <= h and 0 < new_w <= w:
        top, left = int(rng.integers(h - new_h + 1)), int(rng.integers(w - new_w + 1))
        inside = (
          1.0 if needed is None else boxes.fraction_inside(needed, hw, top, left, (new_h, new_w))
        )
        if inside >= self.object_min / 100:
          return top, left, (new_h, new_w)
    if needed is not None:
      return 0, 0, (h, w)
    new_h, new_w = min(h, round(w * 4 / 3)), min(w, round(h * 4 / 3))
    return (h - new_h) // 2, (w - new_w) // 2, (new_h, new_w)

  def __call__(self, example: dict, rng: np.random.Generator) -> dict:
    top, left, hw = self.window(example['image'].shape[:2], rng, example.get('box'))
    return geometry.resize(geometry.crop(example, top, left, hw), self.size, self.method)

  def output(self, spec: ImageSpec) -> ImageSpec:
    return _sized(spec, self.size)


@register('random_crop')
class RandomCrop(Op):
  """A window of fixed size at a random position; a smaller image gets a black margin.

  Args:
    size: pixels, an integer or (h, w).
    padding: black pixels added on each side first (4 for CIFAR).
  """

  random = True
  size: Size = arg('size')
  padding: int = arg('int', 0, low=0, high=LARGEST_SIDE)

  def _first(self, side: int, size: int, rng: np.random.Generator) -> int:
    """First row or column of the window, for a side of so many pixels."""
    room = side + 2 * self.padding - size
    return int(rng.integers(room + 1)) - self.padding if room >= 0 else room // 2

  def __call__(self, example: dict, rng: np.random.Generator) -> dict:
    h, w = example['image'].shape[:2]
    top = self._first(h, self.size[0], rng)
    left = self._first(w, self.size[1], rng)
    return geometry.crop(example, top, left, self.size)

  def output(self, spec: ImageSpec) -> ImageSpec:
    return _sized(spec, self.size)


@register('pad')
class Pad(Framing):
  """Adds a black margin.

  Args:
    pixels: width of the margin on every side.
  """

  pixels: int = arg('int', low=0, high=LARGEST_SIDE)

  def _hw(self, hw: Size) -> Size:
    return hw[0] + 2 * self.pixels, hw[1] + 2 * self.pixels

  def frame(self, hw: Size) -> tuple[int, int, Size]:
    return -self.pixels, -self.pixels, self._hw(hw)

  def output(self, spec: ImageSpec) -> ImageSpec:
    return _sized(spec, spec.hw and self._hw(spec.hw))


@register('pad_square')
class PadSquare(Framing):
  """Adds black margins to the shorter side until the image is square and centred."""

  def frame(self, hw: Size) -> tuple[int, int, Size]:
    side = max(hw)
    return -((side - hw[0]) // 2), -((side - hw[1]) // 2), (side, side)

  def output(self, spec: ImageSpec) -> ImageSpec:
    return _sized(spec, spec.hw and (max(spec.hw), max(spec.hw)))


@register('flip_lr')
class FlipLr(Op):
  """Mirrors left and right, at random.

  Args:
    p: probability.
  """

  random = True
  p: float = arg('float', 0.5, low=0, high=1)

  def __call__(self, example: dict, rng: np.random.Generator) -> dict:
    return geometry.flip_lr(example) if rng.random() < self.p else example


@register('tighten_box')
class TightenBox(Framing):
  """Removes from the box what earlier rotation added, for datasets exported with augmentation.

  A tool that rotates images and draws the upright box around each rotated box leaves boxes too
  large for their objects: a model learns that, and is wrong by it on images that were not rotated.

  Args:
    degrees: sum of the mean absolute angles of rotation and shear; for angles drawn evenly from
      -a to a, each adds a / 2.
  """

  degrees: float = arg('float', low=0, high=30)

  def frame(self, hw: Size) -> tuple[int, int, Size]:
    return 0, 0, hw

  def __call__(self, example: dict, rng: np.random.Generator) -> dict:
    return self.follow(example, example['image'].shape[:2])

  def follow(self, example: dict, hw: Size) -> dict:
    if 'box' not in example:
      return example
    return {**example, 'box': boxes.tighten(example['box'], hw, self.degrees)}
