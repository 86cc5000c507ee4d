"""Schedules and update rules against numbers worked by hand."""

import jax.numpy as jnp
import numpy as np
import pytest

from vit_jax import optimizers
from vit_jax.config import Optimizer, Schedule
from vit_jax.errors import UserError


def _rate(total=103, peak=2.0, **options):
  schedule = optimizers.make_schedule(Schedule(**options), peak, total, lambda n: int(n.split()[0]))
  return lambda step: float(schedule(jnp.int32(step)))


def test_cosine_with_warmup():
  rate = _rate(name='cosine', warmup='3 steps')
  np.testing.assert_allclose([rate(0), rate(1), rate(2)], [2 / 3, 4 / 3, 2.0], rtol=1e-6)
  np.testing.assert_allclose(rate(3 + 50), 1.0, rtol=1e-6)  # half of the 100 steps that decay
  np.testing.assert_allclose(rate(103), 0.0, atol=1e-6)


def test_linear_ends_where_it_is_told():
  rate = _rate(name='linear', end=0.1, total=100)
  np.testing.assert_allclose([rate(0), rate(50), rate(100)], [2.0, 1.1, 0.2], rtol=1e-6)


def test_rsqrt_and_cooldown():
  rate = _rate(name='rsqrt', timescale='10 steps', cooldown='20 steps', total=100)
  np.testing.assert_allclose([rate(0), rate(30)], [2.0, 1.0], rtol=1e-6)
  np.testing.assert_allclose(rate(90), 2.0 / np.sqrt(10) / 2, rtol=1e-6)


def _one_update(params, grads, **options):
  known = optimizers.factors(params, Optimizer(**options))
  tx = optimizers.make_optimizer(Optimizer(**options), lambda step: jnp.float32(0.1), known)
  updates, state = tx.update(grads, tx.init(params), params)
  return updates, state


def test_sgd_adds_decay_to_kernels_only():
  params = {'dense': {'kernel': jnp.full((2,), 3.0), 'bias': jnp.full((2,), 3.0)}}
  grads = {'dense': {'kernel': jnp.ones(2), 'bias': jnp.ones(2)}}
  updates, _ = _one_update(params, grads, name='sgd', weight_decay=0.5)
  np.testing.assert_allclose(updates['dense']['kernel'], -0.1 * (1 + 0.5 * 3), rtol=1e-6)
  np.testing.assert_allclose(updates['dense']['bias'], -0.1, rtol=1e-6)


def test_adamw_decay_is_decoupled():
  params = {'kernel': jnp.full((2,), 3.0)}
  updates, _ = _one_update(params, {'kernel': jnp.full((2,), 7.0)}, name='adamw', weight_decay=0.5)
  # The first Adam step is the gradient's sign.
  np.testing.assert_allclose(updates['kernel'], -0.1 * (1 + 0.5 * 3), rtol=1e-5)


def test_clipping_is_by_global_norm():
  params = {'a': jnp.zeros(1), 'b': jnp.zeros(1)}
  grads = {'a': jnp.array([3.0]), 'b': jnp.array([4.0])}
  updates, _ = _one_update(params, grads, name='sgd', momentum=0.0, clip_norm=1.0)
  np.testing.assert_allclose([updates['a'][0], updates['b'][0]], [-0.06, -0.08], rtol=1e-6)


@pytest.mark.parametrize('name', ['sgd', 'adamw'])
def test_state_can_be_bfloat16(name):
  params = {'kernel': jnp.zeros(3)}
  _, state = _one_update(params, {'kernel': jnp.ones(3)}, name=name, state_dtype='bfloat16')
  kinds = {str(x.dtype) for x in _leaves(state) if x.shape == (3,)}
  assert 'bfloat16' in kinds


def _leaves(state):
  import jax

  return jax.tree.leaves(state)


def test_lamb_moves_by_the_size_of_the_weights():
  """Adam's first step is a sign, [1, 1]; its norm becomes that of the weights, 5."""
  params = {'kernel': jnp.array([3.0, 4.0])}
  updates, _ = _one_update(params, {'kernel': jnp.array([7.0, 7.0])}, name='lamb')
  np.testing.assert_allclose(updates['kernel'], -0.1 * 5 / np.sqrt(2), rtol=1e-5)


def test_lion_moves_by_signs_and_decays():
  params = {'kernel': jnp.array([3.0, 4.0])}
  grads = {'kernel': jnp.array([7.0, -0.1])}
  updates, _ = _one_update(params, grads, name='lion', b2=0.99, weight_decay=0.5)
  np.testing.assert_allclose(updates['kernel'], [-0.1 * (1 + 1.5), -0.1 * (-1 + 2)], rtol=1e-6)


def test_adafactor_keeps_rows_and_columns():
  """At first the second moment is the squared gradient alone, so a constant one becomes 1."""
  params = {'kernel': jnp.zeros((37, 41)), 'bias': jnp.zeros(41)}
  grads = {'kernel': jnp.full((37, 41), 3.0), 'bias': jnp.full(41, 3.0)}
  updates, state = _one_update(params, grads, name='adafactor', momentum=0.0)
  np.testing.assert_allclose(updates['kernel'], -0.1, rtol=1e-5)
  shapes = {x.shape for x in _leaves(state)}
  assert {(37,), (41,)} <= shapes and (37, 41) not in shapes
  _, state = _one_update(params, grads, name='adafactor', state_dtype='bfloat16')
  assert 'bfloat16' in {str(x.dtype) for x in _leaves(state) if x.shape == (37, 41)}


def test_clipping_by_value_cuts_each_number():
  updates, _ = _one_update(
    {'a': jnp.zeros(3)},
    {'a': jnp.array([3.0, -4.0, 0.5])},
    name='sgd',
    momentum=0.0,
    clip_value=1.0,
  )
  np.testing.assert_allclose(updates['a'], [-0.1, 0.1, -0.05], rtol=1e-6)


def test_sams_distance_follows_the_learning_rate():
  def rho(rate, **options):
    known = Optimizer(learning_rate=0.4, sam_rho=0.2, **options)
    return float(optimizers.make_sharpness(known, lambda step: rate).rho(0))

  assert rho(0.1) == pytest.approx(0.2)
  assert rho(0.1, sam_rho_end=0.5) == pytest.approx(0.2 * (0.5 + 0.5 / 4))
  assert optimizers.make_sharpness(Optimizer(), lambda step: 0.1) is None


def test_multipliers_by_name_first_match_counts():
  params = {'head': {'kernel': jnp.zeros(2)}, 'encoder': {'kernel': jnp.zeros(2)}}
  grads = {'head': {'kernel': jnp.ones(2)}, 'encoder': {'kernel': jnp.ones(2)}}
  options = dict(name='sgd', momentum=0.0)
  updates, _ = _one_update(params, grads, multipliers=('^head/=10', 'kernel=0'), **options)
  np.testing.assert_allclose(updates['head']['kernel'], -1.0, rtol=1e-6)
  np.testing.assert_array_equal(updates['encoder']['kernel'], 0.0)
  with pytest.raises(UserError, match="no parameter is left for 'tail'"):
    _one_update(params, grads, multipliers=('tail=2', '.*=1'), **options)


def test_every_parameter_is_in_a_rule():
  params = _named('head/kernel', 'encoder/kernel', 'encoder/bias')
  with pytest.raises(UserError, match=r'multipliers: 2 of 3 .* such as encoder/bias: end with'):
    optimizers.factors(params, Optimizer(multipliers=('^head/=10',)))
  known = optimizers.factors(
    params, Optimizer(weight_decay=1.0, decay=('bias=3', '^head=0.5', '.*=0'))
  )
  assert {name: f.decay for name, f in known.items()} == {
    'encoder/bias': 3.0,
    'encoder/kernel': 0.0,
    'head/kernel': 0.5,
  }


def test_layer_decay_counts_blocks_from_the_top():
  params = _named(
    'class_token',
    'patch_embedding/kernel',
    'encoder/block_00/bias',
    'encoder/block_01/bias',
    'class_encoder/block_00/bias',
    'norm/bias',
    'head/bias',
  )
  known = optimizers.factors(params, Optimizer(layer_decay=0.5, multipliers=('^head=3', '.*=1')))
  assert {name: f.rate for name, f in known.items()} == {
    'class_token': 0.0625,
    'patch_embedding/kernel': 0.0625,
    'encoder/block_00/bias': 0.125,
    'encoder/block_01/bias': 0.25,
    'class_encoder/block_00/bias': 0.5,
    'norm/bias': 1.0,
    'head/bias': 3.0,
  }
  with pytest.raises(UserError, match='layer_decay needs a model of blocks'):
    optimizers.factors(_named('head/bias'), Optimizer(layer_decay=0.5))


def _named(*names):
  from vit_jax.tree import unflatten

  return unflatten({name: jnp.zeros(1) for name in names})


def test_frozen_by_word_and_by_regex():
  params = _named(
    'class_token',
    'patch_embedding/kernel',
    'encoder/block_00/mlp/fc1/kernel',
    'encoder/block_09/mlp/fc1/kernel',
    'encoder/block_10/norm1/scale',
    'head/kernel',
  )
  frozen = optimizers.frozen_names(params, ('embeddings', 'blocks:10'))
  assert frozen == {
    'class_token',
    'patch_embedding/kernel',
    'encoder/block_00/mlp/fc1/kernel',
    'encoder/block_09/mlp/fc1/kernel',
  }
  assert len(optimizers.frozen_names(params, ('backbone',))) == 5
  assert optimizers.frozen_names(params, ('norm1',)) == {'encoder/block_10/norm1/scale'}
  with pytest.raises(UserError, match="'tail' finds no parameter"):
    optimizers.frozen_names(params, ('tail',))
  with pytest.raises(UserError, match='nothing to train'):
    optimizers.frozen_names(params, ('backbone', 'head'))
