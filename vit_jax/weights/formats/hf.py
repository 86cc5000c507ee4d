"""'hf': folders of Hugging Face's ViT and DeiT classes."""

import pathlib
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

from vit_jax import data
from vit_jax.weights import preprocessing
from vit_jax.weights.containers.checks import read_json
from vit_jax.weights.formats.base import Export, Format, gelu_of, register
from vit_jax.weights.preprocessing import INTERPOLATIONS, Crop
from vit_jax.weights.record import Record, pair

if TYPE_CHECKING:
  from vit_jax.data.preprocess import Preprocess


@register
class HuggingFace(Format):
  """A folder with config.json, preprocessor_config.json and model.safetensors."""

  name = naming = 'hf'
  container = 'safetensors'

  def recognises(self, names: Collection[str]) -> bool:
    return any('embeddings.patch_embeddings' in name for name in names)

  def folder_record(self, folder: pathlib.Path) -> Record | None:
    config = read_json(folder / 'config.json')
    if 'pretrained_cfg' in config:  # timm's
      return None
    return record_of(config, read_json(folder / 'preprocessor_config.json'))

  def write(self, target: pathlib.Path, export: Export) -> list[pathlib.Path]:
    configs = {
      'config.json': _config(export),
      'preprocessor_config.json': write_preprocess(export.preprocess),
    }
    return self.write_folder(target, export, configs)


def record_of(config: Mapping[str, Any], processor: Mapping[str, Any]) -> Record:
  """What the JSON files of a folder state.

  Args:
    config: content of config.json.
    processor: content of preprocessor_config.json.
  """
  known: dict[str, Any] = {'gelu': gelu_of(config.get('hidden_act', ''))}
  if 'num_attention_heads' in config:
    known['num_heads'] = int(config['num_attention_heads'])
  if 'layer_norm_eps' in config:
    known['norm_epsilon'] = float(config['layer_norm_eps'])
  size, patch = pair(config.get('image_size')), pair(config.get('patch_size'))
  if size and patch:
    known['grid'] = (size[0] // patch[0], size[1] // patch[1])
  by_id = {int(k): str(v) for k, v in (config.get('id2label') or {}).items()}
  names = tuple(by_id[i] for i in sorted(by_id))
  if all(name == f'LABEL_{i}' for i, name in enumerate(names)):
    names = ()  # what transformers writes where the classes have no names
  return Record(
    classes=names,
    preprocess=read_preprocess(processor, size),
    known=known,
    hint=f'{config.get("architecture", "")} {config.get("model_type", "")}',
  )


def _config(export: Export) -> dict[str, Any]:
  """config.json: what the family says of the architecture, then what any classifier has."""
  from vit_jax.weights.mapping.family import family_of

  record = export.record
  channels = 1 if export.preprocess.channels == 'grey' else 3
  names = record.classes or tuple(f'LABEL_{i}' for i in range(record.num_classes))
  return {
    **family_of(export.module).hf_config(export.module, export.image_size, channels),
    'id2label': {str(i): name for i, name in enumerate(names)},
    'label2id': {name: i for i, name in enumerate(names)},
    'torch_dtype': 'float32',
  }


def read_preprocess(
  processor: Mapping[str, Any], image_size: tuple[int, int] | None
) -> 'Preprocess | None':
  """From a `preprocessor_config.json`; None where it states nothing about images.

  Args:
    processor: its content.
    image_size: of the model's config, where the processor states no size.
  """
  if not any(k in processor for k in ('size', 'image_mean', 'do_resize')):
    return None
  size = _shorter_or_size(processor.get('size')) or image_size or (224, 224)
  crop_size = _shorter_or_size(processor.get('crop_size'))
  if not processor.get('do_center_crop') or crop_size is None:
    crop_size = size
  crop_hw = (crop_size, crop_size) if isinstance(crop_size, int) else crop_size
  if not processor.get('do_resize', True):
    size = crop_hw
  interpolation = INTERPOLATIONS.get(processor.get('resample', 2), 'bilinear')
  crop = Crop(crop_hw, interpolation, scaled=size)
  raw = processor.get('do_normalize') is False
  mean = (0.0, 0.0, 0.0) if raw else tuple(processor.get('image_mean') or (0.5, 0.5, 0.5))
  std = (1.0, 1.0, 1.0) if raw else tuple(processor.get('image_std') or (0.5, 0.5, 0.5))
  return data.Preprocess(crop.transform(), mean, std)


def _shorter_or_size(size: Any) -> int | tuple[int, int] | None:
  """A size of the processor: length of the shorter side, or (h, w)."""
  if size is None:
    return None
  if isinstance(size, int):
    return size, size
  if 'shortest_edge' in size:
    return int(size['shortest_edge'])
  return int(size['height']), int(size['width'])


def write_preprocess(preprocess: 'Preprocess') -> dict[str, Any]:
  """The content of a `preprocessor_config.json`.

  Raises:
    WeightsError: a transformation that this record cannot describe.
  """
  crop = preprocessing.rgb_crop_of(preprocess, 'hf')
  numbers = {name: number for number, name in INTERPOLATIONS.items()}
  record = {
    'do_resize': True,
    'resample': numbers[crop.interpolation],
    'do_rescale': True,
    'rescale_factor': 1 / 255,
    'do_normalize': True,
    'image_mean': list(preprocess.mean),
    'image_std': list(preprocess.std),
  }
  if crop.scaled == crop.size:
    return {**record, 'image_processor_type': 'ViTImageProcessor', 'size': _size(crop.size)}
  shorter = isinstance(crop.scaled, int)
  return {
    **record,
    'image_processor_type': 'BitImageProcessor' if shorter else 'DeiTImageProcessor',
    'size': _size(crop.scaled),
    'do_center_crop': True,
    'crop_size': _size(crop.size),
  }


def _size(size: int | tuple[int, int]) -> dict[str, int]:
  if isinstance(size, int):
    return {'shortest_edge': size}
  return {'height': size[0], 'width': size[1]}
