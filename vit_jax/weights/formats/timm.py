"""'timm': state dicts of timm, torchvision and most papers' code, and timm's model folders."""

import logging
import pathlib
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

from vit_jax import data
from vit_jax.errors import ConfigError, WeightsError
from vit_jax.weights import preprocessing
from vit_jax.weights.containers.checks import read_json
from vit_jax.weights.formats.base import Export, Format, gelu_of, register
from vit_jax.weights.preprocessing import INTERPOLATIONS, Crop
from vit_jax.weights.record import Record, pair

if TYPE_CHECKING:
  from vit_jax.data.preprocess import Preprocess

log = logging.getLogger(__name__)


@register
class Timm(Format):
  """Names with dots; a target that ends in .safetensors is one file, another one a folder."""

  name = naming = 'timm'
  container = 'safetensors'
  container_ending = '.safetensors'
  folder_files = ('config.json',)
  fallback = True

  def recognises(self, names: Collection[str]) -> bool:
    return not any('/' in name for name in names)

  def folder_record(self, folder: pathlib.Path) -> Record | None:
    return record_of(read_json(folder / 'config.json'), str(folder / 'config.json'))

  def notes(self, target: pathlib.Path, export: Export) -> list[str]:
    if self.is_folder(str(target)):
      if getattr(export.module, 'gelu', 'exact') == 'exact':
        return []
      return ["build it in timm with act_layer='gelu_tanh', as config.json states"]
    try:
      name, arguments = _architecture(export)
    except WeightsError:  # timm has no such model
      return []
    words = {**arguments, 'num_classes': export.record.num_classes, 'checkpoint_path': str(target)}
    call = ', '.join([repr(name), *(f'{key}={value!r}' for key, value in words.items())])
    return [f'timm.create_model({call}); a folder as TARGET would also hold the preprocessing']

  def write(self, target: pathlib.Path, export: Export) -> list[pathlib.Path]:
    if not self.is_folder(str(target)):
      return super().write(target, export)
    return self.write_folder(target, export, {'config.json': _config(export)})


def record_of(config: Mapping[str, Any], path: str = 'config.json') -> Record | None:
  """What a config.json states; None where it is not timm's.

  Args:
    config: its content.
    path: the file, for messages.

  Raises:
    WeightsError: it states what no model or preprocessing here is.
  """
  if 'pretrained_cfg' not in config:
    return None
  pretrained = config['pretrained_cfg']
  arguments = config.get('model_args') or {}
  architecture = str(config.get('architecture') or '')
  gelu = str(arguments.get('act_layer') or '')
  if 'quickgelu' in architecture:
    gelu = gelu or 'quick_gelu'
  known: dict[str, Any] = {'gelu': gelu_of(gelu, f'{path}: act_layer')}
  if 'num_heads' in arguments:
    known['num_heads'] = int(arguments['num_heads'])
  if pool := arguments.get('global_pool') or config.get('global_pool'):
    known['global_pool'] = str(pool)
  preprocess = read_preprocess(pretrained, path)
  size = pair(arguments.get('img_size')) or (preprocess.image_size if preprocess else None)
  if size:
    known['image_size'] = size
  return Record(
    classes=_labels(config, pretrained, path),
    preprocess=preprocess,
    known=known,
    hint=f'{architecture} {config.get("model_type", "")}',
  )


def _labels(config: Mapping[str, Any], pretrained: Mapping[str, Any], path: str) -> tuple[str, ...]:
  """Class names in order; () where there are none, or with a warning where their form is odd."""
  from vit_jax.data import class_names

  labels = config.get('label_names') or pretrained.get('label_names')
  try:
    return class_names.in_order(labels) if labels else ()
  except ConfigError as e:
    log.warning('%s: label_names is left out (%s); give names with --classes=FILE', path, e)
    return ()


def _architecture(export: Export) -> tuple[str, dict[str, Any]]:
  """timm's name and arguments; raises a `WeightsError` where it has no such model."""
  from vit_jax.weights.mapping.family import family_of

  return family_of(export.module).timm_architecture(
    export.module, export.model_name, export.image_size
  )


def _config(export: Export) -> dict[str, Any]:
  name, arguments = _architecture(export)
  record = write_preprocess(export.preprocess)
  names, count = export.record.classes, export.record.num_classes
  return {
    'architecture': name,
    'num_classes': count,
    'model_args': arguments,
    'pretrained_cfg': {**record, 'num_classes': count},
    **({'label_names': list(names)} if names else {}),
  }


def read_preprocess(
  pretrained_cfg: Mapping[str, Any], path: str = 'config.json'
) -> 'Preprocess | None':
  """From a timm `pretrained_cfg`; None where it states nothing about images.

  Args:
    pretrained_cfg: its content.
    path: the file, for messages.

  Raises:
    WeightsError: naming the field that is wrong.
  """
  if 'input_size' not in pretrained_cfg:
    return None
  size = pretrained_cfg['input_size']
  if not isinstance(size, list | tuple) or len(size) != 3 or not all(type(n) is int for n in size):
    raise WeightsError(f'{path}: input_size is {size!r}; expected [channels, height, width]')
  _, h, w = size
  fraction = float(pretrained_cfg.get('crop_pct') or 0.875)
  interpolation = pretrained_cfg.get('interpolation') or 'bicubic'
  if interpolation == 'random':  # for training
    interpolation = 'bicubic'
  if interpolation not in INTERPOLATIONS.values():
    valid = ', '.join(INTERPOLATIONS.values())
    raise WeightsError(f'{path}: interpolation is {interpolation!r}; expected one of {valid}')
  scaled: int | tuple[int, int] = int(min(h, w) / fraction)
  if pretrained_cfg.get('crop_mode') == 'squash':
    scaled = int(h / fraction), int(w / fraction)
  mean = preprocessing.channel_values(pretrained_cfg.get('mean'), f'{path}: mean')
  std = preprocessing.channel_values(pretrained_cfg.get('std'), f'{path}: std')
  mean, std = mean or preprocessing.IMAGENET_MEAN, std or preprocessing.IMAGENET_STD
  preprocessing.check_scale(mean, std, path)
  channels = 'grey' if size[0] == 1 else 'rgb'
  return data.Preprocess(Crop((h, w), interpolation, scaled).transform(), mean, std, channels)


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
