"""A small ViT from scratch on few, small images: METHOD is plain, recipe or distill.

python -m vit_jax.main --config=configs/small_pictures.py:recipe --workdir=runs/small \
    --config.dataset.name=images
python -m vit_jax.main --config=configs/small_pictures.py:distill --workdir=runs/taught \
    --config.dataset.name=images --config.task.teacher=runs/teacher

plain: the images as they are. recipe: crops, mirroring, some Mixup and an average of the weights.
distill: the recipe, taught by another run's soft answers (1503.02531). With --sweep, three seeds.

Measured on six breeds of 64 pixels: docs/results.md. The teacher helps, a ResNet more
than this ViT; the recipe does not beat plain training by more than the seeds differ.
"""

from vit_jax import config as options
from vit_jax.errors import ConfigError, did_you_mean

ARGUMENTS = ('plain', 'recipe', 'distill')


def get_config(method='recipe'):
  if method not in ARGUMENTS:
    raise ConfigError(f'small_pictures.py:METHOD got {method!r}: {did_you_mean(method, ARGUMENTS)}')
  config = options.default()
  config.total = '24 epochs'
  config.batch_size = 64

  config.model.name = 'vit_ti16'
  config.model.patch_size = (8, 8)
  config.model.width = 64
  config.model.depth = 4
  config.model.num_heads = 2
  config.model.mlp_dim = 256
  config.model.pool = 'gap'
  config.model.position_embedding = 'sincos_2d'

  config.dataset.train = 'train[:90%]'
  config.dataset.val = 'train[90%:]'
  config.input.image_size = (64,)
  config.input.train_transform = 'decode|resize'
  config.input.eval_transform = 'decode|resize'

  config.optimizer.name = 'adamw'
  config.optimizer.learning_rate = 2e-3
  config.optimizer.weight_decay = 0.05
  config.optimizer.clip_norm = 1.0
  config.schedule.warmup = '2 epochs'
  config.evaluation.every = '4 epochs'
  config.checkpoint.every = '4 epochs'
  if method == 'plain':
    return config

  config.input.train_transform = 'decode|inception_crop(64, 50, 100)|flip_lr'
  config.mixing.mixup = 0.2
  config.mixing.probability = 0.5
  config.ema.decay = 0.998
  if method == 'distill':
    config.task.name = 'distill'
    config.task.distillation = 'soft'
    config.task.temperature = 1.5
    config.task.alpha = 1.0
    config.task.teacher = 'runs/teacher'
  return config


def get_sweep():
  return options.product({'seed': (0, 1, 2)})
