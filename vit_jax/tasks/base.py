"""What a task is, and the table of tasks."""

import dataclasses
import functools
import math
import operator
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import flax.linen as nn
import jax
import numpy as np

from vit_jax.options import build_component
from vit_jax.registry import Registry
from vit_jax.tasks.metrics import Metric, Value, metrics_of

if TYPE_CHECKING:
  from vit_jax.report import ReportLayout, Title

Outputs = Any  # of a module: logits [b, k], a pair of them, or a dictionary of arrays
Batch = Mapping[str, Any]

TASKS: Registry[type['Task']] = Registry('task', 'vit_jax.tasks')


@dataclasses.dataclass(frozen=True)
class Task:
  """Targets, heads, output activation, loss and metrics of what is learned.

  A subclass's fields, made by `option`, are its options: `config.task.FIELD`, and in `--help`.

  Attributes:
    num_classes: k.
  """

  # What its examples have: one class each ('label'), or any number of them ('labels').
  labels_per_image: ClassVar[str] = 'one'
  needs_boxes: ClassVar[bool] = False
  # Whether Mixup and CutMix can mix its targets.
  can_mix: ClassVar[bool] = True
  # The registered metrics that it logs: those of these kinds.
  metric_kinds: ClassVar[tuple[str, ...]] = ()

  num_classes: int

  @property
  def activation(self) -> str:
    """How logits become probabilities: 'softmax', or 'sigmoid' for each class on its own."""
    raise NotImplementedError

  def wrap(self, module: nn.Module) -> nn.Module:
    """The model with this task's heads; its own classifier unless overridden."""
    return module

  def problems(self) -> list[str]:
    """Option values that do not fit together, in words."""
    return []

  def targets(self, batch: Batch) -> jax.Array:
    """What the logits are trained towards: [b, k]."""
    raise NotImplementedError

  def prevailing(self, targets: jax.Array) -> dict[str, jax.Array]:
    """What metrics compare with where images are mixed: the class with the largest share.

    Args:
      targets: mixed [b, k].

    Returns:
      {'label': [b]}, or what else the task's metrics read of a batch.
    """
    return {'label': targets.argmax(axis=-1)}

  def losses(self, outputs: Outputs, batch: Batch) -> jax.Array:
    """The loss of each example [b], float32."""
    raise NotImplementedError

  def outputs_by_name(self, outputs: Outputs) -> dict[str, jax.Array]:
    """Outputs of a module as {'logits': [b, k], ...}; of several heads, the mean."""
    if isinstance(outputs, dict):
      return outputs
    if not isinstance(outputs, tuple):
      return {'logits': outputs}
    return {'logits': functools.reduce(operator.add, outputs) / len(outputs)}

  @property
  def _metrics(self) -> list[Metric]:
    return metrics_of(self.metric_kinds, self.num_classes)

  @property
  def metric_names(self) -> list[str]:
    """Names of all metrics of a validation, the loss first."""
    return ['loss', *(m.name for m in self._metrics)]

  @property
  def metric_modes(self) -> dict[str, str]:
    """The metrics with which values are better: 'max' or 'min'; '' where that is not known."""
    registered = {m.name: m.better for m in self._metrics}
    return {name: registered.get(name, 'min') for name in self.metric_names}  # the rest are losses

  def metrics(self, outputs: Outputs, batch: Batch) -> dict[str, Value]:
    """Metrics of each example, named as in metrics.jsonl: {'loss': [b], 'accuracy': [b], ...}."""
    named = self.outputs_by_name(outputs)
    found: dict[str, Value] = {'loss': self.losses(outputs, batch)}
    for each in self._metrics:
      if not each.of_split:
        found[each.name] = each.compute(named, batch)
    return found

  def report_layout(self) -> 'ReportLayout':
    """The sections, tables and figures of this task's report."""
    raise NotImplementedError

  def metric_titles(self) -> 'dict[str, Title]':
    """Titles of all registered metrics that this task logs, for its report."""
    from vit_jax.report import Title  # a task is built long before its report, if there is one

    return {m.name: Title(m.title, m.percent) for m in self._metrics}

  @property
  def has_split_metrics(self) -> bool:
    """Whether `split_metrics` needs the logits of a whole split."""
    return any(m.of_split for m in self._metrics)

  def split_metrics(self, logits: np.ndarray, batch: Mapping[str, np.ndarray]) -> dict[str, float]:
    """Metrics of a whole split that are no means over examples.

    Args:
      logits: [n, k].
      batch: 'labels' [n, k] or 'label' [n], of all examples.

    Returns:
      By name, without those that are NaN: not known of this split.
    """
    named = {'logits': logits}
    found = {m.name: float(m.compute(named, batch)) for m in self._metrics if m.of_split}
    return {name: value for name, value in found.items() if not math.isnan(value)}


def build(name: str, num_classes: int, **options: Any) -> Task:
  """A task by its name.

  Args:
    name: one of TASKS.
    num_classes: how many classes there are.
    **options: as in `config.task`; the task takes those that are its own.

  Raises:
    ConfigError: an unknown name.
  """
  return build_component(TASKS, name, options, num_classes=num_classes)


def of_config(config: Mapping[str, Any], num_classes: int) -> Task:
  """What a run's model learned; classification where nothing is known.

  Args:
    config: the run's options, nested; 'task' may be missing.
    num_classes: how many classes there are.
  """
  return build(**{'name': 'classify', **(config.get('task') or {})}, num_classes=num_classes)
