"""The cache of features: by content, for each model, images that cannot be decoded left out."""

import errno

import numpy as np
import pytest

from tests.support import raises
from vit_jax.data import Preprocess, open_dataset
from vit_jax.errors import DatasetError, DivergenceError, ImageError
from vit_jax.evaluation.feature_cache import FeatureCache

PREPROCESS = Preprocess('decode|resize(16, 24)')


class Fake:
  """A model whose features are the means of the channels; it counts the images it is given."""

  def __init__(self, weight=1.0):
    self.variables = {'params': {'w': np.array([weight]), 'head': {'kernel': np.ones(3)}}}
    self.config = {'model': {'name': 'fake'}}
    self.preprocess = PREPROCESS
    self.seen = 0

  def features(self, images, what, problems):
    assert what == 'pooled'
    self.seen += len(images)
    for i, image in enumerate(images):
      if isinstance(image, bytes):
        problems[i] = ImageError('it cannot be decoded')
    good = [x for i, x in enumerate(images) if i not in problems]
    means = [np.asarray(x, np.float32).mean(axis=(0, 1)) for x in good]
    return np.stack(means) if means else np.zeros((0, 3), np.float32)


def test_each_image_is_computed_once_for_each_model(tmp_path):
  fake, dataset = Fake(), open_dataset('digits', per_class=7)
  test, train = dataset.split('test'), dataset.split('train[:13]')
  cache = FeatureCache(fake, tmp_path, 'digits')
  first = cache.features(test, 'test')
  assert (first.computed, first.skipped, fake.seen) == (len(test), 0, len(test))
  np.testing.assert_allclose(first.x[5], test[5]['image'].mean(axis=(0, 1)), rtol=1e-6)
  np.testing.assert_array_equal(first.labels, test.labels)
  cache.save()

  again = FeatureCache(Fake(), tmp_path, 'digits')
  np.testing.assert_array_equal(again.features(test, 'test').x, first.x)
  assert again.features(train, 'train').computed == 13
  assert again.features(train, 'train').computed == 0

  others = [
    FeatureCache(Fake(2.0), tmp_path, 'digits'),
    FeatureCache(fake, tmp_path, 'cifar10'),
  ]
  assert len({cache.path, again.path}) == 1
  assert len({cache.path, *(other.path for other in others)}) == 3


@pytest.mark.parametrize('harm', ['text', 'cut', 'flip', 'other'])
def test_a_damaged_cache_is_one_warning_and_is_made_anew(tmp_path, harm, caplog):
  test = open_dataset('digits', per_class=7).split('test')
  cache = FeatureCache(Fake(), tmp_path, 'digits')
  right = cache.features(test, 'test').x
  cache.save()
  data = bytearray(cache.path.read_bytes())
  data[len(data) // 2] ^= 8
  cut = cache.path.read_bytes()[: len(data) // 2]
  if harm == 'other':
    np.savez(cache.path, digests=np.zeros((9, 16), np.uint8), features=np.zeros((3, 3)))
  else:
    cache.path.write_bytes({'text': b'PK nothing', 'cut': cut, 'flip': bytes(data)}[harm])
  again = FeatureCache(Fake(), tmp_path, 'digits')
  (line,) = [r.getMessage() for r in caplog.records]
  assert str(cache.path) in line
  np.testing.assert_array_equal(again.features(test, 'test').x, right)
  again.save()
  assert FeatureCache(Fake(), tmp_path, 'digits').features(test, 'test').computed == 0


@pytest.mark.parametrize('reason', ['folder', 'full'])
def test_a_cache_that_cannot_be_written_is_one_warning(tmp_path, monkeypatch, reason, caplog):
  test = open_dataset('digits', per_class=7).split('test')
  if reason == 'folder':
    (tmp_path / 'cache').write_text('in the way')
  cache = FeatureCache(Fake(), tmp_path / 'cache', 'digits')
  if reason == 'full':

    def full(file, *_, **__):
      file.write(b'half')
      raise OSError(errno.ENOSPC, 'No space left on device')

    monkeypatch.setattr('numpy.lib.format.write_array', full)
  assert len(cache.features(test, 'test').x) == len(test)
  cache.save()
  cache.save()
  (line,) = [r.getMessage() for r in caplog.records]
  assert str(tmp_path / 'cache') in line
  assert not [p for p in tmp_path.rglob('*') if p.is_file() and p.name != 'cache']


def _examples(*images):
  return [{'image': image, 'label': 3, 'id': f'{i}.png'} for i, image in enumerate(images)]


def test_images_without_labels_are_refused(tmp_path):
  examples = [{'image': np.zeros((2, 2, 3), np.uint8), 'label': -1, 'id': 'a.png'}]
  with raises(DatasetError, 'a.png'):
    FeatureCache(Fake(), tmp_path, 'x').features(examples, 'test')


def test_images_that_cannot_be_decoded_are_named_or_left_out(tmp_path):
  """Two of them have the same content."""
  good = np.zeros((2, 2, 3), np.uint8)
  examples = _examples(b'bad', good, b'bad', good + 1, b'worse')
  cache = FeatureCache(Fake(), tmp_path, 'x')
  with raises(ImageError, '0.png', '2.png', '4.png', '--on_error=skip'):
    cache.features(examples, 'test')
  found = cache.features(examples, 'test', on_error='skip')
  assert (found.skipped, found.computed, len(found.x)) == (3, 2, 2)
  np.testing.assert_array_equal(found.labels, [3, 3])
  with raises(DatasetError, 'test'):
    cache.features(_examples(b'bad'), 'test', on_error='skip')


def test_features_that_are_not_numbers_are_refused(tmp_path):
  """k-NN among NaNs would have an accuracy like any other."""
  fake, test = Fake(), open_dataset('digits', per_class=7).split('test')
  means = fake.features
  fake.features = lambda *arguments: means(*arguments) * np.nan
  with raises(DivergenceError, f'{len(test)} of {len(test)}', 'test'):
    FeatureCache(fake, tmp_path, 'digits').features(test, 'test')
