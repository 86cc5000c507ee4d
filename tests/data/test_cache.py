"""Examples in memory give the same batches as examples from files."""

import pickle

import numpy as np
import pytest
from PIL import Image

from vit_jax.data import cached, open_dataset, parse_transform, train_batches
from vit_jax.errors import UserError

PREFIX = parse_transform('decode|resize_small(11)', fixed_size=False)
TRAIN = parse_transform('decode|resize_small(11)|random_crop(7)|flip_lr', train=True)


@pytest.fixture
def examples(tmp_path):
  rng = np.random.default_rng(0)
  (tmp_path / 'a').mkdir()
  for i in range(5):
    Image.fromarray(rng.integers(0, 256, (13, 17, 3), np.uint8)).save(tmp_path / 'a' / f'{i}.png')
  return open_dataset(str(tmp_path), split_fractions=(1, 0, 0)).split('train')


@pytest.mark.parametrize('transform', [None, PREFIX])
def test_same_batches(examples, transform):
  with train_batches(examples, TRAIN, batch_size=3, seed=1) as batches:
    expected = [next(batches)['image'] for _ in range(5)]
  with train_batches(cached(examples, transform), TRAIN, batch_size=3, seed=1) as batches:
    np.testing.assert_array_equal([next(batches)['image'] for _ in range(5)], expected)


def test_files_are_read_once(examples, tmp_path):
  kept = cached(examples, PREFIX)
  before = [kept[i]['image'] for i in range(5)]
  for path in tmp_path.rglob('*.png'):
    path.unlink()
  np.testing.assert_array_equal([kept[i]['image'] for i in range(5)], before)
  assert kept.bytes_kept == 5 * 11 * 14 * 3
  assert [kept.id(i) for i in range(5)] == [examples.id(i) for i in range(5)]
  np.testing.assert_array_equal(kept.labels, examples.labels)
  assert pickle.loads(pickle.dumps(kept)).bytes_kept == 0


def test_random_prefixes_are_refused(examples):
  with pytest.raises(UserError, match='is random'):
    cached(examples, parse_transform('decode|random_crop(7)', train=True))
