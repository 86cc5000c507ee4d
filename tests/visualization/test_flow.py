"""Rollout against the published formulas, worked again in plain loops, and by hand."""

import numpy as np
import pytest

from tests.models import small
from tests.support import raises
from vit_jax import visualization
from vit_jax.errors import ConfigError, ModelError
from vit_jax.visualization import activations, flow


def _weights(rng, blocks, b, h, n):
  raw = rng.random((blocks, b, h, n, n)).astype(np.float32) ** 3
  return list(raw / raw.sum(-1, keepdims=True))


def _published(weights, fusion, discard):
  """Abnar and Zuidema's rollout with vit-explain's discarding, one image at a time in loops."""
  n = weights[0].shape[-1]
  results = []
  for image in range(len(weights[0])):
    result = np.eye(n)
    for block in weights:
      fused = {'mean': np.mean, 'max': np.max, 'min': np.min}[fusion](block[image], axis=0)
      flat = fused.astype(np.float64).ravel()
      for index in np.argsort(flat)[: int(n * n * discard)]:
        if index != 0:  # the class token's attention to itself
          flat[index] = 0.0
      a = 0.5 * flat.reshape(n, n) + 0.5 * np.eye(n)
      for row in range(n):
        a[row] /= a[row].sum()
      result = a @ result
    results.append(result)
  return np.array(results)


@pytest.mark.parametrize('fusion', ['mean', 'max', 'min'])
@pytest.mark.parametrize('discard', [0.0, 0.37, 0.9])
def test_rollout_is_the_published_formula(fusion, discard):
  weights = _weights(np.random.default_rng(3), blocks=5, b=2, h=3, n=11)
  found = visualization.rollout(weights, fusion, discard)
  np.testing.assert_allclose(found, _published(weights, fusion, discard), atol=1e-5)
  np.testing.assert_allclose(found.sum(-1), 1.0, rtol=1e-5)


def test_rollout_of_two_tokens_by_hand():
  first = np.array([[0.5, 0.5], [0.0, 1.0]]).reshape(1, 1, 2, 2)
  second = np.array([[0.0, 1.0], [1.0, 0.0]]).reshape(1, 1, 2, 2)
  # Halves with the identity: [[3/4, 1/4], [0, 1]], then [[1/2, 1/2], [1/2, 1/2]].
  expected = [[[3 / 8, 5 / 8], [3 / 8, 5 / 8]]]
  np.testing.assert_allclose(visualization.rollout([first, second]), expected)


def test_discarding_keeps_the_attention_among_class_token_and_registers():
  fused = np.arange(16, dtype=np.float32).reshape(1, 4, 4) / 100
  dropped = flow.drop_lowest(fused, 0.5, prefix=2)
  expected = fused.copy()
  expected[0, 0, 2:] = 0
  expected[0, 1, 2:] = 0  # of the eight lowest, entries [:2, :2] stay
  np.testing.assert_array_equal(dropped, expected)
  with raises(ConfigError, 'discard ratio', '1.0'):
    flow.drop_lowest(fused, 1.0)


def test_gradient_rollout_by_hand():
  weights = np.array([[0.5, 0.5], [0.25, 0.75]]).reshape(1, 1, 2, 2)
  gradients = np.array([[-1.0, 2.0], [0.0, 0.0]]).reshape(1, 1, 2, 2)
  # Positive products [[0, 1], [0, 0]]; with the identity, halved and normalised.
  expected = [[[0.5, 0.5], [0.0, 1.0]]]
  np.testing.assert_allclose(visualization.gradient_rollout([weights], [gradients]), expected)


def test_maps_of_a_vit_are_rows_of_the_rollout():
  module = small.build('vit_ti16', num_registers=2)
  images = small.images(module)
  seen = visualization.capture(module, small.variables(module), images)
  whole = visualization.rollout([layer.weights for layer in seen.layers], 'max', 0.4, prefix=3)
  found = visualization.rollout_map(seen, 'max', 0.4)
  np.testing.assert_allclose(found, whole[:, 0, 3:].reshape(2, 2, 3), rtol=1e-5)
  of_patch = visualization.rollout_map(seen, 'max', 0.4, query=(1, 2))
  np.testing.assert_allclose(of_patch, whole[:, 3 + 5, 3:].reshape(2, 2, 3), rtol=1e-5)


def test_mean_pooling_reads_all_patches():
  module = small.build('vit_ti16', pool='gap')
  seen = visualization.capture(module, small.variables(module), small.images(module))
  whole = visualization.rollout([layer.weights for layer in seen.layers], prefix=0)
  found = visualization.rollout_map(seen)
  np.testing.assert_allclose(found, whole.mean(1).reshape(2, 2, 3), rtol=1e-5)
  with raises(ModelError, 'no class token'):
    visualization.rollout_map(seen, query='class')


def test_attention_pooling_starts_from_its_probe():
  module = small.build('vit_ti16', pool='map', num_registers=1)
  seen = visualization.capture(module, small.variables(module), small.images(module))
  *blocks, probe = seen.layers
  assert probe.kind == 'probe' and probe.label == 'pooling'
  whole = visualization.rollout([layer.weights for layer in blocks])
  expected = probe.weights.mean(1) @ whole[:, 1:, 1:]
  found = visualization.rollout_map(seen)
  np.testing.assert_allclose(found, expected.reshape(2, 2, 3), rtol=1e-5)


def test_cait_joins_its_class_token_after_the_patches():
  module = small.build('cait_xxs24')
  seen = visualization.capture(module, small.variables(module), small.images(module))
  assert [layer.kind for layer in seen.layers] == ['self', 'self', 'class', 'class']
  patches = visualization.rollout([np.maximum(x.weights, 0) for x in seen.layers[:2]], prefix=0)
  row = np.eye(7)[:1].repeat(2, 0)  # the class token, while it is still itself
  for layer in seen.layers[2:]:
    fused = layer.weights.mean(1)[:, 0]
    mixed = 0.5 * fused + 0.5 * np.eye(7)[0]
    mixed /= mixed.sum(-1, keepdims=True)
    row = mixed[:, :1] * row + mixed * (np.arange(7) > 0)
  expected = np.einsum('bn,bnm->bm', row[:, 1:], patches)
  np.testing.assert_allclose(visualization.rollout_map(seen), expected.reshape(2, 2, 3), rtol=1e-4)


def test_attention_of_class_and_distillation_token_and_patch():
  module = small.build('deit_ti16_distilled')
  seen = visualization.capture(module, small.variables(module), small.images(module))
  layer = seen.layers[1]
  assert (layer.prefix, layer.label) == (2, 'block 1')
  for query, row in (('class', 0), (None, 0), ('distillation', 1), ((0, 1), 3)):
    expected = layer.weights[:, :, row, 2:].reshape(2, 3, 2, 3)
    np.testing.assert_array_equal(visualization.attention_map(seen, layer, query), expected)
  with raises(ModelError, 'patch 2,0', 'outside the grid'):
    visualization.attention_map(seen, layer, (2, 0))
  with raises(ConfigError, 'mena', 'mean'):
    flow.fuse_heads(layer.weights, 'mena')


def test_models_without_attention_have_no_rollout():
  module = small.build('mixer_s16')
  seen = visualization.capture(module, small.variables(module), small.images(module))
  with raises(activations.NotApplicable, 'has none'):
    visualization.rollout_map(seen)
