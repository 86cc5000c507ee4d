"""Few-shot: closed-form least squares on the features of a few images of each class.

Source: Scaling ViT (2106.04560), section 3.1 (few-shot transfer): ridge regression of targets -1
and 1 on features of mean 0 and deviation 1, with a constant feature for the bias.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

from vit_jax.errors import DatasetError
from vit_jax.evaluation.linear import Linear
from vit_jax.logits import accuracy

BIAS = 100.0  # the constant feature: so large that the penalty hardly touches the bias
_TINY = 1e-5  # added to each deviation


@dataclasses.dataclass(frozen=True)
class LeastSquares(Linear):
  """A linear classifier whose scores have the target 1 for the class, and -1 for the others.

  Attributes:
    l2: the penalty it was fitted with.
  """

  l2: float


def draw(labels: np.ndarray, num_classes: int, shots: int, seed: int | Sequence[int]) -> np.ndarray:
  """Rows of so many images of each class, drawn by seed.

  Fewer shots take some of what more shots take.

  Args:
    labels: [n]; an image without a label has -1 and is not drawn.
    num_classes: k.
    shots: images of each class.
    seed: of the draw.

  Returns:
    Rows [k * shots], class by class.

  Raises:
    DatasetError: a class has fewer images.
  """
  counts = np.bincount(labels[labels >= 0], minlength=num_classes)
  if counts.min() < shots:
    raise DatasetError(
      f'{shots} shots need {shots} training images of each class, and class number '
      f'{int(counts.argmin())} has {int(counts.min())}: use fewer shots, or leave it out'
    )
  rng = np.random.default_rng(seed)
  rows = [rng.permutation(np.flatnonzero(labels == c))[:shots] for c in range(num_classes)]
  return np.concatenate(rows)


def fit(
  x: np.ndarray, labels: np.ndarray, num_classes: int, penalties: Sequence[float]
) -> LeastSquares:
  """Fits ridge regression, which has one exact answer.

  Args:
    x: [n, d].
    labels: [n].
    num_classes: k.
    penalties: of the squared weights; of several, the one with the best leave-one-out accuracy, the
      squared error deciding between equals.

  Returns:
    The classifier, with the standardisation folded in: it takes features as they are.
  """
  x = x.astype(np.float64)
  mean, deviation = x.mean(axis=0), x.std(axis=0) + _TINY
  inputs = np.pad((x - mean) / deviation, ((0, 0), (0, 1)), constant_values=BIAS)  # [n, d + 1]
  targets = np.where(labels[:, None] == np.arange(num_classes), 1.0, -1.0)  # [n, k]
  u, s, vt = np.linalg.svd(inputs, full_matrices=False)  # [n, r], [r], [r, d + 1]
  projected = u.T @ targets  # [r, k]
  penalties = sorted(float(l2) for l2 in penalties)
  l2 = penalties[0] if len(penalties) == 1 else _best(penalties, u, s, projected, targets, labels)
  weights = vt.T @ (projected * (s / (s**2 + l2))[:, None])  # [d + 1, k]
  kernel = weights[:-1] / deviation[:, None]
  return LeastSquares(kernel, BIAS * weights[-1] - mean @ kernel, l2)


def _best(penalties, u, s, projected, targets, labels) -> float:
  """The penalty with the best leave-one-out accuracy, without fitting anew.

  An example's error when it is left out is its error divided by one minus its leverage.
  """
  outside = targets - u @ projected  # what no weights can reach; nothing where n <= d
  free = np.maximum(1 - (u**2).sum(axis=1), 0)  # [n]
  ranked = []
  for l2 in penalties:
    shrunk = l2 / (s**2 + l2)  # [r]
    error = u @ (projected * shrunk[:, None]) + outside
    error /= ((u**2) @ shrunk + free)[:, None]
    ranked.append((-accuracy(targets - error, labels), (error**2).sum(), l2))
  return min(ranked)[2]


def few(labels: np.ndarray, shots: int) -> np.ndarray:
  """Rows of the first so many images of each class, among those of a draw."""
  order = np.argsort(labels, kind='stable')
  place = np.arange(len(labels)) - np.searchsorted(labels[order], labels[order])
  return order[place < shots]


def accuracies(
  drawn: Sequence[tuple[np.ndarray, np.ndarray]],
  test: tuple[np.ndarray, np.ndarray],
  num_classes: int,
  shots: int,
  penalties: Sequence[float],
) -> list[float]:
  """Accuracy on a test set after fitting to a few images of each class, for each draw.

  Args:
    drawn: features [n, d] and labels [n] of each draw; the first of each class are used.
    test: features and labels.
    num_classes: k.
    shots: images of each class.
    penalties: see `fit`.
  """
  found = []
  for x, labels in drawn:
    rows = few(labels, shots)
    scores = fit(x[rows], labels[rows], num_classes, penalties)(test[0])
    found.append(accuracy(scores, test[1]))
  return found
