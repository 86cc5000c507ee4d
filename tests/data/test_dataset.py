"""Folders and the embedded digits, opened, chosen from and split."""

import contextlib
import os
import socket

import numpy as np
import pytest
from PIL import Image

from tests.support import SHARED, needs_shared, raises
from vit_jax.data import decode_image, open_dataset
from vit_jax.data.sources import needs_download
from vit_jax.errors import ConfigError, DatasetError, ImageError


def fill(folder, count, suffix='.png', first=0):
  folder.mkdir(parents=True, exist_ok=True)
  for i in range(first, first + count):
    Image.new('RGB', (3, 2), (i, 0, 0)).save(folder / f'p{i:03d}{suffix}')


@pytest.fixture
def plain(tmp_path):
  """13 ants, 7 bees, 1 cat: no splits."""
  for name, count in (('ant', 13), ('bee', 7), ('cat', 1)):
    fill(tmp_path / 'bugs' / name, count)
  return tmp_path / 'bugs'


@pytest.fixture
def ready(tmp_path):
  """A folder with its own splits; val is called valid and lacks bees."""
  for split, name, count in (
    ('train', 'ant', 5),
    ('train', 'bee', 3),
    ('valid', 'ant', 2),
    ('test', 'ant', 1),
    ('test', 'bee', 2),
  ):
    fill(tmp_path / 'own' / split / name, count)
  return tmp_path / 'own'


def ids(examples):
  return [examples.id(i) for i in range(len(examples))]


def test_a_plain_folder_is_split_by_class_and_seed(plain):
  dataset = open_dataset(str(plain), seed=5)
  assert (dataset.kind, dataset.classes, dataset.made_split) == (
    'folder',
    ('ant', 'bee', 'cat'),
    True,
  )
  assert dataset.splits == {'train': 17, 'val': 2, 'test': 2}
  assert np.bincount(dataset.split('train').labels).tolist() == [11, 5, 1]
  assert sorted(ids(dataset.split('all'))) == sorted(
    p.relative_to(plain).as_posix() for p in plain.rglob('*.png')
  )
  assert open_dataset(str(plain), seed=5).manifest() == dataset.manifest()
  assert open_dataset(str(plain), seed=6).manifest() != dataset.manifest()
  assert {k: len(v) for k, v in dataset.manifest().items()} == dataset.splits


def test_examples_are_what_the_files_contain(plain):
  examples = open_dataset(str(plain)).split('train')
  for i in range(len(examples)):
    example = examples[i]
    name, number = example['id'].split('/')
    assert ('ant', 'bee', 'cat')[example['label']] == name
    assert decode_image(example['image'])[0, 0, 0] == int(number[1:4])
    assert examples.labels[i] == example['label']
  with pytest.raises(IndexError):
    examples[len(examples)]


def test_own_splits_are_kept_and_classes_come_from_all(ready):
  dataset = open_dataset(str(ready))
  assert dataset.splits == {'train': 8, 'val': 2, 'test': 3}
  assert not dataset.made_split
  assert dataset.has_split('validation') and dataset.has_split('valid')
  assert sorted(ids(dataset.split('validation'))) == ['valid/ant/p000.png', 'valid/ant/p001.png']
  assert len(dataset.split('train[:50%]+test')) == 7


def test_resplit_pools_the_own_splits(ready):
  dataset = open_dataset(str(ready), resplit=True, split_fractions=(0.5, 0.5, 0))
  assert dataset.splits == {'train': 6, 'val': 7} and dataset.made_split
  assert not dataset.has_split('test')
  assert len({i.split('/')[0] for i in ids(dataset.split('all'))}) == 3
  assert sorted(dataset.split('all').labels) == [0] * 8 + [1] * 5


def test_classes_are_chosen_and_ordered(plain):
  dataset = open_dataset(str(plain), classes=('cat', 'ant'))
  assert dataset.classes == ('cat', 'ant')
  examples = dataset.split('all')
  assert len(examples) == 14
  assert {(examples.id(i)[:3], int(label)) for i, label in enumerate(examples.labels)} == {
    ('cat', 0),
    ('ant', 1),
  }


def test_per_class_counts(plain, ready):
  pool = open_dataset(str(plain), per_class=5)
  assert np.bincount(pool.split('all').labels).tolist() == [5, 5, 1]
  own = open_dataset(str(ready), per_class=2)
  assert own.splits == {'train': 4, 'val': 2, 'test': 3}


def test_a_choice_of_classes_does_not_change_which_images(plain):
  whole = open_dataset(str(plain), seed=7, per_class=4).manifest()
  part = open_dataset(str(plain), seed=7, per_class=4, classes=('bee',)).manifest()
  for split, names in part.items():
    assert sorted(names) == sorted(n for n in whole[split] if n.startswith('bee'))


def test_names_of_any_case_and_format(tmp_path):
  for i, suffix in enumerate(('.JPG', '.jpeg', '.Png', '.WEBP', '.bmp')):
    fill(tmp_path / 'A', 1, suffix, first=i)
  (tmp_path / 'A' / 'notes.txt').write_text('no image')
  (tmp_path / 'A' / '.hidden.jpg').write_text('no image')
  (tmp_path / '.cache').mkdir()
  fill(tmp_path / 'A' / 'deeper', 1, first=50)
  assert len(open_dataset(str(tmp_path), split_fractions=(1, 0, 0)).split('train')) == 6


def test_a_class_called_train_is_no_split(tmp_path):
  for name in ('train', 'plane'):
    fill(tmp_path / name, 4)
  assert open_dataset(str(tmp_path)).classes == ('plane', 'train')


def test_the_order_of_the_file_system_does_not_matter(plain, monkeypatch):
  expected = open_dataset(str(plain)).manifest()
  scandir = os.scandir
  monkeypatch.setattr(os, 'scandir', lambda path: contextlib.nullcontext([*scandir(path)][::-1]))
  assert open_dataset(str(plain)).manifest() == expected


def test_data_dir_is_where_the_folder_lies(plain):
  assert open_dataset('bugs', data_dir=str(plain.parent)).kind == 'folder'


@pytest.mark.parametrize(
  'make, facts',
  [
    (lambda p: None, ['does not exist']),
    (
      lambda p: (fill(p / 'a', 3), (p / 'b').mkdir(), (p / 'c').mkdir()),
      ['set/b has no images', 'set/c has no images', '.jpg'],
    ),
    (lambda p: p.mkdir(), ['has no class folders']),
    (lambda p: fill(p, 3), ['has images but no class folders']),
    (lambda p: p.write_text('x'), ['is a file']),
    (lambda p: (fill(p / 'val' / 'a', 1), fill(p / 'valid' / 'a', 1)), ["'val'", "'valid'"]),
    (
      lambda p: (fill(p / 'train' / 'a', 1), (p / 'test' / 'a').mkdir(parents=True)),
      ['test/a has no images'],
    ),
  ],
)
def test_unknown_layouts(tmp_path, make, facts):
  make(tmp_path / 'set')
  with raises(DatasetError, tmp_path / 'set', *facts):
    open_dataset(str(tmp_path / 'set'))


def test_several_empty_classes_are_reported_at_once(tmp_path):
  for name in 'ab':
    (tmp_path / name).mkdir()
  with raises(DatasetError) as e:
    open_dataset(str(tmp_path))
  assert len(e.value.problems) == 2


def test_impossible_options(plain):
  with raises(ConfigError, -1, -2, (1, 1, 1)) as e:
    open_dataset(str(plain), seed=-1, per_class=-2, split_fractions=(1, 1, 1))
  assert len(e.value.problems) == 3
  with raises(DatasetError, "'ants'", "did you mean 'ant'"):
    open_dataset(str(plain), classes=('ants', 'bee'))
  with raises(DatasetError, 'bee', 'twice'):
    open_dataset(str(plain), classes=('bee', 'bee'))
  with raises(ConfigError, '--config.dataset.name'):
    open_dataset('')
  with raises(DatasetError, plain, "'trian'", "did you mean 'train'"):
    open_dataset(str(plain)).split('trian')


@pytest.fixture
def here(tmp_path, monkeypatch):
  """The current folder, with the folders images, data/images and .images, and no network."""
  for name in ('images', 'data/images', '.images'):
    (tmp_path / name).mkdir(parents=True)
  monkeypatch.chdir(tmp_path)
  monkeypatch.setattr(socket, 'getaddrinfo', None)
  monkeypatch.setattr(socket.socket, 'connect', None)
  return tmp_path


@pytest.mark.parametrize(
  'name, place, near',
  [
    ('./imagez', 'imagez', "'images'?"),
    ('imagez/', 'imagez', "'images'?"),
    ('data/imagez', 'data/imagez', "'data/images'?"),
    ('my images', 'my images', "'images'?"),
    ('images:1', 'images:1', "'images'?"),
    ('none/at/all', 'none/at/all', 'exist'),
    ('./pets', 'pets', "there are images in 'flowers'"),
    ('data/pets', 'data/pets', 'exist'),
  ],
)
def test_a_path_is_no_name_of_tfds(here, name, place, near):
  fill(here / 'flowers' / 'train', 1)
  fill(here / 'run' / 'report', 1)
  for file in ('config.json', 'metrics.jsonl', 'classes.json', 'split.json'):
    (here / 'run' / file).write_text('{}')
  with raises(DatasetError, repr(name), f'folder {here / place} does not exist', near) as e:
    open_dataset(name)
  assert "'run'" not in str(e.value) and "data/images'" not in str(e.value).replace(near, '')
  assert 'TFDS' not in str(e.value) and not needs_download(name)


@pytest.mark.parametrize(
  'name, near',
  [
    ('imagez', "'images' or 'imagewang'"),
    ('eurosatt/rgb', "'eurosat'?"),
    ('qqqqqq', 'valid: caltech101, '),
    ('digit', "'digits'?"),
  ],
)
def test_a_name_of_nothing_names_the_nearest_folders_and_datasets(here, name, near):
  pytest.importorskip('tensorflow_datasets')
  with raises(DatasetError, here / name, 'TFDS has no dataset', near):
    open_dataset(name)
  assert not needs_download(name)


def test_both_places_of_a_folder_are_named(here):
  with raises(DatasetError, here / 'imagez', here / 'data' / 'imagez', "'images'?"):
    open_dataset('./imagez', data_dir='data')


def test_a_file_that_vanished_is_named(plain):
  examples = open_dataset(str(plain)).split('train')
  (plain / examples.id(3)).unlink()
  with raises(ImageError, f'{examples.id(3)} cannot be read'):
    examples[3]


def test_digits():
  dataset = open_dataset('digits', seed=3)
  assert dataset.splits == {'train': 1297, 'val': 200, 'test': 300}
  assert dataset.classes == tuple('0123456789')
  for split, size in dataset.splits.items():
    counts = np.bincount(dataset.split(split).labels, minlength=10)
    assert np.abs(counts - size / 10).max() <= 0.03 * size / 10 + 2
  image = dataset.split('train')[0]['image']
  assert image.shape == (8, 8, 1) and image.dtype == np.uint8 and image.max() > 200
  other = open_dataset('digits', seed=4)
  assert sorted(ids(other.split('test'))) == sorted(ids(dataset.split('test')))
  halves = open_dataset('digits', resplit=True, split_fractions=(0.5, 0.5))
  assert halves.made_split and abs(halves.splits['val'] - 1797 / 2) < 5


@needs_shared
def test_real_folders():
  dogs = open_dataset(str(SHARED / 'dogs6'))
  assert dogs.splits == {'train': 3000, 'test': 300} and not dogs.has_split('val')
  pets = open_dataset(str(SHARED / 'pets3' / 'images'), split_fractions=(0.8, 0.2, 0))
  assert pets.splits == {'train': 240, 'val': 60}
  assert np.bincount(pets.split('val').labels).tolist() == [20, 20, 20]
