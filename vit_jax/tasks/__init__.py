"""What is learned: each task gives the loss and the metrics of a model's outputs."""

from vit_jax.registry import Registry
from vit_jax.tasks.classify import Classify

TASKS: Registry[type] = Registry('task')
TASKS.add('classify', Classify)


def build(name: str, num_classes: int, **options):
  """A task by its name.

  Args:
    name: 'classify'.
    num_classes: how many classes there are.
    **options: the task's own, such as loss and label_smoothing.
  """
  return TASKS[name](num_classes=num_classes, **options)
