"""The CNN counterparts of the dogs experiment, end to end: small CNNs on images of colours."""

import json
import pathlib

import numpy as np
import pytest
from PIL import Image

from tests.models import small
from tests.support import made_once
from vit_jax import compare as compare_command
from vit_jax import convert, evaluate, main, models, predict, tree
from vit_jax import visualize as visualize_command
from vit_jax.weights import saving
from vit_jax.weights.containers import safetensors

ROOT = pathlib.Path(__file__).resolve().parents[1]
COLOURS = {'green': (20, 200, 60), 'red': (210, 30, 40), 'violet': (120, 40, 200)}
SMALL = {
  'resnet50': {'width': 8, 'blocks': (1, 1, 2, 1)},
  'mobilenet_v2': {'width_multiplier': 0.25, 'repeats': (1, 1, 1, 1, 1, 1, 1)},
}


@pytest.fixture(scope='module')
def images(tmp_path_factory):
  """path/{train,val,test}/COLOUR/*.png: each class one colour, with noise."""

  def draw(root):
    rng = np.random.default_rng(0)
    for split, count in (('train', 8), ('val', 3), ('test', 3)):
      for name, colour in COLOURS.items():
        (root / split / name).mkdir(parents=True)
        for i in range(count):
          pixels = np.clip(np.array(colour) + rng.normal(0, 9, (41, 37, 3)), 0, 255)
          Image.fromarray(pixels.astype(np.uint8)).save(root / split / name / f'{split}_{i}.png')

  return made_once(tmp_path_factory, 'colours', draw)


def _weights(name: str, folder: pathlib.Path) -> pathlib.Path:
  """Writes random weights of 7 classes, as NAME.npz too, under our names; returns timm's file.

  Their statistics are those of random images, so that deep features still differ between images.
  """
  module = models.build(name, 7, **SMALL[name], norm_momentum=0.0)
  variables = small.variables(module)
  noise = np.random.default_rng(3).normal(size=(31, 1, 1, 3)) + small.images(module, batch=31)
  _, moved = small.apply(module, variables, noise, train=True, mutable=['batch_stats'])
  variables = {**variables, **moved}
  np.savez(folder / f'{name}.npz', **tree.flatten(variables))
  path = folder / f'{name}.safetensors'
  safetensors.write(path, saving.to_tensors(variables, module, 'timm', (32, 32)), {})
  return path


def _train(name: str, images: pathlib.Path, folder: pathlib.Path) -> None:
  """Runs the config file on a small model; see `_weights` for what it starts from."""
  fields = [f'--config.model.{k}={v}' for k, v in SMALL[name].items()]
  status = main.main(
    [
      f'--config={ROOT}/configs/{name}_dogs.py',
      f'--workdir={folder / name}',
      *fields,
      f'--config.dataset.name={images}',
      f'--config.init_from={_weights(name, folder)}',
      '--config.input.image_size=32',
      '--config.batch_size=8',
      '--config.total=30 steps',
      '--config.optimizer.learning_rate=0.02',
      '--config.evaluation.every=15 steps',
      '--config.checkpoint.every=15 steps',
      '--config.log.every=5 steps',
      '--config.log.tensorboard=false',
    ]
  )
  assert status == 0


@pytest.fixture(scope='module')
def runs(images, tmp_path_factory):
  """path/MODEL, the run of each, and what it started from in path/MODEL.npz."""

  def train(folder):
    for name in SMALL:
      _train(name, images, folder)

  return made_once(tmp_path_factory, 'cnn_dogs', train)


@pytest.mark.parametrize('name', SMALL)
def test_only_the_head_changes_and_it_learns(runs, name):
  weights, before = convert.read(runs / name), np.load(runs / f'{name}.npz')
  after = {k: np.asarray(v) for k, v in tree.flatten(weights.tensors).items()}
  assert after.keys() == set(before)
  assert any(k.startswith('batch_stats/') for k in after)
  changed = {k for k in after if after[k].tobytes() != before[k].tobytes()}
  assert changed == {'params/head/kernel', 'params/head/bias'}
  metrics = json.loads((runs / name / 'report/metrics.json').read_text())
  assert metrics['accuracy'] == 1.0 and len(metrics['facts']['config']['freeze']) == 1
  trained = metrics['facts']['trained_parameters']
  assert trained == after['params/head/kernel'].size + 3 < metrics['facts']['parameters']


def test_every_command_takes_the_run(runs, images, tmp_path, capsys):
  run = str(runs / 'mobilenet_v2')
  assert evaluate.main([run, '--split=val', '--json', f'--report={tmp_path / "report"}']) == 0
  assert json.loads(capsys.readouterr().out.splitlines()[0])['accuracy'] == 1.0
  assert (tmp_path / 'report/report.html').exists()
  violet = str(images / 'test/violet')
  assert predict.main([run, violet, '--json', '--top_k=1']) == 0
  found = [json.loads(line)['predictions'][0] for line in capsys.readouterr().out.splitlines()]
  assert [p['class'] for p in found] == ['violet'] * 3
  gallery = f'--gallery={images / "train"}'
  assert visualize_command.main([run, violet, gallery, f'--out={tmp_path}', '--count=2']) == 0
  assert (tmp_path / 'nearest.png').exists() and (tmp_path / 'index.html').exists()


def test_both_are_compared_on_the_same_images(runs, tmp_path, capsys):
  both = [str(runs / name) for name in SMALL]
  assert compare_command.main([*both, f'--out={tmp_path}']) == 0
  assert 'resnet50' in capsys.readouterr().out
  table = json.loads((tmp_path / 'compare.json').read_text())
  assert table['pictures'] == 9 and [r['accuracy'] for r in table['runs']] == [1.0, 1.0]
