"""Ranks and probabilities: one rule for numpy and JAX, and for everything that scores logits."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special

from vit_jax.evaluation.linear_probe import Head, score
from vit_jax.logits import probabilities, rank_of_label


def test_ranks_of_equal_logits_go_by_class_index_in_both_libraries():
  logits = np.array([[1, 1, 0], [1, 1, 0], [0, 0, 0], [5, np.nan, 1], [2, 0, np.nan]], np.float32)
  labels = np.array([0, 1, 2, 1, 0])
  wanted = [0, 1, 2, 3, 0]
  np.testing.assert_array_equal(rank_of_label(logits, labels), wanted)
  found = jax.jit(rank_of_label)(jnp.array(logits), jnp.array(labels))
  np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize('library', [np, jnp])
def test_probabilities_are_scipys_at_any_size(library):
  logits = np.array([[-3.0, 0.5, 2.0], [1e4, -1e4, 0.0], [-200.0, 200.0, 0.0]], np.float32)
  for activation, wanted in (
    ('softmax', special.softmax(logits, axis=-1)),
    ('sigmoid', special.expit(logits)),
  ):
    found = probabilities(library.asarray(logits), activation)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, wanted, rtol=2e-6)


def test_a_probe_counts_ties_like_the_reports():
  head = Head(np.zeros((2, 4)), np.zeros(4), 1.0)  # all logits are equal
  found = score(head, np.ones((4, 2)), np.array([0, 1, 2, 3]))
  assert (found['accuracy'], found['top3']) == (0.25, 0.75)
