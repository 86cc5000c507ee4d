"""ViT-B/16, pretrained on ImageNet-21k, fine-tuned on the 120 breeds of Stanford Dogs.

python -m vit_jax.main --config=configs/vit_b16_dogs.py --workdir=runs/dogs

The first run downloads the weights and the images, 1.2 GB in all.

On your own folder of images (images/CLASS/*.jpg), or from other weights:

python -m vit_jax.main --config=configs/vit_b16_dogs.py --workdir=runs/mine \
    --config.dataset.name=images --config.model.name=vit_ti16 --config.init_from=weights.npz

Measured with ViT-Ti/16 (ImageNet-1k weights) on 2 shared cores of an AMD EPYC; see docs/results.md:
six breeds of Tiny ImageNet, 3000 images of 64 pixels: 88.0 % of 300 after 24 minutes.
"""

from vit_jax import config as options


def get_config():
  config = options.default()
  config.total = '5 epochs'
  config.batch_size = 32

  config.model.name = 'vit_b16'
  config.init_from = 'vit_b16.i21k'

  config.dataset.name = 'stanford_dogs'
  config.input.image_size = (224,)
  config.input.train_transform = 'decode|inception_crop|flip_lr'
  config.input.eval_transform = 'decode|resize_small|central_crop'

  config.optimizer.name = 'adamw'
  config.optimizer.learning_rate = 4e-5
  # The head starts at zero, the rest is trained already.
  config.optimizer.multipliers = ('^head/=10', '.*=1')
  config.optimizer.weight_decay = 0.05
  config.optimizer.clip_norm = 1.0
  config.schedule.warmup = '0.2 epochs'
  return config
