"""The fast path of a training image equals the separate ops, within a grey level."""

import io

import numpy as np
import pytest
from PIL import Image

from tests.support import SHARED, needs_shared, raises
from vit_jax.data import parse_transform
from vit_jax.data.transforms import fused
from vit_jax.data.transforms.parse import Transform
from vit_jax.errors import ImageError


def both(spec, example, seed):
  """The example by the fast path and by the separate ops, which must draw the same numbers."""
  fast = parse_transform(spec, train=True)
  slow = Transform(fast.ops, fast.output)
  assert fast._steps != fast.ops
  rngs = np.random.default_rng(seed), np.random.default_rng(seed)
  results = fast(example, rngs[0]), slow(example, rngs[1])
  assert rngs[0].random() == rngs[1].random()
  return results


def smooth(h, w):
  """An image of waves: red across, green down, blue diagonal."""
  y, x = np.mgrid[:h, :w]
  waves = [np.sin(x / 17), np.cos(y / 23), np.sin((x + y) / 31)]
  return Image.fromarray(np.stack([(127 + 120 * v) for v in waves], -1).astype(np.uint8))


def jpeg(image, **options):
  out = io.BytesIO()
  image.save(out, 'JPEG', **{'quality': 95, **options})
  return out.getvalue()


@pytest.mark.parametrize(
  'spec',
  [
    'decode|inception_crop(31)|flip_lr',
    'decode|inception_crop((37, 16))|flip_lr(1)',
    'decode|inception_crop(224, 50)|flip_lr(1)',
    'decode|inception_crop(64, method=bicubic)',
    'decode|inception_crop(41, method=lanczos)|flip_lr|resize(7)',
  ],
)
def test_within_a_grey_level(spec):
  example = {'image': jpeg(smooth(301, 407))}
  for seed in range(11):
    fast, slow = both(spec, example, seed)
    assert fast['image'].shape == slow['image'].shape
    assert np.abs(fast['image'].astype(int) - slow['image']).mean() < 1


def test_without_the_resizer_the_ops_are_done_one_by_one(monkeypatch):
  monkeypatch.setattr(fused, 'cykooz_resizer', None)
  spec = parse_transform('decode|inception_crop(31)|flip_lr', train=True)
  assert spec._steps == spec.ops
  assert spec({'image': jpeg(smooth(53, 47))}, np.random.default_rng(0))['image'].shape[:2] == (
    31,
    31,
  )


@needs_shared
def test_within_a_grey_level_on_photographs():
  paths = sorted((SHARED / 'imagenet_sample').glob('*.JPEG'))[::9]
  paths += sorted((SHARED / 'pets3' / 'images').rglob('*.jpg'))[::23]
  for size in (224, 64):
    errors = []
    for seed, path in enumerate(paths):
      example = {'image': path.read_bytes()}
      fast, slow = both(f'decode|inception_crop({size})|flip_lr', example, seed)
      errors.append(np.abs(fast['image'].astype(int) - slow['image']).mean())
    assert np.mean(errors) < 0.7 and max(errors) < 3


def turned(orientation):
  exif = Image.Exif()
  exif[0x0112] = orientation
  return jpeg(smooth(61, 83), exif=exif)


@pytest.mark.parametrize(
  'data',
  [
    np.asarray(smooth(61, 83))[..., :1],
    turned(6),
    jpeg(smooth(61, 83).convert('CMYK')),
  ],
)
def test_what_is_not_plain_takes_the_separate_ops(data):
  fast, slow = both('decode|inception_crop(29)|flip_lr', {'image': data}, 1)
  np.testing.assert_array_equal(fast['image'], slow['image'])


def test_decoded_images():
  for seed in range(11):
    example = {'image': np.asarray(smooth(101, 83))}
    fast, slow = both('decode|inception_crop(29)|flip_lr', example, seed)
    assert np.abs(fast['image'].astype(int) - slow['image']).mean() < 0.6


def test_grey_jpegs():
  fast, slow = both('decode|inception_crop(29)', {'image': jpeg(smooth(61, 83).convert('L'))}, 1)
  assert fast['image'].shape == (29, 29, 3)
  assert np.abs(fast['image'].astype(int) - slow['image']).mean() < 1


def test_results_do_not_share_memory():
  transform = parse_transform('decode|inception_crop(29)|flip_lr(0)', train=True)
  a, b = (jpeg(Image.new('RGB', (83, 61), color)) for color in ('red', 'blue'))
  first = transform({'image': a}, np.random.default_rng(0))['image']
  transform({'image': b}, np.random.default_rng(0))
  assert (first[..., 0] > 250).all()


def test_truncated_is_named():
  transform = parse_transform('decode|inception_crop(29)', train=True)
  data = jpeg(smooth(61, 83))
  for end in (len(data) // 2, 30, 2):
    with raises(ImageError, 'a/b.jpg'):
      transform({'image': data[:end], 'path': 'a/b.jpg'}, np.random.default_rng(0))


FRAMED = (
  'decode|pad(19)|inception_crop(32, 50)|flip_lr',
  'decode|pad_square|inception_crop(32, 60)',
  'decode|tighten_box(7.5)|inception_crop(32, object_min=50)|flip_lr',
  'decode|central_crop(170)|pad(7)|tighten_box(3)|inception_crop(31)|flip_lr(1)',
  'decode|central_crop(450)|inception_crop(29, 70)|flip_lr',  # larger than the image: black around
  'decode|central_fraction(0.7)|inception_crop(37)|flip_lr',
)


@pytest.mark.parametrize('spec', FRAMED)
def test_ops_between_decode_and_crop_are_fused_and_boxes_follow(spec):
  example = {
    'image': jpeg(smooth(301, 407)),
    'box': np.array([0.4, 0.45, 0.3, 0.4], np.float32),
    'has_box': True,
  }
  assert len(parse_transform(spec, train=True)._steps) == 1
  for data in (example['image'], np.asarray(Image.open(io.BytesIO(example['image'])))):
    for seed in range(11):
      fast, slow = both(spec, {**example, 'image': data}, seed)
      assert fast['image'].shape == slow['image'].shape
      assert np.abs(fast['image'].astype(int) - slow['image']).mean() < 1
      np.testing.assert_array_equal(fast['box'], slow['box'])
      assert fast['has_box'] == slow['has_box']


def test_margins_too_large_for_memory_are_refused_as_one_by_one():
  transform = parse_transform('decode|pad(8192)|inception_crop(29)', train=True)
  with raises(ImageError, 'a.jpg'):
    transform({'image': jpeg(smooth(61, 83)), 'path': 'a.jpg'}, np.random.default_rng(0))
