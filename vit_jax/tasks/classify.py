"""Classification: one class a picture."""

import dataclasses
from collections.abc import Callable
from typing import ClassVar, Literal

import flax.linen as nn
import jax

from vit_jax.tasks import losses, metrics


@dataclasses.dataclass(frozen=True)
class Classify:
  """Learns one class a picture from logits.

  Attributes:
    num_classes: k.
    loss: cross-entropy over all classes ('softmax') or for each class alone ('sigmoid').
    label_smoothing: share of the target spread over all classes, 0 to 1.
  """

  num_classes: int
  loss: Literal['softmax', 'sigmoid'] = 'softmax'
  label_smoothing: float = 0.0

  # Metrics of a whole split that are no means over examples: (logits [n, k], {'labels': [n, k]})
  # -> {name: value}. A task that has some tells several classes a picture.
  summary: ClassVar[Callable[..., dict[str, float]] | None] = None

  def wrap(self, module: nn.Module) -> nn.Module:
    """The model with this task's heads: its own classifier."""
    return module

  def targets(self, batch: dict) -> jax.Array:
    """What the logits should say: distributions [b, k] from 'label' [b]."""
    return losses.smooth_one_hot(batch['label'], self.num_classes, self.label_smoothing)

  def losses(self, outputs: jax.Array | tuple[jax.Array, ...], batch: dict) -> jax.Array:
    """The loss of each example.

    Args:
      outputs: logits [b, k]; or one for each head, whose losses are averaged.
      batch: with what `targets` reads; or with 'target' [b, k], where pictures are mixed.

    Returns:
      Losses [b], float32.
    """
    targets = batch['target'] if 'target' in batch else self.targets(batch)
    entropy = losses.ENTROPIES[self.loss]
    heads = outputs if isinstance(outputs, tuple) else (outputs,)
    return sum(entropy(logits, targets) for logits in heads) / len(heads)

  def metrics(self, outputs: jax.Array | tuple[jax.Array, ...], batch: dict) -> dict:
    """Metrics of each example, named as in metrics.jsonl: {'loss': [b], 'accuracy': [b], ...}."""
    found = metrics.top_k(mean_logits(outputs), batch['label'])
    return {'loss': self.losses(outputs, batch)} | found


def mean_logits(outputs: jax.Array | tuple[jax.Array, ...]) -> jax.Array:
  """What a model says [b, k]: its logits, or the mean of its heads'."""
  heads = outputs if isinstance(outputs, tuple) else (outputs,)
  return sum(heads) / len(heads)
