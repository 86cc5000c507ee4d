"""Update rules, clipping and weight decay against numbers worked by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tests.support import raises
from vit_jax import config, optimizers
from vit_jax.errors import ConfigError


def _one_update(params, grads, name, **options):
  """The updates of one step at rate 0.1, and the optimizer's state after it."""
  known = vars(type(config.schema()().optimizer)(name=name, **options))
  factors = optimizers.parameter_factors(
    params, known['multipliers'], known['decay'], known['weight_decay'], known['layer_decay']
  )
  tx = optimizers.make_optimizer(
    optimizers.build(name, known),
    lambda step: jnp.float32(0.1),
    factors,
    **{k: known[k] for k in ('weight_decay', 'clip_norm', 'clip_value')},
  )
  return tx.update(grads, tx.init(params), params)


def test_sgd_adds_decay_to_kernels_only():
  params = {'dense': {'kernel': jnp.full((2,), 3.0), 'bias': jnp.full((2,), 3.0)}}
  grads = {'dense': {'kernel': jnp.ones(2), 'bias': jnp.ones(2)}}
  updates, _ = _one_update(params, grads, 'sgd', weight_decay=0.5)
  np.testing.assert_allclose(updates['dense']['kernel'], -0.1 * (1 + 0.5 * 3), rtol=1e-6)
  np.testing.assert_allclose(updates['dense']['bias'], -0.1, rtol=1e-6)


def test_sgd_decay_passes_through_momentum():
  """L2: the decay is part of the gradient, so momentum sees it too."""
  rule = optimizers.build('sgd', {'momentum': 0.5})
  params, zero = {'kernel': jnp.array([4.0])}, {'kernel': jnp.zeros(1)}
  factors = {'kernel': optimizers.Factors(1.0, 1.0)}
  tx = optimizers.make_optimizer(rule, lambda step: 1.0, factors, weight_decay=0.25)
  state = tx.init(params)
  first, state = tx.update(zero, state, params)
  second, _ = tx.update(zero, state, params)
  np.testing.assert_allclose([first['kernel'][0], second['kernel'][0]], [-1.0, -1.5], rtol=1e-6)


def test_adamw_decay_is_decoupled():
  params = {'kernel': jnp.full((2,), 3.0)}
  updates, _ = _one_update(params, {'kernel': jnp.full((2,), 7.0)}, 'adamw', weight_decay=0.5)
  # The first Adam step is the gradient's sign.
  np.testing.assert_allclose(updates['kernel'], -0.1 * (1 + 0.5 * 3), rtol=1e-5)


def test_decay_factors_multiply_weight_decay():
  params = {'kernel': jnp.full((2,), 3.0)}
  updates, _ = _one_update(
    params, {'kernel': jnp.ones(2)}, 'sgd', weight_decay=0.5, decay=('kernel=0.2',)
  )
  np.testing.assert_allclose(updates['kernel'], -0.1 * (1 + 0.2 * 0.5 * 3), rtol=1e-6)


def test_clipping_is_by_global_norm():
  params = {'a': jnp.zeros(1), 'b': jnp.zeros(1)}
  grads = {'a': jnp.array([3.0]), 'b': jnp.array([4.0])}
  updates, _ = _one_update(params, grads, 'sgd', momentum=0.0, clip_norm=1.0)
  np.testing.assert_allclose([updates['a'][0], updates['b'][0]], [-0.06, -0.08], rtol=1e-6)


def test_clipping_by_value_cuts_each_number():
  grads = {'a': jnp.array([3.0, -4.0, 0.5])}
  updates, _ = _one_update({'a': jnp.zeros(3)}, grads, 'sgd', momentum=0.0, clip_value=1.0)
  np.testing.assert_allclose(updates['a'], [-0.1, 0.1, -0.05], rtol=1e-6)


@pytest.mark.parametrize('name', ['sgd', 'adamw', 'lamb', 'lion', 'adafactor'])
def test_state_can_be_bfloat16(name):
  params = {'kernel': jnp.zeros(3)}
  _, state = _one_update(params, {'kernel': jnp.ones(3)}, name, state_dtype='bfloat16')
  assert 'bfloat16' in {str(x.dtype) for x in jax.tree.leaves(state) if x.shape == (3,)}
  _, state = _one_update(params, {'kernel': jnp.ones(3)}, name)
  assert 'bfloat16' not in {str(x.dtype) for x in jax.tree.leaves(state)}


def test_lamb_moves_by_the_size_of_the_weights():
  """Adam's first step is a sign, [1, 1]; its norm becomes that of the weights, 5."""
  params = {'kernel': jnp.array([3.0, 4.0])}
  updates, _ = _one_update(params, {'kernel': jnp.array([7.0, 7.0])}, 'lamb')
  np.testing.assert_allclose(updates['kernel'], -0.1 * 5 / np.sqrt(2), rtol=1e-5)


def test_lion_moves_by_signs_and_decays():
  params = {'kernel': jnp.array([3.0, 4.0])}
  grads = {'kernel': jnp.array([7.0, -0.1])}
  updates, _ = _one_update(params, grads, 'lion', b2=0.99, weight_decay=0.5)
  np.testing.assert_allclose(updates['kernel'], [-0.1 * (1 + 1.5), -0.1 * (-1 + 2)], rtol=1e-6)


def test_adafactor_keeps_rows_and_columns():
  """At first the second moment is the squared gradient alone, so a constant one becomes 1."""
  params = {'kernel': jnp.zeros((37, 41)), 'bias': jnp.zeros(41)}
  grads = {'kernel': jnp.full((37, 41), 3.0), 'bias': jnp.full(41, 3.0)}
  updates, state = _one_update(params, grads, 'adafactor', momentum=0.0)
  np.testing.assert_allclose(updates['kernel'], -0.1, rtol=1e-5)
  shapes = {x.shape for x in jax.tree.leaves(state)}
  assert {(37,), (41,)} <= shapes and (37, 41) not in shapes
  _, state = _one_update(params, grads, 'adafactor', state_dtype='bfloat16')
  assert 'bfloat16' in {str(x.dtype) for x in jax.tree.leaves(state) if x.shape == (37, 41)}


def test_multipliers_by_name_first_match_counts():
  params = {'head': {'kernel': jnp.zeros(2)}, 'encoder': {'kernel': jnp.zeros(2)}}
  grads = {'head': {'kernel': jnp.ones(2)}, 'encoder': {'kernel': jnp.ones(2)}}
  updates, _ = _one_update(
    params, grads, 'sgd', momentum=0.0, multipliers=('^head/=10', 'kernel=0')
  )
  np.testing.assert_allclose(updates['head']['kernel'], -1.0, rtol=1e-6)
  np.testing.assert_array_equal(updates['encoder']['kernel'], 0.0)


def test_an_optimizer_takes_its_own_options_alone():
  rule = optimizers.build('adamw', {'b1': 0.8, 'momentum': 0.5, 'learning_rate': 7.0})
  assert rule == type(rule)(b1=0.8) and not hasattr(rule, 'momentum')
  with raises(ConfigError, "'adam'", "'adamw'"):
    optimizers.build('adam', {})


@pytest.mark.parametrize(
  ('name', 'options', 'rate', 'weight_decay', 'expected'),
  [
    ('adamw', {}, 1e-3, 0.1, True),
    ('lion', {}, 1e-3, 0.1, True),
    ('sgd', {}, 1e-3, 0.1, False),
    ('lamb', {}, 1e-3, 0.1, False),
    ('adafactor', {}, 1e-3, 0.1, False),
    ('adamw', {'eps': 0.0}, 1e-3, 0.1, False),  # 0 / 0 where no gradient came
    ('adamw', {'b1': 0.99, 'b2': 0.9}, 1e-3, 0.1, False),
    ('adamw', {'b2': 0.99999999}, 1e-3, 0.1, False),  # 1 in float32, whose correction is 0
    ('adamw', {'b1': 0.99999999, 'b2': 0.999999999}, 1e-3, 0.1, False),
    ('adamw', {'state_dtype': 'bfloat16'}, 1e-3, 0.1, False),  # in which 0.999 mu may be mu
    ('lion', {'state_dtype': 'bfloat16'}, 1e-3, 0.1, True),
    ('adamw', {}, 0.6, 0.0, False),  # a multiplier of 2 makes it 1.2
    ('adamw', {}, 1e-3, 600.0, False),  # weights would grow by themselves
  ],
)
def test_whether_weights_can_become_infinite_by_themselves(
  name, options, rate, weight_decay, expected
):
  factors = {'a': optimizers.Factors(1.0, 1.0), 'b': optimizers.Factors(2.0, 0.0)}
  factors['c'] = optimizers.Factors(2.0, 1.0)
  rule = optimizers.build(name, options)
  assert optimizers.is_bounded(rule, rate, factors, weight_decay) is expected

  class Users(type(rule)):
    """May do what it wants with the gradients."""

  assert not optimizers.is_bounded(Users(**options), rate, factors, weight_decay)


def test_adams_updates_are_within_its_bound():
  """The worst gradients for it fall by b2 / b1 from step to step; others are of a step, or tiny."""
  rule = optimizers.build('adamw', {'b1': 0.9, 'b2': 0.82})
  tx = optax.chain(*rule.transforms())
  params = jnp.zeros(3)
  state = tx.init(params)
  largest = 0.0
  for step in range(300):
    gradient = jnp.array([1e12 * (0.82 / 0.9) ** step, 1e18 * (step % 7 == 0), 1e-30])
    update, state = tx.update(gradient, state, params)
    largest = max(largest, float(jnp.abs(update).max()))
  bound = 0.1 / 0.18**0.5 / (1 - 0.9**2 / 0.82) ** 0.5
  assert 0.9 * bound < largest < bound
