"""k-NN on frozen features: no training, a weighted vote.

Source: DINO (2104.14294), section 4.1 and appendix: cosine similarity, votes weighted by its
exponential.
"""

from collections.abc import Iterator, Sequence

import numpy as np

from vit_jax.logits import accuracy

_CHUNK = 1024  # images compared with all others at once


def nearest(train: np.ndarray, test: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
  """The nearest training images of each test image, the nearest first.

  Args:
    train: features [n, d].
    test: features [m, d].
    k: how many; at most n.

  Returns:
    Rows of `train` [m, k] and cosine similarities [m, k], float32.
  """
  train = _unit(train)
  rows, similarities = [], []
  for chunk in _chunks(_unit(test)):
    close = chunk @ train.T  # [chunk, n]
    some = np.argpartition(-close, k - 1, axis=1)[:, :k]
    values = np.take_along_axis(close, some, axis=1)
    order = np.argsort(-values, axis=1, kind='stable')
    rows.append(np.take_along_axis(some, order, axis=1))
    similarities.append(np.take_along_axis(values, order, axis=1))
  return np.concatenate(rows), np.concatenate(similarities)


def vote(
  labels: np.ndarray, similarities: np.ndarray, num_classes: int, temperature: float
) -> np.ndarray:
  """Each neighbour's vote for its class, weighted by exp(similarity / temperature).

  Args:
    labels: of the neighbours [m, k].
    similarities: [m, k].
    num_classes: c.
    temperature: how quickly the weight falls; large: all votes count alike.

  Returns:
    Shares of the votes [m, c], float64.
  """
  similarities = similarities.astype(np.float64)
  highest = similarities.max(axis=1, keepdims=True)
  weights = np.exp((similarities - highest) / temperature)
  votes = np.zeros((len(labels), num_classes))
  np.add.at(votes, (np.arange(len(labels))[:, None], labels), weights)
  return votes / votes.sum(axis=1, keepdims=True)


def accuracies(
  train: tuple[np.ndarray, np.ndarray],
  test: tuple[np.ndarray, np.ndarray],
  num_classes: int,
  neighbours: Sequence[int],
  temperature: float,
) -> list[float]:
  """Accuracy on a test set for each k.

  Args:
    train: features [n, d] and labels [n].
    test: features and labels.
    num_classes: c.
    neighbours: values of k; where it is more than n, all n are used.
    temperature: see `vote`.
  """
  rows, similarities = nearest(train[0], test[0], min(max(neighbours), len(train[0])))
  votes = [
    vote(train[1][rows[:, :k]], similarities[:, :k], num_classes, temperature) for k in neighbours
  ]
  return [accuracy(shares, test[1]) for shares in votes]


def _unit(x: np.ndarray) -> np.ndarray:
  """Rows of length 1; a row of zeros stays."""
  x = x.astype(np.float32)
  return x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)


def _chunks(x: np.ndarray) -> Iterator[np.ndarray]:
  for start in range(0, len(x), _CHUNK):
    yield x[start : start + _CHUNK]
