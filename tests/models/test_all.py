"""What every registered model must do. A new model fails here until it has its row."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.models import small
from tests.models.counts import COUNTS
from vit_jax import models, tree

NAMES = models.names()
each_model = pytest.mark.parametrize('name', NAMES)


def test_every_model_has_its_row():
  assert sorted(COUNTS) == sorted(NAMES)


@each_model
def test_parameter_count(name):
  module = models.build(name, 1000)
  x = jax.ShapeDtypeStruct((1, 224, 224, 3), jnp.float32)
  shapes = jax.eval_shape(lambda x: module.init(jax.random.key(0), x), x)
  assert sum(leaf.size for leaf in jax.tree.leaves(shapes['params'])) == COUNTS[name]


@functools.cache
def _logits(module):
  """Eager and compiled logits and the features under them."""
  x, variables = small.images(module), small.variables(module)
  with jax.disable_jit():
    eager = module.apply(variables, x)
  return np.asarray(eager), np.asarray(small.apply(module, variables, x))


@each_model
def test_logits_are_float32_and_jit_equals_eager(name):
  eager, compiled = _logits(small.build(name))
  assert compiled.shape == (2, small.CLASSES)
  assert compiled.dtype == np.float32
  assert np.std(compiled) > 1e-2  # not all alike, so that the comparison means something
  np.testing.assert_allclose(compiled, eager, rtol=1e-4, atol=1e-4)


@functools.cache
def _gradients(module):
  x, variables = small.images(module), small.variables(module)
  state = {k: v for k, v in variables.items() if k != 'params'}

  def loss(params):
    out, _ = module.apply(
      {'params': params, **state},
      x,
      train=True,
      rngs={'dropout': jax.random.key(3)},
      mutable=list(state),
    )
    return sum(jnp.sum(jnp.sin(o)) for o in jax.tree.leaves(out))

  return tree.flatten(jax.jit(jax.grad(loss))(variables['params']))


@each_model
def test_gradient_reaches_every_parameter(name):
  dead = [key for key, g in _gradients(small.build(name)).items() if not np.any(np.asarray(g))]
  assert not dead


@functools.cache
def _matmul_operands(module):
  """The operand types of all matmuls and convolutions of a training step, as StableHLO text."""
  x, variables = small.images(module), small.variables(module)

  def loss(variables, x):
    out, _ = module.apply(
      variables, x, train=True, rngs={'dropout': jax.random.key(3)}, mutable=['batch_stats']
    )
    return sum(jnp.sum(jnp.sin(o)) for o in jax.tree.leaves(out))

  text = jax.jit(jax.grad(loss)).lower(variables, x).as_text()
  lines = [t for t in text.splitlines() if re.search(r'stablehlo\.(dot_general|convolution)', t)]
  return [re.search(r': \((tensor<.*>), (tensor<.*>)\) ->', line).groups() for line in lines]


@each_model
def test_bfloat16_reaches_every_matmul(name):
  operands = _matmul_operands(small.build(name, dtype='bfloat16'))
  assert len(operands) > 8
  wide = [pair for pair in operands if not all(side.endswith('xbf16>') for side in pair)]
  assert not wide


@functools.cache
def _logits_of_a_square(module):
  x = small.images(module, 3, 3)
  return np.asarray(small.apply(module, small.variables(module, 3, 3), x))


@each_model
def test_another_image_size(name):
  # All the other tests have images of 2 x 3 patches.
  logits = _logits_of_a_square(small.build(name))
  assert logits.shape == (2, small.CLASSES)
  assert np.all(np.isfinite(logits))


@functools.cache
def _captured(module):
  x, variables = small.images(module), small.variables(module)
  out, state = small.apply(module, variables, x, mutable=['intermediates'])
  return out, tree.flatten(state['intermediates'])


@each_model
def test_intermediates_have_names(name):
  module = small.build(name, num_classes=0)
  _, found = _captured(module)
  outputs = [key for key in found if key.endswith('/output')]
  assert len(outputs) >= 2
  if hasattr(module, 'num_prefix_tokens'):
    n = module.num_prefix_tokens + 2 * 3
    assert found['tokens'][0].shape == (2, n, 24)
    assert 'encoder/block_00/output' in found and 'encoder/block_01/output' in found


@each_model
def test_without_classes_it_returns_the_input_of_the_head(name):
  module = small.build(name, num_classes=0)
  assert not any(key.startswith('head') for key in small.variables(module)['params'])
  features, found = _captured(module)
  assert features.dtype == np.float32
  np.testing.assert_array_equal(features, found['pooled'][0])
