"""SAM and GSAM by hand; `tests/training/test_train_step.py` has them in a step."""

import jax.numpy as jnp
import numpy as np
import pytest

from vit_jax import optimizers


def test_rho_follows_the_learning_rate():
  def rho(rate, rho_end=1.0):
    made = optimizers.Sharpness.scheduled(0.2, rho_end, 0.0, lambda step: rate, 0.4)
    return float(made.rho(0))

  assert rho(0.1) == pytest.approx(0.2)
  assert rho(0.1, rho_end=0.5) == pytest.approx(0.2 * (0.5 + 0.5 / 4))
  assert rho(0.4, rho_end=0.5) == pytest.approx(0.2)


def test_the_ascent_has_length_rho():
  """A gradient of length 5 over two arrays; 2 along it."""
  params = {'a': jnp.array([1.0]), 'b': jnp.array([1.0])}
  grads = {'a': jnp.array([3.0]), 'b': jnp.array([-4.0])}
  up = optimizers.Sharpness(lambda step: 2.0 * step, 0.0).ascend(params, grads, 1)
  np.testing.assert_allclose([up['a'][0], up['b'][0]], [1 + 1.2, 1 - 1.6], rtol=1e-6)


def test_gsam_turns_against_the_part_that_sam_leaves():
  """Of [3, 4], [0, 4] lies along [0, 2] and [3, 0] beside it."""
  grads, ascended = {'a': jnp.array([3.0, 4.0])}, {'a': jnp.array([0.0, 2.0])}
  combined = optimizers.Sharpness(lambda step: 0.5, 0.1).combine(grads, ascended)
  np.testing.assert_allclose(combined['a'], [-0.3, 2.0], rtol=1e-6)
  assert optimizers.Sharpness(lambda step: 0.5, 0.0).combine(grads, ascended) is ascended
