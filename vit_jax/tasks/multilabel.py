"""Multi-label classification: any number of classes a picture."""

import dataclasses
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np

from vit_jax.tasks.classify import Classify, mean_logits


@dataclasses.dataclass(frozen=True)
class MultiLabel(Classify):
  """Learns which classes a picture shows, each on its own.

  Attributes:
    num_classes: k.
    label_smoothing: share of each target that is one half, 0 to 1.
  """

  # A class's probability is its own, whatever options for one class say.
  loss: Literal['sigmoid'] = dataclasses.field(default='sigmoid', init=False)

  def targets(self, batch: dict) -> jax.Array:
    """What the sigmoids should say: [b, k] from 'labels' [b, k], 1 for each class that is shown."""
    labels = batch['labels'].astype(jnp.float32)
    return labels * (1.0 - self.label_smoothing) + self.label_smoothing / 2

  def metrics(self, outputs: jax.Array | tuple[jax.Array, ...], batch: dict) -> dict:
    """Metrics of each example [b].

    Returns:
      'loss'; 'accuracy', whether the likeliest class is among the true ones; 'exact', whether all
      classes are told right, taking those over one half.
    """
    logits, labels = mean_logits(outputs), batch['labels'] > 0
    best = jnp.take_along_axis(labels, logits.argmax(axis=-1)[:, None], axis=-1)[:, 0]
    exact = ((logits > 0) == labels).all(axis=-1)
    return {
      'loss': self.losses(outputs, batch),
      'accuracy': best.astype(jnp.float32),
      'exact': exact.astype(jnp.float32),
    }

  def summary(self, logits: np.ndarray, batch: dict[str, np.ndarray]) -> dict[str, float]:
    """Metrics of a whole split: {'map': mean average precision over classes that occur}."""
    precision = average_precision(logits, batch['labels'])
    return {'map': float(np.nanmean(precision)) if np.isfinite(precision).any() else 0.0}


def average_precision(scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
  """The area under each class's precision-recall curve, without interpolation.

  The sum over thresholds of precision times the recall gained there; pictures of equal scores are
  one threshold.

  Args:
    scores: [n, k], any increasing function of the probability.
    labels: [n, k], 1 for each class that is shown.

  Returns:
    [k], float64; NaN for a class that no picture shows.
  """
  n, k = scores.shape
  result = np.full(k, np.nan)
  for i in range(k):
    order = np.argsort(-scores[:, i], kind='stable')
    ranked, hits = scores[order, i], labels[order, i] > 0
    total = int(hits.sum())
    if not total:
      continue
    last = np.append(ranked[1:] != ranked[:-1], True)  # of each group of equals
    found, seen = np.cumsum(hits)[last], np.arange(1, n + 1)[last]
    result[i] = (np.diff(found, prepend=0) * found / seen).sum() / total
  return result
