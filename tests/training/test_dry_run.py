"""Dry runs: what they measure, the page of augmented images, and what they leave alone."""

import io
import json
import pathlib
import re

import numpy as np
import pytest
from PIL import Image

from tests.support import raises
from tests.test_box_runs import make_yolo
from tests.test_box_runs import options as box_options
from tests.training.runs import DIGITS, command, options
from vit_jax import data, main, tree
from vit_jax.errors import CheckpointError
from vit_jax.training import dry_run, loop, previews, starting
from vit_jax.training.experiment import build_experiment
from vit_jax.training.run_lock import run_lock


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  return make_yolo(tmp_path_factory.mktemp('rectangles'))


def _files(path):
  return {p.relative_to(path): p.stat().st_mtime_ns for p in path.rglob('*') if p.is_file()}


def test_it_measures_and_leaves_one_page(tmp_path, capsys):
  workdir = tmp_path / 'run'
  words = command(workdir, total='3 epochs', batch_size='48', evaluation__every='10 steps')
  assert main.main([*words[3:], '--dry_run', '--json']) == 0
  plan, found = map(json.loads, capsys.readouterr().out.splitlines())
  assert [plan.pop('event'), found.pop('event')] == ['plan', 'estimate']
  assert [p.name for p in workdir.iterdir()] == [dry_run.FILE]
  assert found['page'] == str(workdir / dry_run.FILE) and plan['steps'] == 81
  run = build_experiment(options())
  params = sum(4 * np.prod(x.shape) for x in tree.flatten(run.shapes['params']).values())
  exact = found['memory_bytes']
  assert exact['parameters'] == exact['gradients'] == params and exact['EMA'] == 0
  assert 2 * params <= exact['optimizer'] <= 2 * params + 64  # Adam's two moments, and counters
  xla = found['xla_memory_bytes']
  assert xla['arguments'] > 3 * params and found['xla_memory_sum_bytes'] == sum(xla.values())
  assert found['validations'] == 9  # after 10, 20 ... 80 steps, and after the last
  parts = 81 * max(found['step_seconds'], found['load_seconds']) + found['compile_seconds']
  assert found['seconds'] > parts > 0


def test_a_run_in_the_folder_stays_as_it_is(tmp_path, capsys):
  (tmp_path / 'checkpoints' / '6').mkdir(parents=True)
  (tmp_path / 'config.json').write_text('{}')
  before = _files(tmp_path)
  with run_lock(tmp_path):  # as the run does, which goes on meanwhile
    dry_run.dry_run(options(total='12 steps', ema__decay='0.9'), str(tmp_path))
  out = capsys.readouterr().out
  reading = next(line for line in out.splitlines() if line.startswith('reading'))
  assert 'images/s can be read, decoded and transformed' in reading and 'training' in reading
  assert out.splitlines()[-1].endswith(str(tmp_path / dry_run.FILE)) and 'checkpoint' in out
  after = _files(tmp_path)
  assert {n: t for n, t in after.items() if n.name not in (dry_run.FILE, '.lock')} == before


def test_what_the_run_would_refuse_the_dry_run_refuses(tmp_path, monkeypatch):
  config = options(batch_size='48')
  monkeypatch.setattr(
    starting, 'read_metas', lambda folder: ({6: {'config': config.to_json(), 'classes': []}}, {})
  )
  with raises(CheckpointError, 'batch_size', 48, tmp_path):
    dry_run.dry_run(options(batch_size='64'), str(tmp_path))
  with raises(CheckpointError, 'classes', tmp_path):
    dry_run.dry_run(config, str(tmp_path))
  assert not list(tmp_path.glob('*.html'))


def test_a_sweep_says_how_many_runs(tmp_path, capsys):
  file = tmp_path / 'sweep.py'
  text = pathlib.Path(DIGITS).read_text()
  body = "def get_sweep():\n  return options.product({'seed': (1, 2, 3)})\n"
  file.write_text(f'{text}\n\n{body}')
  words = [word for word in command(tmp_path / 'runs')[4:] if 'config=' not in word]
  assert main.main([f'--config={file}', *words, '--sweep', '--dry_run', '--json']) == 0
  assert json.loads(capsys.readouterr().out.splitlines()[-1])['runs'] == 3
  assert [p.name for p in (tmp_path / 'runs').iterdir()] == [dry_run.FILE]


def _page(path, config):
  """The images of a page, uint8, with its text."""
  import base64

  experiment = build_experiment(config)
  with loop.training_batches(config, experiment) as batches:
    found = [next(batches) for _ in range(3)]
  html = previews.write_page(path, config, experiment, found).read_text()
  sources = re.findall('src="data:image/(?:jpeg|png);base64,([^"]+)"', html)
  images = [np.asarray(Image.open(io.BytesIO(base64.b64decode(s)))) for s in sources]
  return images, html, found, experiment


def test_originals_stand_beside_augmented_images(tmp_path):
  config = options(input__train_transform='decode|resize(16)|random_crop(16, 2)')
  images, html, batches, experiment = _page(tmp_path / 'page.html', config)
  assert len(images) == 20
  for row in range(10):
    index = int(batches[0]['index'][row])
    stored, seen = images[2 * row], images[2 * row + 1]
    original = np.asarray(experiment.train[index]['image'])[..., 0]
    small = [np.asarray(Image.fromarray(stored[..., 0]).resize((8, 8), 0)).astype(int)]
    small += [np.asarray(Image.fromarray(seen[..., 0]).resize((16, 16), 0)).astype(int)]
    assert abs(small[0] - original).mean() < 12  # a PNG or JPEG of enlarged pixels
    assert abs(small[1] - batches[0]['image'][row][..., 0]).mean() < 12
    assert experiment.train.id(index) in html
  assert '8 x 8 pixels<' in html and '16 x 16 pixels<' in html
  assert '<h1>Augmentation of digits</h1>' in html


@pytest.mark.parametrize('task', ['boxes', 'multilabel'])
def test_pages_of_boxes_and_of_label_sets(folder, tmp_path, task):
  more = {'task__name': task}
  if task == 'multilabel':
    more |= {'checkpoint__best': 'map', 'checkpoint__best_mode': 'max'}
  images, html, batches, experiment = _page(tmp_path / 'page.html', box_options(folder, **more))
  assert (
    len(images) == 20
    and '53 x 43 pixels (w\u00a0x\u00a0h)' in html
    and '48 x 32 pixels (w\u00a0x' in html
  )
  assert any(name in html for name in experiment.dataset.classes)
  assert f'<h1>Augmentation of {folder.parent.name}/{folder.name}</h1>' in html
  for row in range(4):
    index = int(batches[0]['index'][row])
    example = data.parse_transform('decode', fixed_size=False)(experiment.train[index])
    for image, of in ((images[2 * row], example), (images[2 * row + 1], batches[0])):
      box = of['box'] if of is example else of['box'][row]
      h, w = image.shape[:2]
      left, right = ((box[0] + side * box[2] / 2) * w for side in (-1, 1))
      middle = image[min(h - 1, int(box[1] * h))].astype(int)
      for x in (left, right):  # a blue line, 4 pixels wide
        near = middle[max(0, int(x) - 3) : int(x) + 4]
        assert (near[:, 2] - near[:, 0] > 60).any() and (near[:, 2] - near[:, 1] > 40).any()


@pytest.mark.slow
def test_a_dry_run_of_boxes_on_every_device(folder, tmp_path, capsys):
  found = dry_run.dry_run(box_options(folder, parallel='pmap'), str(tmp_path / 'run'), 'json')
  assert found.facts['step_seconds'] > 0 and found.page.exists()
  assert capsys.readouterr().out.count('\n') == 2
