"""Blocks run by a loop against unrolled blocks."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.models import small
from vit_jax import models
from vit_jax.models import attention, convs, layers, stack

FAMILIES = ('vit_ti16', 'deit3_s16', 't2t_vit_7', 'mixer_s32', 'cait_xxs24')


def _gradients(module, x, variables):
  def loss(params):
    out = module.apply(
      {**variables, 'params': params}, x, train=True, rngs={'dropout': jax.random.key(3)}
    )
    return jnp.sum(jnp.sin(out)), out

  return jax.jit(jax.grad(loss, has_aux=True))(variables['params'])


@pytest.mark.parametrize('remat', ['none', 'block'])
@pytest.mark.parametrize('name', FAMILIES)
def test_a_loop_computes_what_unrolled_blocks_do(name, remat):
  unrolled = small.build(name, scan=False, depth=3)
  loop = small.build(name, scan=True, remat=remat, depth=3)
  x, variables = small.images(unrolled), small.variables(unrolled)
  assert jax.tree.map(jnp.shape, variables) == jax.tree.map(jnp.shape, small.variables(loop))
  found, expected = _gradients(loop, x, variables), _gradients(unrolled, x, variables)
  for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected)):
    np.testing.assert_allclose(a, b, rtol=2e-3, atol=2e-4)


def _encoder(drop_path, schedule='linear', **options):
  options = attention.BlockOptions(num_heads=2, mlp_dim=5, **options)
  module = layers.Encoder(3, options, drop_path, schedule)
  x = jnp.asarray(np.random.default_rng(2).standard_normal((7, 3, 4)), jnp.float32)
  return module, x, module.init(jax.random.key(0), x, False)


def test_each_block_of_a_loop_has_its_own_rate_of_stochastic_depth():
  module, x, variables = _encoder(1.0, scan=True)  # rates 0, 1/2 and 1
  params = variables['params']
  block = layers.Block(module.options)
  first = block.apply({'params': params['block_00']}, x, False)
  second = block.apply({'params': params['block_01']}, first, False)
  found = module.apply(variables, x, True, rngs={'dropout': jax.random.key(1)})

  def normed(y):
    return layers.layer_norm(module.options, None).apply({'params': params['norm']}, y)

  # The last block never acts; the middle one drops each branch of each example by a coin.
  skipped = np.isclose(found, normed(first), atol=1e-5).all(axis=(1, 2))
  kept = np.isclose(found, normed(second), atol=1e-5).all(axis=(1, 2))
  assert 0 < skipped.sum() < 7 and not kept.any()  # kept branches are doubled


def test_blocks_of_a_loop_draw_different_masks():
  module, x, variables = _encoder(0.5, 'constant', scan=True)
  same = jnp.broadcast_to(x[:1], (64, 3, 4))
  found = module.apply(variables, same, True, rngs={'dropout': jax.random.key(1)})
  # Two branches a block, kept or not: four outcomes if all blocks drew alike, else up to 64.
  assert 4 < len(np.unique(np.round(found.reshape(64, -1), 4), axis=0)) <= 64


def test_collecting_intermediates_sees_every_block():
  module = small.build('vit_ti16', scan=True)
  x, variables = small.images(module), small.variables(module)
  logits, state = module.apply(variables, x, mutable=['intermediates'])
  assert {'block_00', 'block_01'} <= set(state['intermediates']['encoder'])
  np.testing.assert_allclose(logits, module.apply(variables, x), atol=1e-4)


def test_a_loop_is_one_block_to_the_compiler_whatever_the_depth():
  def length(scan, depth):
    module = small.build('vit_ti16', scan=scan, depth=depth)
    x = small.images(module)
    variables = jax.eval_shape(lambda: module.init(jax.random.key(0), x))
    with stack.apart():
      text = jax.jit(lambda v, x: module.apply(v, x)).lower(variables, x).as_text()
    return text.count('dot_general')

  assert length(True, 7) == length(True, 3) < length(False, 3) < length(False, 7)


def test_none_means_a_loop_on_cpu_only_where_blocks_are_computed_again():
  assert stack.chosen_scan(None, 'block') and not stack.chosen_scan(
    None, 'none'
  )  # tests run on CPU
  assert stack.chosen_scan(True, 'none') and not stack.chosen_scan(False, 'block')


@pytest.mark.parametrize('name', [*FAMILIES, 'resnet50', 'bit_r50x1', 'mobilenet_v2', 'r50_b16'])
def test_blocks_of_one_trace_compute_what_blocks_traced_apart_do(name):
  rates = {'drop_path_rate': 0.3} if 'drop_path_rate' in models.fields(name) else {}
  module = small.build(name, **rates)
  x, variables = small.images(module), small.variables(module)

  def step(params, train):
    state = {k: v for k, v in variables.items() if k != 'params'}
    rngs = {'dropout': jax.random.key(3)}
    out = module.apply({'params': params, **state}, x, train=train, rngs=rngs, mutable=list(state))
    return jnp.sum(jnp.sin(jax.tree.leaves(out)[-1])), out

  def results(train):
    return jax.jit(jax.grad(lambda p: step(p, train), has_aux=True))(variables['params'])

  for train in (False, True) if not rates else (False,):  # random masks differ
    found = results(train)
    with stack.apart():
      expected = results(train)
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
      np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


def test_equal_blocks_are_lowered_once():
  def count(depth):
    module = small.build('vit_ti16', depth=depth)
    x = small.images(module)
    variables = jax.eval_shape(lambda: module.init(jax.random.key(0), x))
    text = jax.jit(lambda v, x: module.apply(v, x)).lower(variables, x).as_text()
    return text.count('dot_general')

  assert count(7) == count(3) > 0


def test_a_change_between_two_traces_of_a_module_is_seen():
  module = small.build('resnet50')
  x, variables = small.images(module), small.variables(module)

  def text():
    return jax.jit(lambda v, x: module.apply(v, x)).lower(variables, x).as_text()

  before = text().count('stablehlo.convolution')
  with convs.plain():
    assert text().count('stablehlo.convolution') > before
  assert text().count('stablehlo.convolution') == before


class _Coin(nn.Module):
  options: attention.BlockOptions
  drop_path: float

  @nn.compact
  def __call__(self, x, train):
    return x + jax.random.bernoulli(self.make_rng('dropout'), 0.5, x.shape)


class _Coins(nn.Module):
  @nn.compact
  def __call__(self, x, train):
    options = attention.BlockOptions(num_heads=1, mlp_dim=1)
    return stack.run_blocks(self, _Coin, {}, options, [0.0, 0.0], x, train)


def test_blocks_of_one_trace_draw_masks_of_their_own():
  def flipped(seed):
    rngs = {'dropout': jax.random.key(seed)}
    return jax.jit(lambda x: _Coins().apply({}, x, True, rngs=rngs))(jnp.zeros(64))

  assert {*np.asarray(flipped(0)).tolist()} == {0, 1, 2}
  assert (flipped(0) == flipped(0)).all() and (flipped(0) != flipped(1)).any()
