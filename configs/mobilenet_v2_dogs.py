"""MobileNetV2, pretrained on ImageNet-1k and frozen, with a new head for Stanford Dogs.

python -m vit_jax.main --config=configs/mobilenet_v2_dogs.py --workdir=runs/dogs_mobilenet_v2

The counterpart of vit_b16_dogs.py: the same images, splits, order and batches. BatchNorm keeps
its statistics, as the whole backbone does. On your own folder of images (path/CLASS/*.jpg):

python -m vit_jax.main --config=configs/mobilenet_v2_dogs.py --workdir=runs/mine \
    --config.dataset.name=path --config.init_from=weights.safetensors
"""

from vit_jax import config as options


def get_config():
  config = options.default()
  config.total = '5 epochs'
  config.batch_size = 32

  config.model.name = 'mobilenet_v2'
  config.init_from = 'mobilenet_v2.ra_i1k'
  config.freeze = ('backbone',)

  config.dataset.name = 'stanford_dogs'
  config.input.image_size = (224,)
  config.input.train_transform = 'decode|inception_crop|flip_lr'
  config.input.eval_transform = 'decode|resize_small|central_crop'

  config.optimizer.name = 'adamw'
  config.optimizer.learning_rate = 1e-3
  config.optimizer.weight_decay = 0.01
  config.optimizer.clip_norm = 1.0
  config.schedule.warmup = '0.2 epochs'
  return config
