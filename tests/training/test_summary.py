"""The run summary: memory that is estimated, and how every parameter is trained."""

import itertools
import re
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from tests.data import annotations
from tests.models import small
from tests.training import runs
from vit_jax import models
from vit_jax.optimizers import Factors
from vit_jax.training import outline, summary
from vit_jax.training.experiment import build_experiment
from vit_jax.training.optimization import make_optimization
from vit_jax.training.train_state import create


def test_remat_saves_about_what_the_summary_estimates():
  def kept(remat):
    module = models.build('vit_ti16', 5, depth=6, remat=remat)
    x = jnp.zeros((8, 224, 224, 3))
    variables = jax.eval_shape(lambda: module.init(jax.random.key(0), x))

    def loss(params):
      return module.apply({'params': params}, x, train=True).sum()

    needed = jax.jit(jax.grad(loss)).lower(variables['params']).compile().memory_analysis()
    return summary.activation_bytes(module, variables, x.shape), needed.temp_size_in_bytes

  (estimated, needed), (estimated_remat, needed_remat) = kept('none'), kept('block')
  assert needed / needed_remat > 2
  assert 0.6 < (estimated / estimated_remat) / (needed / needed_remat) < 1.7


def test_random_keys_among_residuals_are_counted():
  module = small.build('vit_ti16', remat='block', dropout=0.1, drop_path_rate=0.2)
  x = small.images(module)
  variables = jax.eval_shape(lambda: module.init(jax.random.key(0), x))
  assert summary.activation_bytes(module, variables, x.shape) > x[..., 0].nbytes


def test_parameters_are_counted_by_part_and_grouped_by_training():
  params = {
    'encoder': {'block_00': {'bias': jnp.zeros(7)}, 'block_01': {'bias': jnp.zeros((3, 5))}},
    'head': {'kernel': jnp.zeros((11, 2)), 'bias': jnp.zeros(2)},
  }
  factors = {
    'encoder/block_00/bias': Factors(1.0, 0.0),
    'encoder/block_01/bias': Factors(1.0, 0.0),
    'head/kernel': Factors(10.0, 0.5),
    'head/bias': Factors(10.0, 0.0),
  }
  found = summary.describe_parameters(params, factors, frozenset({'encoder/block_00/bias'}))
  assert [line.split() for line in found.counts.splitlines()] == [
    ['encoder/block_00', '7'],
    ['encoder/block_01', '15'],
    ['head', '24'],
  ]
  groups = [line.split() for line in found.groups.splitlines()]
  assert [line[0] for line in groups] == ['frozen', 'LR', 'LR', 'LR']
  assert 'encoder/block_00/bias' in groups[0] and '15' in groups[1]
  assert found.table.count('LR x 10') == 2
  for name in factors:
    assert name in found.table


@pytest.fixture
def described():
  def describe(**overrides):
    config = runs.options(**overrides)
    experiment = build_experiment(config)
    shapes = experiment.shapes
    made = make_optimization(
      config.optimizer, config.schedule, config.freeze, shapes['params'], 9, lambda length: 0
    )
    state = jax.eval_shape(lambda v: create(v, made.tx, made.frozen), shapes)
    memory = summary.memory_parts(config, state)
    devices = jax.devices()
    text = summary.description(config, experiment, state, devices, 162, memory, libraries='')
    return text.splitlines()

  return describe


FOLDER = {
  'input__train_transform': 'decode|resize(16)',
  'input__eval_transform': 'decode|resize(16)',
}


def folders(root, splits):
  """Images of two classes in each split."""
  for k, (name, label) in enumerate(itertools.product(splits, ('cat', 'dog'))):
    (root / name / label).mkdir(parents=True)
    for i in range(8):
      pixels = np.full((16, 16, 3), 8 * k + i, np.uint8)
      Image.fromarray(pixels).save(root / name / label / f'{i}.png')


def test_a_run_is_summarized(described):
  """1297 images in 16 a step: 162 steps are two epochs all but two images."""
  rows = dict(line.strip().split(maxsplit=1) for line in described(accumulate='2'))
  assert '4 x' in rows['devices'] and 'data' in rows['devices']
  assert '16 = 4 devices x 2 ' in rows['batch']
  assert 'vit_ti16' in rows['model'] and '16 x 16' in rows['input'] and '4 x 4' in rows['input']
  assert [n for n in ('1,297', '200', '300') if n not in rows['images']] == []
  assert rows['classes'] == '10' and '162 steps' in rows['length'] and '1.998' in rows['length']
  assert re.search(r'[1-9]\d* KiB', rows['memory']) and 'float32' in rows['precision']
  assert 'convolutions' not in rows  # but that of patches


def test_the_plan_says_how_convolutions_are_computed(described):
  sizes = {name: text.replace('16', '32') for name, text in FOLDER.items()}
  text = ' '.join(described(model__name='r_ti16', **sizes))
  assert "1x1 as matmuls, depthwise as sums of shifted images, 3x3 by Winograd's tiles" in text


@pytest.mark.parametrize(
  'splits, pairs',
  [
    (('train', 'test'), ("train='train[:90%]'", "val='train[90%:]'")),
    (('train', 'val'), ("train='train[:90%]'", "test='train[90%:]'")),
  ],
)
def test_the_splits_that_are_recommended_do_not_overlap(described, tmp_path, splits, pairs):
  folders(tmp_path, splits)
  (note,) = [line for line in described(**FOLDER, dataset__name=str(tmp_path)) if 'note:' in line]
  assert all(f'config.dataset.{pair}' in note for pair in pairs)


def test_the_summary_says_what_of_a_folder_is_used_and_left_out(described, tmp_path):
  for name in ('Training/cat', 'Training/dog', 'dev/cat', 'dev/dog'):
    (tmp_path / name).mkdir(parents=True)
    for k in range(4):
      (tmp_path / name / f'{k}.png').write_text(f'{name} {k}')
    (tmp_path / name / 'note.txt').write_text('')
  rows = described(dataset__name=str(tmp_path), dataset__on_error='skip')
  (read,) = [row for row in rows if row.split()[0] == 'read']
  (left,) = [row for row in rows if row.split()[:2] == ['left', 'out']]
  assert all(fact in read for fact in ("'Training'", "'dev'", '16 .png')) and '4 .txt' in left


def test_a_split_that_was_not_asked_for_is_not_mentioned(described, tmp_path):
  folders(tmp_path, ('train', 'val'))
  text = '\n'.join(described(**FOLDER, dataset__name=str(tmp_path), dataset__test=''))
  assert 'note:' not in text


@pytest.mark.parametrize(
  'total, step, held_out, stopped, facts, absent',
  [
    (
      '3 epochs',
      24,
      ('val', 'test'),
      False,
      ['step 24', 'tested', "--config.total='6 epochs'"],
      [],
    ),
    ('1 epoch', 24, ('val',), False, ["--config.total='4 epochs'"], ['test']),  # as it is at 24
    ('9 epochs', 24, ('val', 'test'), True, ['early stopping'], ['total']),
    ('192 examples', 24, (), False, ["--config.total='384 examples'"], []),
  ],
)
def test_a_finished_run_says_what_trains_it_longer(total, step, held_out, stopped, facts, absent):
  config = runs.options(total=total, batch_size='8')
  experiment = types.SimpleNamespace(train=range(64), held_out=held_out)
  plan = types.SimpleNamespace(experiment=experiment, callbacks=types.SimpleNamespace(stop=stopped))
  text = outline._of_finished(config, plan, step)
  assert all(fact in text for fact in facts) and not any(word in text for word in absent), text


@pytest.mark.parametrize(
  'changes, told',
  [
    ({'dataset__name': 'shapes', 'input__image_size': '(16,)'}, True),
    ({'dataset__name': 'shapes', 'task__name': 'boxes', 'input__image_size': '(16,)'}, False),
    ({}, False),  # digits have none
  ],
)
def test_boxes_that_classification_does_not_use_are_noted(changes, told):
  boxes = {'input__train_transform': 'decode|resize', 'input__eval_transform': 'decode|resize'}
  config = runs.options(**boxes, **changes)
  notes = summary.notes(config, build_experiment(config))
  assert [('boxes' in note and "task.name='boxes'" in note) for note in notes] == [True] * told


def test_images_without_box_are_noted_where_boxes_are_learned(tmp_path):
  for name in 'abcde':
    annotations.image(tmp_path / 'images' / ('cat' if name < 'd' else 'dog') / f'{name}.png')
  for name in 'ab':
    annotations.text(
      tmp_path / 'annotations' / f'{name}.xml',
      '<annotation><object><name>cat</name><bndbox><xmin>3</xmin><ymin>3</ymin><xmax>9</xmax>'
      '<ymax>9</ymax></bndbox></object></annotation>',
    )
  transforms = {'input__train_transform': 'decode|resize', 'input__eval_transform': 'decode|resize'}
  splits = {'dataset__train': 'train+val+test', 'dataset__val': '', 'dataset__test': ''}
  options = {**transforms, **splits, 'dataset__name': str(tmp_path)}
  notes = {}
  for task in ('boxes', 'classify'):
    config = runs.options(task__name=task, input__image_size='(16,)', **options)
    notes[task] = summary.notes(config, build_experiment(config))
  (boxes,) = notes['boxes']
  assert '3 of 5 training images' in boxes and any(f'/{name}.png' in boxes for name in 'cde')
  assert not any('training images' in note for note in notes['classify'])
