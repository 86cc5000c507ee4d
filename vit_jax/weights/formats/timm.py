"""'timm': state dicts of timm, torchvision and most papers' code, and timm's model folders."""

import pathlib
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

from vit_jax import data
from vit_jax.weights import preprocessing
from vit_jax.weights.containers.checks import read_json
from vit_jax.weights.formats.base import Export, Format, gelu_of, register
from vit_jax.weights.preprocessing import INTERPOLATIONS, Crop
from vit_jax.weights.record import Record

if TYPE_CHECKING:
  from vit_jax.data.preprocess import Preprocess


@register
class Timm(Format):
  """Names with dots; a target that ends in .safetensors is one file, another one a folder."""

  name = naming = 'timm'
  container = 'safetensors'
  fallback = True

  def recognises(self, names: Collection[str]) -> bool:
    return not any('/' in name for name in names)

  def folder_record(self, folder: pathlib.Path) -> Record | None:
    return record_of(read_json(folder / 'config.json'))

  def notes(self, module) -> list[str]:
    if getattr(module, 'gelu', 'exact') == 'exact':
      return []
    return ["build it in timm with act_layer='gelu_tanh', as config.json states"]

  def write(self, target: pathlib.Path, export: Export) -> list[pathlib.Path]:
    if target.suffix == '.safetensors':
      return super().write(target, export)
    return self.write_folder(target, export, {'config.json': _config(export)})


def record_of(config: Mapping[str, Any]) -> Record | None:
  """What a config.json states; None where it is not timm's."""
  if 'pretrained_cfg' not in config:
    return None
  pretrained = config['pretrained_cfg']
  gelu = (config.get('model_args') or {}).get('act_layer', '')
  return Record(
    classes=tuple(config.get('label_names') or pretrained.get('label_names') or ()),
    preprocess=read_preprocess(pretrained),
    known={'gelu': gelu_of(gelu)},
    hint=f'{config.get("architecture", "")} {config.get("model_type", "")}',
  )


def _config(export: Export) -> dict[str, Any]:
  from vit_jax.weights.mapping.family import family_of

  name, arguments = family_of(export.module).timm_architecture(
    export.module, export.model_name, export.image_size
  )
  record = write_preprocess(export.preprocess)
  names, count = export.record.classes, export.record.num_classes
  return {
    'architecture': name,
    'num_classes': count,
    'model_args': arguments,
    'pretrained_cfg': {**record, 'num_classes': count},
    **({'label_names': list(names)} if names else {}),
  }


def read_preprocess(pretrained_cfg: Mapping[str, Any]) -> 'Preprocess | None':
  """From a timm `pretrained_cfg`; None where it states nothing about images."""
  if 'input_size' not in pretrained_cfg:
    return None
  _, h, w = pretrained_cfg['input_size']
  fraction = float(pretrained_cfg.get('crop_pct') or 0.875)
  interpolation = pretrained_cfg.get('interpolation') or 'bicubic'
  if interpolation not in INTERPOLATIONS.values():
    interpolation = 'bicubic'  # 'random' is for training
  scaled: int | tuple[int, int] = int(min(h, w) / fraction)
  if pretrained_cfg.get('crop_mode') == 'squash':
    scaled = int(h / fraction), int(w / fraction)
  return data.Preprocess(
    Crop((h, w), interpolation, scaled).transform(),
    tuple(pretrained_cfg.get('mean') or preprocessing.IMAGENET_MEAN),
    tuple(pretrained_cfg.get('std') or preprocessing.IMAGENET_STD),
  )


def write_preprocess(preprocess: 'Preprocess') -> dict[str, Any]:
  """Fields of a timm `pretrained_cfg`.

  Raises:
    WeightsError: a transformation that timm's record cannot describe.
  """
  crop = preprocessing.rgb_crop_of(preprocess, 'timm')
  record: dict[str, Any] = {
    'input_size': [3, *crop.size],
    'fixed_input_size': True,
    'interpolation': crop.interpolation,
    'mean': list(preprocess.mean),
    'std': list(preprocess.std),
  }
  if isinstance(crop.scaled, int):
    fraction = _fraction(min(crop.size), crop.scaled)
    return {**record, 'crop_pct': fraction, 'crop_mode': 'center'}
  return {**record, 'crop_pct': crop.size[0] / crop.scaled[0], 'crop_mode': 'squash'}


def _fraction(crop: int, shorter: int) -> float:
  """crop / shorter side to so many digits that int(crop / fraction) is that side again."""
  for digits in range(3, 12):
    fraction = round(crop / shorter, digits)
    if int(crop / fraction) == shorter:
      return fraction
  return crop / (shorter + 0.5)
