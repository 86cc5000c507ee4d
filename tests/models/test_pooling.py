"""Max pooling by shifted images against XLA's."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vit_jax.models import convs, pooling


def _xla(x, pads, fill):
  x = jnp.pad(x, ((0, 0), *pads, (0, 0)), constant_values=fill)
  return nn.max_pool(x, (3, 3), strides=(2, 2))


def _with_gradient(form, pads, fill, x, dy):
  y, backward = jax.vjp(lambda x: form(x, pads, fill), x)
  return y, backward(dy)[0]


@pytest.mark.parametrize('fill', [-jnp.inf, 0.0])
@pytest.mark.parametrize(
  'height, width, pads',
  [
    (6, 8, ((1, 1), (1, 1))),
    (7, 6, ((0, 1), (1, 1))),
    (8, 9, ((0, 1), (0, 0))),
    (1, 2, ((1, 1), (0, 1))),
    (3, 3, ((0, 0), (0, 0))),
  ],
)
@pytest.mark.parametrize('dtype', [jnp.float32, jnp.bfloat16])
def test_values_and_gradients_are_those_of_xla(height, width, pads, fill, dtype):
  random = np.random.default_rng(height)
  # Few values, so that many windows have equal maxima.
  x = jnp.asarray(random.integers(-2, 3, (3, height, width, 5)), dtype)
  pooled = jax.eval_shape(lambda x: _xla(x, pads, fill), x)
  dy = jnp.asarray(random.integers(-4, 5, pooled.shape), dtype)  # whose sums are exact
  expected, got = (
    jax.jit(functools.partial(_with_gradient, form, pads, fill))(x, dy)
    for form in (_xla, pooling.max_pool)
  )
  for ours, theirs in zip(got, expected, strict=True):
    np.testing.assert_array_equal(ours, theirs)
    assert ours.dtype == dtype


def test_operation_by_operation_it_is_the_same():
  x = jnp.asarray(np.random.default_rng(0).integers(-2, 3, (2, 5, 4, 3)), jnp.float32)
  arguments = ((0, 1), (1, 1)), 0.0, x, jnp.ones((2, 2, 2, 3))
  for ours, theirs in zip(
    _with_gradient(pooling.max_pool, *arguments), _with_gradient(_xla, *arguments), strict=True
  ):
    np.testing.assert_array_equal(ours, theirs)


def test_of_no_images_there_is_no_gradient():
  x = jnp.ones((0, 4, 6, 3))
  y, backward = jax.vjp(lambda x: pooling.max_pool(x, ((0, 1), (0, 1)), 0.0), x)
  assert y.shape == (0, 2, 3, 3) and backward(y)[0].shape == x.shape


def test_what_is_not_a_number_stays_so():
  x = jnp.zeros((1, 5, 5, 1)).at[0, 2, 2, 0].set(jnp.nan)
  y = pooling.max_pool(x, ((1, 1), (1, 1)), -jnp.inf)[0, :, :, 0]
  np.testing.assert_array_equal(jnp.isnan(y), [[False] * 3, [False, True, False], [False] * 3])


@pytest.mark.parametrize('fill_zero', [False, True])
@pytest.mark.parametrize('padding', convs.PADDINGS)
def test_networks_pool_alike_in_either_form(padding, fill_zero):
  x = jnp.asarray(np.random.default_rng(0).standard_normal((2, 8, 7, 3)), jnp.float32)
  ours = convs.max_pool(x, padding, fill_zero)
  with convs.plain():
    np.testing.assert_array_equal(ours, convs.max_pool(x, padding, fill_zero))


def test_the_relu_of_a_sum_and_its_gradient():
  x, y = jnp.asarray([1.0, -3.0, 0.0, 2.0, jnp.nan]), jnp.asarray([2.0, 1.0, 0.0, -2.0, 1.0])
  for form in (convs.relu_of_sum, lambda x, y: nn.relu(x + y)):
    value, backward = jax.vjp(form, x, y)
    np.testing.assert_array_equal(value, [3, 0, 0, 0, np.nan])
    for gradient in backward(jnp.ones(5)):
      np.testing.assert_array_equal(gradient[:4], [1, 0, 0, 0])
