"""What is learned: a task owns targets, heads, output activation, loss and metrics.

To add a task, write a file here with a class under `@TASKS.register('name')`; a loss, under
`@LOSSES.register('name')`; a metric, under `@metric(...)`: see `base`, `losses` and `metrics`.
"""

from vit_jax.tasks.base import TASKS, Task, build, of_config
from vit_jax.tasks.losses import BOX_LOSSES, LOSSES, Loss
from vit_jax.tasks.metrics import METRICS, Metric, metric, metric_text, metrics_text
from vit_jax.tasks.mixing import Mixing

__all__ = [
  'BOX_LOSSES',
  'LOSSES',
  'METRICS',
  'TASKS',
  'Loss',
  'Metric',
  'Mixing',
  'Task',
  'build',
  'metric',
  'metric_text',
  'metrics_text',
  'of_config',
]
