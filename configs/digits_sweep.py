"""A sweep: learning rates of a small ViT on scikit-learn's handwritten digits, three seeds each.

python -m vit_jax.main --config=configs/digits_sweep.py --workdir=runs/sweep --sweep

--sweep=list numbers its runs, --sweep=K trains one of them alone. Without --sweep it is one run.
"""

from vit_jax import config as options


def get_config():
  config = options.default()
  config.total = '20 epochs'
  config.batch_size = 64

  config.model.name = 'vit_ti16'
  config.model.patch_size = (4, 4)
  config.model.width = 64
  config.model.depth = 4
  config.model.num_heads = 4
  config.model.mlp_dim = 128
  config.model.pool = 'gap'
  config.model.position_embedding = 'sincos_2d'

  config.dataset.name = 'digits'
  config.input.image_size = (16,)
  config.input.train_transform = 'decode|resize(16)|random_crop(16, 2)'
  config.input.eval_transform = 'decode|resize(16)'

  config.optimizer.name = 'adamw'
  config.optimizer.weight_decay = 0.05
  config.optimizer.clip_norm = 1.0
  config.schedule.warmup = '2 epochs'

  config.evaluation.every = '5 epochs'
  config.checkpoint.every = '5 epochs'
  config.log.every = '5 epochs'
  config.log.tensorboard = False
  return config


def get_sweep():
  return options.product({'optimizer.learning_rate': (1e-3, 4e-3), 'seed': (0, 1, 2)})
