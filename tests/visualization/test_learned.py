"""Position embeddings, filters, attention distance, token PCA, nearest images: by hand."""

import jax
import numpy as np
import pytest

from tests.models import small
from tests.support import raises
from vit_jax import visualization
from vit_jax.errors import ModelError
from vit_jax.visualization import activations


def test_position_similarity_by_hand():
  module = small.build('vit_ti16')
  table = np.zeros((1, 7, 24), np.float32)
  table[0, 0] = 9  # the class token's is left out
  table[0, 1:, 0] = 1
  table[0, 4, :2] = (3, 4)  # patch (1, 0)
  found = visualization.position_similarity(
    module, {'params': {'position_embedding': table}}, (2, 3)
  )
  expected = np.ones((2, 3))
  expected[1, 0] = 0.6
  np.testing.assert_allclose(found[0, 1], expected, rtol=1e-6)
  with raises(ModelError, '7 position embeddings', '5 x 5'):
    visualization.position_similarity(module, {'params': {'position_embedding': table}}, (5, 5))


@pytest.mark.parametrize('name', ['t2t_vit_7', 'mixer_s16', 'cait_xxs24'])
def test_position_similarity_of_other_families(name):
  module = small.build(name)
  if name == 'mixer_s16':
    with raises(visualization.NotApplicable, 'no position embeddings'):
      visualization.position_similarity(module, small.variables(module), (2, 3))
    return
  found = visualization.position_similarity(module, small.variables(module), (2, 3))
  np.testing.assert_allclose(found.reshape(6, 6), found.reshape(6, 6).T, atol=1e-6)
  np.testing.assert_allclose(np.diag(found.reshape(6, 6)), 1.0, rtol=1e-5)


def test_computed_position_embeddings_of_a_square_are_symmetric():
  module = small.build('vit_ti16', position_embedding='sincos_2d')
  found = visualization.position_similarity(module, {'params': {}}, (3, 3))
  np.testing.assert_allclose(found[1, 1, 0, 1], found[1, 1, 1, 0], rtol=1e-5)


def test_filters_that_are_two_patterns():
  rng = np.random.default_rng(5)
  patterns = np.linalg.qr(rng.standard_normal((2 * 3 * 3, 2)))[0].T.reshape(2, 2, 3, 3)
  amounts = np.array([[4, 0], [-4, 0], [0, 1], [0, -1]])  # four filters, variances 32 and 2
  kernel = np.einsum('dk,kpqc->pqcd', amounts, patterns)
  found, shares = visualization.patch_filters(
    {'params': {'patch_embedding': {'kernel': kernel}}}, 2
  )
  np.testing.assert_allclose(shares, [32 / 34, 2 / 34], rtol=1e-5)
  for component, pattern in zip(found, patterns):
    assert abs(np.sum(component * pattern)) == pytest.approx(1.0, abs=1e-5)


def test_filters_of_a_hybrid_are_its_networks_and_t2t_has_none():
  module = small.build('r_ti16')
  found, _ = visualization.patch_filters(small.variables(module), 5)
  assert found.shape == (5, 7, 7, 3)
  with raises(visualization.NotApplicable, 'linear map'):
    visualization.patch_filters(small.variables(small.build('t2t_vit_7')))


def _captured(weights, prefix, grid, patch_size):
  layer = activations.Layer('encoder/block_00/attention', 'self', prefix, weights)
  return activations.Captured(
    np.zeros((1, 2)), grid, patch_size, bool(prefix), False, (layer,), {}, None
  )


def test_attention_distance_by_hand():
  # Two patches below each other, 5 pixels apart; the class token's share is left out.
  weights = np.array([[0.2, 0.4, 0.4], [0.5, 0.25, 0.25], [0.6, 0.4, 0.0]]).reshape(1, 1, 3, 3)
  seen = _captured(weights, 1, (2, 1), (5, 3))
  layers, found = visualization.attention_distance(seen)
  assert layers[0].label == 'block 0'
  # The first patch gives half of its patch share to itself, the second all to the first.
  np.testing.assert_allclose(found, [[(2.5 + 5.0) / 2]])
  assert visualization.uniform_distance((2, 1), (5, 3)) == 2.5


def test_token_pca_is_common_to_images():
  rng = np.random.default_rng(7)
  one, two = rng.standard_normal((2, 3, 5)), rng.standard_normal((3, 2, 5))
  two[0, 0] = one[1, 1]
  colors = visualization.token_pca([one, two])
  assert [c.shape for c in colors] == [(2, 3, 3), (3, 2, 3)]
  np.testing.assert_allclose(colors[0][1, 1], colors[1][0, 0], atol=1e-6)
  assert min(c.min() for c in colors) == 0.0 and max(c.max() for c in colors) == 1.0


def test_channels_that_vary_most_come_first():
  grid = np.zeros((3, 5, 4))
  grid[..., 2] = np.arange(15).reshape(3, 5)
  grid[..., 1] = np.arange(15).reshape(3, 5) / 7
  grid[0, 0, 3] = 1e6  # one extreme patch is no variation over the image
  indices, maps = visualization.channel_maps(grid, 2)
  assert indices == [2, 1]
  np.testing.assert_array_equal(maps[0], grid[..., 2])
  assert visualization.channel_maps(grid, channels=(3,))[0] == [3]
  with raises(ModelError, 'channel 4', '0 to 3'):
    visualization.channel_maps(grid, channels=(4,))


def test_nearest_by_hand():
  gallery = np.array([[1.0, 0.0], [0.0, 2.0], [3.0, 0.1]])
  order, values = visualization.nearest([[5.0, 0.0]], gallery, 2)
  np.testing.assert_array_equal(order, [[0, 2]])
  np.testing.assert_allclose(values[0], [1.0, 3 / np.hypot(3, 0.1)], rtol=1e-6)
  order, values = visualization.nearest([[1.0, 2.0]], gallery, 5, 'mse', exclude=[1])
  np.testing.assert_array_equal(order, [[0, 2]])
  np.testing.assert_allclose(values, [[2.0, (4 + 1.9**2) / 2]], rtol=1e-6)


@pytest.mark.parametrize('name', ['vit_ti16', 'resnet50'])
def test_embeddings_are_pooled_features_whatever_the_batch(name):
  module = small.build(name)
  variables = small.variables(module)
  images = np.concatenate([small.images(module)] * 3)[:5]
  found = visualization.embeddings(module, variables, images, batch_size=3)
  expected = jax.jit(module.clone(num_classes=0).apply)(variables, images)
  np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4)


def test_overlay_is_grey_where_low_and_bright_where_high():
  image = np.full((8, 12, 3), (200, 0, 0), np.uint8)
  found = visualization.overlay(image, np.array([[0.0, 0.0], [0.0, 9.0]]), smooth=False)
  assert found.shape == image.shape
  low, high = found[0, 0].astype(int), found[-1, -1].astype(int)
  assert np.ptp(low) <= 2 and low.max() < 60  # the image's luma, darkened by a quarter
  assert high[0] > 200 and high[1] > 200
  flat = visualization.overlay(image[..., :1], np.ones((2, 2)))  # grey, and nothing stands out
  assert flat.shape == image.shape and np.unique(flat.reshape(-1, 3), axis=0).shape == (1, 3)
  np.testing.assert_array_equal(visualization.enlarge(np.eye(2), (4, 4), smooth=False)[:2, :2], 1.0)
  stretched = visualization.scale(np.arange(101.0).reshape(1, 101), outermost=10)
  np.testing.assert_allclose(stretched[0, [0, 10, 50, 90, 100]], [0, 0, 0.5, 1, 1])
