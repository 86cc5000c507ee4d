"""'keras': weights of keras.applications, `.h5` of Keras 2 and `.weights.h5` of Keras 3."""

import collections
import pathlib
import re
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING

from vit_jax.errors import ConfigError, WeightsError
from vit_jax.files import replacing, write_json
from vit_jax.weights.formats.base import Export, Format, register
from vit_jax.weights.record import record_path

if TYPE_CHECKING:
  import numpy as np

  from vit_jax.weights.containers.tensors import Tensors

_NORM = ('gamma', 'beta', 'moving_mean', 'moving_variance')
_ORDER = ('kernel', 'depthwise_kernel', 'bias', *_NORM)  # of a layer's weights
_WHOLE_MODEL = 'model_weights/'  # the group of the weights in a file that has the optimizer's too
# Keras 3 numbers layers of a kind and weights of a layer: layers/conv2d_7/vars/0. Older files of it
# have the other group.
_NUMBERED = re.compile(r'(?:layers|_layer_checkpoint_dependencies)/(\w+?)(?:_(\d+))?/vars/(\d+)')


@register
class Keras(Format):
  """Names LAYER/WEIGHT, such as 'conv1_conv/kernel'."""

  name = naming = 'keras'
  container = 'hdf5'
  ending = '.h5'

  def recognises(self, names: Collection[str]) -> bool:
    first = tuple(f'{layers[0][1]}/' for layers in _models())
    starts = (_WHOLE_MODEL, *first)
    return any(name.startswith(starts) or _NUMBERED.fullmatch(name) for name in names)

  def canonical(self, tensors: 'Tensors') -> 'Tensors':
    from vit_jax.weights.containers.tensors import View

    numbered = any(_NUMBERED.fullmatch(name) for name in tensors)
    old_names = _by_order(tensors) if numbered else _by_path(tensors)
    return View(tensors, {new: (old, None) for new, old in old_names.items()})

  def write(self, target: pathlib.Path, export: Export) -> list[pathlib.Path]:
    if not target.name.endswith('.h5') or target.name.endswith('.weights.h5'):
      raise ConfigError(f'the keras format is written as .h5 (not .weights.h5), got {target.name}')
    from vit_jax.weights.mapping.family import family_of

    layers = [layer for _, layer in family_of(export.module).keras_layers]
    _write_h5(target, export.tensors, layers)
    write_json(record_path(target), export.record.to_json(), ascii_only=True)
    return [target, record_path(target)]


def _models() -> list[tuple[tuple[str, str], ...]]:
  """The layers, (kind, name) in the order of Keras, of every family that Keras has."""
  from vit_jax.weights.mapping.family import FAMILIES

  return [family.keras_layers for family in FAMILIES.values() if family.keras_layers]


def _by_path(tensors: 'Tensors') -> dict[str, str]:
  """New to old names of the layout up to Keras 2: LAYER/LAYER/WEIGHT:0, in a group or at the top.

  Raises:
    WeightsError: two weights of a layer have the same name.
  """
  whole = any(name.startswith(_WHOLE_MODEL) for name in tensors)
  group = _WHOLE_MODEL if whole else ''
  found: dict[str, str] = {}
  for old in tensors:
    if not old.startswith(group):
      continue
    layer, *_, weight = old.removeprefix(group).split('/')
    new = f'{layer}/{weight.split(":")[0]}'
    if new in found:
      raise WeightsError(f'{tensors.path} holds {new!r} twice')
    found[new] = old
  return found


def _by_order(tensors: 'Tensors') -> dict[str, str]:
  """New to old names of Keras 3's layout, where the order of layers gives the names back.

  Raises:
    WeightsError: the file has other layers than each of the models.
  """
  layers: dict[tuple[str, int], dict[int, str]] = {}  # (kind, number) -> weights by number
  for name in tensors:
    if match := _NUMBERED.fullmatch(name):
      kind, number, weight = match.groups()
      layers.setdefault((kind, int(number or 0)), {})[int(weight)] = name
  kinds = collections.Counter(kind for kind, _ in layers)
  model = next((model for model in _models() if _fits(model, kinds)), None)
  if model is None:
    counts = ', '.join(f'{count} of kind {kind}' for kind, count in kinds.items())
    raise WeightsError(f'{tensors.path} has the layers of no known Keras model: {counts}')
  found: dict[str, str] = {}
  for kind in kinds:
    names = [layer for of_kind, layer in model if of_kind == kind]
    numbers = sorted(number for of_kind, number in layers if of_kind == kind)
    words = _NORM if kind == 'batch_normalization' else ('kernel', 'bias')
    for layer, number in zip(names, numbers):
      weights = layers[kind, number]
      found.update({f'{layer}/{word}': weights[i] for word, i in zip(words, sorted(weights))})
  return found


def _fits(model: tuple[tuple[str, str], ...], kinds: Mapping[str, int]) -> bool:
  """Whether a file has as many layers of each kind as a model; it may lack the classifier."""
  expected = collections.Counter(kind for kind, _ in model)
  return all(
    kinds.get(kind, 0) == count or (kind == 'dense' and kind not in kinds)
    for kind, count in expected.items()
  )


def _write_h5(path: pathlib.Path, arrays: Mapping[str, 'np.ndarray'], layers: list[str]) -> None:
  """Writes LAYER/WEIGHT arrays as an `.h5` that `model.load_weights` of Keras 2 and 3 reads.

  Args:
    path: where.
    arrays: by name.
    layers: all layers of the model, in Keras' order.
  """
  from vit_jax.weights.containers.hdf5 import import_h5py

  weights: dict[str, list[str]] = {}
  for name in arrays:
    weights.setdefault(name.split('/')[0], []).append(name)
  with replacing(path) as temporary, import_h5py().File(temporary, 'w') as f:
    order = [layer for layer in layers if layer in weights]
    f.attrs['layer_names'] = [layer.encode() for layer in order]
    for layer in order:
      group = f.create_group(layer)
      names = sorted(weights[layer], key=lambda n: _ORDER.index(n.split('/')[1]))
      group.attrs['weight_names'] = [f'{name}:0'.encode() for name in names]
      for name in names:
        group.create_dataset(f'{name}:0', data=arrays[name])
