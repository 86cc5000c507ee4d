"""A letter of American Sign Language and the box of the hand: ViT-Ti/16 with two heads.

In three stages, each from the one before, from coarse to fine (STAGE is 128, 192 or 224 pixels):

python -m vit_jax.main --config=configs/vit_asl_boxes.py:128 --workdir=runs/asl128 \
    --config.dataset.name=path/to/asl_letters --config.init_from=Ti_16-imagenet2012-224.npz
python -m vit_jax.main --config=configs/vit_asl_boxes.py:192 --workdir=runs/asl192 \
    --config.dataset.name=path/to/asl_letters
python -m vit_jax.main --config=configs/vit_asl_boxes.py:224 --workdir=runs/asl224 \
    --config.dataset.name=path/to/asl_letters

The data is a YOLO folder of 1512 + 144 + 72 pictures (public domain, "American Sign Language
Letters" of Roboflow); any folder with YOLO, COCO or Pascal VOC boxes, one object a picture, goes
the same way. Variants: `--config.freeze=embeddings,blocks:6` trains the upper half alone,
`--config.task.class_divisor=10` divides the class loss by C = 10, `--config.task.box_sigmoid=False`
leaves the box head linear, `--config.task.learned_weights=True` learns the losses' weights.

Measured on 2 cores of an AMD EPYC shared with much other work, in 70 minutes of wall time: valid
accuracy 86.1 %, IoU of at least 0.5, 0.75 and 0.9 for 99.3, 95.1 and 26.4 % of the boxes after the
last stage; 88.2 % accuracy after the second. The first stage was stopped after 9.6 of its 20
epochs. docs/results.md says what limits the boxes, and gives the variants.
"""

from vit_jax import config as options
from vit_jax.errors import UserError, did_you_mean

ARGUMENTS = ('128', '192', '224')  # stages, by pixels
# Windows keep nearly the whole hand; a sign may be made by either hand.
CROPS = 'decode|inception_crop(area_min={}, object_min=95)|flip_lr|color_jitter(0.3, 0.3, 0.3)'


def get_config(stage='128'):
  if stage not in ARGUMENTS:
    raise UserError(f'vit_asl_boxes.py:STAGE got {stage!r}: {did_you_mean(stage, ARGUMENTS)}')
  config = options.default()
  config.batch_size = 16
  config.model.name = 'vit_ti16'
  config.init_from = {
    '128': 'vit_ti16.augreg_i21k_i1k_224', '192': 'runs/asl128', '224': 'runs/asl192'
  }[stage]
  config.head = 'reset' if stage == '128' else 'keep'

  config.dataset.name = 'asl_letters'
  config.input.image_size = (int(stage),)
  config.input.eval_transform = 'decode|resize'

  config.task.name = 'boxes'
  config.task.label_smoothing = 0.1
  config.task.box_loss = 'l1_giou'

  config.optimizer.name = 'adamw'
  config.optimizer.weight_decay = 0.05
  config.optimizer.clip_norm = 1.0
  config.schedule.warmup = '1 epoch'
  config.log.every = '47 steps'
  config.checkpoint.keep = 1
  if stage == '128':
    config.total = '20 epochs'
    config.input.train_transform = CROPS.format(60)
    config.optimizer.learning_rate = 4e-4
    config.optimizer.multipliers = ('^head=3', '.*=1')
  elif stage == '192':
    config.total = '12 epochs'
    config.input.train_transform = CROPS.format(40)
    config.optimizer.learning_rate = 3e-4
    config.optimizer.multipliers = ('^head=2', '.*=1')
  else:  # whole pictures, as they are in validation
    config.total = '10 epochs'
    config.input.train_transform = 'decode|resize|color_jitter(0.4, 0.4, 0.4)'
    config.optimizer.learning_rate = 2e-4
    config.optimizer.multipliers = ('^head=2', '.*=1')
    config.freeze = ('embeddings', 'blocks:6')
    config.ema.decay = 0.99
  return config
