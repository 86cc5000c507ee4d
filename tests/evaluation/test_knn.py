"""k nearest neighbours: by hand and against scikit-learn."""

import numpy as np
import pytest

from tests.evaluation.clusters import clusters
from vit_jax.evaluation import knn


def test_votes_by_hand():
  """Similarities 1, 0.6 and 0; at temperature 0.5 the nearest outweighs both of the other class."""
  train = np.array([[0, 7], [4, 3], [0.1, 0], [-1, 0]])
  rows, similarities = knn.nearest(train, np.array([[0, 2.0]]), 3)
  assert rows[0, :2].tolist() == [0, 1] and rows[0, 2] in (2, 3)
  np.testing.assert_allclose(similarities, [[1, 0.6, 0]], atol=1e-6)
  labels = np.array([[1, 0, 0]])
  votes = knn.vote(labels, similarities, 3, 0.5)
  weights = np.exp([2.0, 1.2, 0.0])
  np.testing.assert_allclose(
    votes, [[weights[1:].sum() / weights.sum(), weights[0] / weights.sum(), 0]], rtol=1e-5
  )
  assert knn.vote(labels, similarities, 3, 1e9)[0].argmax() == 0  # two to one
  assert np.isfinite(knn.vote(labels, similarities, 3, 1e-9)).all()


@pytest.mark.parametrize('k, temperature', [(1, 0.07), (7, 0.07), (53, 0.5)])
def test_equals_scikit_learns_neighbours(k, temperature, monkeypatch):
  from sklearn.neighbors import KNeighborsClassifier

  monkeypatch.setattr('vit_jax.evaluation.knn._CHUNK', 13)
  (x, labels), (fresh, _) = clusters(), clusters(31, seed=4)
  wanted = KNeighborsClassifier(
    k, metric='cosine', algorithm='brute', weights=lambda d: np.exp((1 - d) / temperature)
  ).fit(x.astype(np.float64), labels)
  rows, similarities = knn.nearest(x, fresh, k)
  found = knn.vote(labels[rows], similarities, 3, temperature)
  np.testing.assert_allclose(found, wanted.predict_proba(fresh.astype(np.float64)), atol=1e-4)
