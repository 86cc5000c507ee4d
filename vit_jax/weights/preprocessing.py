"""Evaluation preprocessing as the ecosystems describe it: scale or squash, then a central crop."""

import dataclasses
import math
from typing import TYPE_CHECKING, Any

from vit_jax import data
from vit_jax.errors import ConfigError, WeightsError, shown
from vit_jax.options import LARGEST_SIDE

if TYPE_CHECKING:
  from vit_jax.data.preprocess import Preprocess

Size = tuple[int, int]  # (h, w) in pixels

_LARGEST = 1e6  # of a mean or of 1 / std, on pixels of 0 to 1
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
INTERPOLATIONS = {0: 'nearest', 1: 'lanczos', 2: 'bilinear', 3: 'bicubic'}  # Pillow's numbers


@dataclasses.dataclass(frozen=True)
class Crop:
  """How an image is brought to its size.

  Args:
    size: that comes out.
    interpolation: 'bilinear' or another of `INTERPOLATIONS`.
    scaled: what the image is scaled to before the crop: the length of its shorter side, or (h, w)
      whatever its shape.
  """

  size: Size
  interpolation: str
  scaled: int | Size

  def transform(self) -> str:
    """The transformation as a string of `vit_jax.data`."""
    crop = f'|central_crop({self.size[0]}, {self.size[1]})'
    if isinstance(self.scaled, int):
      first = f'resize_small({self.scaled}, {self.interpolation})'
    else:
      first = f'resize({self.scaled[0]}, {self.scaled[1]}, {self.interpolation})'
      crop = '' if self.scaled == self.size else crop
    return str(data.parse_transform(f'decode|{first}{crop}', train=False))


def crop_of(preprocess: 'Preprocess') -> Crop:
  """The crop of a preprocessing that is made of these operations alone.

  Raises:
    WeightsError: it has others, which no foreign record can describe.
  """
  ops: list[Any] = data.parse_transform(preprocess.transform, train=False).ops
  ops = [op for op in ops if type(op).__name__ != 'Decode']
  names = [type(op).__name__ for op in ops]
  if names not in (['ResizeSmall', 'CentralCrop'], ['Resize', 'CentralCrop'], ['Resize']):
    raise WeightsError(
      'expected a preprocessing of resize or resize_small, then central_crop, got '
      f'{preprocess.transform!r}'
    )
  return Crop(ops[-1].size, ops[0].method, scaled=ops[0].size)


def rgb_crop_of(preprocess: 'Preprocess', format: str) -> Crop:
  """The same for a format whose records have RGB images alone.

  Raises:
    WeightsError: as above, or for other channels.
  """
  if preprocess.channels != 'rgb':
    raise WeightsError(f'the {format} format records rgb images alone, not {preprocess.channels}')
  return crop_of(preprocess)


def at_size(preprocess: 'Preprocess', image_size: Size) -> 'Preprocess':
  """The same preprocessing for images of another size."""
  image_size = (image_size[0], image_size[1])
  if preprocess.image_size == image_size:
    return preprocess
  old = crop_of(preprocess)
  (h, w), (old_h, old_w) = image_size, old.size
  scaled: int | Size
  if isinstance(old.scaled, int):
    scaled = round(old.scaled * (max(h, w) / max(old_h, old_w)))
  else:
    scaled = round(old.scaled[0] * h / old_h), round(old.scaled[1] * w / old_w)
  new = Crop(image_size, old.interpolation, scaled)
  return dataclasses.replace(preprocess, transform=new.transform())


def channel_values(value: Any, where: str) -> tuple[float, ...] | None:
  """A mean or standard deviation of a foreign record as three numbers; None where it states none.

  Args:
    value: one number, which is for all channels, or three.
    where: file and field, for messages.

  Raises:
    WeightsError: it is something else.
  """
  if value is None:
    return None
  if isinstance(value, list | tuple) and len(value) == 1:
    value = value[0]  # of a model of grey images
  values = [value] * 3 if isinstance(value, int | float) else value
  if (
    isinstance(value, bool)
    or not isinstance(values, list | tuple)
    or len(values) != 3
    or not all(type(v) in (int, float) and math.isfinite(v) for v in values)
  ):
    raise WeightsError(f'{where} is {value!r}; expected a number, or three for red, green and blue')
  return tuple(map(float, values))


def check(preprocess: 'Preprocess', where: str) -> None:
  """Refuses sizes and statistics that no model has.

  Raises:
    UserError: naming the field.
  """
  for field in ('mean', 'std'):
    values = getattr(preprocess, field)
    if not all(abs(v) <= _LARGEST and (field == 'mean' or v >= 1 / _LARGEST) for v in values):
      raise WeightsError(f'{where}: its preprocessing has a {field} of {shown(values)}')
  ops: list[Any] = data.parse_transform(preprocess.transform, train=False).ops
  for op in ops:
    size = getattr(op, 'size', 1)
    if max(size if isinstance(size, tuple) else (size,)) > 2 * LARGEST_SIDE:
      raise WeightsError(f'{where}: its preprocessing makes images of {shown(size)} pixels')


def check_scale(mean: tuple[float, ...], std: tuple[float, ...], where: str) -> None:
  """Refuses statistics that are not on the scale of pixels of 0 to 1.

  Raises:
    WeightsError: they are of bytes, or no standard deviations.
  """
  if min(std) <= 0:
    raise WeightsError(f'{where}: standard deviations of {std}; expected positive numbers')
  if max(mean) > 4 or max(std) > 4:
    raise WeightsError(
      f'{where}: mean {mean} and std {std} are on the scale of 0 to 255, and pixels of 0 to 1 are '
      'what they are applied to: divide both by 255'
    )


def for_channels(preprocess: 'Preprocess', channels: int, path: str) -> 'Preprocess':
  """The same preprocessing for a model of images of so many channels.

  Args:
    preprocess: of a record, or of the model's authors.
    channels: that the model's first layer takes.
    path: the weights file, for messages.

  Raises:
    WeightsError: there are no such images here.
  """
  if channels == (1 if preprocess.channels == 'grey' else 3):
    return preprocess
  if channels != 1:
    raise WeightsError(
      f'{path}: its first layer takes images of {channels} channels, and images here have 1 '
      f'(grey) or 3; the preprocessing is {preprocess.channels}'
    )
  mean, std = (sum(v) / len(v) for v in (preprocess.mean, preprocess.std))
  return dataclasses.replace(preprocess, mean=(mean,), std=(std,), channels='grey')


def in_range(preprocess: 'Preprocess', low: float, high: float) -> 'Preprocess':
  """The same preprocessing with pixels of 0 and 255 as `low` and `high`, red first.

  Raises:
    ConfigError: `high` is not above `low`.
  """
  if not high > low:
    raise ConfigError(f'input_range: expected LOW below HIGH, got {low:g},{high:g}')
  count = len(preprocess.mean)
  mean, std = (-low / (high - low),) * count, (1 / (high - low),) * count
  channels = 'grey' if preprocess.channels == 'grey' else 'rgb'
  return dataclasses.replace(preprocess, mean=mean, std=std, channels=channels)


def google(size: Size) -> 'Preprocess':
  """As Google's models are evaluated: bilinear, 256/224 of the crop, values in -1..1."""
  return data.Preprocess(_plain_crop(size).transform())


def caffe(size: Size) -> 'Preprocess':
  """Caffe's: blue first, the mean of ImageNet taken off the bytes, no division."""
  mean = (103.939 / 255, 116.779 / 255, 123.68 / 255)
  return data.Preprocess(_plain_crop(size).transform(), mean, (1 / 255,) * 3, 'bgr')


def imagenet(size: Size, crop_fraction: float = 0.875) -> 'Preprocess':
  """As most PyTorch models are evaluated: bicubic, normalised by ImageNet's statistics.

  Args:
    size: of the images.
    crop_fraction: crop / shorter side.
  """
  crop = Crop(size, 'bicubic', scaled=int(min(size) / crop_fraction))
  return data.Preprocess(crop.transform(), IMAGENET_MEAN, IMAGENET_STD)


def _plain_crop(size: Size) -> Crop:
  return Crop(size, 'bilinear', scaled=round(max(size) * 256 / 224))
