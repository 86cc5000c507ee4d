"""Images kept in memory change no batch, whatever fits."""

import numpy as np
import pytest
from PIL import Image

from tests.support import raises
from vit_jax import machine
from vit_jax.data import ImageCache, eval_batches, open_dataset, parse_transform, train_batches
from vit_jax.data.transforms import fused
from vit_jax.errors import ConfigError, ImageError

COUNT = 13
TRANSFORMS = (
  'decode|inception_crop(31)|flip_lr',  # fused, decoded at several scales
  'decode|pad(17)|inception_crop(31, 30)|flip_lr(1)',
  'decode|resize_small(41)|inception_crop(29)',
  'decode|central_crop(37)|random_crop(31, padding=3)|flip_lr',
  'decode|resize(23)',  # nothing is random
  'decode(1)|inception_crop(23)|flip_lr',
  'decode|flip_lr|resize(11)',
  'decode|resize(23)|random_erasing(1)|randaugment(3, 10)',
  'decode|resize(23)|color_jitter(0.4)|augreg(strong2)|three_augment|trivial_augment',
)


def waves(h, w, phase):
  y, x = np.mgrid[:h, :w]
  planes = [np.sin(x / 17 + phase), np.cos(y / 23 + phase), np.sin((x + y) / 31)]
  return Image.fromarray(np.stack([127 + 120 * v for v in planes], -1).astype(np.uint8))


def write(path, i):
  """Plain, turned, grey and CMYK JPEGs, and a PNG."""
  image = waves(101 + 40 * i, 307 - 10 * i, i)
  if i == 2:
    exif = Image.Exif()
    exif[0x0112] = 6
    image.save(path, 'JPEG', exif=exif)
  else:
    image = image.convert({3: 'L', 4: 'CMYK'}.get(i, 'RGB'))
    image.save(path, 'PNG' if i == 5 else 'JPEG')


@pytest.fixture(scope='module')
def examples(tmp_path_factory):
  root = tmp_path_factory.mktemp('set')
  for i in range(COUNT):
    folder = root / 'ab'[i % 2]
    folder.mkdir(exist_ok=True)
    write(folder / f'{i:02d}.img.jpg', i)
  return open_dataset(str(root), split_fractions=(1, 0, 0)).split('train')


def epochs(examples, spec, cache, count=6, threads=0, **options):
  transform = parse_transform(spec, train=True)
  sizes = {'batch_size': 7, 'seed': 3, 'threads': threads, 'cache': cache}
  with train_batches(examples, transform, **sizes | options) as batches:
    return [next(batches) for _ in range(count)]


def same(got, expected):
  for a, b in zip(got, expected, strict=True):
    assert sorted(a) == sorted(b)
    for key in a:
      np.testing.assert_array_equal(a[key], b[key])


@pytest.mark.parametrize('spec', TRANSFORMS)
def test_batches_are_those_without_a_cache(examples, spec):
  plain = epochs(examples, spec, None)
  whole = ImageCache(1 << 30)
  same(epochs(examples, spec, whole), plain)
  assert 0 < whole.used_bytes < 1 << 30
  used = whole.used_bytes
  same(epochs(examples, spec, whole, threads=3), plain)  # of which all is kept by now
  assert whole.used_bytes - used < 1 << 21
  small = ImageCache(whole.used_bytes // 3)
  same(epochs(examples, spec, small), plain)
  assert 0 < small.used_bytes <= small.limit_bytes
  same(epochs(examples, spec, ImageCache(0)), plain)


def test_large_images_are_kept_at_the_scales_that_are_used(examples, monkeypatch):
  calls = []
  read = fused.read_jpeg

  def counted(*args, **scale):
    calls.append(scale['min_factor'])
    return read(*args, **scale)

  monkeypatch.setattr(fused, 'read_jpeg', counted)
  cache = ImageCache(1 << 30)
  epochs(examples, 'decode|inception_crop(31)', cache, count=40)
  assert len(set(calls)) > 1 and len(calls) <= len(set(calls)) * COUNT
  del calls[:]
  epochs(examples, 'decode|inception_crop(31)', cache, count=2, seed=3)
  assert not calls


def test_nothing_is_read_twice(examples, monkeypatch):
  cache = ImageCache(1 << 30)
  plain = epochs(examples, TRANSFORMS[2], cache)
  monkeypatch.setattr('builtins.open', None)
  same(epochs(examples, TRANSFORMS[2], cache), plain)


def test_boxes_follow(examples):
  class Boxed:
    def __len__(self):
      return len(examples)

    def __getitem__(self, i):
      box = np.array([0.4, 0.5, 0.3, 0.4], np.float32)
      return {**examples[i], 'box': box, 'has_box': True}

    def id(self, i):
      return examples.id(i)

    def place(self, i):
      return examples.place(i)

  spec = 'decode|tighten_box(5)|inception_crop(31)|flip_lr'
  same(epochs(Boxed(), spec, ImageCache(1 << 30)), epochs(Boxed(), spec, None))


def test_evaluation_keeps_results(examples):
  transform = parse_transform('decode|resize_small(37)|central_crop(31)')
  cache = ImageCache(1 << 30)
  plain = list(eval_batches(examples, transform, batch_size=5, threads=0))
  for _ in range(2):
    found = eval_batches(examples, transform, batch_size=5, threads=0, cache=cache)
    same(list(found), plain)
  assert cache.used_bytes == COUNT * (31 * 31 * 3 + 1024)
  assert cache.of(examples, transform).expected_bytes() == cache.used_bytes


def test_expected_bytes_are_about_what_is_used(examples):
  cache = ImageCache(1 << 30)
  kept = cache.of(examples, parse_transform(TRANSFORMS[0], train=True))
  expected = kept.expected_bytes()
  epochs(examples, TRANSFORMS[0], cache, count=40)
  assert cache.used_bytes < expected < 1.5 * cache.used_bytes


def test_images_that_cannot_be_read_are_replaced_in_every_epoch(tmp_path):
  for i in range(COUNT):
    folder = tmp_path / 'ab'[i % 2]
    folder.mkdir(exist_ok=True)
    write(folder / f'{i:02d}.jpg', i)
  broken = tmp_path / 'a' / '00.jpg'
  broken.write_bytes(broken.read_bytes()[:300])
  examples = open_dataset(str(tmp_path), split_fractions=(1, 0, 0)).split('train')
  found = []
  for cache in (None, ImageCache(1 << 30)):
    transform = parse_transform(TRANSFORMS[0], train=True)
    options = {'batch_size': 7, 'seed': 3, 'threads': 0, 'on_error': 'skip', 'cache': cache}
    with train_batches(examples, transform, **options) as batches:
      found.append([next(batches) for _ in range(5)])
      assert batches.skipped >= 2 and list(batches.unreadable) == ['a/00.jpg']
  same(*found)
  with raises(ImageError, 'a/00.jpg'):
    epochs(examples, TRANSFORMS[0], ImageCache(1 << 30))


def test_worker_processes_are_refused(examples):
  with raises(ConfigError, 'workers=0'):
    epochs(examples, TRANSFORMS[0], ImageCache(1 << 30), workers=1)


def test_free_memory():
  free = machine.free_memory_bytes()
  assert free is None or 0 <= free < 1 << 50
