"""The embedded shapes: always the same images, and boxes that fit the objects."""

import hashlib

import numpy as np
import pytest

from tests.support import raises
from vit_jax import config
from vit_jax.data import open_dataset, parse_transform, train_batches
from vit_jax.data.sources import needs_download, shapes
from vit_jax.errors import ConfigError


def test_splits_classes_and_boxes():
  dataset = open_dataset('shapes')
  assert dataset.classes == ('cross', 'disc', 'ring', 'square', 'star', 'triangle')
  assert dataset.splits == {'train': 720, 'val': 120, 'test': 240}
  assert dataset.has_boxes and not dataset.made_split and not needs_download('shapes')
  for split, count in (('train', 120), ('val', 20), ('test', 40)):
    examples = dataset.split(split)
    assert np.bincount(examples.labels).tolist() == [count] * 6
  example = examples[7]
  assert example['image'].shape == (64, 64, 3) and example['image'].dtype == np.uint8
  assert example['box'].dtype == np.float32 and example['has_box']


@pytest.mark.parametrize('name', shapes.CLASSES)
def test_boxes_touch_the_object(name, monkeypatch):
  """On black ground without noise, the box reaches to the outermost pixels that are not black."""
  white, black = np.full(3, 255.0), np.zeros((2, 3))
  monkeypatch.setattr(shapes, '_NOISE', 0.0)
  monkeypatch.setattr(shapes, '_colors', lambda rng: (white, black))
  for seed in range(3):
    image, (x, y, w, h) = shapes._draw(name, np.random.default_rng(seed))
    columns, rows = (np.flatnonzero(image.any(axis=(axis, 2))) for axis in (0, 1))
    found = np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1])
    stated = 64 * np.array([x - w / 2, y - h / 2, x + w / 2, y + h / 2])
    # Half a pixel at most: it is drawn at twice the size.
    assert np.all(np.abs(found - stated) <= 0.5) and found.min() >= 0 and found.max() <= 64


def test_all_shapes_by_points_worked_out_by_hand():
  points = {  # (u, v) inside, (u, v) outside; v is up
    'cross': ((0.9, 0.2), (0.5, 0.5)),
    'disc': ((0.7, 0.7), (0.72, 0.72)),
    'ring': ((0.0, 0.8), (0.3, 0.3)),
    'square': ((0.74, -0.74), (0.0, 0.76)),
    'star': ((0.0, 0.97), (0.3, 0.6)),
    'triangle': ((0.0, 0.97), (0.4, 0.5)),
  }
  assert set(points) == set(shapes.CLASSES) == set(shapes._INSIDE)
  for name, (inside, outside) in points.items():
    assert shapes._INSIDE[name](*map(np.array, inside)), name
    assert not shapes._INSIDE[name](*map(np.array, outside)), name


def test_the_images_never_vary():
  first = open_dataset('shapes').split('train')[3]['image']
  shapes.shapes_source.cache_clear()
  again = open_dataset('shapes').split('train')[3]['image']
  assert hashlib.sha256(first).digest() == hashlib.sha256(again).digest()


def test_batches_have_the_boxes():
  settings = config.load('vit_shapes:boxes')
  examples = settings.dataset.open().split('train[:14]')
  transform = parse_transform(settings.input.train_transform, (64, 64), train=True)
  batch = next(train_batches(examples, transform, batch_size=7, seed=3))
  assert batch['image'].shape == (7, 64, 64, 3) and batch['box'].shape == (7, 4)
  assert batch['has_box'].all()


def test_the_config_file_refuses_another_task():
  with raises(ConfigError, "'boxs'", 'boxes'):
    config.load('vit_shapes:boxs')
