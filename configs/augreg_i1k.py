"""ViT on ImageNet-1k, as "How to train your ViT" (AugReg, 2106.10270): MODEL[,SETTING].

python -m vit_jax.main --config=configs/augreg_i1k.py:vit_b16 --workdir=runs/augreg_b16
python -m vit_jax.main --config=configs/augreg_i1k.py:vit_s16,light1 --workdir=runs/augreg_s16

SETTING is one of the paper's none, light1, light2, medium1, medium2, strong1, strong2: RandAugment
and Mixup. Without it, and for dropout, the setting of the weights published for the model, else
big_vision's (vit_i1k.py).

Published: 78.8 % (S/16), 74.9 % (B/32) and 79.2 % (B/16) after fine-tuning at 224 pixels, as timm
measured those weights. 300 epochs on TPUs; no hours of single runs were found. Not run here.

Weight decay 1e-4 is there what a step takes off at the peak of the schedule; here it is times the
learning rate, so 1e-4 / 1e-3. On an accelerator add --config.model.dtype=bfloat16.
"""

from vit_jax import config as options
from vit_jax.data import AUGREG
from vit_jax.errors import ConfigError, did_you_mean

MODELS = {
  'vit_ti16': ('light1', 0.0),
  'vit_s32': ('medium1', 0.0),
  'vit_s16': ('medium2', 0.0),
  'vit_b32': ('medium2', 0.1),
  'vit_b16': ('strong2', 0.1),
  'vit_l16': ('medium2', 0.1),
}
WIDTHS = {
  'vit_ti16': 192,
  'vit_s32': 384,
  'vit_s16': 384,
  'vit_b32': 768,
  'vit_b16': 768,
  'vit_l16': 1024,
}
ARGUMENTS = (*MODELS, *(f'vit_b16,{setting}' for setting in AUGREG))


def get_config(argument='vit_b16'):
  model, _, setting = argument.partition(',')
  if model not in MODELS or setting not in ('', *AUGREG):
    near = did_you_mean(*((model, MODELS) if model not in MODELS else (setting, AUGREG)))
    raise ConfigError(f'augreg_i1k.py:MODEL[,SETTING] got {argument!r}: {near}')
  setting, dropped = setting or MODELS[model][0], MODELS[model][1]
  config = options.default()
  config.total = '300 epochs'
  config.batch_size = 4096

  config.model.name = model
  config.model.representation_size = WIDTHS[model]
  config.model.head_bias_init = -6.9
  config.model.dropout = dropped
  config.model.drop_path_rate = dropped

  config.dataset.name = 'imagenet2012'
  config.dataset.train = 'train[:99%]'
  config.dataset.val = 'train[99%:]'
  config.dataset.test = 'validation'
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

  config.evaluation.every = '2500 steps'
  config.fewshot.every = '10000 steps'
  config.fewshot.neighbours = ()
  config.checkpoint.every = '1000 steps'
  config.log.every = '50 steps'
  return config
