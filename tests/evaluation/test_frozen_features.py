"""Which splits choose the penalty of a probe, and which are scored."""

from types import SimpleNamespace

import pytest

from tests.support import raises
from vit_jax.errors import ConfigError
from vit_jax.evaluation.frozen_features import choose_splits


@pytest.mark.parametrize(
  'splits, wanted',
  [
    ({'train': 5, 'val': 5, 'test': 5}, ('val', 'test')),
    ({'train': 5, 'val': 5}, ('', 'val')),  # what is scored may not choose
    ({'train': 5, 'test': 5}, ('', 'test')),
  ],
)
def test_which_splits_choose_and_score(splits, wanted):
  dataset = SimpleNamespace(name='p', has_split=splits.__contains__)
  assert choose_splits(None, None, dataset) == wanted
  assert choose_splits('', None, dataset)[0] == ''


def test_named_splits_are_taken():
  dataset = SimpleNamespace(name='p', has_split={'train', 'val', 'test'}.__contains__)
  assert choose_splits('train[90%:]', 'val', dataset) == ('train[90%:]', 'val')
  assert choose_splits(None, 'val', dataset) == ('', 'val')


def test_without_a_split_to_score_the_options_are_named():
  dataset = SimpleNamespace(name='colours', has_split={'train'}.__contains__)
  with raises(ConfigError, 'colours', "--test='train[80%:]'", '--resplit'):  # as a shell takes it
    choose_splits(None, None, dataset)
