"""Classification: one class per image."""

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

import jax

from vit_jax.options import component, option
from vit_jax.tasks.base import TASKS, Batch, Outputs, Task
from vit_jax.tasks.losses import LOSSES, Loss, smooth_one_hot

if TYPE_CHECKING:
  from vit_jax.report import ReportLayout


@TASKS.register('classify')
@dataclasses.dataclass(frozen=True)
class Classify(Task):
  """Learns one class per image from logits."""

  metric_kinds: ClassVar[tuple[str, ...]] = ('label',)

  loss: Loss = component(
    LOSSES,
    'softmax',
    'cross-entropy over classes (softmax) or for each on its own (sigmoid); multilabel: always '
    'sigmoid',
  )
  label_smoothing: float = option(
    0.0, 'share of the target spread over all classes', low=0, below=1
  )

  @property
  def activation(self) -> str:
    return self.loss.activation

  def report_layout(self) -> 'ReportLayout':
    from vit_jax.report import ReportLayout, live, metrics, sections, single_label

    return ReportLayout(
      metrics=metrics.compute,
      summary=sections.summary(single_label.lead, single_label.cards),
      sections=single_label.SECTIONS,
      tables=single_label.TABLES,
      titles=self.metric_titles() | single_label.TITLES,
      live_figures={'confusion': live.confusion, 'samples': live.samples},
    )

  def targets(self, batch: Batch) -> jax.Array:
    """Distributions [b, k] from 'label' [b]."""
    return smooth_one_hot(batch['label'], self.num_classes, self.label_smoothing)

  def losses(self, outputs: Outputs, batch: Batch) -> jax.Array:
    """The loss of each example.

    Args:
      outputs: logits [b, k]; or one for each head, whose losses are averaged.
      batch: with what `targets` reads; or with 'target' [b, k], where images are mixed.

    Returns:
      Losses [b], float32.
    """
    targets = batch['target'] if 'target' in batch else self.targets(batch)
    if isinstance(outputs, Mapping):
      outputs = outputs['logits']
    heads = outputs if isinstance(outputs, tuple) else (outputs,)
    first, *others = (self.loss(logits, targets) for logits in heads)
    return sum(others, first) / len(heads)
