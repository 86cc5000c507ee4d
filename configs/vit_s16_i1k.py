"""ViT-S/16 from scratch on ImageNet-1k, as "Better plain ViT baselines" (2205.01580): EPOCHS.

python -m vit_jax.main --config=configs/vit_s16_i1k.py --workdir=runs/vit_s16_i1k
python -m vit_jax.main --config=configs/vit_s16_i1k.py:300 --workdir=runs/vit_s16_i1k_300

Published: 76.5 % top-1 after 90 epochs in 6 to 7 hours on a TPUv3-8 (big_vision's vit_s16_i1k.py);
80 % after 300 in less than a day (the paper's abstract). Not run here.

Weight decay 1e-4 is there what a step takes off at the peak of the schedule; here it is times the
learning rate, so 1e-4 / 1e-3. On an accelerator add --config.model.dtype=bfloat16.
"""

from vit_jax import config as options
from vit_jax.errors import ConfigError

ARGUMENTS = ('90', '300')


def get_config(epochs='90'):
  if epochs not in ARGUMENTS:
    raise ConfigError(f'vit_s16_i1k.py:EPOCHS got {epochs!r}: 90 or 300')
  config = options.default()
  config.total = f'{epochs} epochs'
  config.batch_size = 1024

  config.model.name = 'vit_s16'
  config.model.pool = 'gap'
  config.model.position_embedding = 'sincos_2d'
  config.model.representation_size = 384

  config.dataset.name = 'imagenet2012'
  config.dataset.train = 'train[:99%]'
  config.dataset.val = 'train[99%:]'
  config.dataset.test = 'validation'
  config.input.image_size = (224,)
  config.input.train_transform = 'decode|inception_crop|flip_lr|randaugment(2, 10)'
  config.input.eval_transform = 'decode|resize_small(256)|central_crop(224)'
  config.mixing.mixup = 0.2

  config.optimizer.name = 'adamw'
  config.optimizer.learning_rate = 1e-3
  config.optimizer.weight_decay = 0.1
  config.optimizer.state_dtype = 'bfloat16'
  config.optimizer.clip_norm = 1.0
  config.schedule.name = 'cosine'
  config.schedule.warmup = '10000 steps'

  config.evaluation.every = '2500 steps'
  config.checkpoint.every = '1000 steps'
  config.log.every = '50 steps'
  return config
