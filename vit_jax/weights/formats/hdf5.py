"""Keras weights: `.h5` files of keras.applications and `.weights.h5` of Keras 3."""

import pathlib
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from vit_jax.errors import UserError
from vit_jax.weights.formats.tensors import Spec, Tensors, damaged

_MAGIC = b'\x89HDF\r\n\x1a\n'
_NORM = ('gamma', 'beta', 'moving_mean', 'moving_variance')


def is_hdf5(start: bytes) -> bool:
  """Whether a file beginning with these bytes is HDF5."""
  return start.startswith(_MAGIC)


def _h5py() -> Any:
  try:
    import h5py
  except ImportError as e:
    raise UserError("Keras weights need h5py: pip install 'vit_jax[keras]'") from e
  return h5py


class H5(Tensors):
  """A Keras weights file; tensors are named LAYER/WEIGHT, such as 'conv1_conv/kernel'.

  Args:
    path: the file.
  """

  def __init__(self, path: str | pathlib.Path):
    path = pathlib.Path(path)
    h5py = _h5py()
    self._places: dict[str, str] = {}
    with damaged(path), h5py.File(path, 'r') as f:
      if 'layers' in f or '_layer_checkpoint_dependencies' in f:
        found = _keras3(f)
      else:
        found = _legacy(h5py, f.get('model_weights', f))
      specs = {}
      for name, dataset in found:
        if name in specs:
          raise UserError(f'{path} holds {name!r} twice')
        specs[name] = Spec(tuple(dataset.shape), str(dataset.dtype))
        self._places[name] = dataset.name
    super().__init__(path, specs)

  def _read(self, name: str) -> np.ndarray:
    with _h5py().File(self.path, 'r') as f:
      return f[self._places[name]][()]


def _legacy(h5py: Any, root: Any) -> Iterator[tuple[str, Any]]:
  """The layout up to Keras 2: LAYER/LAYER/WEIGHT:0."""
  datasets: list[tuple[str, Any]] = []

  def visit(name: str, item: Any) -> None:
    if isinstance(item, h5py.Dataset):
      datasets.append((name, item))

  root.visititems(visit)
  for name, dataset in datasets:
    layer = name.split('/', 1)[0]
    yield f'{layer}/{name.rsplit("/", 1)[-1].split(":")[0]}', dataset


def _keras3(root: Any) -> Iterator[tuple[str, Any]]:
  """Keras 3: layers are numbered by class, weights by place; their order gives the names back."""
  group = root['layers'] if 'layers' in root else root['_layer_checkpoint_dependencies']
  layers = [(name, _vars(group[name])) for name in group]
  layers = [(name, variables) for name, variables in layers if variables]
  by_kind: dict[str, list[Sequence[Any]]] = {}
  for name, variables in sorted(layers, key=lambda item: _number(item[0])):
    by_kind.setdefault(re.sub(r'_\d+$', '', name), []).append(variables)
  order = _mobilenet_layers() if 'depthwise_conv2d' in by_kind else _resnet_layers()
  for kind, names in order.items():
    given = by_kind.get(kind, [])
    if len(given) != len(names) and not (kind == 'dense' and not given):
      raise ValueError(f'{len(given)} layers of kind {kind}, expected {len(names)}')
    for layer, variables in zip(names, given):
      words = _NORM if kind == 'batch_normalization' else ('kernel', 'bias')
      for word, dataset in zip(words, variables):
        yield f'{layer}/{word}', dataset


def _vars(group: Any) -> list[Any]:
  if 'vars' not in group:
    return []
  variables = group['vars']
  return [variables[key] for key in sorted(variables, key=int)]


def _number(name: str) -> int:
  match = re.search(r'_(\d+)$', name)
  return int(match[1]) if match else 0


def _resnet_layers() -> Mapping[str, list[str]]:
  """Layers of keras.applications.ResNet50 by kind, in its own order."""
  convs = ['conv1']
  for stage, units in zip((2, 3, 4, 5), (3, 4, 6, 3)):
    for unit in range(1, units + 1):
      # The shortcut's convolution stands between the second and the third.
      parts = ('1', '2', '0', '3') if unit == 1 else ('1', '2', '3')
      convs += [f'conv{stage}_block{unit}_{part}' for part in parts]
  return {
    'conv2d': [f'{name}_conv' for name in convs],
    'batch_normalization': [f'{name}_bn' for name in convs],
    'dense': ['predictions'],
  }


def _mobilenet_layers() -> Mapping[str, list[str]]:
  """Layers of keras.applications.MobileNetV2 by kind, in its own order."""
  blocks = ['expanded_conv', *(f'block_{i}' for i in range(1, 17))]
  convs, norms = ['Conv1'], ['bn_Conv1']
  for block in blocks:
    parts = ('depthwise', 'project') if block == 'expanded_conv' else (
      'expand', 'depthwise', 'project'
    )  # fmt: skip
    convs += [f'{block}_{part}' for part in parts if part != 'depthwise']
    norms += [f'{block}_{part}_BN' for part in parts]
  return {
    'conv2d': [*convs, 'Conv_1'],
    'depthwise_conv2d': [f'{block}_depthwise' for block in blocks],
    'batch_normalization': [*norms, 'Conv_1_bn'],
    'dense': ['predictions'],
  }


def _in_order() -> list[str]:
  """Layers of both models in the order in which Keras goes through them."""
  order = []
  for name in _resnet_layers()['conv2d']:
    base = name.removesuffix('_conv')
    if base.endswith('_0'):
      continue
    shortcut = f'{base.removesuffix("_3")}_0'
    has_shortcut = base.endswith('block1_3')
    order += [f'{shortcut}_conv'] if has_shortcut else []
    order.append(name)
    order += [f'{shortcut}_bn'] if has_shortcut else []
    order.append(f'{base}_bn')
  mobile = _mobilenet_layers()
  for norm in mobile['batch_normalization']:
    order += [norm.removeprefix('bn_').removesuffix('_BN').removesuffix('_bn'), norm]
  return [*order, 'predictions']


def write(path: str | pathlib.Path, arrays: Mapping[str, np.ndarray]) -> None:
  """Writes LAYER/WEIGHT arrays as an `.h5` that `model.load_weights` of Keras 2 and 3 reads."""
  path = pathlib.Path(path)
  if not path.name.endswith('.h5') or path.name.endswith('.weights.h5'):
    raise UserError(f'the keras format is written as .h5 (not .weights.h5), got {path.name}')
  layers: dict[str, list[str]] = {}
  for name in arrays:
    layers.setdefault(name.split('/')[0], []).append(name)
  words = ('kernel', 'depthwise_kernel', 'bias', *_NORM)
  temporary = path.with_name(f'.{path.name}.tmp')
  try:
    with _h5py().File(temporary, 'w') as f:
      order = [layer for layer in _in_order() if layer in layers]
      f.attrs['layer_names'] = [layer.encode() for layer in order]
      for layer in order:
        group = f.create_group(layer)
        names = sorted(layers[layer], key=lambda n: words.index(n.split('/')[1]))
        group.attrs['weight_names'] = [f'{name}:0'.encode() for name in names]
        for name in names:
          group.create_dataset(f'{name}:0', data=arrays[name])
    temporary.replace(path)
  except OSError as e:
    raise UserError(f'cannot write {path}: {e.strerror or e}') from e
  finally:
    temporary.unlink(missing_ok=True)
