"""Files that are cut short are found before training, without decoding the others."""

import numpy as np
import pytest
from PIL import Image

from tests.support import raises
from vit_jax import config
from vit_jax.data import check_whole, decode, open_dataset, whole
from vit_jax.errors import ImageError
from vit_jax.training.experiment import open_inputs

ENDINGS = ('jpg', 'png', 'gif', 'webp')


@pytest.fixture
def folder(tmp_path):
  for name in ('a', 'b'):
    (tmp_path / name).mkdir()
    for i in range(12):
      pixels = np.random.default_rng(i).integers(0, 256, (31, 37, 3), np.uint8)
      Image.fromarray(pixels).save(tmp_path / name / f'{i}.{ENDINGS[i % len(ENDINGS)]}')
  return tmp_path


def cut(path, keep=0.6):
  data = path.read_bytes()
  path.write_bytes(data[: int(len(data) * keep)])


def examples(folder):
  return open_dataset(str(folder)).split('train+val+test')


def test_whole_files_are_not_decoded(folder, monkeypatch):
  monkeypatch.setattr(whole, 'decode_image', None)
  check_whole(examples(folder))


@pytest.mark.parametrize('name', ['a/0.jpg', 'a/1.png', 'b/2.gif', 'b/3.webp'])
@pytest.mark.parametrize('keep', [0, 0.02, 0.6, 0.97])
def test_a_file_cut_short_is_named(folder, name, keep):
  cut(folder / name, keep)
  with raises(ImageError, folder / name):
    check_whole(examples(folder))


def test_many_are_counted_and_three_are_named(folder):
  for i in (0, 4, 8):
    cut(folder / 'a' / f'{i}.jpg')
    cut(folder / 'b' / f'{i}.jpg')
  with raises(ImageError, '6 images', '3 more') as error:
    check_whole(examples(folder))
  assert str(error.value).count('cannot be decoded') == 3


def test_what_a_program_wrote_after_the_image_does_no_harm(folder):
  for i in range(4):
    path = folder / 'a' / f'{i}.{ENDINGS[i]}'
    path.write_bytes(path.read_bytes() + bytes(9000))
  check_whole(examples(folder))


def test_of_many_files_some_are_looked_at(folder, monkeypatch):
  seen = []
  monkeypatch.setattr(whole, '_problems', lambda place, name: seen.append(place) or [])
  check_whole(examples(folder), files=5)
  assert len(set(seen)) == 5


def test_arrays_have_no_files(monkeypatch):
  monkeypatch.setattr(whole, '_problems', None)
  check_whole(open_dataset('digits').split('train[:20]'))


@pytest.mark.parametrize('split', ['train', 'test'])
def test_it_is_said_before_training(folder, split):
  chosen = open_dataset(str(folder)).split(split)
  path = folder / chosen.id(0)
  path.write_bytes(b'')
  given = config.load('configs/digits.py', {'dataset.name': str(folder)})
  with raises(ImageError, path, 'empty', '--config.dataset.on_error=skip'):
    open_inputs(given)
  skipping = {'dataset.name': str(folder), 'dataset.on_error': 'skip'}
  open_inputs(config.load('configs/digits.py', skipping))
  with raises(ImageError, path):
    decode.decode_image(path.read_bytes(), str(path))
