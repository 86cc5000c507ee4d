"""DeiT from scratch on ImageNet-1k (2012.12877): MODEL, one with '_distilled' with a teacher.

python -m vit_jax.main --config=configs/deit.py:deit_s16 --workdir=runs/deit_s16
python -m vit_jax.main --config=configs/deit.py:deit_s16_distilled --workdir=runs/deit_distilled

Published: 72.2 % (Ti), 79.9 % (S), 81.8 % (B); distilled 74.5, 81.2, 83.4 % (the authors' README).
300 epochs: Ti and S in less than 3 days on 4 GPUs, B in 53 hours on 8 (the paper, section 5.6).
Their teacher is a RegNetY-16GF of 82.9 %, which is not among the models here; config.task.teacher
may be any run, weights file or pretrained model name. Not run here.

Learning rates are 5e-4 for every 512 images. Random erasing writes uniform noise where timm's
writes normal noise. On an accelerator add --config.model.dtype=bfloat16.
"""

from vit_jax import config as options
from vit_jax.errors import ConfigError, did_you_mean

ARGUMENTS = (
  'deit_ti16',
  'deit_s16',
  'deit_b16',
  'deit_ti16_distilled',
  'deit_s16_distilled',
  'deit_b16_distilled',
)


def get_config(model='deit_s16'):
  if model not in ARGUMENTS:
    raise ConfigError(f'deit.py:MODEL got {model!r}: {did_you_mean(model, ARGUMENTS)}')
  config = options.default()
  config.total = '300 epochs'
  config.batch_size = 1024

  config.model.name = model
  config.model.drop_path_rate = 0.1

  config.dataset.name = 'imagenet2012'
  config.dataset.val = 'validation'
  config.dataset.test = ''
  config.input.image_size = (224,)
  config.input.mean = (0.485, 0.456, 0.406)
  config.input.std = (0.229, 0.224, 0.225)
  config.input.train_transform = (
    'decode|inception_crop(224, 8, 100, bicubic)|flip_lr|randaugment_increasing(2, 9)'
    '|random_erasing(0.25)'
  )
  config.input.eval_transform = 'decode|resize_small(256, bicubic)|central_crop(224)'
  config.input.repeats = 3
  config.mixing.mixup = 0.8
  config.mixing.cutmix = 1.0
  config.mixing.switch = 0.5
  config.task.label_smoothing = 0.1
  if model.endswith('_distilled'):
    config.task.name = 'distill'
    config.task.teacher = 'resnet50.a1_i1k'
    config.task.distillation = 'hard'
    config.task.alpha = 0.5

  config.optimizer.name = 'adamw'
  config.optimizer.learning_rate = 1e-3
  config.optimizer.weight_decay = 0.05
  config.schedule.name = 'cosine'
  config.schedule.warmup = '5 epochs'
  config.schedule.end = 0.01
  return config
