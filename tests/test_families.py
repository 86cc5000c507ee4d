"""Training of every family: frozen backbones, batch statistics, and images learned by heart."""

import pathlib

import jax
import numpy as np
import optax
import pytest

from tests.models import small
from tests.support import SHARED, needs_shared
from vit_jax import config, models, optimizers, parallel, rng, tasks, tree
from vit_jax.data import Preprocess
from vit_jax.training import loop, train_step
from vit_jax.training.experiment import build_experiment
from vit_jax.training.train_state import create

ROOT = pathlib.Path(__file__).resolve().parents[1]
DIGITS = str(ROOT / 'configs/digits.py')
CLASSES, SIZE, BATCH = 5, 29, 8
PREPROCESS = Preprocess(f'decode|resize({SIZE})')


def _batch(seed):
  r = np.random.default_rng(seed)
  return {
    'image': r.integers(0, 256, (BATCH, SIZE, SIZE, 3), np.uint8),
    'label': r.integers(0, CLASSES, BATCH).astype(np.int32),
  }


def _steps(module, variables, placement, freeze=(), steps=2):
  """The state after some steps of SGD, as numpy arrays by name."""
  tx = optax.sgd(0.01, momentum=0.9)
  frozen = optimizers.frozen_names(variables['params'], freeze) if freeze else frozenset()
  if placement.axis_name and hasattr(module, 'axis_name'):
    module = module.clone(axis_name=placement.axis_name)
  step = placement.compile_train(
    train_step.make_train_step(
      module,
      tasks.build('classify', CLASSES),
      tx,
      lambda step: 0.01,
      PREPROCESS,
      axis_name=placement.axis_name,
      frozen=frozen,
    )
  )
  copies = jax.tree.map(np.array, variables)  # the step takes their memory over
  state = placement.put_state(create(copies, tx, frozen))
  for i in range(steps):
    state, _ = step(state, placement.put_batch(_batch(i)), rng.stream(0, 'dropout'))
  return tree.flatten(jax.tree.map(np.asarray, placement.get_state(state).variables))


def test_a_frozen_backbone_keeps_parameters_and_statistics_to_the_byte():
  options = config.load(
    DIGITS,
    {
      'model.name': 'resnet50',
      'model.width': '4',
      'model.blocks': '(1, 1, 1, 1)',
      'freeze': 'backbone',
    },
  )
  module = build_experiment(options).module.clone(num_classes=CLASSES)
  assert module.norm_frozen
  variables = small.variables(module)
  before = {name: np.asarray(x) for name, x in tree.flatten(variables).items()}
  after = _steps(module, variables, parallel.make('data', jax.devices()[:1]), ('backbone',))
  assert any(name.startswith('batch_stats/') for name in before)
  changed = {name for name in before if before[name].tobytes() != after[name].tobytes()}
  assert changed == {'params/head/kernel', 'params/head/bias'}


def test_statistics_freeze_only_with_the_backbone():
  assert not build_experiment(
    config.load(DIGITS, {'model.name': 'mobilenet_v2'})
  ).module.norm_frozen
  partly = {'model.name': 'mobilenet_v2', 'freeze': 'embeddings'}
  assert not build_experiment(config.load(DIGITS, partly)).module.norm_frozen
  own = {'model.name': 'mobilenet_v2', 'freeze': 'backbone', 'model.norm_frozen': 'false'}
  assert not build_experiment(config.load(DIGITS, own)).module.norm_frozen


@pytest.fixture(scope='module')
def moving():
  return models.build('resnet50', CLASSES, width=4, blocks=(1, 1))


@pytest.fixture(scope='module')
def one_device(moving):
  return _steps(moving, small.variables(moving), parallel.make('data', jax.devices()[:1]))


@pytest.mark.parametrize('placement', ['data', 'pmap'])
def test_statistics_are_those_of_the_whole_batch_however_it_is_divided(
  moving, one_device, placement
):
  """Four devices see two images each; sums in another order change a statistic by 1e-4."""
  before = tree.flatten(small.variables(moving))
  divided = _steps(moving, small.variables(moving), parallel.make(placement, jax.devices()[:4]))
  assert divided.keys() == one_device.keys()
  for name in one_device:
    np.testing.assert_allclose(divided[name], one_device[name], rtol=2e-4, atol=2e-5, err_msg=name)
    if name.startswith('batch_stats/'):
      assert not np.allclose(one_device[name], before[name], atol=1e-3), name


def test_the_first_statistics_by_hand(moving):
  """The first BatchNorm keeps nine tenths and takes a tenth from what its convolution gives."""
  variables = small.variables(moving)
  after = _steps(moving, variables, parallel.make('pmap', jax.devices()[:4]), steps=1)
  x = jax.lax.conv_general_dilated(
    PREPROCESS.normalize(_batch(0)['image']),
    variables['params']['root']['conv']['kernel'],
    (2, 2),
    ((3, 3), (3, 3)),
    dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
  )
  before = variables['batch_stats']['root']['norm']
  for name, value in (('mean', x.mean(axis=(0, 1, 2))), ('var', x.var(axis=(0, 1, 2)))):
    wanted = 0.9 * before[name] + 0.1 * value
    np.testing.assert_allclose(after[f'batch_stats/root/norm/{name}'], wanted, rtol=1e-3)


# A small member of each family, with less depth where the real one is slow.
_SMALL = {
  'vit_ti16': {'depth': '4'},
  'r_ti16': {'depth': '4'},
  'deit_ti16_distilled': {'depth': '4'},
  'deit3_s16': {'depth': '3', 'width': '192', 'num_heads': '3', 'mlp_dim': '768'},
  'cait_xxs24': {'depth': '4'},
  't2t_vit_7': {},
  'mixer_s32': {'depth': '4'},
  'resnet50': {'blocks': '(1, 1, 1, 1)', 'width': '32'},
  'bit_r50x1': {'blocks': '(1, 1, 1, 1)', 'width': '32'},
  'mobilenet_v2': {},
}


@pytest.mark.slow
@needs_shared
@pytest.mark.parametrize('name', _SMALL)
def test_a_small_member_learns_64_images_by_heart(name, tmp_path):
  """The settings of configs/digits.py, on dogs of 64 pixels."""
  options = config.load(
    DIGITS,
    {
      'model.name': name,
      **{f'model.{field}': text for field, text in _SMALL[name].items()},
      'dataset.name': str(SHARED / 'dogs6'),
      'dataset.train': 'train[:64]',
      'dataset.val': 'train[:64]',
      'dataset.test': '',
      'total': '120 steps',
      'evaluation.every': '120 steps',
      'checkpoint.every': '120 steps',
      'log.tensorboard': 'false',
    },
  )
  metrics = loop.train(options, str(tmp_path))
  assert metrics['examples'] == 64
  assert metrics['accuracy'] == 1.0
