"""predict and features: files, folders and globs in, a table or JSON lines out, the status."""

import json

import numpy as np
import pytest
from PIL import Image

from tests.data import bombs
from tests.inference import test_loaded
from tests.support import SHARED, needs_shared, raises
from vit_jax import features, predict
from vit_jax.errors import ConfigError, DatasetError


@pytest.fixture
def model(tmp_path):
  (tmp_path / 'model').mkdir()
  return str(test_loaded.make(tmp_path / 'model'))


@pytest.fixture
def folder(tmp_path):
  base = tmp_path / 'images'
  (base / 'deep').mkdir(parents=True)
  for i, name in enumerate(['a.png', 'b.JPG', 'deep/c.bmp']):
    Image.fromarray(test_loaded.pixels(seed=i)).save(base / name)
  (base / 'notes.txt').write_text('no image')
  return base


def test_patterns_without_images_are_refused(model, folder):
  with raises(DatasetError, folder / '*.webp'):
    predict.main([model, str(folder / '*.webp')])


def test_json_lines_are_as_documented(model, folder, capsys):
  assert predict.main([model, str(folder), '--json', '--top_k=2']) == 0
  lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
  assert [line['image'] for line in lines] == [
    str(folder / n) for n in ('a.png', 'b.JPG', 'deep/c.bmp')
  ]
  for line in lines:
    assert set(line) == {'image', 'predictions'} and len(line['predictions']) == 2
    assert set(line['predictions'][0]) == {'index', 'class', 'probability'}


def test_without_json_it_prints_a_table(model, folder, capsys):
  assert predict.main([model, str(folder / 'a.png'), '--top_k=3']) == 0
  out = capsys.readouterr().out.splitlines()
  assert out[0].endswith('a.png') and len(out) == 4
  assert '%' in out[1] and any(name in out[1] for name in ('ant', 'bee', 'cat', 'dog', 'eel'))


def test_a_bad_image_is_reported_and_the_others_are_classified(model, folder, capsys):
  (folder / 'a2.jpg').write_bytes(b'\xff\xd8\xff broken')
  arguments = [model, str(folder), str(folder / 'gone.png'), '--json', '--batch_size=2']
  assert predict.main(arguments) == 1
  captured = capsys.readouterr()
  assert len(captured.out.splitlines()) == 3
  bad, gone, count = captured.err.splitlines()
  assert bad.startswith('error:') and 'a2.jpg' in bad
  assert gone.startswith('error:') and 'gone.png' in gone
  assert '2 of 5' in count


@pytest.mark.parametrize('option', ['--top_k=0', '--batch_size=0'])
def test_numbers_out_of_range_are_refused(model, folder, option):
  with raises(ConfigError, *option.split('=')):
    predict.main([model, str(folder), option])


def test_features_of_a_folder(model, folder, tmp_path, capsys):
  (folder / 'bad.png').write_bytes(b'nothing')
  out = tmp_path / 'f.npz'
  assert features.main([model, str(folder), f'--out={out}', '--what=grid']) == 1
  with np.load(out) as z:
    assert z['features'].shape == (3, 3, 3, 12)
    assert [p.rsplit('/', 1)[-1] for p in z['paths']] == ['a.png', 'b.JPG', 'c.bmp']
  assert 'bad.png' in capsys.readouterr().err
  with raises(ConfigError, '--out', '.npz', 'x.csv'):
    features.main([model, str(folder), '--out=x.csv'])


@needs_shared
def test_real_weights_classify_a_tench(capsys):
  weights = SHARED / 'weights' / 'Ti_16-imagenet2012-224.npz'
  image = SHARED / 'imagenet_sample' / 'n01440764_tench.JPEG'
  assert predict.main([str(weights), str(image), '--json']) == 0
  line = json.loads(capsys.readouterr().out)
  assert line['predictions'][0]['class'] == 'tench' and line['predictions'][0]['index'] == 0


def test_bombs_are_answered_image_by_image_and_names_stay_in_their_line(model, folder, capsys):
  for seed in range(0, len(bombs.MAKERS), 3):
    kind, data = bombs.make(seed)
    if kind not in ('png_chunks', 'tiff_pixels'):  # which take a second each
      (folder / f'{kind}.png').write_bytes(data)
  good = folder / 'a\nerror: forged\x1b[2J\u202e.png'
  (folder / 'a.png').rename(good)
  assert predict.main([model, str(folder), '--top_k=1']) == 1
  out, err = capsys.readouterr()
  images = len(list(folder.rglob('*.png'))) + 2
  *errors, count = err.splitlines()
  answers = out.splitlines()
  assert len(errors) + len(answers) // 2 == images and f'{len(errors)} of {images}' in count
  assert all(line.startswith('error: image ') for line in errors)
  assert str(folder / 'a\\nerror: forged\\x1b[2J\\u202e.png') in answers
