"""Multi-label classification: any number of classes a picture."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from vit_jax.tasks import losses


@dataclasses.dataclass(frozen=True)
class MultiLabel:
  """Learns which classes a picture shows, each on its own.

  Attributes:
    num_classes: k.
    label_smoothing: share of each target that is one half, 0 to 1.
  """

  num_classes: int
  label_smoothing: float = 0.0

  loss = 'sigmoid'  # a class's probability is its own, whatever options for one class say

  def wrap(self, module: nn.Module) -> nn.Module:
    """The model with this task's heads: its own classifier."""
    return module

  def targets(self, batch: dict) -> jax.Array:
    """What the sigmoids should say: [b, k] from 'labels' [b, k], 1 for each class that is shown."""
    labels = batch['labels'].astype(jnp.float32)
    return labels * (1.0 - self.label_smoothing) + self.label_smoothing / 2

  def losses(self, outputs: jax.Array | tuple[jax.Array, ...], batch: dict) -> jax.Array:
    """The loss of each example, summed over classes [b]; of several heads the mean.

    Args:
      outputs: logits [b, k], or a tuple of them.
      batch: with 'labels' [b, k]; or with 'target' [b, k], where pictures are mixed.
    """
    targets = batch['target'] if 'target' in batch else self.targets(batch)
    heads = outputs if isinstance(outputs, tuple) else (outputs,)
    return sum(losses.sigmoid_cross_entropy(logits, targets) for logits in heads) / len(heads)

  def metrics(self, outputs: jax.Array | tuple[jax.Array, ...], batch: dict) -> dict:
    """Metrics of each example [b].

    Returns:
      'loss'; 'accuracy', whether the likeliest class is among the true ones; 'exact', whether all
      classes are told right, taking those over one half.
    """
    heads = outputs if isinstance(outputs, tuple) else (outputs,)
    logits = sum(heads) / len(heads)
    labels = batch['labels'] > 0
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
