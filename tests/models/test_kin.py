"""What sets DeiT, CaiT, T2T-ViT and MLP-Mixer apart, against answers worked by hand."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from tests.models import small
from vit_jax import models, tree
from vit_jax.models import cait, t2t


def test_a_distilled_model_has_two_heads_in_training_and_their_mean_otherwise():
  module = small.build('deit_ti16_distilled')
  x, variables = small.images(module), small.variables(module)
  logits, distilled = module.apply(variables, x, train=True)
  assert not np.allclose(logits, distilled)
  np.testing.assert_allclose(module.apply(variables, x), (logits + distilled) / 2, atol=1e-6)
  assert variables['params']['position_embedding'].shape == (1, 2 + 6, 24)
  assert module.num_prefix_tokens == 2


def test_deit3_has_gains_and_no_position_for_its_class_token():
  module = small.build('deit3_s16')
  params = small.variables(module)['params']
  assert params['position_embedding'].shape == (1, 6, 24)
  assert params['encoder']['block_00']['scale1']['gamma'].shape == (24,)
  assert models.fields('deit3_s16')['layer_scale'] == 1e-6


def test_mixing_heads_swaps_them():
  x = jnp.asarray(np.random.default_rng(0).standard_normal((2, 2, 3, 5)), jnp.float32)
  params = {'kernel': jnp.asarray([[0.0, 1.0], [1.0, 0.0]]), 'bias': jnp.asarray([0.0, 7.0])}
  y = cait.MixHeads(2, 'float32').apply({'params': params}, x)
  np.testing.assert_allclose(y[:, 0], x[:, 1])
  np.testing.assert_allclose(y[:, 1], x[:, 0] + 7, rtol=1e-6)


def test_cait_patches_never_see_the_class_token():
  module = small.build('cait_s24')
  variables = small.variables(module)
  params = {**variables['params'], 'class_token': variables['params']['class_token'] + 1}
  x = small.images(module)
  apply = jax.jit(functools.partial(module.apply, mutable=['intermediates']))
  _, before = apply(variables, x)
  _, after = apply({'params': params}, x)
  before, after = tree.flatten(before['intermediates']), tree.flatten(after['intermediates'])
  np.testing.assert_array_equal(before['tokens'][0][:, 1:], after['tokens'][0][:, 1:])
  assert not np.allclose(before['pooled'][0], after['pooled'][0])
  assert before['encoder/block_00/attention/weights'][0].shape == (2, 3, 6, 6)
  assert before['class_encoder/block_00/attention/weights'][0].shape == (2, 3, 1, 7)


def test_soft_split_by_hand():
  x = jnp.arange(1.0, 9.0).reshape(1, 2, 2, 2)  # channels 1 3 5 7 and 2 4 6 8
  y = t2t.soft_split(x, 3, 2)
  assert y.shape == (1, 1, 1, 18)
  np.testing.assert_array_equal(y[0, 0, 0, :9], [0, 0, 0, 0, 1, 3, 0, 5, 7])
  np.testing.assert_array_equal(y[0, 0, 0, 9:], [0, 0, 0, 0, 2, 4, 0, 6, 8])


def test_soft_splits_quarter_and_halve_any_grid():
  assert t2t.soft_split(jnp.zeros((1, 32, 48, 3)), 7, 4).shape == (1, 8, 12, 147)
  assert t2t.soft_split(jnp.zeros((1, 8, 12, 5)), 3, 2).shape == (1, 4, 6, 45)


def test_positive_features_by_hand_and_on_average():
  x = jnp.asarray([[[3.0, 4.0]]])
  np.testing.assert_allclose(
    t2t.positive_features(x / 5, jnp.zeros((4, 2))), np.full((1, 1, 4), np.exp(-0.5) / 2)
  )
  rng = np.random.default_rng(3)
  features = jnp.asarray(rng.standard_normal((99_991, 2)), jnp.float32)
  a, b = jnp.asarray([[[0.3, -0.5]]]), jnp.asarray([[[0.7, 0.2]]])
  product = jnp.sum(t2t.positive_features(a, features) * t2t.positive_features(b, features))
  np.testing.assert_allclose(product, np.exp(0.3 * 0.7 - 0.5 * 0.2), rtol=0.02)


def test_the_projection_of_features_has_the_right_gradient():
  rng = np.random.default_rng(4)
  x = jnp.asarray(rng.standard_normal((2, 3, 5)), jnp.float32)
  w = jnp.asarray(rng.standard_normal((7, 5)), jnp.float32)
  ours = jax.grad(lambda x, w: jnp.sum(jnp.sin(t2t._project(x, w))), (0, 1))(x, w)
  plain = jax.grad(lambda x, w: jnp.sum(jnp.sin(x @ w.T)), (0, 1))(x, w)
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), ours, plain)


def test_random_features_are_state_that_training_keeps():
  module = small.build('t2t_vit_7')
  x = small.images(module)
  variables = jax.jit(module.init)(jax.random.key(0), x)
  state = tree.flatten(variables['batch_stats'])
  features = state['tokens_to_token/attention1/features']
  np.testing.assert_allclose(features @ features.T, 4 * np.eye(4), atol=1e-5)  # m = width / 2
  assert not any('features' in key for key in tree.flatten(variables['params']))
  rngs = {'dropout': jax.random.key(1)}
  train = jax.jit(functools.partial(module.apply, train=True, mutable=['batch_stats']))
  _, after = train(variables, x, rngs=rngs)
  after = tree.flatten(after['batch_stats'])
  np.testing.assert_array_equal(after['tokens_to_token/attention1/features'], features)


def test_the_query_scale_belongs_to_the_model():
  default, scaled = small.build('t2t_vit_7'), small.build('t2t_vit_7', query_scale=8**-0.5)
  wider = small.build('t2t_vit_7', query_scale=24**-0.5)
  x, variables = small.images(default), small.variables(default)
  np.testing.assert_allclose(default.apply(variables, x), scaled.apply(variables, x), rtol=1e-6)
  assert not np.allclose(default.apply(variables, x), wider.apply(variables, x))


def test_mixer_weights_fit_one_number_of_patches():
  module = small.build('mixer_b16')
  block = small.variables(module)['params']['encoder']['block_00']
  assert block['token_mixing']['fc1']['kernel'].shape == (6, 13)
  assert block['channel_mixing']['fc1']['kernel'].shape == (24, 29)
