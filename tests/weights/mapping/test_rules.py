"""The language of the tables: names with numbers, axes in letters, exactly invertible."""

import numpy as np
import pytest

from vit_jax.weights.mapping import rules


def test_names_share_numbers():
  template = 'blocks.{i}.norm.weight'
  assert rules.parse(template, 'blocks.11.norm.weight') == {'i': 11}
  assert rules.parse(template, 'blocks.x.norm.weight') is None
  assert rules.parse('stages.{b-1}.blocks.{u-1}', 'stages.0.blocks.4') == {'b': 1, 'u': 5}
  assert rules.fill_in('encoder/block_{i:02d}/{j+1}', {'i': 3, 'j': 4}) == 'encoder/block_03/5'


def test_axes_are_split_moved_and_joined():
  (binding,), _ = rules.bind([rules.Rule('a', 'b', '(s h k) d -> d s h k')], ['params/b'])
  x = np.arange(2 * 3 * 5 * 7).reshape(2 * 3 * 5, 7)
  (y,) = binding.to_ours([x], [(7, 2, 3, 5)])
  assert y.shape == (7, 2, 3, 5)
  assert y[4, 1, 2, 3] == x[1 * 15 + 2 * 5 + 3, 4]
  np.testing.assert_array_equal(binding.to_theirs([y])[0], x)


def test_a_kernel_of_another_size_than_the_models_keeps_its_size():
  (binding,), _ = rules.bind([rules.Rule('a', 'b', 'o i h w -> h w i o')], ['params/b'])
  (y,) = binding.to_ours([np.zeros((7, 3, 2, 5))], [(11, 13, 1, 7)])
  assert y.shape == (2, 5, 3, 7)


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
