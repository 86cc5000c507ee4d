"""Opens weight files of any format: which one it is, and what else it says."""

import dataclasses
import json
import pathlib
import zipfile
from collections.abc import Mapping
from typing import Any

from vit_jax import models
from vit_jax.data import Preprocess, class_names
from vit_jax.errors import UserError, did_you_mean
from vit_jax.weights import preprocessing
from vit_jax.weights.formats import hdf5, npz, safetensors, torch_checkpoint
from vit_jax.weights.formats.tensors import Arrays, Merged, Tensors, damaged, what_is_it
from vit_jax.weights.mapping import recognise, tables

# In the order in which a folder is searched.
_WEIGHT_FILES = (
  'model.safetensors',
  'model.safetensors.index.json',
  'pytorch_model.bin',
  'pytorch_model.bin.index.json',
)
_MAX_JSON = 64 << 20


@dataclasses.dataclass
class Weights:
  """A weights file that is open: names and shapes are known, arrays are read when looked up.

  Args:
    format: one of `tables.FORMATS`.
    tensors: foreign names to arrays.
    config: options of the run that made the weights, where it was one; else 'model' alone,
      {'name': ..., field: value}, which is empty where the model was not recognised.
    classes: names of the classes in order, () where nobody says.
    preprocess: how pictures become input, or None.
    num_classes: outputs of the head, 0 without one.
    grid: (h, w) of the position embeddings, None where unknown.
  """

  format: str
  tensors: Tensors
  config: dict[str, Any] = dataclasses.field(default_factory=dict)
  classes: tuple[str, ...] = ()
  preprocess: Preprocess | None = None
  num_classes: int = 0
  grid: tuple[int, int] | None = None

  @property
  def model(self) -> dict[str, Any]:
    """{'name': ..., field: value} of the model, {} where it was not recognised."""
    return dict(self.config.get('model') or {})


def read(
  path_or_name: str | pathlib.Path,
  format: str = 'auto',
  *,
  pretrained_dir: str | pathlib.Path = '',
  cache_dir: str | pathlib.Path = '',
) -> Weights:
  """Opens weights without reading their arrays.

  Args:
    path_or_name: a file, a folder of a Hugging Face or timm model, a run's workdir, or a name of
      the zoo, which is downloaded when it is in no cache.
    format: one of `tables.FORMATS`, or 'auto' to recognise it.
    pretrained_dir: a folder that is searched for a named weights file before any download.
    cache_dir: where downloads are kept; '' for the usual place.

  Raises:
    UserError: no such file or name, or no weights in it.
  """
  if format not in ('auto', *tables.FORMATS):
    raise UserError(f'unknown format {format!r}: {did_you_mean(format, tables.FORMATS)}')
  path = pathlib.Path(path_or_name)
  if path.exists():
    return _open(path, format)
  from vit_jax.weights import hub

  if str(path_or_name) not in hub.ZOO:
    looks_like_path = path.suffix in ('.npz', '.safetensors', '.pth', '.bin', '.pt', '.h5')
    if looks_like_path or len(path.parts) > 1:
      raise UserError(f'no weights at {path}')
  name = str(path_or_name)
  entry = hub.ZOO[name]
  found = hub.fetch(name, pretrained_dir=pretrained_dir, cache_dir=cache_dir)
  return _open(found, format, entry.record(), entry.model)


def _open(
  path: pathlib.Path, format: str, known: Mapping[str, Any] = {}, hint: str = ''
) -> Weights:
  """Opens a path; `known` is used where the file says nothing, `hint` may name its model."""
  if path.is_dir():
    return _open_folder(path, format, known, hint)
  with damaged(path), open(path, 'rb') as f:
    start = f.read(16)
  tensors: Tensors
  if safetensors.is_safetensors(start):
    tensors = safetensors.Safetensors(path)
  elif start[:2] == b'PK' and zipfile.is_zipfile(path) and torch_checkpoint.is_zipped(path):
    tensors = torch_checkpoint.TorchFile(path)
  elif start[:2] == b'PK' or path.suffix == '.npz':
    tensors = npz.Npz(path)
  elif hdf5.is_hdf5(start):
    tensors = hdf5.H5(path)
  elif start[:1] == b'\x80':
    tensors = torch_checkpoint.TorchFile(path)
  else:
    raise UserError(f'{path} is no weights file that is known here: {what_is_it(path)}')
  if not tensors:
    raise UserError(f'{path} holds no arrays')
  beside = path.with_name(path.name + '.json')
  record = _json(beside) if beside.is_file() else {}
  record = record or _own_record(tensors)
  return _describe(tensors, format, {**known, **record}, f'{hint} {path.name}')


def _own_record(tensors: Tensors) -> dict[str, Any]:
  text = tensors.metadata.get('vit_jax')
  if not text:
    return {}
  with damaged(tensors.path, '__metadata__'):
    record = json.loads(text)
    return record if isinstance(record, dict) else {}


def _open_folder(path: pathlib.Path, format: str, known: Mapping[str, Any], hint: str) -> Weights:
  name = next((n for n in _WEIGHT_FILES if (path / n).is_file()), None)
  if name is None:
    return _open_run(path)
  if name.endswith('.index.json'):
    parts = sorted(set(_json(path / name).get('weight_map', {}).values()))
    if not parts or any('/' in part or part.startswith('.') for part in parts):
      raise UserError(f'{path / name} does not list the parts of the weights')
    kind = safetensors.Safetensors if 'safetensors' in name else torch_checkpoint.TorchFile
    tensors: Tensors = Merged([kind(path / part) for part in parts])
  else:
    opener = torch_checkpoint.TorchFile if name.endswith('.bin') else safetensors.Safetensors
    tensors = opener(path / name)
  record = _own_record(tensors)
  config = _json(path / 'config.json') if (path / 'config.json').is_file() else {}
  processor = path / 'preprocessor_config.json'
  extra = _json(processor) if processor.is_file() else {}
  if not record:
    record = record_of(config, extra)
  hint += f' {path.name} {config.get("architecture", "")} {config.get("model_type", "")}'
  record = {**known, **{k: v for k, v in record.items() if v}}
  return _describe(tensors, format, record, hint)


def _open_run(path: pathlib.Path) -> Weights:
  from vit_jax import checkpoint, tree

  if not checkpoint.is_run(str(path)):
    expected = ', '.join(n for n in _WEIGHT_FILES if 'index' not in n)
    raise UserError(f'{path} holds neither a run nor weights (expected one of {expected})')
  run = checkpoint.load_run(str(path))
  tensors = Arrays(tree.flatten(run.variables), path)
  head = next((s.shape[-1] for n, s in tensors.specs.items() if n == 'params/head/bias'), 0)
  preprocess = Preprocess.from_json(run.preprocess)
  return Weights(
    'vit_jax',
    tensors,
    config=run.config,
    classes=tuple(run.classes),
    preprocess=preprocess,
    num_classes=len(run.classes) or head,
    grid=_grid(run.config['model'], preprocess),
  )


def _grid(model: Mapping[str, Any], preprocess: Preprocess | None) -> tuple[int, int] | None:
  """Patches (h, w) of a model's pictures; None where it has none or nothing is known of them."""
  patch = {**models.fields(model['name']), **model}.get('patch_size') if model else None
  if patch is None or preprocess is None:
    return None
  h, w = preprocess.image_size
  return h // patch[0], w // patch[1]


def record_of(config: Mapping[str, Any], processor: Mapping[str, Any]) -> dict[str, Any]:
  """What the JSON files of a Hugging Face or timm folder say, as a record of our own.

  Args:
    config: content of config.json.
    processor: content of preprocessor_config.json.
  """
  record: dict[str, Any] = {'known': {}}
  known = record['known']
  if 'pretrained_cfg' in config:
    preprocess = preprocessing.from_timm(config['pretrained_cfg'])
    known['gelu'] = (config.get('model_args') or {}).get('act_layer', '')
    names = config.get('label_names') or config['pretrained_cfg'].get('label_names') or ()
  else:
    size = _pair(config.get('image_size'))
    preprocess = preprocessing.from_hugging_face(processor, size)
    known['gelu'] = config.get('hidden_act', '')
    if 'num_attention_heads' in config:
      known['num_heads'] = int(config['num_attention_heads'])
    if 'layer_norm_eps' in config:
      known['norm_epsilon'] = float(config['layer_norm_eps'])
    patch = _pair(config.get('patch_size'))
    if size and patch:
      known['grid'] = (size[0] // patch[0], size[1] // patch[1])
    by_id = {int(k): str(v) for k, v in (config.get('id2label') or {}).items()}
    names = [by_id[i] for i in sorted(by_id)]
    if all(name == f'LABEL_{i}' for i, name in enumerate(names)):
      names = ()  # what transformers writes where nobody named the classes
  gelus = {'gelu': 'exact', 'gelu_tanh': 'tanh', 'gelu_pytorch_tanh': 'tanh', 'gelu_new': 'tanh'}
  known['gelu'] = gelus.get(known['gelu'], 'exact')
  record['classes'] = list(names)
  record['preprocess'] = preprocess.to_json() if preprocess else None
  return record


def _pair(size: Any) -> tuple[int, int] | None:
  if isinstance(size, int):
    return size, size
  if isinstance(size, list | tuple) and len(size) == 2:
    return int(size[0]), int(size[1])
  return None


def _describe(tensors: Tensors, format: str, record: Mapping[str, Any], hint: str) -> Weights:
  """Puts together what the tensors show and what the records beside them say."""
  if format == 'auto':
    format = record.get('format') or recognise.format_of(list(tensors))
  try:
    preprocess = Preprocess.from_json(record['preprocess']) if record.get('preprocess') else None
  except (UserError, TypeError, ValueError) as e:
    raise UserError(f'{tensors.path}: its preprocessing record is broken: {e}') from e
  weights = Weights(format, tensors, classes=tuple(record.get('classes') or ()))
  weights.preprocess = preprocess
  if 'config' in record:  # our own: it says everything
    weights.config = dict(record['config'])
    weights.num_classes = int(record.get('num_classes', 0))
    weights.grid = _pair(record.get('grid')) or _grid(weights.model, preprocess)
    return weights
  if format == 'vit_jax':
    return weights
  try:
    found = recognise.model_of(tensors, format, hint, record.get('known'))
  except UserError:
    return weights  # a model that is given by name may fit all the same
  weights.config = {'model': found['model']}
  weights.num_classes, weights.grid = found['num_classes'], found['grid']
  if not weights.classes:
    weights.classes = class_names.by_count(weights.num_classes)
  if weights.preprocess is None:
    weights.preprocess = _usual(weights)
  return weights


def _usual(weights: Weights) -> Preprocess:
  """The preprocessing of weights that state none: that of their authors."""
  name = weights.model['name']
  size = (224, 224)
  if weights.grid:
    patch = weights.model.get('patch_size') or models.fields(name).get('patch_size', (16, 16))
    size = (weights.grid[0] * patch[0], weights.grid[1] * patch[1])
  return preprocessing.usual(name, weights.format, size)


def _json(path: pathlib.Path) -> dict[str, Any]:
  with damaged(path):
    if path.stat().st_size > _MAX_JSON:
      raise UserError(f'{path} is too large to be a config')
    content = json.loads(path.read_text())
    if not isinstance(content, dict):
      raise UserError(f'{path} should hold a JSON object')
    return content
