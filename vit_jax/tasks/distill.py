"""Distillation: one class per image, learned from its label and from a teacher's logits."""

import dataclasses

import jax

from vit_jax.options import option
from vit_jax.tasks.base import TASKS, Batch, Outputs
from vit_jax.tasks.classify import Classify
from vit_jax.tasks.losses import SoftmaxCrossEntropy, softened_divergence


@TASKS.register('distill')
@dataclasses.dataclass(frozen=True)
class Distill(Classify):
  """Classification with a teacher.

  The loss is (1 - alpha) times that of the labels and alpha times that of the teacher; soft losses
  are multiplied by the squared temperature, so that their gradients keep their size. A model with a
  distillation head learns the labels with one head and the teacher with the other.

  Sources: Hinton et al., 1503.02531, section 2; DeiT, 2012.12877, equations 2 and 3.
  """

  teacher: str = option(
    '',
    'distill: teacher, a run, a weights file or a pretrained model name',
    path=True,
    remote=True,
  )
  distillation: str = option(
    'soft', "distill: match the teacher's probabilities or its prediction", choices=('soft', 'hard')
  )
  temperature: float = option(3.0, 'distill: divides the logits of both', low=1e-2, high=1000)
  alpha: float = option(0.5, "distill: the teacher's weight in the loss", low=0, high=1)
  teacher_cache: str = option(
    '',
    "distill: folder that caches the teacher's logits for runs with the same images and crops",
    path=True,
  )

  def problems(self) -> list[str]:
    if self.teacher:
      return []
    return ["config.task.name='distill' needs config.task.teacher=MODEL"]

  def losses(self, outputs: Outputs, batch: Batch) -> jax.Array:
    """The loss of each example [b]; of the labels alone where the batch has no 'teacher' [b, k]."""
    if 'teacher' not in batch:
      return super().losses(outputs, batch)
    of_label, of_teacher = outputs if isinstance(outputs, tuple) else (outputs, outputs)
    from_labels = super().losses(of_label, batch)
    from_teacher = self._from_teacher(of_teacher, batch['teacher'])
    return (1 - self.alpha) * from_labels + self.alpha * from_teacher

  def _from_teacher(self, logits: jax.Array, teacher: jax.Array) -> jax.Array:
    if self.distillation == 'hard':
      targets = jax.nn.one_hot(teacher.argmax(-1), self.num_classes)
      return SoftmaxCrossEntropy()(logits, targets)
    return softened_divergence(logits, teacher, self.temperature)
