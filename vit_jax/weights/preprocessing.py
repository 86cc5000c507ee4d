"""Preprocessing records of timm and Hugging Face, read and written."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from vit_jax.data import Preprocess, parse_transform
from vit_jax.errors import UserError

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
_RESAMPLE = {0: 'nearest', 1: 'lanczos', 2: 'bilinear', 3: 'bicubic'}  # Pillow's numbers


def spec(
  crop: tuple[int, int], method: str, resize: int | None = None, squash: tuple | None = None
) -> str:
  """A transformation string: scale the smaller side, or squash to a size, then cut the middle out.

  Args:
    crop: (h, w) that comes out.
    method: 'bilinear' or 'bicubic'.
    resize: length of the smaller side; None for 256/224 of the crop.
    squash: (h, w) to scale to whatever the shape was, instead.
  """
  if squash is not None:
    first = f'resize({squash[0]}, {squash[1]}, {method})'
    second = '' if tuple(squash) == tuple(crop) else f'|central_crop({crop[0]}, {crop[1]})'
  else:
    resize = resize or round(max(crop) * 256 / 224)
    first, second = f'resize_small({resize}, {method})', f'|central_crop({crop[0]}, {crop[1]})'
  return str(parse_transform(f'decode|{first}{second}', train=False))


def usual(model: str, format: str, size: tuple[int, int]) -> Preprocess:
  """How the authors of a family evaluated it, for weights that do not say it themselves.

  Args:
    model: of `vit_jax.models`.
    format: one of `tables.FORMATS`.
    size: (h, w) of the pictures.
  """
  if format == 'keras' and model.startswith('resnet'):
    # Caffe's: blue first, the mean of ImageNet taken off the bytes, no division.
    mean = (103.939 / 255, 116.779 / 255, 123.68 / 255)
    return Preprocess(spec(size, 'bilinear'), mean, (1 / 255,) * 3, 'bgr')
  if format == 'keras' or model.startswith(('vit', 'r_', 'r26', 'r50', 'mixer', 'bit')):
    return Preprocess(spec(size, 'bilinear'))
  fraction = 0.875
  if model.startswith('cait') or (model.startswith(('deit', 't2t')) and max(size) > 224):
    fraction = 1.0
  elif model.startswith('t2t'):
    fraction = 0.9
  small = int(min(size) / fraction)
  return Preprocess(spec(size, 'bicubic', small), IMAGENET_MEAN, IMAGENET_STD)


def at_size(preprocess: Preprocess, image_size: tuple[int, int]) -> Preprocess:
  """The same preprocessing for pictures of another size."""
  if preprocess.image_size == tuple(image_size):
    return preprocess
  crop, method, resize, squash = _parts(preprocess)
  scale = max(image_size) / max(crop)
  if squash is not None:
    squash = tuple(round(s * n / c) for s, n, c in zip(squash, image_size, crop))
  resize = round(resize * scale) if resize else None
  return dataclasses.replace(preprocess, transform=spec(image_size, method, resize, squash))


def from_timm(cfg: Mapping[str, Any]) -> Preprocess | None:
  """From a timm `pretrained_cfg`; None where it says nothing of pictures."""
  if 'input_size' not in cfg:
    return None
  _, h, w = cfg['input_size']
  part = float(cfg.get('crop_pct') or 0.875)
  method = cfg.get('interpolation') or 'bicubic'
  method = method if method in _RESAMPLE.values() else 'bicubic'  # 'random' is for training
  squash = (int(h / part), int(w / part)) if cfg.get('crop_mode') == 'squash' else None
  return Preprocess(
    spec((h, w), method, int(min(h, w) / part), squash),
    tuple(cfg.get('mean') or IMAGENET_MEAN),
    tuple(cfg.get('std') or IMAGENET_STD),
  )


def to_timm(preprocess: Preprocess) -> dict[str, Any]:
  """Fields of a timm `pretrained_cfg`.

  Raises:
    UserError: a transformation that timm's record cannot say.
  """
  _check_rgb(preprocess, 'timm')
  crop, method, resize, squash = _parts(preprocess)
  record: dict[str, Any] = {
    'input_size': [3, *crop],
    'fixed_input_size': True,
    'interpolation': method,
    'mean': list(preprocess.mean),
    'std': list(preprocess.std),
  }
  if squash:
    return {**record, 'crop_pct': crop[0] / squash[0], 'crop_mode': 'squash'}
  return {**record, 'crop_pct': _fraction(min(crop), resize), 'crop_mode': 'center'}


def _fraction(crop: int, resize: int) -> float:
  """crop / resize to so many digits that int(crop / fraction) is `resize` again."""
  for digits in range(3, 12):
    fraction = round(crop / resize, digits)
    if int(crop / fraction) == resize:
      return fraction
  return crop / (resize + 0.5)


def from_hugging_face(
  record: Mapping[str, Any], image_size: tuple[int, int] | None
) -> Preprocess | None:
  """From a `preprocessor_config.json`.

  Args:
    record: its content.
    image_size: of the model's config, where the record does not resize.
  """
  if not any(k in record for k in ('size', 'image_mean', 'do_resize')):
    return None
  method = _RESAMPLE.get(record.get('resample', 2), 'bilinear')
  size = _hf_size(record.get('size')) or {'hw': image_size or (224, 224)}
  crop = _hf_size(record.get('crop_size')) if record.get('do_center_crop') else None
  resize, squash = size.get('side'), size.get('hw')
  crop_hw = (crop or {}).get('hw') or ((crop['side'],) * 2 if crop else None)
  if crop_hw is None:
    crop_hw = squash or (resize, resize)
  if not record.get('do_resize', True):
    resize, squash = None, crop_hw
  plain = record.get('do_normalize') is False
  mean = (0.0, 0.0, 0.0) if plain else tuple(record.get('image_mean') or (0.5, 0.5, 0.5))
  std = (1.0, 1.0, 1.0) if plain else tuple(record.get('image_std') or (0.5, 0.5, 0.5))
  return Preprocess(spec(crop_hw, method, resize, squash), mean, std)


def _hf_size(size: Any) -> dict[str, Any] | None:
  if size is None:
    return None
  if isinstance(size, int):
    return {'hw': (size, size)}
  if 'shortest_edge' in size:
    return {'side': int(size['shortest_edge'])}
  return {'hw': (int(size['height']), int(size['width']))}


def to_hugging_face(preprocess: Preprocess) -> dict[str, Any]:
  """The content of a `preprocessor_config.json`.

  Raises:
    UserError: a transformation that this record cannot say.
  """
  _check_rgb(preprocess, 'hf')
  crop, method, resize, squash = _parts(preprocess)
  numbers = {name: number for number, name in _RESAMPLE.items()}
  record = {
    'do_resize': True,
    'resample': numbers[method],
    'do_rescale': True,
    'rescale_factor': 1 / 255,
    'do_normalize': True,
    'image_mean': list(preprocess.mean),
    'image_std': list(preprocess.std),
  }
  if squash == crop:
    size = {'height': crop[0], 'width': crop[1]}
    return {**record, 'image_processor_type': 'ViTImageProcessor', 'size': size}
  size = {'shortest_edge': resize}
  if squash:
    size = {'height': squash[0], 'width': squash[1]}
  return {
    **record,
    'image_processor_type': 'DeiTImageProcessor' if squash else 'BitImageProcessor',
    'size': size,
    'do_center_crop': True,
    'crop_size': {'height': crop[0], 'width': crop[1]},
  }


def _parts(preprocess: Preprocess) -> tuple[tuple[int, int], str, int | None, tuple | None]:
  """Crop, method, smaller side and squashed size of a transformation made of these alone."""
  ops = parse_transform(preprocess.transform, train=False).ops
  names = [type(op).__name__ for op in ops if type(op).__name__ != 'Decode']
  found = {type(op).__name__: op for op in ops}
  if names not in (
    ['ResizeSmall', 'CentralCrop'],
    ['Resize', 'CentralCrop'],
    ['Resize'],
  ):
    raise UserError(
      f'expected a preprocessing of resize or resize_small, then central_crop, got '
      f'{preprocess.transform!r}'
    )
  if 'Resize' in found:
    squash = found['Resize'].size
    crop = found['CentralCrop'].size if 'CentralCrop' in found else squash
    return crop, found['Resize'].method, None, squash
  small = found['ResizeSmall']
  return found['CentralCrop'].size, small.method, small.size, None


def _check_rgb(preprocess: Preprocess, format: str) -> None:
  if preprocess.channels != 'rgb':
    raise UserError(f'the {format} format records rgb pictures alone, not {preprocess.channels}')
