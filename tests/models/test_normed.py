"""A LayerNorm that its dense layer computes against the two apart."""

import re

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.models import small
from vit_jax import tree
from vit_jax.models.normed import normed_dot
from vit_jax.models.stack import apart

pytestmark = pytest.mark.usefixtures('one_device')


def _inputs(n=40, d=12, f=7):
  """x, the norm's scale and bias, and a kernel."""
  draw = np.random.default_rng(0).standard_normal
  shapes = (n, d), d, d, (d, f)
  x, scale, bias, kernel = (jnp.asarray(draw(s), jnp.float32) for s in shapes)
  return 3 + 2 * x, scale, bias, kernel


def _ours(*inputs):
  return normed_dot(*inputs, 1e-6)


def _apart(x, scale, bias, kernel):
  norm = {'params': {'scale': scale, 'bias': bias}}
  return nn.LayerNorm(1e-6).apply(norm, x) @ kernel


@pytest.mark.parametrize('n', [1, 40])
@pytest.mark.parametrize('kernel', [True, False], ids=['kernel trained', 'kernel frozen'])
def test_values_and_gradients_are_those_of_the_two_apart(n, kernel):
  inputs = _inputs(n)
  trained = tuple(range(3 + kernel))
  weights = np.random.default_rng(1).standard_normal((n, 7))

  def both(function):
    gradient = jax.grad(lambda *given: (weights * function(*given)).sum(), trained)
    return jax.jit(lambda *given: (function(*given), *gradient(*given)))(*inputs)

  for ours, expected in zip(both(_ours), both(_apart), strict=True):
    np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


def test_a_scale_of_zero_and_rows_that_are_constant():
  x, scale, bias, kernel = _inputs()
  inputs = x.at[3].set(5.0), scale.at[2].set(0.0), bias, kernel
  ours, expected = (
    jax.grad(lambda *given, f=f: jnp.sin(f(*given)).sum(), (0, 1, 2, 3))(*inputs)
    for f in (_ours, _apart)
  )
  for a, b in zip(ours, expected, strict=True):
    assert np.isfinite(a).all()
    np.testing.assert_allclose(a, b, rtol=0, atol=1e-4 * np.abs(b).max())


def test_a_row_whose_gradient_is_not_a_number_stays_alone():
  x, *rest = _inputs()
  dy = np.ones((40, 7), np.float32)
  dy[5, 0] = np.nan
  dx = jax.vjp(lambda x: _ours(x, *rest), x)[1](jnp.asarray(dy))[0]
  assert np.isnan(dx[5]).all() and np.isfinite(np.delete(dx, 5, 0)).all()


def test_a_frozen_kernel_costs_no_product_over_the_rows():
  x, scale, bias, kernel = _inputs()

  def products(trained):
    jaxpr = jax.make_jaxpr(jax.grad(lambda *given: _ours(*given).sum(), trained))
    found = jaxpr(x, scale, bias, kernel).eqns
    return sum(e.primitive.name == 'dot_general' and e.outvars[0].aval.ndim == 2 for e in found)

  assert products((0, 1, 2, 3)) == 3 and products((0, 1, 2)) == 2


def _forms(module, dtype='float32', collect=False):
  """How often a traced model computes norms in their dense layers."""
  variables, images = small.variables(module), small.images(module)

  def call(images):
    return module.apply(variables, images, False, mutable=['intermediates'] if collect else False)

  return str(jax.make_jaxpr(call)(images.astype(dtype))).count('name=normed_dot')


def test_blocks_of_float32_on_one_device_take_it(monkeypatch):
  vit, mixer = small.build('vit_ti16'), small.build('mixer_s16')
  with apart():
    assert _forms(vit) == 0
  assert _forms(vit) == 2 and _forms(mixer) == 1  # a trace for all blocks
  assert _forms(vit, collect=True) == 0
  assert _forms(small.build('vit_ti16', dtype='bfloat16')) == 0
  monkeypatch.setattr(jax, 'device_count', lambda: 4)
  assert _forms(vit) == 0


def test_parameters_of_another_precision_are_those_of_a_norm():
  module = small.build('vit_ti16', dtype='float32')
  images, variables = small.images(module), small.variables(module)
  narrow = jax.tree.map(lambda a: a.astype(jnp.bfloat16), variables)
  gradient = jax.jit(jax.grad(lambda v: jnp.square(module.apply(v, images, True)).sum()))(narrow)
  assert {g.dtype for g in jax.tree.leaves(gradient)} == {jnp.dtype(jnp.bfloat16)}


def test_who_intercepts_modules_meets_layer_norms():
  module = small.build('vit_ti16')
  images, variables = small.images(module), small.variables(module)
  met = []

  def note(call, args, kwargs, context):
    met.append(type(context.module).__name__)
    return call(*args, **kwargs)

  with nn.intercept_methods(note):
    jax.jit(module.apply)(variables, images)
  assert 'LayerNorm' in met and 'DeferredNorm' not in met


@pytest.mark.parametrize(
  'name, fields, trained',
  [
    ('vit_ti16', {}, ''),
    ('vit_ti16', {'depth': 3}, 'block_01'),
    ('vit_ti16', {'depth': 3}, 'block_0[02]'),
    ('vit_ti16', {'depth': 3}, 'norm|block_01/mlp'),
    ('vit_ti16', {'depth': 3, 'remat': 'block', 'scan': False}, 'norm1|block_00'),
    ('vit_ti16', {'depth': 3, 'remat': 'block'}, 'norm'),
    ('vit_ti16', {'qk_norm': True, 'qkv_bias': False, 'layer_scale': 0.1}, ''),
    ('mixer_s16', {}, ''),
    ('mixer_s16', {'depth': 3}, 'norm2|block_01'),
  ],
)
def test_a_model_has_the_values_and_gradients_of_norms_apart(name, fields, trained):
  """Also where blocks of one trace are frozen in part, or some of them."""
  module = small.build(name, **fields)
  images, variables = small.images(module), small.variables(module)

  def loss(variables):
    named = tree.flatten(variables)
    frozen = {n: jax.lax.stop_gradient(a) for n, a in named.items() if not re.search(trained, n)}
    given = tree.unflatten({**named, **frozen})
    return jnp.square(module.apply(given, images, True)).sum()

  ours = jax.jit(jax.value_and_grad(loss))(variables)
  with apart():
    expected = jax.jit(jax.value_and_grad(loss))(variables)
  assert any(np.any(g) for n, g in tree.flatten(ours[1]).items() if re.search(trained, n))
  pairs = list(zip(jax.tree.leaves(ours), jax.tree.leaves(expected), strict=True))
  largest = max(np.abs(b).max() for _, b in pairs)  # some are zero but for rounding
  for a, b in pairs:
    np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6 * largest)
