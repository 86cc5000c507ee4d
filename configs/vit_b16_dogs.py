"""ViT-B/16, pretrained on ImageNet-21k, fine-tuned on the 120 breeds of Stanford Dogs.

python -m vit_jax.main --config=configs/vit_b16_dogs.py --workdir=runs/dogs

On your own folder of pictures (path/CLASS/*.jpg), or from other weights:

python -m vit_jax.main --config=configs/vit_b16_dogs.py --workdir=runs/mine \
    --config.dataset.name=path --config.dataset.train=train --config.dataset.val=val \
    --config.model.name=vit_ti16 --config.init_from=weights.npz
"""

from vit_jax import config as options


def get_config():
  config = options.default()
  config.total = '5 epochs'
  config.batch_size = 64

  config.model.name = 'vit_b16'
  config.init_from = 'vit_b16.i21k'

  config.dataset.name = 'stanford_dogs'
  config.input.image_size = (224,)
  config.input.train_transform = 'decode|inception_crop|flip_lr'
  config.input.eval_transform = 'decode|resize_small|central_crop'

  config.optimizer.name = 'adamw'
  config.optimizer.learning_rate = 5e-5
  config.optimizer.weight_decay = 0.01
  config.optimizer.clip_norm = 1.0
  config.schedule.warmup = '0.3 epochs'
  return config
