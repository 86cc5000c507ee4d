"""Class-and-box runs: trained, reported, loaded, used, fine-tuned from."""

import json
import pathlib

import numpy as np
import pytest
from PIL import Image

import vit_jax
from tests.support import raises
from tests.training.runs import reports
from vit_jax import config, evaluate, predict
from vit_jax.errors import ConfigError, WeightsError
from vit_jax.metric_writer import read_metrics
from vit_jax.training import loop

ROOT = pathlib.Path(__file__).resolve().parents[1]
COLOURS = {'red': (250, 20, 20), 'green': (20, 250, 20), 'blue': (20, 20, 250)}
HW = (43, 53)


def make_yolo(root):
  """Coloured rectangles on dark ground, and where they are."""
  rng = np.random.default_rng(5)
  for split, count in (('train', 19), ('valid', 7), ('test', 5)):
    for kind in ('images', 'labels'):
      (root / split / kind).mkdir(parents=True)
    for i in range(count):
      kind = int(rng.integers(3)) if i > 2 else i
      h, w = rng.integers(11, 29, 2)
      top, left = rng.integers(0, HW[0] - h), rng.integers(0, HW[1] - w)
      pixels = rng.integers(0, 60, (*HW, 3), np.uint8)
      pixels[top : top + h, left : left + w] = list(COLOURS.values())[kind]
      Image.fromarray(pixels).save(root / split / 'images' / f'{i}.png')
      box = [(left + w / 2) / HW[1], (top + h / 2) / HW[0], w / HW[1], h / HW[0]]
      line = ' '.join(map(str, [kind, *box]))
      (root / split / 'labels' / f'{i}.txt').write_text(line + '\n')
  (root / 'data.yaml').write_text(f'names: {list(COLOURS)}\n')
  return root


def options(folder, **overrides):
  named = {
    'dataset.name': str(folder),
    'init_from': '',
    'total': '5 epochs',
    'batch_size': '4',
    'model.width': '24',
    'model.depth': '1',
    'model.num_heads': '2',
    'model.mlp_dim': '29',
    'input.image_size': '(32, 48)',
    'task.head_hidden': '13',
    'log.tensorboard': 'false',
    'schedule.warmup': '2 steps',
    'log.every': '9 steps',
    'optimizer.learning_rate': '0.003',
  }
  named |= {k.replace('__', '.'): v for k, v in overrides.items()}
  return config.load(str(ROOT / 'configs/vit_asl_boxes.py'), named)


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  return make_yolo(tmp_path_factory.mktemp('rectangles'))


@pytest.fixture(scope='module')
def run(folder, tmp_path_factory):
  workdir = tmp_path_factory.mktemp('runs') / 'boxes'
  return workdir, loop.train(options(folder, task__learned_weights='true'), str(workdir))


def test_a_run_measures_classes_and_boxes(run):
  workdir, last = run
  assert {'loss', 'accuracy', 'box_loss', 'iou', 'iou50', 'iou75', 'iou90'} <= set(last)
  assert last['examples'] == 5 and 0 < last['iou'] < 1
  rows = [row for row in read_metrics(workdir) if row['split'] == 'val']
  assert rows[-1]['loss'] < rows[0]['loss'] and rows[-1]['box_loss'] < rows[0]['box_loss']
  reported = json.loads((workdir / 'report' / 'metrics.json').read_text())
  np.testing.assert_allclose(reported['mean_iou'], last['iou'], rtol=1e-5)
  assert reported['iou50'] == last['iou50'] and reported['boxes'] == 5


def test_it_is_evaluated_and_used_without_flags(run, folder, capsys):
  workdir, last = run
  assert evaluate.main([str(workdir), '--json']) == 0
  again = json.loads(capsys.readouterr().out)
  for name in ('accuracy', 'iou', 'iou50', 'loss'):
    np.testing.assert_allclose(again[name], last[name], rtol=1e-5)
  assert predict.main([str(workdir), str(folder / 'test' / 'images'), '--json', '--top_k=2']) == 0
  lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
  assert len(lines) == 5 and all(len(line['box']) == 4 for line in lines)
  loaded = vit_jax.load(workdir)
  path = lines[0]['image']
  np.testing.assert_allclose(loaded.predict(path)[0][0].box, lines[0]['box'], atol=1e-5)
  assert loaded.features([path]).shape == (1, 24)
  assert loaded.features([path], 'grid').shape == (1, 2, 3, 24)


def test_boxes_are_shares_of_the_whole_image(run):
  """A model that always predicts the middle half of its input."""
  loaded = vit_jax.load(run[0])
  heads = {k: v for k, v in loaded.variables['params'].items() if k != 'head_box'}
  zeros = {
    'hidden': {'kernel': np.zeros((24, 13)), 'bias': np.zeros(13)},
    'outputs': {'kernel': np.zeros((13, 8)), 'bias': np.zeros(8)},
  }
  middle = vit_jax.Loaded(
    loaded.module,
    {'params': {**heads, 'head_box': zeros}},
    loaded.config,
    loaded.classes,
    vit_jax.data.Preprocess('decode|resize_small(48)|central_crop(32, 48)'),
  )
  wide = np.zeros((40, 80, 3), np.uint8)  # two thirds of its height and half of its width are left
  np.testing.assert_allclose(middle.predict(wide)[0][0].box, [0.5, 0.5, 0.25, 1 / 3], atol=1e-4)


def test_a_classifier_is_fine_tuned_from_it(run, folder, tmp_path):
  classify = {
    'task__name': 'classify',
    'init_from': str(run[0]),
    'total': '1 epoch',
    'optimizer__multipliers': '.*=1',
  }
  last = loop.train(options(folder, **classify), str(tmp_path / 'classifier'))
  assert 'accuracy' in last and 'iou' not in last
  with raises(ConfigError, "config.head='keep'", "'boxes'", "config.head='reset'"):
    loop.train(options(folder, **classify, head='keep'), str(tmp_path / 'kept'))


def test_a_box_run_is_fine_tuned_from_it_with_its_heads(run, folder, tmp_path):
  more = {
    'init_from': str(run[0]),
    'head': 'keep',
    'total': '1 steps',
    'optimizer__learning_rate': '1e-12',
    'task__learned_weights': 'true',
  }
  with reports(False):
    last = loop.train(options(folder, **more), str(tmp_path / 'more'))
  np.testing.assert_allclose(last['iou'], run[1]['iou'], rtol=1e-5)


def test_a_frozen_backbone_stays(run, folder, tmp_path):
  frozen = options(folder, init_from=str(run[0]), freeze='backbone', total='2 steps')
  with reports(False):
    loop.train(frozen, str(tmp_path / 'frozen'))
  before, after = (vit_jax.load(path).variables['params'] for path in (run[0], tmp_path / 'frozen'))
  kernel = before['encoder']['block_00']['mlp']
  for name, leaf in vit_jax.tree.flatten(kernel).items():
    np.testing.assert_array_equal(
      leaf, vit_jax.tree.flatten(after['encoder']['block_00']['mlp'])[name]
    )


@pytest.mark.parametrize(
  'overrides, facts',
  [
    ({'dataset__name': 'digits'}, ["'boxes'", 'digits']),
    ({'mixing__mixup': '0.2'}, ["'boxes'", 'config.mixing.mixup=0']),
    ({'task__class_divisor': '0'}, ['config.task.class_divisor', '1e-06']),
    ({'task__box_loss': 'iou'}, ["config.task.box_loss='iou'", "'giou'"]),
    ({'task__head_dropout': '1'}, ['config.task.head_dropout', 'below 1']),
  ],
)
def test_what_cannot_be_is_refused(folder, tmp_path, overrides, facts):
  with raises(ConfigError, *facts):
    loop.train(options(folder, **overrides), str(tmp_path / 'never'))


def test_its_weights_are_converted_with_their_heads_or_without(run, folder, tmp_path, capsys):
  from vit_jax.convert import main as convert

  image = str(folder / 'test' / 'images' / '0.png')
  before = vit_jax.load(run[0]).predict(image)[0]
  kept = tmp_path / 'kept.safetensors'
  convert([str(run[0]), str(kept), '--to=vit_jax'])
  after = vit_jax.load(kept).predict(image)[0]
  np.testing.assert_allclose(after[0].box, before[0].box, rtol=1e-6)
  assert [a.name for a in after] == [b.name for b in before]
  with raises(WeightsError, run[0], 'npz', '--to=vit_jax', '--head=reset'):
    convert([str(run[0]), str(tmp_path / 'lost.npz'), '--to=npz'])
  convert([str(run[0]), str(tmp_path / 'new.npz'), '--to=npz', '--head=reset'])
  fresh = vit_jax.load(tmp_path / 'new.npz').predict(image)[0]
  assert fresh[0].box is None
  np.testing.assert_allclose([p.probability for p in fresh], 1 / 3, rtol=1e-5)


def test_its_attention_and_gradients_are_captured(run):
  from vit_jax.visualization.activations import capture_gradients

  loaded = vit_jax.load(run[0])
  images = np.random.default_rng(1).normal(size=(1, 32, 48, 3)).astype(np.float32)
  seen = capture_gradients(loaded.module, loaded.variables, images, 2)
  assert seen.logits.shape == (1, 3) and seen.grid == (2, 3)
  assert np.any(seen.layers[0].gradient)
