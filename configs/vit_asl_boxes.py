"""A letter of American Sign Language and the box of the hand: ViT-Ti/16 with two heads.

In three stages, each from the one before, from coarse to fine (STAGE is 128, 192 or 256 pixels):

python -m vit_jax.main --config=configs/vit_asl_boxes.py:128 --workdir=runs/asl128 \
    --config.dataset.name=path/to/asl_letters --config.init_from=Ti_16-imagenet2012-224.npz
python -m vit_jax.main --config=configs/vit_asl_boxes.py:192 --workdir=runs/asl192 \
    --config.dataset.name=path/to/asl_letters
python -m vit_jax.main --config=configs/vit_asl_boxes.py:256 --workdir=runs/asl256 \
    --config.dataset.name=path/to/asl_letters

The data is a YOLO folder of 1512 + 144 + 72 images (public domain, "American Sign Language
Letters" of Roboflow); any folder with YOLO, COCO or Pascal VOC boxes, one object an image, goes
the same way. Variants: `--config.freeze=embeddings,blocks:6` trains the upper half alone,
`--config.task.class_divisor=10` divides the class loss by C = 10, `--config.task.box_from=pooled`
reads the box from the pooled features, with `--config.task.box_sigmoid=False` without a sigmoid,
`--config.task.learned_weights=True` learns the losses' weights.

Measured on 2 cores of an AMD EPYC in 88 minutes of wall time: valid accuracy 93.1 %, IoU of at
least 0.5, 0.75 and 0.9 for 99.3, 98.6 and 73.6 % of the boxes; test 84.7 %, 100, 97.2 and 75.0 %.
After the first 14 minutes valid was at 86.8 %, 99.3, 96.5 and 56.3 %. docs/results.md has the rest.
"""

from vit_jax import config as options
from vit_jax.errors import ConfigError, did_you_mean

ARGUMENTS = ('128', '192', '256')  # stages, by pixels
# Its README says that training images were turned and sheared by up to 5 degrees before the
# export, and boxes were drawn around that. A margin lets hands come smaller, too; windows keep
# nearly the whole hand; a sign may be made by either hand.
CROPS = (
  'decode|tighten_box(5)|pad({})|inception_crop(area_min={}, object_min=95)|flip_lr'
  '|color_jitter(0.4, 0.4, 0.4)'
)


def get_config(stage='128'):
  if stage not in ARGUMENTS:
    raise ConfigError(f'vit_asl_boxes.py:STAGE got {stage!r}: {did_you_mean(stage, ARGUMENTS)}')
  config = options.default()
  config.batch_size = 16
  config.model.name = 'vit_ti16'
  config.init_from = {
    '128': 'vit_ti16.augreg_i21k_i1k_224',
    '192': 'runs/asl128',
    '256': 'runs/asl192',
  }[stage]
  config.head = 'reset' if stage == '128' else 'keep'

  config.dataset.name = 'asl_letters'
  config.input.image_size = (int(stage),)
  config.input.eval_transform = 'decode|resize'

  config.task.name = 'boxes'
  config.task.label_smoothing = 0.1
  config.task.box_loss = 'l1_giou'
  config.task.box_from = 'dense'

  config.optimizer.name = 'adamw'
  config.optimizer.weight_decay = 0.05
  config.optimizer.clip_norm = 1.0
  config.schedule.warmup = '1 epoch'
  config.log.every = '47 steps'
  config.checkpoint.keep = 1
  config.checkpoint.best = 'loss'
  config.checkpoint.best_mode = 'min'
  if stage == '128':
    config.total = '24 epochs'
    config.input.train_transform = CROPS.format(0, 40)
    config.optimizer.learning_rate = 4e-4
    config.optimizer.multipliers = ('^head=3', '.*=1')
  elif stage == '192':
    config.total = '20 epochs'
    config.input.train_transform = CROPS.format(50, 35)
    config.model.drop_path_rate = 0.1
    config.optimizer.learning_rate = 3e-4
    config.optimizer.multipliers = ('^head=2', '.*=1')
  else:
    config.total = '18 epochs'
    config.input.train_transform = CROPS.format(40, 50)
    config.model.drop_path_rate = 0.1
    config.optimizer.learning_rate = 2e-4
    config.optimizer.multipliers = ('^head=2', '.*=1')
    config.ema.decay = 0.995
  return config
