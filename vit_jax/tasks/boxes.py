"""Class and box: one object per image, what it is and where it is."""

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from vit_jax.data import boxes
from vit_jax.models.heads import ClassAndBox
from vit_jax.options import option
from vit_jax.tasks.base import TASKS, Batch, Outputs
from vit_jax.tasks.classify import Classify
from vit_jax.tasks.losses import BOX_LOSSES
from vit_jax.tasks.metrics import Value, metric

if TYPE_CHECKING:
  from vit_jax.report import ReportLayout

THRESHOLDS = (0.5, 0.75, 0.9)


@TASKS.register('boxes')
@dataclasses.dataclass(frozen=True)
class Boxes(Classify):
  """Learns the class and the box of one object per image.

  The loss is class loss / class_divisor + box loss. With learned weights it is instead, for the
  learned logarithms s of two variances, exp(-s0) class loss + exp(-s1) box loss + (s0 + s1) / 2,
  the class loss being divided before. An image without a box has the class loss alone.
  """

  needs_boxes = True
  can_mix = False
  metric_kinds = ('label', 'box')

  class_divisor: float = option(
    1.0, 'boxes: constant C that divides the class loss', low=1e-6, high=1e6
  )
  box_loss: str = option('l1_giou', 'boxes: regression loss', choices=lambda: BOX_LOSSES)
  box_from: str = option(
    'pooled',
    'boxes: head on the pooled features, or dense: each patch predicts edge offsets, averaged by a '
    'softmax over patches',
    choices=('pooled', 'dense'),
  )
  box_sigmoid: bool = option(True, 'boxes: a sigmoid ends the head on pooled features')
  learned_weights: bool = option(False, 'boxes: learn the weights of the two losses')
  head_hidden: int = option(512, "boxes: units of each head's hidden layer", low=1, high=1 << 20)
  head_dropout: float = option(0.2, 'boxes: dropout rate on the hidden layers', low=0, below=1)

  def wrap(self, module: nn.Module) -> nn.Module:
    """The model with a class head and a box head in the place of its classifier."""
    return ClassAndBox(
      module.clone(num_classes=0 if self.box_from == 'pooled' else None),
      self.num_classes,
      hidden=self.head_hidden,
      dropout=self.head_dropout,
      box_sigmoid=self.box_sigmoid,
      learned_weights=self.learned_weights,
    )

  def report_layout(self) -> 'ReportLayout':
    from vit_jax.report import boxes as box_report
    from vit_jax.report import metrics, sections, single_label

    return dataclasses.replace(
      super().report_layout(),
      metrics=lambda p: metrics.compute(p) | box_report.compute(p),
      summary=sections.summary(single_label.lead, single_label.cards, box_report.cards),
      sections=(box_report.section, *single_label.SECTIONS),
      tables=(box_report.images_table, *single_label.CLASS_TABLES),
      titles=self.metric_titles() | single_label.TITLES | box_report.TITLES,
    )

  def losses(self, outputs: Outputs, batch: Batch) -> jax.Array:
    """The loss of each example.

    Args:
      outputs: of `ClassAndBox`.
      batch: with 'label' [b], 'box' [b, 4] and 'has_box' [b].

    Returns:
      Losses [b], float32.
    """
    of_class, of_box = self._both(outputs, batch)
    has_box = batch['has_box'].astype(jnp.float32)
    if 'log_variance' not in outputs:
      return of_class + has_box * of_box
    s_class, s_box = jnp.moveaxis(outputs['log_variance'], -1, 0)
    weighted_class = jnp.exp(-s_class) * of_class + s_class / 2
    return weighted_class + has_box * (jnp.exp(-s_box) * of_box + s_box / 2)

  def _both(self, outputs: Mapping[str, jax.Array], batch: Batch) -> tuple[jax.Array, jax.Array]:
    of_class = super().losses(outputs['logits'], batch)
    of_box = BOX_LOSSES[self.box_loss](outputs['box'], batch['box'])
    return of_class / self.class_divisor, of_box

  @property
  def metric_names(self) -> list[str]:
    return [*super().metric_names, 'class_loss', 'box_loss']

  def metrics(self, outputs: Outputs, batch: Batch) -> dict[str, Value]:
    """Metrics of each example, and both parts of the loss; 'box_loss' of images that have a box."""
    of_class, of_box = self._both(outputs, batch)
    has_box = batch['has_box'].astype(jnp.float32)
    parts: dict[str, Value] = {'class_loss': of_class, 'box_loss': (of_box, has_box)}
    return {**super().metrics(outputs, batch), **parts}


@metric('iou', 'Mean IoU', 'box', better='max')
def iou(outputs: Mapping[str, Any], batch: Batch) -> tuple[jax.Array, jax.Array]:
  """Intersection over union with the true box ([b], [b]), of images that have one."""
  overlap = boxes.iou(outputs['box'], batch['box'])
  return overlap, batch['has_box'].astype(jnp.float32)


def _register_threshold(threshold: float) -> None:
  @metric(
    f'iou{100 * threshold:.0f}', f'IoU of at least {threshold:g}', 'box', better='max', percent=True
  )
  def hit(outputs: Mapping[str, Any], batch: Batch) -> tuple[jax.Array, jax.Array]:
    overlap, has_box = iou(outputs, batch)
    return (overlap >= threshold).astype(jnp.float32), has_box


for _threshold in THRESHOLDS:
  _register_threshold(_threshold)
