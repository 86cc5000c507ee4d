"""Metrics of each example, so that sums over masked batches count every example once.

A metric of an example is an array [b], or a pair (values [b], weights [b]) where it is not of every
example. A metric of a split is one number computed from all of its outputs.
"""

import dataclasses
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from vit_jax.logits import rank_of_label
from vit_jax.registry import Registry
from vit_jax.report.text import percent

Value = jax.Array | tuple[jax.Array, jax.Array]

# By kind and name: 'label.accuracy'.
METRICS: Registry['Metric'] = Registry('metric', 'vit_jax.tasks')


@dataclasses.dataclass(frozen=True)
class Metric:
  """A registered metric: it is computed, logged and shown in reports.

  Attributes:
    name: in metrics.jsonl.
    title: in reports.
    kind: the tasks that log it are those with this kind among their `metric_kinds`: 'label' (one
      class per image), 'labels' (any number), 'box'.
    compute: (outputs by name, batch) -> values of each example, or one number for a split.
    percent: whether it is a share, shown in percent.
    above_classes: it is left out where there are no more classes than these.
    of_split: whether it is computed once from numpy arrays of a whole split.
    better: 'max' where higher values are better, 'min' where lower ones are; '' unknown.
  """

  name: str
  title: str
  kind: str
  compute: Callable[[Mapping[str, Any], Mapping[str, Any]], Any]
  percent: bool = False
  above_classes: int = 0
  of_split: bool = False
  better: str = ''


def metric(name: str, title: str, kind: str, **facts: Any) -> Callable:
  """Registers a function as a metric; arguments as in `Metric`."""

  def decorate(compute: Callable) -> Callable:
    METRICS.add(f'{kind}.{name}', Metric(name, title, kind, compute, **facts))
    return compute

  return decorate


def metrics_of(kinds: Sequence[str], num_classes: int) -> list[Metric]:
  """The metrics of these kinds that apply to so many classes."""
  return [m for m in METRICS.values() if m.kind in kinds and num_classes > m.above_classes]


# Of frozen features, which are no task's metrics: accuracies too.
_OF_FEATURES = re.compile(r'(fewshot|knn)_\d+')


def metric_text(name: str, value: float) -> str:
  """A metric as people read it: a share as '97.5 %', another number with four digits.

  Args:
    name: as in metrics.jsonl.
    value: what it is there.
  """
  shares = {m.name for m in METRICS.values() if m.percent}
  if name in shares or _OF_FEATURES.fullmatch(name):
    return percent(value).replace('\u00a0', ' ')
  return f'{value:.4f}' if abs(value) < 100 else f'{value:.4g}'


def metrics_text(metrics: Mapping[str, float], names: Sequence[str] = ()) -> str:
  """'loss 0.1234  accuracy 98.0 %', of the names given or of all."""
  return '  '.join(f'{k} {metric_text(k, metrics[k])}' for k in names or metrics if k in metrics)


def _top_k(outputs: Mapping[str, Any], batch: Mapping[str, Any], k: int) -> jax.Array:
  return (rank_of_label(outputs['logits'], batch['label']) < k).astype(jnp.float32)


@metric('accuracy', 'Top-1 accuracy', 'label', better='max', percent=True)
def accuracy(outputs: Mapping[str, Any], batch: Mapping[str, Any]) -> jax.Array:
  """Whether the true class is predicted [b]."""
  return _top_k(outputs, batch, 1)


@metric('top3', 'Top-3 accuracy', 'label', better='max', percent=True, above_classes=3)
def top3(outputs: Mapping[str, Any], batch: Mapping[str, Any]) -> jax.Array:
  """Whether the true class is among the three most confident [b]."""
  return _top_k(outputs, batch, 3)


@metric('top5', 'Top-5 accuracy', 'label', better='max', percent=True, above_classes=5)
def top5(outputs: Mapping[str, Any], batch: Mapping[str, Any]) -> jax.Array:
  """Whether the true class is among the five most confident [b]."""
  return _top_k(outputs, batch, 5)


def batch_total(value: Value) -> tuple[jax.Array, jax.Array]:
  """A metric summed over a batch, and the sum of its weights; totals of parts may be added."""
  if not isinstance(value, tuple):
    return value.sum(), jnp.float32(value.size)
  values, weights = value
  return jnp.where(weights > 0, values * weights, 0.0).sum(), weights.sum()
