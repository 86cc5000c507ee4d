"""One list of image endings, for dataset folders and for the commands."""

import os

import pytest
from PIL import Image

from tests.support import raises
from vit_jax.data import decode_image, open_dataset
from vit_jax.data.image_files import SUFFIXES, find_images, list_images
from vit_jax.errors import DatasetError


@pytest.fixture
def folder(tmp_path):
  """A class folder with a red image of every ending, and files that are none."""
  inside = tmp_path / 'set' / 'a' / 'b'
  (inside / '.hidden').mkdir(parents=True)
  (tmp_path / 'set' / '.cache').mkdir()
  for i, suffix in enumerate(SUFFIXES):
    path = (inside.parent if i % 2 else inside) / f'p{suffix.upper() if i % 3 else suffix}'
    image = Image.new('1' if suffix == '.pbm' else 'RGB', (5, 3), 'white')
    image.save(path, {'.jfif': 'JPEG', '.jpe': 'JPEG'}.get(suffix))
  for name in ('notes.txt', '.p.jpg', '._p.jpg', '.hidden/p.jpg', 'p.jpg.bak', 'p.mp4', 'jpg'):
    (inside / name).write_text('no image')
  (tmp_path / 'set' / '.cache' / 'p.jpg').write_text('no image')
  return tmp_path / 'set'


def test_datasets_and_commands_find_the_same_files(folder):
  listed = list_images(str(folder), '')
  assert len(listed) == len(SUFFIXES)
  assert find_images([str(folder)]) == [str(folder / name) for name in listed]
  examples = open_dataset(str(folder), split_fractions=(1, 0, 0)).split('train')
  assert sorted(examples.id(i) for i in range(len(examples))) == listed


def test_every_ending_is_of_a_format_that_is_decoded(folder):
  for name in list_images(str(folder), ''):
    image = decode_image((folder / name).read_bytes(), name)
    assert image.shape == (3, 5, 3) and image.min() > 250, name


def test_files_folders_and_globs_in_order_each_once(folder):
  first, second = list_images(str(folder), '')[:2]
  patterns = [str(folder / second), str(folder), str(folder / '**' / 'p*')]
  found = find_images([*patterns, 'missing.png'])
  assert found[:2] == [str(folder / second), str(folder / first)]
  assert found[-1] == 'missing.png' and len(found) == len(set(found))


def test_folders_and_globs_without_images_are_reported_at_once(folder, tmp_path):
  empty = tmp_path / 'empty'
  empty.mkdir()
  with raises(DatasetError, empty, '*.xyz', '.jpg', '.tiff') as e:
    find_images([str(empty), str(folder), str(folder / '*.xyz')])
  assert len(e.value.problems) == 2


def test_paths_are_relative_where_the_folder_is(folder, monkeypatch):
  monkeypatch.chdir(folder)
  assert find_images(['.']) == find_images(['./']) == list_images(str(folder), '')


def test_links_to_nothing_are_listed_and_those_to_what_is_no_file_are_not(tmp_path):
  """Reading the first says so; opening a pipe would wait for ever."""
  (tmp_path / 'a.png').write_bytes(b'')
  try:
    (tmp_path / 'itself.png').symlink_to('itself.png')
    (tmp_path / 'nothing.png').symlink_to('absent.png')
    os.mkfifo(tmp_path / 'pipe')
    (tmp_path / 'waits.png').symlink_to('pipe')
  except (AttributeError, OSError):
    pytest.skip('this system has no pipes, or this user may make no links')
  assert list_images(str(tmp_path), '') == ['a.png', 'itself.png', 'nothing.png']
