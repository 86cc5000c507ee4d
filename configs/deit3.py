"""DeiT III from scratch on ImageNet-1k (2204.07118): MODEL.

python -m vit_jax.main --config=configs/deit3.py:deit3_s16 --workdir=runs/deit3_s16

Published at 224 pixels: 81.4 % (S/16), 83.8 % (B/16), 84.9 % (L/16), 85.2 % (H/14) (the authors'
README). B, L and H train at fewer pixels, as here, and are then fine-tuned at 224 for 20 epochs,
which this file does not do. 800 epochs: S and B on 8 GPUs, L and H on 32; no hours were found.
Not run here.

Sizes, rates, decay and stochastic depth are those of the authors' commands. Their loss is the mean
over the classes and here it is the sum, so epsilon and clipping are 1000 times theirs. They give
both classes of a mixed image the target 1 where here each has its share. On an accelerator add
--config.model.dtype=bfloat16.
"""

from vit_jax import config as options
from vit_jax.errors import ConfigError, did_you_mean

# Pixels, learning rate, stochastic depth. Of 160 pixels whole patches of 14 cover 154.
MODELS = {
  'deit3_s16': (224, 4e-3, 0.05),
  'deit3_b16': (192, 3e-3, 0.2),
  'deit3_l16': (192, 3e-3, 0.45),
  'deit3_h14': (154, 3e-3, 0.6),
}
ARGUMENTS = tuple(MODELS)


def get_config(model='deit3_s16'):
  if model not in MODELS:
    raise ConfigError(f'deit3.py:MODEL got {model!r}: {did_you_mean(model, MODELS)}')
  size, rate, dropped = MODELS[model]
  config = options.default()
  config.total = '800 epochs'
  config.batch_size = 2048

  config.model.name = model
  config.model.drop_path_rate = dropped
  config.model.drop_path_schedule = 'constant'

  config.dataset.name = 'imagenet2012'
  config.dataset.val = 'validation'
  config.dataset.test = ''
  config.input.image_size = (size,)
  config.input.mean = (0.485, 0.456, 0.406)
  config.input.std = (0.229, 0.224, 0.225)
  config.input.train_transform = (
    f'decode|inception_crop({size}, 8, 100, bicubic)|flip_lr|three_augment'
    '|color_jitter(0.3, 0.3, 0.3)'
  )
  config.input.eval_transform = f'decode|resize_small({size}, bicubic)|central_crop({size})'
  config.input.repeats = 3
  config.mixing.mixup = 0.8
  config.mixing.cutmix = 1.0
  config.mixing.switch = 0.5
  config.task.loss = 'sigmoid'

  config.optimizer.name = 'lamb'
  config.optimizer.learning_rate = rate
  config.optimizer.weight_decay = 0.05
  config.optimizer.eps = 1e-5
  config.optimizer.clip_norm = 1000.0
  config.schedule.name = 'cosine'
  config.schedule.warmup = '5 epochs'
  return config
