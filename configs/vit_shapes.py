"""A small ViT from scratch on the embedded shapes: no files needed, and images have boxes too.

python -m vit_jax.main --config=configs/vit_shapes.py --workdir=runs/shapes

Class and box of each image:

python -m vit_jax.main --config=configs/vit_shapes.py:boxes --workdir=runs/shapes_boxes
"""

from vit_jax import config as options
from vit_jax.errors import ConfigError, did_you_mean

ARGUMENTS = ('', 'boxes')


def get_config(task=''):
  if task not in ARGUMENTS:
    raise ConfigError(f'vit_shapes.py:TASK got {task!r}: {did_you_mean(task, ARGUMENTS)}')
  config = options.default()
  config.total = '30 epochs'
  config.batch_size = 24

  config.model.name = 'vit_ti16'
  config.model.patch_size = (8, 8)
  config.model.width = 64
  config.model.depth = 4
  config.model.num_heads = 4
  config.model.mlp_dim = 128

  config.dataset.name = 'shapes'
  config.input.image_size = (64,)
  config.input.train_transform = 'decode|resize(64)|flip_lr'
  config.input.eval_transform = 'decode|resize(64)'

  config.optimizer.name = 'adamw'
  config.optimizer.learning_rate = 3e-3
  config.optimizer.weight_decay = 0.05
  config.optimizer.clip_norm = 1.0
  config.schedule.warmup = '1 epoch'

  if task == 'boxes':
    config.task.name = 'boxes'
    config.task.box_from = 'dense'
    config.task.head_hidden = 64

  config.evaluation.every = '10 epochs'
  config.checkpoint.every = '10 epochs'
  config.log.every = '5 epochs'
  return config
