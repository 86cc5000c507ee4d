"""Any model from scratch on scikit-learn's handwritten digits at 64 pixels; no files needed.

python -m vit_jax.main --config=configs/digits.py --workdir=runs/mixer --config.model.name=mixer_s32

Patches of 16 and 32 pixels tile 64; for models of 14, such as vit_s14, add
--config.input.image_size=56.
"""

from vit_jax import config as options


def get_config():
  config = options.default()
  config.total = '10 epochs'
  config.batch_size = 64

  config.model.name = 'vit_ti16'

  config.dataset.name = 'digits'
  config.input.image_size = (64,)
  config.input.train_transform = 'decode|resize'
  config.input.eval_transform = 'decode|resize'

  config.optimizer.name = 'adamw'
  config.optimizer.learning_rate = 1e-3
  config.optimizer.weight_decay = 0.05
  config.optimizer.clip_norm = 1.0
  config.schedule.warmup = '1 epoch'
  return config
