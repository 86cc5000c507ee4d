"""Logits equal keras.applications', weights go there and come back unchanged."""

import os

import numpy as np
import pytest

import vit_jax
from vit_jax import convert
from vit_jax.data import Preprocess
from vit_jax.logits import probabilities
from vit_jax.models.shapes import description
from vit_jax.weights import saving

os.environ.setdefault('KERAS_BACKEND', 'jax')
keras = pytest.importorskip('keras')
pytest.importorskip('h5py')

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings('ignore')]


def randomized(name):
  model = getattr(keras.applications, name)(
    weights=None, input_shape=(96, 96, 3), classes=11, classifier_activation=None
  )
  return _randomize(model)


def _randomize(model):
  rng = np.random.default_rng(0)
  for w in model.weights:
    shape = w.shape
    if 'seed' in w.path:
      continue
    if len(shape) > 1:
      fan_in = np.prod(shape[:2]) if 'depthwise' in w.path else np.prod(shape[:-1])
      value = rng.normal(0, fan_in**-0.5, shape)
    elif w.path.endswith(('gamma', 'variance')):
      value = rng.uniform(0.5, 1.5, shape)
    else:
      value = rng.normal(0, 0.1, shape)
    w.assign(value.astype(np.float32))
  return model


@pytest.mark.parametrize('ending', ['h5', 'weights.h5'])
@pytest.mark.parametrize(
  'theirs,ours', [('ResNet50', 'resnet50'), ('MobileNetV2', 'mobilenet_v2')], ids=lambda v: v
)
def test_both_models_and_both_layouts(tmp_path, theirs, ours, ending):
  model = randomized(theirs)
  path = tmp_path / f'w.{ending}'
  if ending == 'h5':
    model.save(path)
  else:
    model.save_weights(path)
  weights = convert.read(path)
  assert weights.format == 'keras' and weights.model['name'] == ours
  module = convert.build(weights)
  variables, _ = convert.fit(weights, module, (96, 96))
  x = np.random.default_rng(1).uniform(-1, 1, (2, 96, 96, 3)).astype(np.float32)
  expected = np.asarray(model(x, training=False))
  error = np.abs(np.asarray(module.apply(variables, x)) - expected).max()
  print(f'{theirs} {ending}: {error:.1e} of logits up to {np.abs(expected).max():.1f}')
  assert error < 1e-4
  back = tmp_path / 'back.h5'
  convert.write(
    back,
    variables,
    module,
    'keras',
    model=description(module, ours),
    preprocess=Preprocess('decode|resize(96)'),
  )
  other = randomized(theirs)
  for w in other.weights:
    w.assign(np.zeros(w.shape, np.float32))
  other.load_weights(back)
  for a, b in zip(other.weights, model.weights):
    assert np.asarray(a).tobytes() == np.asarray(b).tobytes(), a.path
  assert saving.to_tensors(variables, module, 'keras', (96, 96)).keys() == set(weights.tensors)


def _transfer(how, backbone):
  """A classifier of 3 on a backbone as people build them, and what it is given pixels as."""
  layers = keras.layers
  image = keras.Input((96, 96, 3))
  body = getattr(keras.applications, backbone)(
    weights=None, include_top=False, input_shape=(96, 96, 3), pooling='avg'
  )
  if how == 'flat':
    return keras.Model(body.input, layers.Dense(3, activation='softmax')(body.output))
  x = layers.RandomFlip()(image)
  x = layers.Rescaling(1 / 127.5, offset=-1)(x)
  x = layers.Dropout(0.2)(body(x))
  return keras.Model(image, layers.Dense(3, activation='softmax')(x))


@pytest.mark.parametrize('ending', ['keras', 'h5'])
@pytest.mark.parametrize('how', ['nested', 'flat'])
@pytest.mark.parametrize('backbone', ['ResNet50', 'MobileNetV2'])
def test_transfer_models(tmp_path, backbone, how, ending):
  model = _randomize(_transfer(how, backbone))
  path = tmp_path / f'm.{ending}'
  model.save(path)
  loaded = vit_jax.load(path, input_range=(-1, 1) if how == 'flat' else None)
  x = np.random.default_rng(1).integers(0, 256, (2, 96, 96, 3), dtype=np.uint8)
  values = x / 127.5 - 1 if how == 'flat' else x
  expected = np.asarray(model(values.astype(np.float32), training=False))
  logits = loaded.logits(x)
  error = np.abs(probabilities(logits, 'softmax') - expected).max()
  print(f'{backbone} {how} {ending}: {error:.1e} of {expected.max():.2f}')
  assert error < 1e-4
