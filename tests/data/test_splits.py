"""Split strings and splits made by class and seed."""

import numpy as np
import pytest

from tests.support import raises
from vit_jax.data.splits import check_fractions, interleave, parse_split, stratified
from vit_jax.errors import ConfigError, DatasetError

SIZES = {'train': 101, 'val': 13, 'test': 7}


@pytest.mark.parametrize(
  'spec, parts',
  [
    ('train', [('train', 0, 101)]),
    ('train[:90%]', [('train', 0, 91)]),
    ('train[90%:]', [('train', 91, 101)]),
    ('train[-10%:]', [('train', 91, 101)]),
    ('train[33%:67%]', [('train', 33, 68)]),
    ('train[:12.5%]', [('train', 0, 13)]),
    ('train[10:20]', [('train', 10, 20)]),
    ('train[:-10]', [('train', 0, 91)]),
    ('train[-10:]', [('train', 91, 101)]),
    ('train[ : 1_0 ]', [('train', 0, 10)]),
    ('train[:]', [('train', 0, 101)]),
    ('train+valid', [('train', 0, 101), ('val', 0, 13)]),
    ('validation[:3] + test', [('val', 0, 3), ('test', 0, 7)]),
    ('train[20:10]+test', [('train', 20, 20), ('test', 0, 7)]),
    ('all', [('train', 0, 101), ('val', 0, 13), ('test', 0, 7)]),
  ],
)
def test_grammar(spec, parts):
  assert parse_split(spec, SIZES) == parts


@pytest.mark.parametrize(
  'spec, fact',
  [
    ('trian', "did you mean 'train'"),
    ('train[:110%]', 'beyond 100%'),
    ('train[:102]', 'beyond the 101 examples'),
    ('train[:x]', 'neither a number of examples nor a percentage'),
    ('train[:1.5]', 'neither a number'),
    ('train[10]', 'cannot be read'),
    ('train[::2]', 'cannot be read'),
    ('train[:0]', 'no examples'),
    ('', 'cannot be read'),
  ],
)
def test_mistakes(spec, fact):
  with raises(DatasetError, fact):
    parse_split(spec, SIZES)


def test_percentages_cut_without_gap_or_overlap():
  parts = [parse_split(f'train[{p}%:{p + 10}%]', SIZES)[0] for p in range(0, 100, 10)]
  assert [a[2] for a in parts[:-1]] == [b[1] for b in parts[1:]]
  assert parts[0][1] == 0 and parts[-1][2] == 101


LABELS = np.repeat(np.arange(3), [50, 100, 7])
NAMES = ('ant', 'bee', 'cat')


def test_interleave_keeps_the_proportions_in_every_leading_part():
  order = interleave(LABELS, NAMES, seed=3)
  assert sorted(order) == list(range(157))
  for end in range(1, 158):
    counts = np.bincount(LABELS[order[:end]], minlength=3)
    assert np.abs(counts - end * np.array([50, 100, 7]) / 157).max() < 2


def test_a_class_is_chosen_alike_whichever_others_are_there():
  both = interleave(LABELS, NAMES, seed=3, per_class=5)
  alone = interleave(np.where(LABELS == 1, 0, -1), ('bee',), seed=3, per_class=5)
  assert len(both) == 15
  assert sorted(both[LABELS[both] == 1]) == sorted(alone)
  more = interleave(LABELS, NAMES, seed=3, per_class=6)
  assert set(both) < set(more)
  assert set(interleave(LABELS, NAMES, seed=4, per_class=5)) != set(both)


@pytest.mark.parametrize(
  'fractions, counts',
  [
    ((0.8, 0.1, 0.1), {'train': [40, 80, 5], 'val': [5, 10, 1], 'test': [5, 10, 1]}),
    ((0.8, 0.2, 0), {'train': [40, 80, 6], 'val': [10, 20, 1]}),
    ((0.71, 0, 0.29), {'train': [35, 71, 5], 'test': [15, 29, 2]}),
  ],
)
def test_stratified_counts(fractions, counts):
  order = interleave(LABELS, NAMES, seed=0)
  parts = stratified(LABELS, order, fractions)
  assert {n: list(np.bincount(LABELS[p], minlength=3)) for n, p in parts.items()} == counts
  assert sorted(np.concatenate(list(parts.values()))) == list(range(157))


def test_tiny_classes_still_give_each_split_one():
  labels = np.array([0, 0, 0, 1, 1])
  parts = stratified(labels, interleave(labels, ('a', 'b'), 0), (0.8, 0.1, 0.1))
  assert [np.bincount(labels[p], minlength=2).tolist() for p in parts.values()] == [
    [1, 2],
    [1, 0],
    [1, 0],
  ]


@pytest.mark.parametrize('fractions', [(0.5, 0.4, 0.2), (1.2, -0.1, -0.1), (0, 0.5, 0.5), (1,)])
def test_fractions_must_add_up(fractions):
  with raises(ConfigError, 'split_fractions', 'add up to 1', fractions):
    check_fractions(fractions)
  assert check_fractions((0.75, 0.25)) == (0.75, 0.25, 0)
