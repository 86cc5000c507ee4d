"""Images that are trained on and scored, or are in two classes: by split strings and by bytes."""

import numpy as np
import pytest

from tests.data.test_layouts import check_told, link, tree, write
from vit_jax.data import Examples, duplicates, open_dataset
from vit_jax.data.records import ArrayRecords


def opened(root, train='train', **held_out):
  dataset = open_dataset(str(root))
  return {'train': dataset.split(train)} | {k: dataset.split(v) for k, v in held_out.items()}


@pytest.fixture
def pets(tmp_path):
  return tree(tmp_path, ['train/cat:4', 'train/dog:4', 'test/cat:2', 'test/dog:2'])


@pytest.mark.parametrize(
  'train, val, told',
  [
    ('train', 'train[75%:]', '2 of 2 val'),
    ('train[:80%]', 'train[75%:]', ''),  # six of eight and two
    ('train+test', 'test', '4 of 4 val'),
    ('all', 'train[:1]', '1 of 1 val'),
    ('train[:6]', 'train[6:]', ''),
  ],
)
def test_overlapping_split_strings(pets, caplog, train, val, told):
  specs = {'train': train, 'val': val}
  duplicates.warn_of_overlap(opened(pets, train, val=val), specs)
  check_told(caplog, told)


SAME = {
  'test_is_trained_on': ('test/dog/0.jpg train/dog/3.jpg', "1 of 4 test 'test/dog/0.jpg'"),
  'by_another_name': ('test/cat/1.jpg train/cat/2.jpg', "'test/cat/1.jpg' 'train/cat/2.jpg'"),
  'in_two_classes': ('train/cat/1.jpg train/dog/1.jpg', '1 image two classes'),
  'within_a_class': ('train/cat/1.jpg train/cat/2.jpg', ''),
  'within_test': ('test/cat/0.jpg test/cat/1.jpg', ''),
}


@pytest.mark.parametrize('pair, told', SAME.values(), ids=SAME)
def test_same_bytes(pets, caplog, pair, told):
  for name in pair.split():
    write(pets / name, b'the same bytes' * 1000)
  duplicates.warn_of_duplicates('pets', opened(pets, test='test'))
  check_told(caplog, told)


def test_same_size_or_beginning_is_not_the_same(pets, caplog):
  write(pets / 'train/cat/0.jpg', b'a' * 9999 + b'b')
  write(pets / 'test/cat/0.jpg', b'a' * 9999 + b'c')
  for name in ('train/dog/0.jpg', 'test/dog/0.jpg'):
    write(pets / name, b'')
  duplicates.warn_of_duplicates('pets', opened(pets, test='test'))
  check_told(caplog, '')


def test_large_datasets_are_not_searched(pets, caplog, monkeypatch):
  for name in ('train/cat/0.jpg', 'test/cat/0.jpg'):
    write(pets / name, b'same')
  monkeypatch.setattr(duplicates, 'MOST_FILES', 11)
  duplicates.warn_of_duplicates('pets', opened(pets, test='test'))
  check_told(caplog, '')


def test_one_file_twice_is_an_overlap_and_no_duplicate(pets, caplog):
  duplicates.warn_of_duplicates('pets', opened(pets, val='train[:2]'))
  check_told(caplog, '')


def test_a_split_that_links_to_another_is_told(pets, caplog):
  link(pets / 'val', 'train')
  duplicates.warn_of_duplicates('pets', opened(pets, val='val'))
  check_told(caplog, '8 of 8 val')


def test_arrays_are_not_searched(caplog):
  records = ArrayRecords(np.zeros((4, 3, 2, 3), np.uint8), [0, 0, 1, 1], 'same')
  examples = [Examples([(records, rows)], np.arange(2)) for rows in (np.arange(2), np.arange(2, 4))]
  duplicates.warn_of_duplicates('arrays', dict(zip(('train', 'test'), examples)))
  check_told(caplog, '')


def test_splits_that_are_made_of_pooled_ones_are_searched(pets, caplog):
  for k in range(4):
    write(pets / f'train/cat/{k}.jpg', b'same')
  dataset = open_dataset(str(pets), resplit=True, split_fractions=(0.5, 0.5, 0))
  splits = {'train': dataset.split('train'), 'val': dataset.split('val')}
  duplicates.warn_of_duplicates('pets', splits)
  check_told(caplog, 'val images training train/cat')
