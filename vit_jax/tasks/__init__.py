"""What is learned: each task gives the loss and the metrics of a model's outputs."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from vit_jax.registry import Registry
from vit_jax.tasks.boxes import Boxes
from vit_jax.tasks.classify import Classify
from vit_jax.tasks.distill import Distill
from vit_jax.tasks.multilabel import MultiLabel

TASKS: Registry[type] = Registry('task')
TASKS.add('classify', Classify)
TASKS.add('boxes', Boxes)
TASKS.add('distill', Distill)
TASKS.add('multilabel', MultiLabel)


def build(name: str, num_classes: int, **options):
  """A task by its name.

  Args:
    name: one of TASKS.
    num_classes: how many classes there are.
    **options: as in `config.Task`; a task takes those that it leaves open.
  """
  task = TASKS[name]
  fields = {field.name for field in dataclasses.fields(task) if field.init}
  return task(num_classes=num_classes, **{k: v for k, v in options.items() if k in fields})


def of_config(config: Mapping[str, Any], num_classes: int):
  """What a run's model learned; to tell classes where nothing says so.

  Args:
    config: the run's options, nested; 'task' may be missing.
    num_classes: how many classes there are.
  """
  return build(**{'name': 'classify', **(config.get('task') or {})}, num_classes=num_classes)
