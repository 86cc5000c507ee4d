"""What sets CaiT apart: talking heads and class attention."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from tests.models import small
from vit_jax import tree
from vit_jax.models import cait


def test_mixing_heads_swaps_them():
  x = jnp.asarray(np.random.default_rng(0).standard_normal((2, 2, 3, 5)), jnp.float32)
  params = {'kernel': jnp.asarray([[0.0, 1.0], [1.0, 0.0]]), 'bias': jnp.asarray([0.0, 7.0])}
  y = cait.MixHeads(2, 'float32').apply({'params': params}, x)
  np.testing.assert_allclose(y[:, 0], x[:, 1])
  np.testing.assert_allclose(y[:, 1], x[:, 0] + 7, rtol=1e-6)


def test_cait_patches_never_see_the_class_token():
  module = small.build('cait_s24')
  variables = small.variables(module)
  other = np.arange(module.width)  # not the same in each, which LayerNorm takes out again
  params = {**variables['params'], 'class_token': variables['params']['class_token'] + other}
  x = small.images(module)
  apply = jax.jit(functools.partial(module.apply, mutable=['intermediates']))
  _, before = apply(variables, x)
  _, after = apply({'params': params}, x)
  before, after = tree.flatten(before['intermediates']), tree.flatten(after['intermediates'])
  np.testing.assert_array_equal(before['tokens'][0][:, 1:], after['tokens'][0][:, 1:])
  assert not np.allclose(before['pooled'][0], after['pooled'][0])
  assert before['encoder/block_00/attention/weights'][0].shape == (2, 3, 6, 6)
  assert before['class_encoder/block_00/attention/weights'][0].shape == (2, 3, 1, 7)
