"""Weights drawn together are those that a model's own init draws."""

import jax
import numpy as np
import pytest

from tests.models import small
from vit_jax import rng
from vit_jax.parallel import drawing

# With splits of keys, scaled uniform, normal and truncated normal draws, and with none.
NAMES = ('vit_ti16', 'r50_b16', 'cait_xxs24', 't2t_vit_7', 'mobilenet_v2', 'bit_r50x1', 'resnet50')


def _check(found, expected):
  assert jax.tree.structure(found) == jax.tree.structure(expected)
  for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
    assert isinstance(a, jax.Array)
    assert a.dtype == b.dtype
    if np.issubdtype(a.dtype, np.floating):
      np.testing.assert_allclose(a, b, rtol=2e-6)
    else:
      np.testing.assert_array_equal(a, b)


def _sum(*keys):
  return sum(i * jax.random.uniform(key) for i, key in enumerate(keys, 1))


@pytest.mark.parametrize('name', NAMES)
def test_the_weights_are_those_of_init(name):
  module, key = small.build(name), rng.stream(3, 'params')
  images = np.zeros((1, 32, 32, 3), np.float32)
  _check(drawing.drawn(module.init, key, images), jax.jit(module.init)(key, images))


@pytest.mark.parametrize('implementation', ['rbg', 'threefry2x32'])
@pytest.mark.parametrize('partitionable', [False, True])
def test_any_function_of_keys_and_arrays(implementation, partitionable):
  def draw(key, others):
    one, two = jax.random.split(others['key'])
    folded = [jax.random.fold_in(key, i) for i in range(4)]
    return {
      'alike': [jax.random.normal(k, (3, 2)) * others['scale'] for k in folded],
      'another shape': jax.random.normal(folded[0], (2, 3)),
      'another key': jax.random.normal(jax.random.fold_in(one, 1), (3, 2)) * others['scale'],
      'of two': jax.random.uniform(folded[1]) + jax.random.uniform(folded[2]),
      'of one twice': jax.random.uniform(folded[1]) + jax.random.uniform(folded[1]),
      'of two, the first twice': _sum(folded[1], folded[2], folded[1]),
      'of two, the second twice': _sum(folded[1], folded[2], folded[2]),
      'of many': jax.vmap(jax.random.uniform)(jax.random.split(folded[3], 3)),
      'folded by a value': jax.random.fold_in(key, others['scale'].astype(int)),
      'bytes': [jax.random.bits(k, (5,), 'uint8') for k in folded],
      'steps': jax.random.permutation(two, 7),
      'none': [np.zeros(3), others['scale'], key],
    }

  def plain(tree):
    is_key = lambda x: jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key)  # noqa: E731
    return jax.tree.map(lambda x: jax.random.key_data(x) if is_key(x) else x, tree)

  with jax.threefry_partitionable(partitionable):
    key = jax.random.key(5, impl=implementation)
    args = key, {'key': jax.random.key(6, impl=implementation), 'scale': np.float32(1.5)}
    _check(drawing.drawn(lambda *x: plain(draw(*x)), *args), plain(jax.jit(draw)(*args)))


def test_weights_that_a_long_computation_makes():
  def draw(key, x):
    for _ in range(3000):
      x = x + 1
    return [x + jax.random.uniform(jax.random.fold_in(key, i)) for i in range(2)]

  args = rng.stream(3, 'params'), np.float32(1)
  _check(drawing.drawn(draw, *args), jax.jit(draw)(*args))


def test_weights_drawn_alike_are_rows_of_one_array():
  module = small.build('vit_ti16', depth=5)
  closed = jax.make_jaxpr(module.init)(rng.stream(3, 'params'), np.zeros((1, 32, 32, 3), 'float32'))
  program = drawing._Program(closed)
  drawn, filled = sum(map(len, program.groups)), len(program._filled)
  assert drawn + filled == len(closed.jaxpr.outvars)
  assert drawn > 5 * len(program.groups) / 2 and filled > 5 * 7  # biases, scales of norms


def test_what_is_drawn_has_memory_of_its_own():
  """A step reuses it; two arrays that share some, or that share it with NumPy, would be copied."""
  given = jax.device_put(np.ones(300, np.float32))
  zeros = lambda x: [x, x, *(np.zeros((7, 40), np.float32) for _ in range(3))]  # noqa: E731
  found = drawing.drawn(zeros, given)
  places = [x.unsafe_buffer_pointer() for x in found]
  assert len(set(places)) == 5 and places[0] == given.unsafe_buffer_pointer()
  after = jax.jit(lambda x: [a + 1 for a in x], donate_argnums=0)(found[1:])
  assert {x.unsafe_buffer_pointer() for x in after} == set(places[1:])
