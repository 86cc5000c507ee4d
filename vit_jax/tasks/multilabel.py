"""Multi-label classification: any number of classes per image."""

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from vit_jax.logits import average_precision
from vit_jax.tasks.base import TASKS, Batch
from vit_jax.tasks.classify import Classify
from vit_jax.tasks.losses import Loss, SigmoidCrossEntropy
from vit_jax.tasks.metrics import metric

if TYPE_CHECKING:
  from vit_jax.report import ReportLayout


@TASKS.register('multilabel')
@dataclasses.dataclass(frozen=True)
class MultiLabel(Classify):
  """Learns which classes an image shows, each on its own."""

  labels_per_image = 'several'
  metric_kinds = ('labels',)

  # A class's probability is its own, whatever options for one class say.
  loss: Loss = dataclasses.field(default_factory=SigmoidCrossEntropy, init=False)

  def targets(self, batch: Batch) -> jax.Array:
    """What the sigmoids are trained towards: [b, k] from 'labels' [b, k], 1 for each class shown.

    Label smoothing is the share of each target that is one half.
    """
    labels = batch['labels'].astype(jnp.float32)
    return labels * (1.0 - self.label_smoothing) + self.label_smoothing / 2

  def prevailing(self, targets: jax.Array) -> dict[str, jax.Array]:
    """The classes that make up more than half of the mixed image: {'labels': [b, k]}."""
    return {'labels': targets > 0.5}

  def report_layout(self) -> 'ReportLayout':
    from vit_jax.report import ReportLayout, label_sets, sections

    return ReportLayout(
      metrics=label_sets.compute,
      summary=sections.summary(label_sets.lead, label_sets.cards),
      sections=(label_sets.classes_section, label_sets.images_section),
      tables=(label_sets.classes_table,),
      titles=self.metric_titles() | label_sets.TITLES,
    )


@metric('accuracy', 'Most confident class is shown', 'labels', better='max', percent=True)
def accuracy(outputs: Mapping[str, Any], batch: Batch) -> jax.Array:
  """Whether the most confident class is among the true ones [b]."""
  best = outputs['logits'].argmax(axis=-1)[:, None]
  return jnp.take_along_axis(batch['labels'] > 0, best, axis=-1)[:, 0].astype(jnp.float32)


@metric('exact', 'All classes correct', 'labels', better='max', percent=True)
def exact(outputs: Mapping[str, Any], batch: Batch) -> jax.Array:
  """Whether just the true classes have a probability over one half [b]."""
  same = (outputs['logits'] > 0) == (batch['labels'] > 0)
  return same.all(axis=-1).astype(jnp.float32)


@metric('map', 'Mean average precision', 'labels', better='max', of_split=True)
def mean_average_precision(outputs: Mapping[str, Any], batch: Batch) -> float:
  """Mean average precision over the classes that occur; NaN where none does."""
  precision = average_precision(outputs['logits'], batch['labels'])
  return float(np.nanmean(precision)) if np.isfinite(precision).any() else float('nan')
