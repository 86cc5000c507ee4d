"""Matmuls with a gradient of their own against plain ones."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vit_jax.models.layers import Mlp
from vit_jax.models.matmul import matmul


@pytest.fixture(autouse=True)
def one_device(monkeypatch):
  """Halves are for one device, and tests have several."""
  monkeypatch.setattr(jax, 'device_count', lambda: 1)


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


def _products(rows, c, f):
  """Shapes of the matmuls in the gradients of x and of the kernel."""
  x, kernel = jnp.zeros((rows, c)), jnp.zeros((c, f))
  jaxpr = jax.make_jaxpr(jax.grad(lambda x, k: matmul(x, k).sum(), (0, 1)))(x, kernel)
  return {e.outvars[0].aval.shape for e in jaxpr.eqns if e.primitive.name == 'dot_general'}


def test_fewer_channels_come_first_and_very_many_rows_are_summed_in_halves():
  assert {(3, 5)} == _products(100, 5, 3) - {(100, 3), (100, 5)}
  assert {(3, 5)} == _products(100, 3, 5) - {(100, 3), (100, 5)}
  assert {(2, 3, 5)} == _products(12288, 5, 3) - {(12288, 3), (12288, 5)}
  assert {(3, 5)} == _products(12289, 5, 3) - {(12289, 3), (12289, 5)}


def test_devices_that_share_the_rows_have_no_halves(monkeypatch):
  monkeypatch.setattr(jax, 'device_count', lambda: 2)
  assert {(3, 5)} == _products(12288, 5, 3) - {(12288, 3), (12288, 5)}


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
