"""What logits of classes mean, by one rule for training, evaluation, inference and reports.

Arrays are numpy's or JAX's, traced ones included: each brings its own functions along.
"""

from typing import Any, Protocol, TypeVar

import numpy as np


class Array(Protocol):
  """An array of numpy or JAX."""

  def __array_namespace__(self) -> Any:
    """The module of its functions, such as `jax.numpy`."""


A = TypeVar('A', bound=Array)


def rank_of_label(logits: A, labels: Any) -> A:
  """How many classes are predicted before the true one; 0 means that it is the prediction.

  Among equal logits the lower class index comes first, as in `argmax`. A label whose logit is not
  a number ranks last, as does a label that is no class: -1 stands for none.

  Args:
    logits: [b, k].
    labels: class indices [b], of the same library.

  Returns:
    Ranks [b], from 0 to k - 1; k for a NaN and for a label that is no class.
  """
  xp = logits.__array_namespace__()
  x = xp.asarray(logits)
  k = x.shape[-1]
  labels = xp.asarray(labels)
  known = (labels >= 0) & (labels < k)
  labels = xp.where(known, labels, 0)
  true = xp.take_along_axis(x, labels[:, None], axis=-1)  # [b, 1]
  earlier = xp.arange(k)[None, :] < labels[:, None]
  ahead = (x > true) | ((x == true) & earlier)  # [b, k]
  return xp.where(known & ~xp.isnan(true[:, 0]), ahead.sum(axis=-1), k)


def accuracy(logits: np.ndarray, labels: np.ndarray, k: int = 1) -> float:
  """The share of images whose true class is among the k predicted first: [n, c], [n]."""
  return float((rank_of_label(logits, labels) < k).mean())


def softmax(logits: A) -> A:
  """Probabilities of one class among all: [..., k] -> [..., k]."""
  xp = logits.__array_namespace__()
  x = xp.asarray(logits)
  powers = xp.exp(x - x.max(axis=-1, keepdims=True))
  return powers / powers.sum(axis=-1, keepdims=True)


def sigmoid(logits: A) -> A:
  """Probabilities of each class on its own: [...] -> [...]."""
  xp = logits.__array_namespace__()
  x = xp.asarray(logits)
  power = xp.exp(-xp.abs(x))  # never overflows
  return xp.where(x >= 0, 1.0, power) / (1.0 + power)


ACTIVATIONS = {'softmax': softmax, 'sigmoid': sigmoid}


def probabilities(logits: A, activation: str) -> A:
  """Probabilities by a task's output activation, 'softmax' or 'sigmoid': [..., k] -> [..., k]."""
  return ACTIVATIONS[activation](logits)


def average_precision(scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
  """The area under each class's precision-recall curve, without interpolation.

  Args:
    scores: [n, k], any increasing function of the probability.
    labels: [n, k], 1 for each class that an image shows.

  Returns:
    [k], float64; NaN for a class that no image shows.
  """
  from sklearn.metrics import average_precision_score  # a second to import

  shown = labels > 0
  result = np.full(scores.shape[1], np.nan)
  for i in np.flatnonzero(shown.any(axis=0)):
    result[i] = average_precision_score(shown[:, i], scores[:, i])
  return result
