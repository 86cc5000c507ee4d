"""MLP-Mixer from scratch on ImageNet-1k (2105.01601), as big_vision's mlp_mixer_i1k.py: MODEL.

python -m vit_jax.main --config=configs/mixer_i1k.py:mixer_b16 --workdir=runs/mixer_b16

Published: 76.3 % top-1 for B/16 in 2 h 11 min on a TPUv3-128 (that file); 76.44 % in the paper.
300 epochs. Not run here.

Weight decay 1e-4 is there what a step takes off at the peak of the schedule; here it is times the
learning rate, so 1e-4 / 1e-3. On an accelerator add --config.model.dtype=bfloat16.
"""

from vit_jax import config as options
from vit_jax.errors import ConfigError, did_you_mean

ARGUMENTS = ('mixer_s32', 'mixer_s16', 'mixer_b32', 'mixer_b16', 'mixer_l16')


def get_config(model='mixer_b16'):
  if model not in ARGUMENTS:
    raise ConfigError(f'mixer_i1k.py:MODEL got {model!r}: {did_you_mean(model, ARGUMENTS)}')
  config = options.default()
  config.total = '300 epochs'
  config.batch_size = 4096

  config.model.name = model
  config.model.drop_path_rate = 0.1
  config.model.head_bias_init = -6.9

  config.dataset.name = 'imagenet2012'
  config.dataset.train = 'train[:99%]'
  config.dataset.val = 'train[99%:]'
  config.dataset.test = 'validation'
  config.input.image_size = (224,)
  config.input.train_transform = 'decode|inception_crop|flip_lr|randaugment(2, 15)'
  config.input.eval_transform = 'decode|resize_small(256)|central_crop(224)'
  config.mixing.mixup = 0.5
  config.task.loss = 'sigmoid'

  config.optimizer.name = 'adamw'
  config.optimizer.learning_rate = 1e-3
  config.optimizer.weight_decay = 0.1
  config.optimizer.clip_norm = 1.0
  config.schedule.name = 'linear'
  config.schedule.warmup = '10000 steps'
  config.schedule.end = 1e-5

  config.evaluation.every = '2500 steps'
  config.checkpoint.every = '1000 steps'
  config.log.every = '50 steps'
  return config
