"""'hf': folders of Hugging Face's ViT and DeiT classes."""

import logging
import math
import pathlib
import re
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

from vit_jax import data
from vit_jax.errors import ConfigError, WeightsError, dimensions
from vit_jax.weights import preprocessing
from vit_jax.weights.containers.checks import read_json
from vit_jax.weights.formats.base import Export, Format, gelu_of, register
from vit_jax.weights.preprocessing import INTERPOLATIONS, Crop
from vit_jax.weights.record import Record, pair

if TYPE_CHECKING:
  import numpy as np

  from vit_jax.data.preprocess import Preprocess
  from vit_jax.weights.containers.tensors import Tensors

log = logging.getLogger(__name__)


@register
class HuggingFace(Format):
  """A folder with config.json, preprocessor_config.json and model.safetensors."""

  name = naming = 'hf'
  container = 'safetensors'
  writes_file = False
  folder_files = ('config.json', 'preprocessor_config.json')

  def recognises(self, names: Collection[str]) -> bool:
    return any(re.search(r'embeddings[./]patch_embeddings', name) for name in names)

  def canonical(self, tensors: 'Tensors') -> 'Tensors':
    return torch_names(tensors) if any('/' in name for name in tensors) else tensors

  def folder_record(self, folder: pathlib.Path) -> Record | None:
    config = read_json(folder / 'config.json')
    processor = read_json(folder / 'preprocessor_config.json')
    if 'pretrained_cfg' in config or not (config or processor):  # timm's, or nobody's
      return None
    return record_of(config, processor, str(folder))

  def write(self, target: pathlib.Path, export: Export) -> list[pathlib.Path]:
    configs = {
      'config.json': _config(export),
      'preprocessor_config.json': write_preprocess(export.preprocess),
    }
    return self.write_folder(target, export, configs)


def torch_names(tensors: 'Tensors') -> 'Tensors':
  """The tensors of a tf_model.h5 under the names, and with the axes, of PyTorch's files.

  TensorFlow's names repeat the layers and the class of the model in front:
  'vit/tf_vi_t_model/vit/encoder/layer_._0/output/dense/kernel:0'.
  """
  import numpy as np

  from vit_jax.weights.containers.tensors import Derived, Spec

  made = {}
  for old in tensors:
    parts = old.split(':')[0].split('/')
    while len(parts) > 2 and (parts[0] in parts[1:] or parts[0].startswith('tf_')):
      parts = parts[1:]
    name = re.sub(r'_\._', '.', '.'.join(parts))
    spec = tensors.specs[old]
    axes = tuple(range(len(spec.shape)))
    if name.endswith('.kernel') and len(axes) in (2, 4):
      axes = (1, 0) if len(axes) == 2 else (3, 2, 0, 1)
    name = re.sub(r'\.(kernel|gamma)$', '.weight', name)
    name = re.sub(r'\.beta$', '.bias', name)

    def read(old: str = old, axes: tuple[int, ...] = axes) -> 'np.ndarray':
      return np.transpose(tensors[old], axes)

    made[name] = Spec(tuple(spec.shape[a] for a in axes), spec.dtype), read
  return Derived(tensors, made)


def record_of(
  config: Mapping[str, Any], processor: Mapping[str, Any], where: str = 'the folder'
) -> Record:
  """What the JSON files of a folder state.

  Args:
    config: content of config.json.
    processor: content of preprocessor_config.json.
    where: the folder, for messages.

  Raises:
    WeightsError: they state what no model or preprocessing here is.
  """
  path = f'{where}/config.json'
  known: dict[str, Any] = {'gelu': gelu_of(config.get('hidden_act') or '', f'{path}: hidden_act')}
  if 'num_attention_heads' in config:
    known['num_heads'] = int(config['num_attention_heads'])
  known['norm_epsilon'] = float(
    config.get('layer_norm_eps', 1e-6 if config.get('model_type') == 'dinov2' else 1e-12)
  )
  size, patch = pair(config.get('image_size')), pair(config.get('patch_size'))
  if size and patch:
    known['grid'] = (size[0] // patch[0], size[1] // patch[1])
  several = config.get('problem_type') == 'multi_label_classification'
  return Record(
    classes=_labels(config, path),
    preprocess=read_preprocess(processor, size, f'{where}/preprocessor_config.json'),
    known=known,
    task={'name': 'classify', 'loss': 'sigmoid'} if several else {},
    hint=f'{config.get("architecture", "")} {config.get("model_type", "")}',
  )


def _labels(config: Mapping[str, Any], path: str) -> tuple[str, ...]:
  """Class names in order; () where there are none, or with a warning where their form is odd."""
  from vit_jax.data import class_names

  for field in ('id2label', 'label2id'):
    if not config.get(field):
      continue
    try:
      names = class_names.in_order(config[field])
    except ConfigError as e:
      log.warning('%s: %s is left out (%s); give names with --classes=FILE', path, field, e)
      return ()
    # What transformers writes where the classes have no names.
    return () if all(name == f'LABEL_{i}' for i, name in enumerate(names)) else names
  return ()


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
  processor: Mapping[str, Any],
  image_size: tuple[int, int] | None,
  path: str = 'preprocessor_config.json',
) -> 'Preprocess | None':
  """From a `preprocessor_config.json`; None where it states nothing about images.

  Args:
    processor: its content.
    image_size: of the model's config, where the processor states no size.
    path: the file, for messages.

  Raises:
    WeightsError: naming the field that is wrong or has no counterpart here.
  """
  if not any(k in processor for k in ('size', 'image_mean', 'do_resize')):
    return None
  mean, std = _statistics(processor, path)
  return data.Preprocess(_crop(processor, image_size, path).transform(), mean, std)


def _crop(processor: Mapping[str, Any], image_size: tuple[int, int] | None, path: str) -> Crop:
  size = _shorter_or_size(processor.get('size'), f'{path}: size') or image_size or (224, 224)
  crop_size = _shorter_or_size(processor.get('crop_size'), f'{path}: crop_size')
  kind = str(processor.get('image_processor_type') or processor.get('feature_extractor_type'))
  fraction = processor.get('crop_pct')
  if isinstance(size, int) and fraction and size < 384:  # ConvNeXt's
    crop_size, size = size, int(size / float(fraction))
  elif not processor.get('do_center_crop') or crop_size is None:
    crop_size = size
  crop_hw = (crop_size, crop_size) if isinstance(crop_size, int) else crop_size
  if not processor.get('do_resize', True):
    log.warning(
      '%s: do_resize is false: images are brought to %s all the same, as the model needs them',
      path, dimensions(crop_hw),
    )  # fmt: skip
    size = crop_hw
  usual = 2 if kind.startswith(('ViT', 'None')) else 3
  return Crop(crop_hw, _interpolation(processor.get('resample', usual), path), scaled=size)


def _interpolation(resample: Any, path: str) -> str:
  """A filter by Pillow's number or name."""
  named = isinstance(resample, str)
  name = resample.split('.')[-1].lower() if named else INTERPOLATIONS.get(resample, '')
  if name not in INTERPOLATIONS.values():
    valid = ', '.join(f'{number} ({word})' for number, word in INTERPOLATIONS.items())
    raise WeightsError(f'{path}: resample is {resample!r}; expected one of {valid}')
  return name


def _statistics(
  processor: Mapping[str, Any], path: str
) -> tuple[tuple[float, ...], tuple[float, ...]]:
  """Mean and standard deviation on the scale of 0 to 1, whatever pixels are multiplied by."""
  mean = preprocessing.channel_values(processor.get('image_mean'), f'{path}: image_mean')
  std = preprocessing.channel_values(processor.get('image_std'), f'{path}: image_std')
  mean, std = mean or (0.5,) * 3, std or (0.5,) * 3
  if processor.get('do_normalize') is False:
    mean, std = (0.0,) * 3, (1.0,) * 3
  factor = processor.get('rescale_factor', 1 / 255)
  factor = 1.0 if processor.get('do_rescale') is False else factor
  if not isinstance(factor, int | float) or not factor > 0:
    raise WeightsError(f'{path}: rescale_factor is {factor!r}; expected a positive number')
  offset = 1.0 if processor.get('rescale_offset') else 0.0
  scale = 1.0 if math.isclose(255 * factor, 1, rel_tol=1e-3) else 255 * factor
  mean = tuple((m + offset) / scale for m in mean)
  std = tuple(s / scale for s in std)
  preprocessing.check_scale(mean, std, path)
  return mean, std


def _shorter_or_size(size: Any, where: str) -> int | tuple[int, int] | None:
  """A size of the processor: length of the shorter side, or (h, w)."""
  if size is None:
    return None
  found: Any = None
  if isinstance(size, int):
    found = size, size
  elif isinstance(size, list | tuple) and len(size) == 2 and size[0] == size[1]:
    found = tuple(size)
  elif isinstance(size, dict) and set(size) == {'shortest_edge'}:
    found = size['shortest_edge']
  elif isinstance(size, dict) and set(size) == {'height', 'width'}:
    found = size['height'], size['width']
  numbers = found if isinstance(found, tuple) else (found,)
  if isinstance(size, bool) or not all(type(n) is int and n > 0 for n in numbers):
    raise WeightsError(
      f"{where} is {size!r}; expected a number of pixels, {{'height': H, 'width': W}} or "
      "{'shortest_edge': N}"
    )
  return found


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
