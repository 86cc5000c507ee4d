"""Numbers from predictions of one class per image, by scikit-learn and scipy."""

import dataclasses
import math
from typing import Any

import numpy as np
from scipy import special, stats

from vit_jax.report.predictions import Predictions

CONFIDENCE_LEVEL = 0.95
BINS = 15


def wilson(successes: int, trials: int) -> tuple[float, float]:
  """95 % confidence interval of a proportion; right near 0 and 1 and for few trials.

  Source: Wilson 1927; Newcombe 1998, method 3.
  """
  interval = stats.binomtest(int(successes), int(trials)).proportion_ci(
    CONFIDENCE_LEVEL, method='wilson'
  )
  return float(interval.low), float(interval.high)


@dataclasses.dataclass(frozen=True)
class PerClass:
  """Metrics of each class [k]; NaN where a class has no images or is never predicted.

  Attributes:
    support: images of the class.
    predicted: images predicted as it.
    precision, recall, f1: as scikit-learn defines them.
  """

  support: np.ndarray
  predicted: np.ndarray
  precision: np.ndarray
  recall: np.ndarray
  f1: np.ndarray

  @property
  def present(self) -> np.ndarray:
    """Indices of classes that have images."""
    return np.flatnonzero(self.support)

  @property
  def worst_first(self) -> np.ndarray:
    """Indices of classes that have images, the lowest F1 first."""
    return self.present[np.argsort(self.f1[self.present], kind='stable')]


def per_class(predictions: Predictions) -> PerClass:
  """Precision, recall and F1 of every class."""
  from sklearn.metrics import precision_recall_fscore_support  # a second to import

  k = len(predictions.classes)
  precision, recall, f1, support = precision_recall_fscore_support(
    predictions.labels, predictions.predicted, labels=np.arange(k), zero_division=np.nan
  )
  predicted = np.bincount(predictions.predicted, minlength=k)
  return PerClass(support.astype(np.int64), predicted, precision, recall, f1)


def confusion_counts(predictions: Predictions) -> np.ndarray:
  """Images by true class (rows) and predicted class (columns): int64 [k, k]."""
  from sklearn.metrics import confusion_matrix

  labels = np.arange(len(predictions.classes))
  return confusion_matrix(predictions.labels, predictions.predicted, labels=labels)


def confusion_probability(predictions: Predictions) -> np.ndarray:
  """Mean predicted probability by true class (rows): [k, k], NaN for a class without images."""
  from scipy import sparse

  n, k = predictions.logits.shape
  belongs = sparse.csr_array(
    (np.ones(n, np.float64), (predictions.labels, np.arange(n))), shape=(k, n)
  )
  support = np.bincount(predictions.labels, minlength=k).astype(np.float64)
  support[support == 0] = np.nan
  return (belongs @ predictions.probabilities.astype(np.float64)) / support[:, None]


@dataclasses.dataclass(frozen=True)
class Pair:
  """A class and one that its images are predicted as.

  Attributes:
    true, predicted: class indices.
    count: images.
    share: of the true class's images.
    probability: mean probability of `predicted` over the true class's images.
  """

  true: int
  predicted: int
  count: int
  share: float
  probability: float


def confused_pairs(counts: np.ndarray, probability: np.ndarray) -> list[Pair]:
  """All confusions that happened, the most frequent first, then by share and probability."""
  wrong = counts.copy()
  np.fill_diagonal(wrong, 0)
  support = counts.sum(axis=1)
  pairs = [
    Pair(
      int(i), int(j), int(wrong[i, j]), float(wrong[i, j] / support[i]), float(probability[i, j])
    )
    for i, j in zip(*np.nonzero(wrong))
  ]
  return sorted(pairs, key=lambda p: (-p.count, -p.share, -p.probability))


@dataclasses.dataclass(frozen=True)
class Confusion:
  """Which classes are predicted as which.

  Attributes:
    counts: see `confusion_counts`.
    probability: see `confusion_probability`.
    pairs: see `confused_pairs`.
  """

  counts: np.ndarray
  probability: np.ndarray
  pairs: list[Pair]

  @property
  def shares(self) -> np.ndarray:
    """Counts as shares of the true class's images [k, k], NaN for a class without images."""
    support = self.counts.sum(axis=1, keepdims=True)
    return np.where(support > 0, self.counts / np.maximum(support, 1), np.nan)


def confusion(predictions: Predictions) -> Confusion:
  """Confusion by counts and by probability."""
  counts, probability = confusion_counts(predictions), confusion_probability(predictions)
  return Confusion(counts, probability, confused_pairs(counts, probability))


@dataclasses.dataclass(frozen=True)
class Calibration:
  """How often predictions of a confidence are correct.

  Attributes:
    edges: of the bins [bins + 1]; a bin holds its upper edge.
    counts: images in each [bins].
    confidence, accuracy: means in each [bins], NaN where it is empty.
  """

  edges: np.ndarray
  counts: np.ndarray
  confidence: np.ndarray
  accuracy: np.ndarray

  @property
  def gaps(self) -> np.ndarray:
    """Absolute difference of accuracy and confidence in each bin [bins]."""
    return np.abs(self.accuracy - self.confidence)

  @property
  def ece(self) -> float:
    """Expected calibration error: the mean gap, weighted by images."""
    return float(np.nansum(self.gaps * self.counts) / self.counts.sum())

  @property
  def worst(self) -> float:
    """Maximum calibration error: the largest gap."""
    return float(np.nanmax(self.gaps))


def calibration(predictions: Predictions, bins: int = BINS) -> Calibration:
  """Bins of equal width over the confidence of the prediction.

  Source: Guo et al. 2017, 1706.04599, equations 2 to 5.
  """
  confidence = predictions.confidence.astype(np.float64)
  edges = np.linspace(0.0, 1.0, bins + 1)
  which = np.searchsorted(edges[1:-1], confidence)
  counts = np.bincount(which, minlength=bins)
  with np.errstate(invalid='ignore'):
    mean = np.bincount(which, confidence, bins) / counts
    accuracy = np.bincount(which, predictions.correct, bins) / counts
  return Calibration(edges, counts, mean, accuracy)


def chance_ece(found: Calibration, draws: int = 1000) -> float:
  """The ECE that a perfectly calibrated model stays below in 95 of 100 draws of as many images.

  With few images a bin's accuracy differs from its confidence by chance alone: an ECE is never 0.

  Args:
    found: whose confidences and counts are taken.
    draws: at random, of which images are correct.
  """
  filled = found.counts > 0
  counts, confidence = found.counts[filled], found.confidence[filled].clip(0, 1)
  hits = np.random.default_rng(0).binomial(counts, confidence, (draws, len(counts)))
  errors = np.abs(hits - counts * confidence).sum(axis=1) / counts.sum()
  return float(np.quantile(errors, CONFIDENCE_LEVEL))


def compute(predictions: Predictions) -> dict[str, Any]:
  """The metrics of all images together, as metrics.json has them.

  Macro means are over the classes that have images. 'top3' and 'top5' are left out where they mean
  nothing. 'nll' is the negative log-likelihood of the true class, for softmax models alone.
  """
  n, k = predictions.logits.shape
  table = per_class(predictions)
  present = table.present
  result: dict[str, Any] = {
    'examples': n,
    'skipped': predictions.skipped,
    'classes': k,
    'classes_present': len(present),
  }
  for top in (1, 3, 5):
    if top == 1 or top < k:
      name = 'accuracy' if top == 1 else f'top{top}'
      hits = int((predictions.ranks < top).sum())
      result |= {name: hits / n, f'{name}_interval': list(wilson(hits, n))}
  result |= {
    'balanced_accuracy': float(table.recall[present].mean()),
    'macro_precision': float(np.nan_to_num(table.precision[present]).mean()),
    'macro_f1': float(table.f1[present].mean()),
    'weighted_f1': float(np.average(table.f1[present], weights=table.support[present])),
    'mean_confidence': float(predictions.confidence.mean(dtype=np.float64)),
  }
  reliability = calibration(predictions)
  result |= {'ece': reliability.ece, 'max_calibration_error': reliability.worst}
  if predictions.facts.activation == 'softmax':
    logits = predictions.logits.astype(np.float64)
    true = np.take_along_axis(logits, predictions.labels[:, None], axis=-1)[:, 0]
    result['nll'] = float((special.logsumexp(logits, axis=-1) - true).mean())
  return result | {'seconds': predictions.seconds, 'img_sec': throughput(predictions)}


def throughput(predictions: Predictions) -> float | None:
  """Images/s: without the first batch where there are several, else of the whole."""
  if predictions.img_sec is not None:
    return predictions.img_sec
  return len(predictions) / predictions.seconds if predictions.seconds else None


def jsonable(value: Any) -> Any:
  """Numbers that JSON cannot hold become None; arrays and tuples become lists."""
  if isinstance(value, dict):
    return {str(k): jsonable(v) for k, v in value.items()}
  if isinstance(value, list | tuple):
    return [jsonable(v) for v in value]
  if isinstance(value, np.ndarray | np.generic):
    return jsonable(value.tolist())
  if isinstance(value, float) and not math.isfinite(value):
    return None
  return value
