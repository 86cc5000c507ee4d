"""Logits equal keras.applications', weights go there and come back unchanged."""

import os

import numpy as np
import pytest

from vit_jax import convert
from vit_jax.data import Preprocess
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
  rng = np.random.default_rng(0)
  for w in model.weights:
    shape = w.shape
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
