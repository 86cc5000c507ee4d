"""Matmuls with a gradient of their own against plain ones."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vit_jax.models.layers import Mlp
from vit_jax.models.matmul import matmul

pytestmark = pytest.mark.usefixtures('one_device')


def _drawn(*shape, dtype=jnp.float32):
  return jnp.asarray(np.random.default_rng(sum(shape)).standard_normal(shape), dtype)


@pytest.mark.parametrize('rows', [1, 7, 12288, 12289])
@pytest.mark.parametrize('c, f', [(5, 3), (3, 5), (4, 4)])
def test_values_and_gradients_are_those_of_the_plain_product(rows, c, f):
  x, kernel, dy = _drawn(rows, c), _drawn(c, f), _drawn(rows, f)
  expected, plain = jax.vjp(jnp.matmul, x, kernel)
  for form in (matmul, jax.jit(matmul)):
    y, ours = jax.vjp(form, x, kernel)
    for value, reference in zip((y, *ours(dy)), (expected, *plain(dy)), strict=True):
      assert value.shape == reference.shape and value.dtype == reference.dtype
      np.testing.assert_allclose(value, reference, rtol=0, atol=2e-6 * np.abs(reference).max())


def _gradient(rows, c, f):
  """The operations of the kernel's gradient, each with its shape."""
  x, kernel = jnp.zeros((rows, c)), jnp.zeros((c, f))
  jaxpr = jax.make_jaxpr(jax.grad(lambda k: matmul(x, k).sum()))(kernel)
  return [(e.primitive.name, e.outvars[0].aval.shape) for e in jaxpr.eqns]


def test_fewer_channels_come_first_and_very_many_rows_are_summed_in_halves():
  turned = ('optimization_barrier', (3, 5)), ('transpose', (5, 3))
  assert set(turned) < set(_gradient(100, 5, 3))
  assert 'optimization_barrier' not in dict(_gradient(100, 3, 5))
  assert ('dot_general', (2, 3, 5)) in _gradient(12288, 5, 3)
  assert ('dot_general', (2, 3, 5)) in _gradient(12288, 3, 5)
  assert ('dot_general', (3, 5)) in _gradient(12289, 3, 5)


def test_several_devices_multiply_plainly(monkeypatch):
  monkeypatch.setattr(jax, 'device_count', lambda: 2)
  assert 'optimization_barrier' not in dict(_gradient(100, 5, 3))
  assert ('dot_general', (2, 3, 5)) not in _gradient(12288, 3, 5)


@pytest.mark.parametrize('dtype', [jnp.bfloat16, jnp.float16])
def test_other_precisions_are_multiplied_plainly(dtype):
  x, kernel = _drawn(6, 5, dtype=dtype), _drawn(5, 3, dtype=dtype)
  y, backward = jax.vjp(matmul, x, kernel)
  np.testing.assert_array_equal(y, x @ kernel)
  assert {g.dtype for g in backward(y)} == {jnp.dtype(dtype)}
  assert matmul(x, kernel.astype(jnp.float32)).dtype == jnp.float32


def test_the_second_layer_of_an_mlp_takes_it():
  module, x = Mlp(12), _drawn(2, 5, 3)
  variables = module.init(jax.random.key(0), x, False)
  jaxpr = str(jax.make_jaxpr(lambda v: module.apply(v, x, False))(variables))
  assert jaxpr.count('name=_matmul') == 1
