"""What sets T2T-ViT apart, against values worked by hand: soft splits and random features."""

import jax
import jax.numpy as jnp
import numpy as np

from tests.models import small
from vit_jax import tree
from vit_jax.models import t2t


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
  _, after = small.apply(module, variables, x, train=True, mutable=['batch_stats'], rngs=rngs)
  after = tree.flatten(after['batch_stats'])
  np.testing.assert_array_equal(after['tokens_to_token/attention1/features'], features)


def test_the_query_scale_belongs_to_the_model():
  default, scaled = small.build('t2t_vit_7'), small.build('t2t_vit_7', query_scale=8**-0.5)
  wider = small.build('t2t_vit_7', query_scale=24**-0.5)
  x, variables = small.images(default), small.variables(default)
  logits, same, others = (small.apply(m, variables, x) for m in (default, scaled, wider))
  np.testing.assert_allclose(logits, same, rtol=1e-6)
  assert not np.allclose(logits, others)
