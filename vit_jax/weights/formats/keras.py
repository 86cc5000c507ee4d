"""'keras': whole Keras models and weights of keras.applications, in each of Keras' layouts."""

import collections
import functools
import pathlib
import re
from collections.abc import Callable, Collection, Mapping
from typing import TYPE_CHECKING, Any

from vit_jax.errors import ConfigError, WeightsError
from vit_jax.files import replacing, write_json
from vit_jax.weights.formats.base import Export, Format, register
from vit_jax.weights.record import Record, record_path

if TYPE_CHECKING:
  import numpy as np

  from vit_jax.weights.containers.tensors import Spec, Tensors
  from vit_jax.weights.keras_config import Description
  from vit_jax.weights.mapping.family import Family

_NORM = ('gamma', 'beta', 'moving_mean', 'moving_variance')
_ORDER = ('kernel', 'depthwise_kernel', 'bias', *_NORM)  # of a layer's weights
_WHOLE_MODEL = 'model_weights/'  # the group of the weights in a file that has the optimizer's too
_MAX_CHANNELS = 1024  # of an image
_HEAD = 'predictions'  # the name of the classifier in keras.applications
# Keras 3 numbers layers of a kind and weights of a layer: layers/conv2d_7/vars/0. Older files of it
# have the other group. A model within a model is a layer that has layers.
_NUMBERED = re.compile(
  r'((?:.*/)?)(?:layers|_layer_checkpoint_dependencies)/(\w+?)(?:_(\d+))?/vars/(\d+)'
)


@register
class Keras(Format):
  """Names LAYER/WEIGHT, such as 'conv1_conv/kernel', the classifier's being 'predictions'."""

  name = naming = 'keras'
  container = 'hdf5'
  ending = '.h5'

  def recognises(self, names: Collection[str]) -> bool:
    first = {family.keras_layers[0][1] for family in _families()}
    return any(
      name.startswith(_WHOLE_MODEL) or first & set(name.split('/')) or _NUMBERED.fullmatch(name)
      for name in names
    )

  def canonical(self, tensors: 'Tensors') -> 'Tensors':
    from vit_jax.weights.containers.tensors import Derived, Spec

    names = _old_names(tensors)
    description = _description(tensors)
    head = _head_of(names, tensors, description)
    made: dict[str, tuple[Spec, Callable[[], np.ndarray]]] = {}
    for new, old in names.items():
      layer, weight = new.split('/')
      if layer == head:
        new = f'{_HEAD}/{weight}'
      made[new] = tensors.specs[old], functools.partial(tensors.__getitem__, old)
    kernel = made.get(f'{_HEAD}/kernel')
    if kernel and len(kernel[0].shape) == 2:
      _complete_head(made, description)
    return Derived(tensors, made)

  def file_record(self, tensors: 'Tensors') -> Record | None:
    description = _description(tensors)
    if description is None:
      return None
    known: dict[str, Any] = {}
    if description.norm_epsilon is not None:
      known['norm_epsilon'] = float(description.norm_epsilon)
    if description.image_size is not None:
      known['image_size'] = description.image_size
    several = description.activation == 'sigmoid' and description.outputs > 1
    return Record(
      preprocess=_preprocess(description, tensors),
      known=known,
      task={'name': 'classify', 'loss': 'sigmoid'} if several else {},
    )

  def check_name(self, target: str) -> None:
    super().check_name(target)
    stem = target.removesuffix('.h5')
    if stem == target or stem.endswith('.weights'):  # where Keras has another layout
      raise ConfigError(
        f'keras is written as a .h5 file (not .weights.h5), got {target}: name it '
        f'{stem.removesuffix(".weights")}.h5'
      )

  def write(self, target: pathlib.Path, export: Export) -> list[pathlib.Path]:
    from vit_jax.weights.mapping.family import family_of

    layers = [layer for _, layer in family_of(export.module).keras_layers]
    _write_h5(target, export.tensors, layers)
    write_json(record_path(target), export.record.to_json(), ascii_only=True)
    return self.files(target)


def _families() -> 'list[Family]':
  """The families of models that Keras has."""
  from vit_jax.weights.mapping.family import FAMILIES

  return [family for family in FAMILIES.values() if family.keras_layers]


def _layer_names() -> set[str]:
  return {name for family in _families() for _, name in family.keras_layers}


def _description(tensors: 'Tensors') -> 'Description | None':
  """What the model's config states; None for a file of weights alone."""
  if 'model_config' not in tensors.metadata:
    return None
  from vit_jax.weights import keras_config
  from vit_jax.weights.containers.checks import damaged, parse_json

  with damaged(tensors.path, 'model_config'):
    model = parse_json(tensors.metadata['model_config'])
    training = parse_json(tensors.metadata.get('training_config') or '{}')
    return keras_config.describe(
      model, training, _layer_names(), _statistics(tensors), str(tensors.path)
    )


def _statistics(tensors: 'Tensors') -> dict[str, tuple[list[float], list[float]]]:
  """(mean, variance) of each Normalization layer whose numbers are among the weights."""
  found: dict[str, tuple[list[float], list[float]]] = {}
  for name in tensors:
    layer = name.split('/')[-2] if '/' in name else ''
    end = name.split('/')[-1].split(':')[0]
    other = {'mean': 'variance', '0': '1'}.get(end)
    if other is None or 'normalization' not in name or 'batch_normalization' in name:
      continue
    if end == '0':
      layer = name.split('/')[-3]
    partner = re.sub(rf'{end}(:0)?$', rf'{other}\1', name)
    if partner in tensors and max(tensors.specs[n].size for n in (name, partner)) <= _MAX_CHANNELS:
      mean, variance = (tensors[n].ravel().tolist() for n in (name, partner))
      found[layer] = mean, variance
  return found


def _preprocess(description: 'Description', tensors: 'Tensors') -> Any:
  """The preprocessing of a model that scales pixels itself; None for another."""
  from vit_jax import data
  from vit_jax.weights.preprocessing import Crop

  if description.channels is None:
    return None
  order = [channel for channel, _, _ in description.channels]
  words = {(0, 1, 2): 'rgb', (2, 1, 0): 'bgr', (0,): 'grey'}
  scales = [scale for _, scale, _ in description.channels]
  if tuple(order) not in words or min(scales) <= 0:
    raise WeightsError(
      f'{tensors.path}: scaling of pixels by {scales} in channel order {order} has no place here'
    )
  std = tuple(1 / (255 * scale) for scale in scales)
  mean = tuple(-offset * s for (_, _, offset), s in zip(description.channels, std))
  size = description.image_size or (224, 224)
  return data.Preprocess(
    Crop(size, 'bicubic', scaled=size).transform(), mean, std, words[tuple(order)]
  )


def _old_names(tensors: 'Tensors') -> dict[str, str]:
  """Names LAYER/WEIGHT to names in the file."""
  numbered = any(_NUMBERED.fullmatch(name) and not name.startswith('optimizer') for name in tensors)
  return _by_order(tensors) if numbered else _by_path(tensors)


def _by_path(tensors: 'Tensors') -> dict[str, str]:
  """New to old names of the layout up to Keras 2: LAYER/.../WEIGHT:0, in a group or at the top.

  Weights of a model that is a layer of the model lie at MODEL/LAYER/WEIGHT:0.

  Raises:
    WeightsError: two weights of a layer have the same name.
  """
  whole = any(name.startswith(_WHOLE_MODEL) for name in tensors)
  group = _WHOLE_MODEL if whole else ''
  known = _layer_names()
  found: dict[str, str] = {}
  for old in tensors:
    *folders, weight = old.removeprefix(group).split('/')
    if not old.startswith(group) or not folders or _is_no_weight(old):
      continue
    layer = folders[0] if folders[0] in known else folders[-1]
    new = f'{layer}/{weight.split(":")[0]}'
    if new in found:
      raise WeightsError(
        f'{tensors.path} holds {new!r} twice, as {found[new]!r} and {old!r}: expected one backbone'
      )
    found[new] = old
  return found


def _is_no_weight(name: str) -> bool:
  """Whether a tensor is a state of preprocessing, of random numbers or of an optimizer."""
  return (
    name.startswith('optimizer')
    or 'seed_generator' in name
    or bool(re.search(r'(^|/)(normalization(_\d+)?)/(.*/)?(mean|variance|count)(:0)?$', name))
  )


def _by_order(tensors: 'Tensors') -> dict[str, str]:
  """New to old names of Keras 3's layout, where the order of layers gives the names back.

  Raises:
    WeightsError: the file has other layers than each of the models, or several backbones.
  """
  containers: dict[str, dict[tuple[str, int], dict[int, str]]] = {}
  heads: dict[str, dict[int, str]] = {}
  for name in tensors:
    match = _NUMBERED.fullmatch(name)
    if match is None or name.startswith('optimizer') or match[2] == 'normalization':
      continue
    container, kind, number, weight = match.groups()
    if kind == 'dense':
      heads.setdefault(f'{container}dense_{number or 0}', {})[int(weight)] = name
    else:
      layers = containers.setdefault(container, {})
      layers.setdefault((kind, int(number or 0)), {})[int(weight)] = name
  fitting = [
    (family, layers)
    for layers in containers.values()
    for family in _families()
    if _kinds(layers) == collections.Counter(k for k, _ in family.keras_layers if k != 'dense')
  ]
  if len(fitting) != 1 or len(containers) != 1:
    counts = ', '.join(
      f'{count} of kind {kind}' for layers in containers.values()
      for kind, count in _kinds(layers).items()
    )  # fmt: skip
    problem = 'several backbones or layers beside one' if fitting else 'no known Keras model'
    raise WeightsError(f'{tensors.path} has the layers of {problem}: {counts}')
  family, layers = fitting[0]
  found: dict[str, str] = {}
  for kind in _kinds(layers):
    names = [layer for of_kind, layer in family.keras_layers if of_kind == kind]
    numbers = sorted(number for of_kind, number in layers if of_kind == kind)
    words = _NORM if kind == 'batch_normalization' else ('kernel', 'bias')
    for layer, number in zip(names, numbers):
      weights = layers[kind, number]
      found.update({f'{layer}/{word}': weights[i] for word, i in zip(words, sorted(weights))})
  for place, (_, weights) in enumerate(sorted(heads.items())):
    layer = _HEAD if len(heads) == 1 else f'dense_{place}'
    found.update(
      {f'{layer}/{word}': weights[i] for word, i in zip(('kernel', 'bias'), sorted(weights))}
    )
  return found


def _kinds(layers: Mapping[tuple[str, int], Any]) -> 'collections.Counter[str]':
  return collections.Counter(kind for kind, _ in layers)


def _head_of(
  names: Mapping[str, str], tensors: 'Tensors', description: 'Description | None'
) -> str:
  """The layer that is the classifier; '' for the one of that name, or for none."""
  known = _layer_names()
  others = {new.split('/')[0] for new in names} - known
  if description is not None and description.head in others:
    return description.head
  dense = [x for x in others if f'{x}/kernel' in names
           and len(tensors.specs[names[f'{x}/kernel']].shape) == 2]  # fmt: skip
  return dense[0] if len(dense) == 1 and f'{_HEAD}/kernel' not in names else ''


def _complete_head(
  made: 'dict[str, tuple[Spec, Callable[[], np.ndarray]]]', description: 'Description | None'
) -> None:
  """Gives a classifier the bias that it lacks, and one output of a sigmoid its second class.

  A sigmoid of z is the softmax of (0, z): the second class is the one that it is for.
  """
  import numpy as np

  from vit_jax.weights.containers.tensors import Spec

  spec, kernel = made[f'{_HEAD}/kernel']
  inputs, outputs = spec.shape
  made.setdefault(f'{_HEAD}/bias', (Spec((outputs,)), lambda: np.zeros(outputs, np.float32)))
  if outputs == 1 and description is not None and description.activation == 'sigmoid':
    for name, axes in (('kernel', (inputs, 2)), ('bias', (2,))):
      one = made[f'{_HEAD}/{name}'][1]
      made[f'{_HEAD}/{name}'] = Spec(axes, spec.dtype), functools.partial(_with_zero, one)


def _with_zero(read: 'Callable[[], np.ndarray]') -> 'np.ndarray':
  """An array [..., 1] behind zeros: [..., 2]."""
  import numpy as np

  array = read()
  return np.concatenate([np.zeros_like(array), array], axis=-1)


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
