"""Winograd's tiles against XLA's convolution, and where they are used."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vit_jax.models import convs, winograd


def _xla(x, kernel):
  return jax.lax.conv_general_dilated(
    x, kernel, (1, 1), 'SAME', dimension_numbers=('NHWC', 'HWIO', 'NHWC')
  )


def _drawn(*shape):
  return jnp.asarray(np.random.default_rng(sum(shape)).standard_normal(shape), jnp.float32)


@pytest.mark.parametrize(
  'form, b, h, w, c, f',
  [
    (jax.jit(winograd.convolve), 2, 6, 8, 5, 7),
    (jax.jit(winograd.convolve), 3, 5, 7, 7, 3),
    (jax.jit(winograd.convolve), 2, 6, 7, 3, 3),
    (jax.jit(winograd.convolve), 2, 9, 4, 11, 2),
    (jax.jit(winograd.convolve), 1, 1, 1, 2, 3),
    (winograd.convolve, 3, 5, 7, 7, 3),  # operation by operation, which takes seconds
  ],
)
def test_values_and_gradients_are_those_of_the_convolution(form, b, h, w, c, f):
  x, kernel, dy = _drawn(b, h, w, c), _drawn(3, 3, c, f), _drawn(b, h, w, f)
  expected, of_xla = jax.vjp(_xla, x, kernel)
  values, of_ours = jax.vjp(form, x, kernel)
  for ours, theirs in zip((values, *of_ours(dy)), (expected, *of_xla(dy)), strict=True):
    assert ours.shape == theirs.shape and ours.dtype == theirs.dtype
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=2e-6 * np.abs(theirs).max())


def test_rounding_errors_are_as_large_as_those_of_xla():
  x, kernel = _drawn(4, 28, 28, 128), _drawn(3, 3, 128, 64)
  padded = np.pad(np.asarray(x, np.float64), ((0, 0), (1, 1), (1, 1), (0, 0)))
  exact = sum(
    padded[:, i : i + 28, j : j + 28] @ np.asarray(kernel[i, j], np.float64)
    for i in range(3)
    for j in range(3)
  )
  ours, theirs = (np.abs(form(x, kernel) - exact).max() for form in (winograd.convolve, _xla))
  assert ours < 3 * theirs


def _primitives(shape, kernel, stride=1, dtype=jnp.float32):
  arrays = jnp.zeros(shape, dtype), jnp.zeros(kernel, dtype)
  jaxpr = jax.make_jaxpr(lambda x, k: convs.convolve(x, k, stride, 'symmetric'))(*arrays)
  return {equation.primitive.name for equation in jaxpr.eqns}


def test_many_tiles_of_many_channels_are_computed_by_winograd():
  large = (8, 16, 16, 32), (3, 3, 32, 32)  # 512 tiles
  assert 'conv_general_dilated' not in _primitives(*large)
  others = [
    ((7, 16, 16, 32), (3, 3, 32, 32)),
    ((8, 16, 16, 31), (3, 3, 31, 32)),
    ((8, 16, 16, 32), (3, 3, 32, 31)),
    ((8, 16, 16, 32), (5, 5, 32, 32)),
    (*large, 2),
    (*large, 1, jnp.bfloat16),
  ]
  for other in others:
    assert _primitives(*other) == {'conv_general_dilated'}
  with convs.plain():
    assert _primitives(*large) == {'conv_general_dilated'}
