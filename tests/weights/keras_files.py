"""Keras' files without Keras: a small MobileNetV2 in each layout, with layers around it."""

import io
import json
import zipfile

import h5py
import numpy as np

from tests.weights import oracle
from vit_jax import models, tree
from vit_jax.models.shapes import variable_specs
from vit_jax.weights import saving
from vit_jax.weights.mapping.family import FAMILIES

LAYERS = FAMILIES['MobileNetV2'].keras_layers
WIDTH = 0.05
_CLASSES = {
  'conv2d': 'Conv2D',
  'depthwise_conv2d': 'DepthwiseConv2D',
  'batch_normalization': 'BatchNormalization',
}


def model(outputs=3):
  """(module, variables, {LAYER/WEIGHT: array}) with random numbers."""
  module = models.build(
    'mobilenet_v2', outputs, width_multiplier=WIDTH, padding='same', norm_epsilon=1e-3
  )
  flat = oracle.scattered_specs(variable_specs(module, (32, 32)))
  flat = {k: np.abs(v) + 0.5 if k.endswith('/var') else v for k, v in flat.items()}
  variables = tree.unflatten(flat)
  return module, variables, saving.to_tensors(variables, module, 'keras', (32, 32))


def layer(kind, name='', call=(), **config):
  """A layer of a config that is called with numbers beside the layer before it."""
  name = name or kind.lower()
  return {
    'class_name': kind,
    'config': {'name': name, **config},
    'inbound_nodes': [{'args': list(call), 'kwargs': {}}] if call else [],
  }


def backbone(epsilon=1e-3):
  """The config of the backbone, a model of its own."""
  layers = [
    layer(_CLASSES[kind], name, **({'epsilon': epsilon} if 'norm' in kind else {}))
    for kind, name in LAYERS[:-1]
  ]
  return [layer('InputLayer', 'inner'), *layers, layer('ReLU', 'out_relu')]


POOL = layer('GlobalAveragePooling2D')


def dense(units=3, activation='softmax', name='dense', **config):
  return layer('Dense', name, units=units, activation=activation, **config)


def config(stem=(), head=None, shape=(32, 32, 3), nested=True, **more):
  """The config of a transfer model: layers in front, the backbone, layers behind."""
  head = [POOL, layer('Dropout', rate=0.2), dense()] if head is None else head
  body = backbone()
  if nested:
    body = [{'class_name': 'Functional', 'config': {'name': 'mobilenetv2', 'layers': body}}]
  first = layer('InputLayer', 'image', batch_shape=[None, *shape])
  layers = [first, *stem, *body, *head]
  return {'class_name': 'Functional', 'config': {'name': 'm', 'layers': layers, **more}}


def _hdf5(target, arrays, texts=None):
  with h5py.File(target, 'w') as f:
    for name, array in arrays.items():
      f.create_dataset(name, data=array)
    for name, text in (texts or {}).items():
      f.attrs[name] = text


def by_path(arrays, head='dense', nested=True, group='model_weights/', suffix=''):
  """Names of the layout of .h5."""
  named = {}
  for name, array in arrays.items():
    layer_name, weight = name.split('/')
    if layer_name == 'predictions':
      new = f'{head}/{head}/{weight}'
    else:
      new = f'mobilenetv2/{name}' if nested else f'{layer_name}/{name}'
    named[group + new + suffix] = array
  return named


def by_order(arrays, nested=True):
  """Names of the layout of Keras 3."""
  place, named, counts = {}, {}, {}
  for kind, name in LAYERS:
    number = counts[kind] = counts.get(kind, -1) + 1
    place[name] = f'{kind}_{number}' if number else kind
  words = ('gamma', 'beta', 'moving_mean', 'moving_variance')
  for name, array in arrays.items():
    layer_name, weight = name.split('/')
    index = words.index(weight) if weight in words else int(weight == 'bias')
    inner = 'layers/functional/' if nested and layer_name != 'predictions' else ''
    named[f'{inner}layers/{place[layer_name]}/vars/{index}'] = array
  return named


def h5(path, arrays, model_config=None, training=None):
  """An .h5 of arrays by the paths given."""
  texts = {'model_config': json.dumps(model_config)} if model_config else {}
  if training:
    texts['training_config'] = json.dumps(training)
  _hdf5(path, arrays, texts)
  return path


def archive(path, arrays, model_config, training=None):
  """A .keras archive."""
  weights = io.BytesIO()
  _hdf5(weights, arrays)
  with zipfile.ZipFile(path, 'w') as z:
    z.writestr('metadata.json', '{}')
    z.writestr('config.json', json.dumps({**model_config, 'compile_config': training or {}}))
    z.writestr('model.weights.h5', weights.getvalue())
  return path
