"""Distillation: a class a picture, learned from its label and from a teacher's answer."""

import dataclasses
from typing import Literal

import jax

from vit_jax.tasks import losses
from vit_jax.tasks.classify import Classify


@dataclasses.dataclass(frozen=True)
class Distill(Classify):
  """Classification with a teacher.

  The loss is (1 - alpha) times that of the labels and alpha times that of the teacher. A model with
  a distillation head learns the labels with one head and the teacher with the other.

  Attributes:
    distillation: 'soft' learns the teacher's probabilities at `temperature`, 'hard' its prediction.
    temperature: that logits are divided by; soft losses are multiplied by its square, so that their
      gradients keep their size.
    alpha: the teacher's share of the loss.

  Sources: Hinton et al., 1503.02531, section 2; DeiT, 2012.12877, equations 2 and 3.
  """

  distillation: Literal['soft', 'hard'] = 'soft'
  temperature: float = 3.0
  alpha: float = 0.5

  def losses(self, outputs: jax.Array | tuple[jax.Array, ...], batch: dict) -> jax.Array:
    """The loss of each example [b]; of the labels alone where the batch has no 'teacher' [b, k]."""
    if 'teacher' not in batch:
      return super().losses(outputs, batch)
    learner, pupil = outputs if isinstance(outputs, tuple) else (outputs, outputs)
    of_labels = super().losses(learner, batch)
    return (1 - self.alpha) * of_labels + self.alpha * self._of_teacher(pupil, batch['teacher'])

  def _of_teacher(self, logits: jax.Array, teacher: jax.Array) -> jax.Array:
    if self.distillation == 'hard':
      targets = jax.nn.one_hot(teacher.argmax(-1), self.num_classes)
      return losses.softmax_cross_entropy(logits, targets)
    return losses.softened_divergence(logits, teacher, self.temperature)
