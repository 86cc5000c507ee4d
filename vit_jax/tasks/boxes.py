"""Class and box: one object a picture, what it is and where it is."""

import dataclasses
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from vit_jax.models.heads import ClassAndBox
from vit_jax.tasks import box_losses, metrics
from vit_jax.tasks.classify import Classify

THRESHOLDS = (0.5, 0.75, 0.9)


@dataclasses.dataclass(frozen=True)
class Boxes(Classify):
  """Learns the class and the box of one object a picture.

  The loss is class loss / class_divisor + box loss. With learned weights it is instead, for the
  learned logarithms s of two variances, exp(-s0) class loss + exp(-s1) box loss + (s0 + s1) / 2,
  the class loss being divided before. A picture without a box has the class loss alone.

  Attributes:
    num_classes: k.
    loss: of the class, cross-entropy over all classes ('softmax') or for each alone ('sigmoid').
    label_smoothing: share of the target spread over all classes, 0 to 1.
    class_divisor: the constant C that the class loss is divided by; 1 for none.
    box_loss: one of `box_losses.LOSSES`.
    box_from: what boxes are read from, 'pooled' features or votes of 'places', see `heads.vote`.
    box_sigmoid: whether a box from pooled features passes a sigmoid at the end.
    head_hidden: units of each head's hidden layer.
    head_dropout: rate on the hidden layers.
    learned_weights: whether the weights of the two losses are learned.
  """

  class_divisor: float = 1.0
  box_loss: str = 'l1_giou'
  box_from: str = 'pooled'
  box_sigmoid: bool = True
  head_hidden: int = 512
  head_dropout: float = 0.2
  learned_weights: bool = False

  def wrap(self, module: nn.Module) -> nn.Module:
    """The model with a class head and a box head in the place of its classifier."""
    return ClassAndBox(
      module.clone(num_classes=None if self.box_from == 'places' else 0),
      self.num_classes,
      hidden=self.head_hidden,
      dropout=self.head_dropout,
      box_sigmoid=self.box_sigmoid,
      learned_weights=self.learned_weights,
    )

  def losses(self, outputs: dict[str, jax.Array], batch: dict) -> jax.Array:
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

  def _both(self, outputs: dict, batch: dict) -> tuple[jax.Array, jax.Array]:
    of_class = super().losses(outputs['logits'], batch)
    of_box = box_losses.LOSSES[self.box_loss](outputs['box'], batch['box'])
    return of_class / self.class_divisor, of_box

  def metrics(self, outputs: dict[str, jax.Array], batch: dict) -> dict[str, Any]:
    """Metrics of each example, named as in metrics.jsonl.

    Returns:
      'loss', 'accuracy', 'top3', 'top5' [b]; 'box_loss', 'iou' and the shares 'iou50', 'iou75',
      'iou90' as pairs (values [b], weights [b]), of pictures that have a box.
    """
    of_class, of_box = self._both(outputs, batch)
    has_box = batch['has_box'].astype(jnp.float32)
    iou, _ = box_losses.iou_and_giou(outputs['box'], batch['box'])
    found = {
      'loss': self.losses(outputs, batch),
      'class_loss': of_class,
      **metrics.top_k(outputs['logits'], batch['label']),
    }
    of_boxes = {'box_loss': of_box, 'iou': iou}
    of_boxes |= {f'iou{100 * t:.0f}': (iou >= t).astype(jnp.float32) for t in THRESHOLDS}
    return found | {name: (values, has_box) for name, values in of_boxes.items()}
