"""Classification losses against values worked by hand."""

import jax.numpy as jnp
import numpy as np
import pytest

from tests.support import raises
from vit_jax.errors import ConfigError
from vit_jax.options import build_component
from vit_jax.tasks import LOSSES, losses


def test_softmax_with_smoothing():
  targets = losses.smooth_one_hot(jnp.array([1]), 4, smoothing=0.2)
  np.testing.assert_allclose(targets, [[0.05, 0.85, 0.05, 0.05]], rtol=1e-6)
  logits = jnp.log(jnp.array([[0.1, 0.7, 0.1, 0.1]]))
  wanted = -(0.85 * np.log(0.7) + 3 * 0.05 * np.log(0.1))
  np.testing.assert_allclose(losses.SoftmaxCrossEntropy()(logits, targets), [wanted], rtol=1e-6)


def test_sigmoid_sums_over_classes():
  logits = jnp.array([[0.0, np.log(3.0)]])  # probabilities 1/2 and 3/4
  wanted = -(np.log(0.5) + np.log(0.75))
  found = losses.SigmoidCrossEntropy()(logits, jnp.array([[1.0, 1.0]]))
  np.testing.assert_allclose(found, [wanted], rtol=1e-6)


@pytest.mark.parametrize('name', LOSSES)
def test_losses_are_float32_for_models_of_half_precision(name):
  loss = build_component(LOSSES, name, {})
  found = loss(jnp.ones((3, 5), jnp.bfloat16), jnp.full((3, 5), 0.2))
  assert found.shape == (3,) and found.dtype == jnp.float32
  assert loss.activation in ('softmax', 'sigmoid')


def test_an_unknown_loss_names_the_nearest():
  with raises(ConfigError, "'sofmax'", "'softmax'"):
    build_component(LOSSES, 'sofmax', {})
