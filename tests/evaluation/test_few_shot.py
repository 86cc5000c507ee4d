"""Few-shot least squares: by hand and against scikit-learn."""

import numpy as np
import pytest

from tests.evaluation.clusters import clusters
from tests.support import raises
from vit_jax.errors import DatasetError
from vit_jax.evaluation import few_shot


def test_two_images_by_hand():
  """Features 1 and 3 become -1 and 1; the constant column is orthogonal to them."""
  x, labels = np.array([[1.0], [3.0]]), np.array([0, 1])
  classifier = few_shot.fit(x, labels, 2, (6.0,))
  slope = 2 / (2 + 6) / (1 + 1e-5)  # sum of x y over sum of x x and the penalty
  np.testing.assert_allclose(classifier.kernel, [[-slope, slope]], rtol=1e-4)
  np.testing.assert_allclose(
    classifier(np.array([[2.0], [6.0]])), [[0, 0], [-4 * slope, 4 * slope]], atol=1e-4
  )


def test_bias_is_hardly_shrunk():
  """Without any use in the features the scores are the means of the targets."""
  x, labels = np.ones((5, 2)), np.array([0, 0, 0, 0, 1])
  scores = few_shot.fit(x, labels, 2, (1.0,))(x[:1])
  np.testing.assert_allclose(scores, [[0.6, -0.6]], atol=1e-4)


@pytest.mark.parametrize('n, d', [(53, 11), (13, 29)])  # more images than features, and fewer
@pytest.mark.parametrize('l2', [0.01, 37.0, 1024.0])
def test_equals_scikit_learns_ridge(n, d, l2):
  from sklearn.linear_model import Ridge
  from sklearn.preprocessing import StandardScaler

  x, labels = clusters(n, d)
  fresh, _ = clusters(17, d, seed=1)
  scaler = StandardScaler().fit(x.astype(np.float64))
  columns = [
    np.pad(scaler.transform(v.astype(np.float64)), ((0, 0), (0, 1)), constant_values=100.0)
    for v in (x, fresh)
  ]
  wanted = Ridge(l2, fit_intercept=False).fit(columns[0], 2.0 * np.eye(3)[labels] - 1)
  found = few_shot.fit(x, labels, 3, (l2,))
  np.testing.assert_allclose(found(fresh), wanted.predict(columns[1]), atol=2e-4)
  assert found.l2 == l2


@pytest.mark.parametrize('n, d', [(23, 5), (11, 19)])
def test_the_penalty_is_the_best_by_leave_one_out(n, d):
  x, labels = clusters(n, d, spread=2.0)
  penalties = (0.1, 10.0, 300.0, 10_000.0)
  inputs = (x - x.mean(0, dtype=np.float64)) / (x.std(0, dtype=np.float64) + 1e-5)
  inputs = np.pad(inputs, ((0, 0), (0, 1)), constant_values=100.0)
  targets = 2.0 * np.eye(3)[labels] - 1
  ranked = []
  for l2 in penalties:
    scores = []
    for i in range(n):
      a, y = np.delete(inputs, i, 0), np.delete(targets, i, 0)
      scores.append(inputs[i] @ np.linalg.solve(a.T @ a + l2 * np.eye(d + 1), a.T @ y))
    correct = (np.argmax(scores, axis=1) == labels).sum()
    ranked.append((-correct, ((targets - scores) ** 2).sum(), l2))
  assert few_shot.fit(x, labels, 3, penalties[::-1]).l2 == min(ranked)[2]
  assert len({r[0] for r in ranked}) > 1


def test_draws_have_so_many_of_each_class_and_grow():
  labels = np.array([2, 0, 1, 1, 0, 2, 2, 1, 0, 1, 0, 2, 2])
  few, more = (few_shot.draw(labels, 3, shots, 5) for shots in (2, 4))
  assert labels[few].tolist() == [0, 0, 1, 1, 2, 2] and len(set(more)) == 12
  assert set(few) < set(more)
  assert set(few_shot.draw(labels, 3, 2, 5)) == set(few)
  assert set(more[few_shot.few(labels[more], 2)]) == set(few)
  assert any(set(few_shot.draw(labels, 3, 2, seed)) != set(few) for seed in range(6, 9))
  with raises(DatasetError, '5 shots', 'class number 0 has 4'):
    few_shot.draw(labels, 3, 5, 0)


def test_few_takes_the_first_of_each_class():
  assert few_shot.few(np.array([1, 0, 1, 2, 1, 0, 0]), 2).tolist() == [1, 5, 0, 2, 3]


def test_more_shots_are_more_accurate():
  (x, labels), test = clusters(211, seed=2), clusters(97, seed=3)
  rows = [few_shot.draw(labels, 3, 10, seed) for seed in range(5)]
  drawn = [(x[r], labels[r]) for r in rows]
  one, ten = (np.mean(few_shot.accuracies(drawn, test, 3, n, (1024.0,))) for n in (1, 10))
  assert 1 / 3 < one < ten <= 1
