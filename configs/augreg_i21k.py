"""ViT on ImageNet-21k, as "How to train your ViT" (AugReg, 2106.10270): MODEL[,SETTING].

python -m vit_jax.main --config=configs/augreg_i21k.py:vit_b16 --workdir=runs/augreg_b16_i21k \
    --config.dataset.name=path/to/imagenet21k

The dataset is a folder with a folder for each class, named by WordNet id; the head has as many
outputs as there are classes: 21841 of the full set of autumn 2011, 21843 of the copy that the
published weights know, 11221 and 10450 of the processed ones. Images without splits are split by
class. `evaluate`, `predict` and config.head='keep' match classes by id, whichever set they are of.

SETTING is one of the paper's none, light1, light2, medium1, medium2, strong1, strong2: RandAugment
and Mixup. Without it, big_vision's choice for the model (vit_i21k.py).

Published, fine-tuned on ImageNet-1k at 384 pixels: 78.22 % (Ti/16), 83.73 % (S/16), 85.49 % (B/16),
85.59 % (L/16), with settings and regularisation chosen for each. 300 epochs on TPUs; no hours of
single runs were found. Not run here.

Weight decay 1e-4 is there what a step takes off at the peak of the schedule; here it is times the
learning rate, so 1e-4 / 1e-3. On an accelerator add --config.model.dtype=bfloat16.
"""

from vit_jax import config as options
from vit_jax.data import AUGREG
from vit_jax.errors import ConfigError, did_you_mean

MODELS = {
  'vit_ti16': 'none',
  'vit_s32': 'none',
  'vit_s16': 'light1',
  'vit_b32': 'light2',
  'vit_b16': 'light2',
  'vit_l16': 'medium2',
}
ARGUMENTS = (*MODELS, *(f'vit_b16,{setting}' for setting in AUGREG))


def get_config(argument='vit_b16'):
  model, _, setting = argument.partition(',')
  if model not in MODELS or setting not in ('', *AUGREG):
    near = did_you_mean(*((model, MODELS) if model not in MODELS else (setting, AUGREG)))
    raise ConfigError(f'augreg_i21k.py:MODEL[,SETTING] got {argument!r}: {near}')
  setting = setting or MODELS[model]
  config = options.default()
  config.total = '300 epochs'
  config.batch_size = 4096

  config.model.name = model
  config.model.pool = 'gap'
  config.model.head_bias_init = -10.0

  config.dataset.name = 'imagenet21k'
  config.dataset.split_fractions = (0.9964, 0.0018, 0.0018)  # 25,600 to validate, as many to test
  config.input.image_size = (224,)
  config.input.train_transform = f'decode|inception_crop|flip_lr|augreg({setting})'
  config.input.eval_transform = 'decode|resize_small(256)|central_crop(224)'
  config.mixing.mixup = AUGREG[setting].mixup
  config.task.loss = 'sigmoid'

  config.optimizer.name = 'adamw'
  config.optimizer.learning_rate = 1e-3
  config.optimizer.weight_decay = 0.1
  config.optimizer.state_dtype = 'bfloat16'
  config.optimizer.clip_norm = 1.0
  config.schedule.name = 'cosine'
  config.schedule.warmup = '10000 steps'

  config.evaluation.every = '1000 steps'
  config.checkpoint.every = '1000 steps'
  config.log.every = '50 steps'
  return config
