"""What the config of a Keras model states around its backbone: preprocessing and classifier.

A transfer model is a chain: augmentation and scaling of pixels, a backbone of keras.applications,
pooling, dropout, one Dense layer. Layers that would compute something else are refused by name.
"""

import dataclasses
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from vit_jax.errors import WeightsError, shown

# Layers that change nothing when a model is used.
_IDENTITIES = (
  'InputLayer', 'Dropout', 'SpatialDropout2D', 'GaussianDropout', 'GaussianNoise', 'AlphaDropout',
  'ActivityRegularization', 'Cast', 'Identity', 'CutMix', 'MixUp',
)  # fmt: skip
_SCALINGS = {
  'TrueDivide': 'divide', 'Divide': 'divide', 'math.truediv': 'divide', 'math.divide': 'divide',
  'Subtract': 'subtract', 'math.subtract': 'subtract', 'Add': 'add', 'math.add': 'add',
  'nn.bias_add': 'add', '__operators__.add': 'add', 'Multiply': 'multiply',
  'math.multiply': 'multiply', 'cast': 'identity',
}  # fmt: skip
_MAX_CHANNELS = 1024  # of an image
_RESHAPES = ('Flatten', 'Reshape')

Channel = tuple[int, float, float]  # which of the image's, times, plus


@dataclasses.dataclass(frozen=True)
class Leaf:
  """A layer that is no model of its own.

  Args:
    name: of the layer.
    kind: its class; of Keras 2's operations, the function.
    config: its options.
    inputs: names of the layers it reads, where they are stated.
    constants: numbers that it is called with, each a list of one or of one for each channel.
    index: of the channels that it picks: a number, or -1 for the reversed order; None for none.
  """

  name: str
  kind: str
  config: Mapping[str, Any]
  inputs: tuple[str, ...] = ()
  constants: tuple[tuple[float, ...], ...] = ()
  index: int | str | None = None


@dataclasses.dataclass(frozen=True)
class Description:
  """What is stated around a backbone.

  Args:
    image_size: (h, w) in pixels, None where any size is taken.
    channels: for each of the backbone's input channels, (channel of the image, scale, offset) on
      pixels of 0 to 255; None where the model starts with the backbone.
    head: name of the Dense layer, '' without one.
    activation: of the outputs: 'softmax' or 'sigmoid'.
    outputs: of the head.
    norm_epsilon: of the backbone's first BatchNormalization, None without one.
    image_channels: of the input.
  """

  image_size: tuple[int, int] | None
  channels: tuple[Channel, ...] | None
  head: str = ''
  activation: str = 'softmax'
  outputs: int = 0
  norm_epsilon: float | None = None
  image_channels: int = 3


def describe(
  model: Mapping[str, Any],
  training: Mapping[str, Any],
  backbone: Collection[str],
  statistics: Mapping[str, tuple[Sequence[float], Sequence[float]]],
  path: str,
) -> Description:
  """Reads the config of a model.

  Args:
    model: 'model_config' of an .h5, or config.json of a .keras archive.
    training: what the model was compiled with; {} where it is not stated.
    backbone: names of the layers of the family of the backbone.
    statistics: (mean, variance) of Normalization layers that were adapted, by name.
    path: the file, for messages.

  Raises:
    WeightsError: the model computes something that no model here does.
  """
  leaves = _leaves(model)
  inside = [i for i, leaf in enumerate(leaves) if leaf.name in backbone and leaf.kind != 'Dense']
  if not inside:
    kinds = [leaf.name for leaf in leaves if leaf.kind.endswith(('Conv2D', 'Conv2DTranspose'))]
    raise WeightsError(
      f'{path} is a Keras model with a backbone that is unknown here (its convolutions: '
      f'{", ".join(kinds[:3]) or "none"}); known are MobileNetV2 and ResNet50'
    )
  outputs = list(model['config'].get('output_layers') or ())
  if len(outputs) > 1 and isinstance(outputs[0], list):
    raise WeightsError(f'{path} is a Keras model of {len(outputs)} outputs; expected one')
  before, after = leaves[: inside[0]], leaves[inside[-1] + 1 :]
  norm = next((x for x in leaves[inside[0] :] if x.kind == 'BatchNormalization'), None)
  height, width, depth = _input_shape(model, leaves)
  resizing = next((x for x in reversed(before) if x.kind == 'Resizing'), None)
  if resizing is not None:
    height, width = resizing.config['height'], resizing.config['width']
  size = (int(height), int(width)) if height and width else None
  count = 3 if depth is None else depth
  if type(count) is not int or not 0 < count <= _MAX_CHANNELS:
    raise WeightsError(f'{path}: its images have {shown(count)} channels')
  channels = _scaling(before, statistics, count, path)
  head, activation, units = _head(after, training, path)
  epsilon = norm.config.get('epsilon') if norm else None
  if not isinstance(epsilon, float | None):
    raise WeightsError(f'{path}: the epsilon of {norm and norm.name!r} is {shown(epsilon)}')
  return Description(size, channels, head, activation, units, epsilon, count)


def _leaves(model: Mapping[str, Any]) -> list[Leaf]:
  """The layers of a model and of the models in it, in the order of computation."""
  found: list[Leaf] = []
  for layer in model['config'].get('layers', ()):
    config = layer['config']
    if 'layers' in config:
      found += _leaves(layer)
    elif 'layer' in config and layer['class_name'] in ('TimeDistributed', 'Bidirectional'):
      found.append(Leaf(config['name'], layer['class_name'], config))
    else:
      found.append(_leaf(layer))
  return found


def _leaf(layer: Mapping[str, Any]) -> Leaf:
  config = layer['config']
  kind = layer['class_name']
  if kind == 'TFOpLambda':
    kind = config.get('function', kind)
  inputs: list[str] = []
  constants: list[tuple[float, ...]] = []
  index: list[int | str] = []

  def visit(value: Any) -> None:
    if isinstance(value, dict):
      what = value.get('class_name')
      if what == '__keras_tensor__':
        inputs.append(value['config']['keras_history'][0])
      elif what in ('__tensor__', '__numpy__', '__array__'):
        constants.append(tuple(_numbers(value['config']['value'])))
      elif what == '__slice__' or 'step' in value:
        step = value.get('config', value).get('step')
        index.append('reversed' if step == -1 else 'other')
      else:
        for key, inner in value.items():
          if key in ('y', 'bias', 'args', 'kwargs', 'slice_spec', 'x2', 'value'):
            visit(inner)
    elif isinstance(value, list):
      if len(value) in (3, 4) and isinstance(value[0], str) and value[1:3] == [0, 0]:
        inputs.append(value[0])  # Keras 2: [name, node, tensor, arguments]
        visit(value[3] if len(value) == 4 else {})
      elif value and all(isinstance(v, int | float) for v in value):
        constants.append(tuple(map(float, value)))
      else:
        for inner in value:
          visit(inner)
    elif isinstance(value, int | float) and not isinstance(value, bool):
      if kind in ('GetItem', '__operators__.getitem'):
        index.append(int(value))
      else:
        constants.append((float(value),))

  if kind in _SCALINGS or kind in ('GetItem', '__operators__.getitem', 'Stack'):
    visit(layer.get('inbound_nodes') or [])
  return Leaf(
    config.get('name') or layer.get('name', ''),
    kind,
    config,
    tuple(inputs),
    tuple(constants),
    index[0] if len(index) == 1 else None,
  )


def _numbers(value: Any) -> list[float]:
  if isinstance(value, list | tuple):
    return [number for inner in value for number in _numbers(inner)]
  return [float(value)]


def _input_shape(model: Mapping[str, Any], leaves: Sequence[Leaf]) -> list[int | None]:
  """[h, w, channels] of the input; None where they are not stated or any will do."""
  config = model['config']
  first = leaves[0].config
  built = (model.get('build_config') or {}).get('input_shape')
  for shape in (
    first.get('batch_shape'),
    first.get('batch_input_shape'),
    config.get('build_input_shape'),
    built,
  ):
    if isinstance(shape, list | tuple) and len(shape) == 4:
      return list(shape[1:])
  return [None, None, None]


def _scaling(
  layers: Sequence[Leaf],
  statistics: Mapping[str, tuple[Sequence[float], Sequence[float]]],
  count: int,
  path: str,
) -> tuple[Channel, ...] | None:
  """What the layers in front of the backbone make of pixels; None where they leave them alone."""
  image: tuple[Channel, ...] = tuple((i, 1.0, 0.0) for i in range(count))
  values = {'': image}
  last, scaled = '', False
  for layer in layers:
    inputs = [values[name] for name in layer.inputs if name in values] or [values[last]]
    made = _scaled(layer, inputs, statistics)
    if made is None or len(made) not in (1, count):
      raise WeightsError(
        f'{path}: its layer {layer.name!r} ({layer.kind}) in front of the backbone is unknown '
        'here, so what it makes of pixels is too; save the model from the backbone on, with '
        'scaling by Rescaling or Normalization'
      )
    scaled = scaled or made != inputs[0]
    last = layer.name
    values[last] = made
  if len(values[last]) != count:
    raise WeightsError(f'{path}: its backbone is given one of {count} channels')
  return values[last] if scaled or any(_scales(layer) for layer in layers) else None


def _scales(layer: Leaf) -> bool:
  return layer.kind in ('Rescaling', 'Normalization') or layer.kind in _SCALINGS


def _scaled(
  layer: Leaf,
  inputs: Sequence[tuple[Channel, ...]],
  statistics: Mapping[str, tuple[Sequence[float], Sequence[float]]],
) -> tuple[Channel, ...] | None:
  """The channels that a layer gives; None for an unknown layer."""
  x, config, kind = inputs[0], layer.config, layer.kind
  augments = kind.startswith('Random') and kind != 'RandomCrop'  # which crops when used, too
  padding = layer.name in ('Conv1_pad', 'conv1_pad')  # of the backbone's first convolution
  if kind in _IDENTITIES or kind == 'Resizing' or augments or padding:
    return x
  if kind == 'Rescaling':
    return _affine(x, config['scale'], config.get('offset', 0.0))
  if kind == 'Normalization':
    return _normalized(x, layer, statistics)
  if kind in ('GetItem', '__operators__.getitem'):
    if layer.index == 'reversed':
      return x[::-1]
    return (x[layer.index],) if isinstance(layer.index, int) else None
  if kind == 'Stack' and all(len(channels) == 1 for channels in inputs):
    return tuple(channels[0] for channels in inputs) if config.get('axis') == -1 else None
  operation = _SCALINGS.get(kind)
  if operation == 'identity':
    return x
  if operation is None or len(layer.constants) != 1 or len(inputs) != 1:
    return None
  value = layer.constants[0]
  one = [1.0] * len(value)
  scale, offset = {
    'divide': ([1 / v if v else 0.0 for v in value], 0.0),
    'multiply': (value, 0.0),
    'subtract': (one, [-v for v in value]),
    'add': (one, value),
  }[operation]
  return _affine(x, scale, offset)


def _normalized(
  x: tuple[Channel, ...],
  layer: Leaf,
  statistics: Mapping[str, tuple[Sequence[float], Sequence[float]]],
) -> tuple[Channel, ...] | None:
  mean, variance = layer.config.get('mean'), layer.config.get('variance')
  if mean is None or variance is None:
    mean, variance = statistics.get(layer.name, (None, None))
  if mean is None or variance is None or layer.config.get('invert'):
    return None
  means, deviations = _numbers(mean), [max(v**0.5, 1e-7) for v in _numbers(variance)]
  if len(means) != len(deviations):
    return None
  return _affine(x, [1 / d for d in deviations], [-m / d for m, d in zip(means, deviations)])


def _affine(x: tuple[Channel, ...], scale: Any, offset: Any) -> tuple[Channel, ...] | None:
  scales, offsets = _numbers(scale), _numbers(offset)
  if {len(scales), len(offsets)} - {1, len(x)}:
    return None
  scales, offsets = (v * len(x) if len(v) == 1 else v for v in (scales, offsets))
  return tuple((c, a * s, b * s + o) for (c, a, b), s, o in zip(x, scales, offsets))


def _head(layers: Sequence[Leaf], training: Mapping[str, Any], path: str) -> tuple[str, str, int]:
  """(name of the Dense layer, activation, outputs) behind the backbone."""
  pooled, dense, activation = False, None, 'linear'
  for layer in layers:
    kind, config = layer.kind, layer.config
    if kind in _IDENTITIES or layer.name in _TAILS:
      continue
    if kind == 'GlobalAveragePooling2D' and not pooled:
      pooled = True
    elif kind in _RESHAPES and pooled and dense is None:
      continue
    elif kind == 'Dense' and pooled and dense is None and config['activation'] in _ACTIVATIONS:
      dense, activation = layer, config['activation']
    elif dense is not None and activation == 'linear' and kind in ('Activation', 'Softmax'):
      activation = config.get('activation', 'softmax')
    else:
      raise WeightsError(
        f'{path}: its layer {layer.name!r} ({kind}) behind the backbone has no place in our '
        'models; expected GlobalAveragePooling2D, Dropout and one Dense layer of softmax, sigmoid '
        'or no activation'
      )
  if dense is None:
    return '', 'softmax', 0
  units, loss = int(dense.config['units']), _loss_name(training)
  if activation == 'linear':
    if 'mean' in loss or 'huber' in loss or (units == 1 and 'binary' not in loss):
      raise WeightsError(
        f'{path}: its last layer {dense.name!r} gives {units} numbers without an activation'
        f'{f" and was trained with {loss}" if loss else ""}: it predicts quantities, no classes'
      )
    activation = 'sigmoid' if 'binary' in loss else 'softmax'
  if activation not in ('softmax', 'sigmoid') or (activation == 'softmax' and units == 1):
    raise WeightsError(
      f'{path}: its last layer {dense.name!r} has {units} outputs of activation {activation!r}; '
      'expected softmax over several, or sigmoid'
    )
  return dense.name, activation, units


_ACTIVATIONS = ('linear', 'softmax', 'sigmoid')
# Behind the last weights of the backbones.
_TAILS = ('out_relu', 'conv5_block3_add', 'conv5_block3_out')


def _loss_name(training: Mapping[str, Any]) -> str:
  """The loss in small letters, such as 'binary_crossentropy'; '' where it is not stated."""
  loss = training.get('loss')
  if isinstance(loss, Mapping):
    loss = (loss.get('config') or {}).get('name') or loss.get('class_name')
  return str(loss or '').lower()
