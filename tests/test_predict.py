"""The commands: files, folders and globs in, a table or JSON lines out, status for bad pictures."""

import json

import numpy as np
import pytest
from PIL import Image

from tests.inference import test_loaded
from tests.support import SHARED, needs_shared
from vit_jax import features, predict
from vit_jax.errors import UserError


@pytest.fixture
def model(tmp_path):
  (tmp_path / 'model').mkdir()
  return str(test_loaded.make(tmp_path / 'model'))


@pytest.fixture
def folder(tmp_path):
  base = tmp_path / 'pictures'
  (base / 'deep').mkdir(parents=True)
  for i, name in enumerate(['a.png', 'b.JPG', 'deep/c.bmp']):
    Image.fromarray(test_loaded.picture(seed=i)).save(base / name)
  (base / 'notes.txt').write_text('no picture')
  return base


def test_folders_globs_and_files_are_found_once_and_in_order(folder):
  a, b, c = (str(folder / n) for n in ('a.png', 'b.JPG', 'deep/c.bmp'))
  assert predict.find_images([str(folder)]) == [a, b, c]
  assert predict.find_images([str(folder / '*.png'), a, b]) == [a, b]
  assert predict.find_images([str(folder / '**' / '*.bmp')]) == [c]
  with pytest.raises(UserError, match='no images in'):
    predict.find_images([str(folder / '*.webp')])


def test_json_lines_are_as_promised(model, folder, capsys):
  assert predict.main([model, str(folder), '--json', '--top_k=2']) == 0
  lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
  assert [line['image'] for line in lines] == predict.find_images([str(folder)])
  for line in lines:
    assert set(line) == {'image', 'predictions'} and len(line['predictions']) == 2
    assert set(line['predictions'][0]) == {'index', 'class', 'probability'}


def test_a_table_for_people(model, folder, capsys):
  assert predict.main([model, str(folder / 'a.png'), '--top_k=3']) == 0
  out = capsys.readouterr().out.splitlines()
  assert out[0].endswith('a.png') and len(out) == 4
  assert '%' in out[1] and any(name in out[1] for name in ('ant', 'bee', 'cat', 'dog', 'eel'))


def test_a_bad_picture_is_reported_and_the_others_are_answered(model, folder, capsys):
  (folder / 'a2.jpg').write_bytes(b'\xff\xd8\xff broken')
  arguments = [model, str(folder), str(folder / 'gone.png'), '--json', '--batch_size=2']
  assert predict.main(arguments) == 1
  captured = capsys.readouterr()
  assert len(captured.out.splitlines()) == 3
  assert 'a2.jpg' in captured.err and 'gone.png' in captured.err and '2 of 5' in captured.err


@pytest.mark.parametrize('option', ['--top_k=0', '--batch_size=0'])
def test_impossible_numbers(model, folder, option):
  with pytest.raises(UserError, match='must be positive'):
    predict.main([model, str(folder), option])


def test_features_of_a_folder(model, folder, tmp_path, capsys):
  (folder / 'bad.png').write_bytes(b'nothing')
  out = tmp_path / 'f.npz'
  assert features.main([model, str(folder), f'--out={out}', '--what=grid']) == 1
  with np.load(out) as z:
    assert z['features'].shape == (3, 3, 3, 12)
    assert [p.rsplit('/', 1)[-1] for p in z['paths']] == ['a.png', 'b.JPG', 'c.bmp']
  assert 'bad.png' in capsys.readouterr().err
  with pytest.raises(UserError, match='must end in .npz'):
    features.main([model, str(folder), '--out=x.csv'])


@needs_shared
def test_real_weights_know_a_tench(capsys):
  weights = SHARED / 'weights' / 'Ti_16-imagenet2012-224.npz'
  image = SHARED / 'imagenet_sample' / 'n01440764_tench.JPEG'
  assert predict.main([str(weights), str(image), '--json']) == 0
  line = json.loads(capsys.readouterr().out)
  assert line['predictions'][0]['class'] == 'tench' and line['predictions'][0]['index'] == 0
