"""Losses and metrics against answers worked by hand."""

import jax.numpy as jnp
import numpy as np
import pytest

from vit_jax import tasks
from vit_jax.errors import UserError
from vit_jax.tasks import losses, metrics


def test_softmax_with_smoothing():
  targets = losses.smooth_one_hot(jnp.array([1]), 4, smoothing=0.2)
  np.testing.assert_allclose(targets, [[0.05, 0.85, 0.05, 0.05]], rtol=1e-6)
  logits = jnp.log(jnp.array([[0.1, 0.7, 0.1, 0.1]]))
  wanted = -(0.85 * np.log(0.7) + 3 * 0.05 * np.log(0.1))
  np.testing.assert_allclose(losses.softmax_cross_entropy(logits, targets), [wanted], rtol=1e-6)


def test_sigmoid_sums_over_classes():
  logits = jnp.array([[0.0, np.log(3.0)]])  # probabilities 1/2 and 3/4
  wanted = -(np.log(0.5) + np.log(0.75))
  found = losses.sigmoid_cross_entropy(logits, jnp.array([[1.0, 1.0]]))
  np.testing.assert_allclose(found, [wanted], rtol=1e-6)


def test_rank_breaks_ties_as_argmax_does():
  logits = jnp.array([[2.0, 5.0, 5.0], [2.0, 5.0, 5.0], [1.0, 0.0, np.nan], [0.0, 0.0, 0.0]])
  ranks = metrics.rank_of_label(logits, jnp.array([1, 2, 2, 0]))
  np.testing.assert_array_equal(ranks, [0, 1, 3, 0])


def test_top_k_leaves_out_what_says_nothing():
  found = metrics.top_k(jnp.array([[0.1, 0.4, 0.3, 0.2]]), jnp.array([3]))
  assert set(found) == {'accuracy', 'top3'}
  assert found['accuracy'][0] == 0 and found['top3'][0] == 1


def test_two_heads_share_loss_and_average_prediction():
  task = tasks.build('classify', 3)
  batch = {'label': jnp.array([2])}
  one, other = jnp.array([[0.0, 3.0, 1.0]]), jnp.array([[0.0, 0.0, 5.0]])
  both = task.losses((one, other), batch)
  np.testing.assert_allclose(both, (task.losses(one, batch) + task.losses(other, batch)) / 2)
  assert task.metrics((one, other), batch)['accuracy'][0] == 1.0


def test_unknown_task():
  with pytest.raises(UserError, match="did you mean 'classify'"):
    tasks.build('classifi', 3)
