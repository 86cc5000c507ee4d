"""Which parameters are frozen, and which have a learning rate or weight decay of their own."""

import jax.numpy as jnp
import pytest

from tests.support import raises
from vit_jax import optimizers
from vit_jax.errors import ConfigError
from vit_jax.optimizers.parameter_groups import check_pattern
from vit_jax.tree import unflatten


def _named(*names):
  return unflatten({name: jnp.zeros(1) for name in names})


def test_a_rule_without_a_parameter_is_refused():
  params = _named('head/kernel', 'encoder/kernel')
  with raises(ConfigError, 'config.optimizer.multipliers', "'tail'", 'encoder/kernel'):
    optimizers.parameter_factors(params, ('tail=2', '.*=1'))
  with raises(ConfigError, "'kernel'"):  # all of its parameters have a rule already
    optimizers.parameter_factors(params, ('head=2', 'encoder=3', 'kernel=1'))
  params = _named('a/kernel', 'b/kernel', 'c/kernel', 'head_class/kernel')
  with raises(ConfigError, "'^head/'", 'names are like head_class/kernel'):
    optimizers.parameter_factors(params, ('^head/=10', '.*=1'))
  params = _named('head/kernel', 'encoder/kernel')
  optimizers.parameter_factors(params, ('head=2', 'encoder=3', '.*=1'))  # for whatever is left


def test_every_parameter_has_a_rule():
  params = _named('head/kernel', 'encoder/kernel', 'encoder/bias')
  with raises(ConfigError, 'config.optimizer.multipliers', '2 of 3', 'encoder/bias', "'.*=1'"):
    optimizers.parameter_factors(params, ('^head/=10',))
  known = optimizers.parameter_factors(
    params, decay=('bias=3', '^head=0.5', '.*=0'), weight_decay=1.0
  )
  assert {name: f.decay for name, f in known.items()} == {
    'encoder/bias': 3.0,
    'encoder/kernel': 0.0,
    'head/kernel': 0.5,
  }


def test_without_weight_decay_its_rules_are_not_read():
  known = optimizers.parameter_factors(_named('head/kernel'), decay=('tail=1',))
  assert known == {'head/kernel': optimizers.Factors(1.0, 0.0)}


def test_all_problems_are_reported_at_once():
  with pytest.raises(ConfigError) as caught:
    optimizers.parameter_factors(
      _named('head/kernel'), ('tail=2', '.*=1'), ('bias=1', '.*=0'), 1.0, layer_decay=0.5
    )
  assert len(caught.value.problems) == 3


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
  known = optimizers.parameter_factors(params, ('^head=3', '.*=1'), layer_decay=0.5)
  assert {name: f.rate for name, f in known.items()} == {
    'class_token': 0.0625,
    'patch_embedding/kernel': 0.0625,
    'encoder/block_00/bias': 0.125,
    'encoder/block_01/bias': 0.25,
    'class_encoder/block_00/bias': 0.5,
    'norm/bias': 1.0,
    'head/bias': 3.0,
  }
  with raises(ConfigError, 'layer_decay', 'head/bias'):
    optimizers.parameter_factors(_named('head/bias'), layer_decay=0.5)


FREEZABLE = _named(
  'class_token',
  'patch_embedding/kernel',
  'encoder/block_00/mlp/fc1/kernel',
  'encoder/block_09/mlp/fc1/kernel',
  'encoder/block_10/norm1/scale',
  'head/kernel',
)


def test_frozen_by_word_and_by_regex():
  frozen = optimizers.frozen_names(FREEZABLE, ('embeddings', 'blocks:3'))
  assert frozen == {
    'class_token',
    'patch_embedding/kernel',
    'encoder/block_00/mlp/fc1/kernel',
  }
  assert len(optimizers.frozen_names(FREEZABLE, ('backbone',))) == 5
  assert optimizers.frozen_names(FREEZABLE, ('norm1',)) == {'encoder/block_10/norm1/scale'}
  blocks = [f'encoder/block_{i:02d}/bias' for i in range(12)]
  assert optimizers.frozen_names(_named(*blocks), ('blocks:11',)) == set(blocks[:11])


@pytest.mark.parametrize(
  'words, facts',
  [
    (('tail',), ["'tail'", 'class_token']),
    (('blocks:0',), ["'blocks:0'"]),
    (('blocks:4',), ["'blocks:4'", '3 blocks']),
    (('backbone', 'head'), ['config.freeze', 'nothing to train']),
    (('tail', 'nose'), ["'tail'", "'nose'"]),
  ],
)
def test_what_cannot_be_frozen_is_refused(words, facts):
  with raises(ConfigError, *facts):
    optimizers.frozen_names(FREEZABLE, words)


@pytest.mark.parametrize('text', ['kernel', '=', 'kernel=', 'kernel=x', '(=1', 'kernel=-1',
                                  'kernel=inf', 'kernel=nan'])  # fmt: skip
def test_rules_of_another_form_are_refused(text):
  with raises(ConfigError, repr(text), 'REGEX=FACTOR'):
    optimizers.parse_multiplier(text)


def test_rules_may_hold_equals_signs():
  assert optimizers.parse_multiplier('(?=kernel)=0.5') == ('(?=kernel)', 0.5)
  check_pattern('^head/')
  with raises(ConfigError, "'('"):
    check_pattern('(')
