"""The tables' language: names with numbers, axes in letters, exactly invertible."""

import numpy as np
import pytest

from vit_jax.weights.mapping import rules


def test_names_share_numbers():
  template = 'blocks.{i}.norm.weight'
  assert rules.parse(template, 'blocks.11.norm.weight') == {'i': 11}
  assert rules.parse(template, 'blocks.x.norm.weight') is None
  assert rules.parse('stages.{b-1}.blocks.{u-1}', 'stages.0.blocks.4') == {'b': 1, 'u': 5}
  assert rules.fill_in('encoder/block_{i:02d}/{j+1}', {'i': 3, 'j': 4}) == 'encoder/block_03/5'


def test_rearrange_splits_moves_and_joins():
  x = np.arange(2 * 3 * 5 * 7).reshape(2 * 3 * 5, 7)  # (s h k) d
  source, target = (('s', 'h', 'k'), ('d',)), (('d',), ('s',), ('h',), ('k',))
  y = rules.rearrange(x, source, target, (7, 2, 3, 5))
  assert y.shape == (7, 2, 3, 5)
  assert y[4, 1, 2, 3] == x[1 * 15 + 2 * 5 + 3, 4]
  np.testing.assert_array_equal(rules.rearrange(y, target, source), x)


@pytest.mark.parametrize(
  'theirs,ours,axes,shapes',
  [
    (('q', 'k', 'v'), 'qkv', 's (h k) d -> d s h k', [(7, 3, 2, 5)]),
    ('kv', ('key', 'value'), '(s h k) d -> s d h k', [(7, 2, 5), (7, 2, 5)]),
    ('conv', 'kernel', 'o i h w -> h w i o', [(2, 3, 5, 7)]),
    ('norm', 'scale', '1 1 1 c -> c', [(11,)]),
    ('same', 'same', '', [(2, 3)]),
  ],
)
def test_bindings_are_exactly_invertible(theirs, ours, axes, shapes):
  rule = rules.Rule(theirs, ours, axes)
  (binding,), orphans = rules.bind([rule], rule.our_names)
  assert orphans == []
  rng = np.random.default_rng(0)
  arrays = [rng.normal(size=s).astype(np.float32) for s in shapes]
  foreign = binding.to_theirs(arrays)
  assert [f.shape for f in foreign] == binding.their_shapes(shapes)
  for a, b in zip(binding.to_ours(foreign, shapes), arrays, strict=True):
    assert a.tobytes() == b.tobytes()


def test_names_without_a_rule_are_named():
  _, orphans = rules.bind([rules.Rule('a', 'b')], ['params/b', 'params/c'])
  assert orphans == ['params/c']
