"""Ranks and probabilities: one rule for numpy and JAX, and for everything that scores logits."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special

from vit_jax.evaluation import few_shot, knn
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
def test_a_label_that_is_no_class_is_never_right(library):
  """-1 is no label, and no index of the last class."""
  logits = library.asarray([[0.0, 1.0, 9.0]] * 4)
  found = rank_of_label(logits, library.asarray([-1, 2, 3, 1]))
  assert found.tolist() == [3, 0, 3, 1]


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


def test_a_probe_of_three_classes_has_no_top_3():
  """It would be 100 % whatever the probe predicts."""
  head = Head(np.zeros((2, 3)), np.zeros(3), 1.0)
  assert 'top3' not in score(head, np.ones((3, 2)), np.array([0, 1, 2]))


def test_few_shots_and_neighbours_count_features_that_say_nothing_like_the_reports():
  """Equal features of every image: the first class is predicted for all."""
  x, labels = np.zeros((8, 3)), np.array([0, 1, 2, 3] * 2)
  assert few_shot.accuracies([(x, labels)], (x, labels), 4, 2, [1.0]) == [0.25]
  assert knn.accuracies((x, labels), (x, labels), 4, [8], 0.07) == [0.25]


def test_a_vote_that_is_not_a_number_is_never_right():
  x, labels = np.full((8, 3), np.nan), np.array([0, 1, 2, 3] * 2)
  assert knn.accuracies((x, labels), (x, labels), 4, [8], 0.07) == [0.0]
