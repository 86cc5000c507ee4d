"""The quicker form of attention against the plain one, values and gradients."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.models import small
from vit_jax.models import attention


def _draw(*shape):
  return jnp.asarray(np.random.default_rng(sum(shape)).standard_normal(shape), jnp.float32)


def _plain_attention(q, k, v, scale):
  weights = jax.nn.softmax(scale * jnp.einsum('bhnk,bhmk->bhnm', q, k), axis=-1)
  return jnp.einsum('bhnm,bhmk->bnhk', weights, v)


def test_deferred_attention_equals_the_plain_one_and_so_do_its_gradients():
  q, k, v = 9 * _draw(2, 3, 7, 5), _draw(2, 3, 11, 5), _draw(2, 3, 11, 5) + 1
  probe = _draw(2, 7, 3, 5)
  expected, pull = jax.vjp(functools.partial(_plain_attention, scale=1 / 3), q, k, v)
  found, pull_found = jax.vjp(lambda *x: attention.deferred_attention(*x, 1 / 3), q, k, v)
  np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
  for a, b in zip(pull_found(probe), pull(probe)):
    np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


def test_deferred_attention_does_not_overflow():
  q = jnp.full((1, 1, 3, 2), 100.0)
  v = _draw(1, 1, 3, 2)
  y = attention.deferred_attention(q, q, v, 0.5)  # logits of 10,000, all alike: the values' mean
  np.testing.assert_allclose(y[0, :, 0], jnp.broadcast_to(v[0, 0].mean(0), (3, 2)), rtol=1e-5)


def _everything(module, x, variables):
  def loss(params):
    out = module.apply({'params': params}, x, train=True, rngs={'dropout': jax.random.key(3)})
    return jnp.sum(jnp.sin(out)), out

  (_, out), grads = jax.jit(jax.value_and_grad(loss, has_aux=True))(variables['params'])
  return out, grads


@pytest.mark.parametrize('fields', [{}, {'qk_norm': True, 'qkv_bias': False}, {'gelu': 'exact'}])
def test_a_model_computes_the_same_with_either_attention(fields):
  plain, fast = (small.build('vit_ti16', attention=a, **fields) for a in ('einsum', 'deferred'))
  x, variables = small.images(plain), small.variables(plain)
  expected, found = _everything(plain, x, variables), _everything(fast, x, variables)
  for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected)):
    np.testing.assert_allclose(a, b, rtol=2e-3, atol=1e-4)


def test_attention_dropout_still_acts_and_weights_are_still_captured():
  module = small.build('vit_ti16', attention='deferred', attention_dropout=0.5)
  x, variables = small.images(module), small.variables(module)
  a, b = (
    module.apply(variables, x, train=True, rngs={'dropout': jax.random.key(i)}) for i in (1, 2)
  )
  assert np.abs(a - b).max() > 1e-3
  _, state = module.apply(variables, x, mutable=['intermediates'])
  weights = state['intermediates']['encoder']['block_00']['attention']['weights'][0]
  np.testing.assert_allclose(weights.sum(-1), 1, rtol=1e-5)


def test_auto_is_chosen_by_backend_and_precision():
  assert attention.chosen_attention('auto', 64, 'float32') == 'deferred'  # tests run on CPU
  assert attention.chosen_attention('auto', 64, 'bfloat16') == 'einsum'
  assert attention.chosen_attention('cudnn', 64, 'float32') == 'cudnn'


@pytest.mark.skipif(jax.default_backend() != 'cpu', reason="it is XLA's workspace on CPU")
@pytest.mark.parametrize('kind', ['tanh', 'exact'])
@pytest.mark.usefixtures('one_device')
def test_a_block_keeps_nothing_twice_for_its_gradient(kind):
  def workspace(depth):
    fields = {'depth': depth, 'width': 64, 'num_heads': 2, 'mlp_dim': 256, 'patch_size': (16, 16)}
    module = small.build('vit_ti16', attention='deferred', gelu=kind, **fields)
    x = jax.ShapeDtypeStruct((8, 224, 224, 3), jnp.float32)
    variables = jax.eval_shape(lambda: module.init(jax.random.key(0), jnp.zeros(x.shape)))
    gradient = jax.jit(jax.grad(lambda v, x: jnp.sum(module.apply(v, x, train=True))))
    return gradient.lower(variables, x).compile().memory_analysis().temp_size_in_bytes

  numbers = (workspace(6) - workspace(3)) / 3 / 4 / (8 * 197)  # of a block, for each token
  # In units of the width: GELU's input and output, 4 each; the two sums, queries, keys and values
  # and attention's output, 6; the weights of 197 tokens.
  assert numbers == pytest.approx((4 + 4 + 6) * 64 + 2 * 197, rel=0.03)
