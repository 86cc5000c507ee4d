"""The transform string: what it means, what it refuses, and its pixels by hand."""

import numpy as np
import pytest
from PIL import Image

from tests.support import raises
from vit_jax.data import OPS, parse_transform
from vit_jax.errors import ConfigError


def ramp(h, w, c=3):
  """Pixel value row * 16 + column, the same in every channel."""
  return np.repeat((np.arange(h)[:, None] * 16 + np.arange(w)).astype(np.uint8)[..., None], c, 2)


def apply(spec, image, seed=0, **kwargs):
  transform = parse_transform(spec, train=True, **kwargs)
  return transform({'image': image}, np.random.default_rng(seed))['image']


def problems(spec, **kwargs):
  with raises(ConfigError) as e:
    parse_transform(spec, **kwargs)
  return e.value.problems


@pytest.mark.parametrize(
  'spec, canonical, hw',
  [
    ('decode|resize(7)', 'decode|resize(7)', (7, 7)),
    ('decode|resize(7,11, bicubic)', 'decode|resize((7, 11), method=bicubic)', (7, 11)),
    ('decode | resize((7, 11))', 'decode|resize((7, 11))', (7, 11)),
    ('decode|resize', 'decode|resize((13, 17))', (13, 17)),
    ('decode|resize()', 'decode|resize((13, 17))', (13, 17)),
    (
      'decode|resize_small|central_crop',
      'decode|resize_small(19)|central_crop((13, 17))',
      (13, 17),
    ),
    ('decode|resize_small(256)|central_crop(224)', None, (224, 224)),
    ('decode|inception_crop|flip_lr', 'decode|inception_crop((13, 17))|flip_lr', (13, 17)),
    ('decode|inception_crop(5, area_min=8)', 'decode|inception_crop(5, area_min=8)', (5, 5)),
    (
      'decode|inception_crop(5, 8, 50, lanczos)',
      'decode|inception_crop(5, area_min=8, area_max=50, method=lanczos)',
      (5, 5),
    ),
    (
      'decode(1)|random_crop(8, 4)|flip_lr(0.25)',
      'decode(1)|random_crop(8, padding=4)|flip_lr(0.25)',
      (8, 8),
    ),
    ('decode|resize(5, 7)|pad(2)', 'decode|resize((5, 7))|pad(2)', (9, 11)),
    ('decode|resize(5, 7)|pad_square', 'decode|resize((5, 7))|pad_square', (7, 7)),
    (
      'decode|resize(20, 10)|central_fraction(0.5)',
      'decode|resize((20, 10))|central_fraction(0.5)',
      (10, 6),
    ),
    ('decode|resize(20, 10)|resize_long(8)', 'decode|resize((20, 10))|resize_long(8)', (8, 4)),
  ],
)
def test_reads_and_knows_the_size(spec, canonical, hw):
  transform = parse_transform(spec, image_size=(13, 17), train=True)
  assert str(transform) == (canonical or spec)
  assert transform.output_hw == hw
  assert parse_transform(str(transform), train=True) == transform
  result = transform({'image': ramp(14, 9)}, np.random.default_rng(1))['image']
  assert result.shape == (*hw, transform.output.channels)
  assert result.dtype == np.uint8


@pytest.mark.parametrize(
  'spec, facts',
  [
    ('decode|inception_corp(224)', ['op 2', "did you mean 'inception_crop'"]),
    ('decode|resize(0)', ['op 2', 'size must be a positive integer or (height, width), got 0']),
    ('decode|resize(big)', ['op 2', "got 'big'"]),
    ('decode|resize(7, box)', ['method must be one of bilinear, bicubic, lanczos, nearest']),
    ('decode|resize(7, 7, bilinear, 3)', ['takes 2 arguments, got 3']),
    ('decode|resize(7, sise=3)', ["has no argument 'sise'", 'resize(size, method=bilinear)']),
    ('decode|resize(7, size=3)', ["'size' is given twice"]),
    ('decode|resize(7)|flip_lr(1.5)', ['op 3', 'p must be a number from 0 to 1, got 1.5']),
    ('decode(2)|resize(7)', ['op 1', 'channels must be one of 3, 1']),
    ('decode|pad|resize(7)', ['op 2', 'needs pixels']),
    ('decode|resize(7)|pad(2.5)', ['op 3', 'pixels must be an integer from 0 to 8192, got 2.5']),
    ('decode|resize(7', ['op 2', 'cannot be read']),
    ('decode||resize(7)', ['op 2', 'is empty']),
    ('', ['op 1', 'is empty']),
    ('decode|resize(x+1)', ['op 2', "argument 'x + 1' is neither a number nor a name"]),
    ('resize(7)', ['op 1', "start with 'decode|'"]),
    ('decode|decode|resize(7)', ['op 2', 'decoded already']),
    ('decode|resize_small(7)', ['differ in size', 'central_crop(224)']),
    ('decode', ['differ in size']),
  ],
)
def test_mistakes_are_found_and_located(spec, facts):
  with raises(ConfigError, *facts):
    parse_transform(spec, train=True)


def test_all_mistakes_are_reported_at_once():
  found = problems('resize(0)|flip|decode|central_crop(224, 1, 2)', train=True)
  assert [p.split("'")[0] for p in found] == [f'transform op {i} ' for i in (1, 2, 4)]


def test_random_ops_have_no_place_in_evaluation():
  assert 'must not be' in problems('decode|inception_crop(7)')[0]


def test_sizes_may_vary_where_that_is_allowed():
  assert parse_transform('decode|resize_small(7)', fixed_size=False).output_hw is None


def test_every_op_is_documented():
  for name, op in OPS.items():
    assert op.__doc__ and not op.__doc__.startswith(op.__name__ + '('), name


def test_resize_equals_pillow():
  image = np.random.default_rng(0).integers(0, 256, (37, 53, 3), np.uint8)
  for method in ('nearest', 'bilinear', 'bicubic', 'lanczos'):
    expected = Image.fromarray(image).resize((17, 11), getattr(Image.Resampling, method.upper()))
    np.testing.assert_array_equal(apply(f'decode|resize(11, 17, {method})', image), expected)


def test_resize_averages_when_it_shrinks():
  image = np.array([[0, 0, 200, 200]], np.uint8)[..., None].repeat(3, 2)
  # The bilinear filter spans 2 pixels of the result: weights 3/8 3/8 1/8 (cut off at the edge).
  result = apply('decode|resize(1, 2)', image)[0, :, 0]
  np.testing.assert_allclose(result, [200 / 7, 200 * 6 / 7], atol=0.51)


def test_resize_small_rounds_the_long_side_down():
  assert apply('decode|resize_small(5)', ramp(10, 13), fixed_size=False).shape == (5, 6, 3)
  assert apply('decode|resize_small(5)', ramp(13, 10), fixed_size=False).shape == (6, 5, 3)
  assert apply('decode|resize_long(5)', ramp(13, 10), fixed_size=False).shape == (5, 3, 3)


def test_central_crop_by_hand():
  result = apply('decode|central_crop(3, 2)', ramp(7, 6))
  np.testing.assert_array_equal(result[..., 0], [[34, 35], [50, 51], [66, 67]])


def test_central_crop_of_a_smaller_image_has_black_margins():
  result = apply('decode|central_crop(4, 2)', ramp(2, 4) + 1)
  np.testing.assert_array_equal(result[..., 0], [[0, 0], [2, 3], [18, 19], [0, 0]])


def test_pad_and_pad_square_by_hand():
  np.testing.assert_array_equal(
    apply('decode|resize(1, 2)|pad(1)', np.full((1, 2, 3), 9, np.uint8))[..., 0],
    [[0, 0, 0, 0], [0, 9, 9, 0], [0, 0, 0, 0]],
  )
  np.testing.assert_array_equal(
    apply('decode|resize(1, 3)|pad_square', np.full((1, 3, 3), 9, np.uint8))[..., 0],
    [[0, 0, 0], [9, 9, 9], [0, 0, 0]],
  )


def test_flip_by_hand():
  np.testing.assert_array_equal(
    apply('decode|resize(2, 3)|flip_lr(1)', ramp(2, 3))[..., 0], [[2, 1, 0], [18, 17, 16]]
  )
  np.testing.assert_array_equal(apply('decode|resize(2, 3)|flip_lr(0)', ramp(2, 3)), ramp(2, 3))


def test_flip_happens_with_its_probability():
  flips = [apply('decode|resize(1, 2)|flip_lr(0.25)', ramp(1, 2), s)[0, 0, 0] for s in range(997)]
  assert abs(np.mean(flips) - 0.25) < 0.05


def test_random_crop_reaches_every_position_and_no_other():
  seen = {int(apply('decode|random_crop(3)', ramp(5, 4), s)[0, 0, 0]) for s in range(97)}
  assert seen == {0, 1, 16, 17, 32, 33}


def test_random_crop_padding_moves_the_window_over_the_edge():
  corners = [apply('decode|random_crop(2, padding=1)', ramp(2, 2) + 1, s) for s in range(97)]
  assert {int((c[..., 0] > 0).sum()) for c in corners} == {1, 2, 4}


def test_inception_crop_windows():
  op = parse_transform('decode|inception_crop(7, 20, 60)', train=True).ops[1]
  rng = np.random.default_rng(3)
  areas, ratios = [], []
  for _ in range(499):
    top, left, (h, w) = op.window((101, 83), rng)
    assert 0 <= top <= 101 - h and 0 <= left <= 83 - w
    areas.append(h * w / (101 * 83))
    ratios.append(w / h)
  assert 0.19 < min(areas) < 0.24 and 0.56 < max(areas) < 0.61
  assert 0.73 < min(ratios) < 0.8 and 1.25 < max(ratios) < 1.37
  assert abs(np.mean(areas) - 0.4) < 0.03


def test_inception_crop_of_an_extreme_shape_falls_back_to_the_middle():
  op = parse_transform('decode|inception_crop(7, 90, 100)', train=True).ops[1]
  assert op.window((3, 300), np.random.default_rng(0)) == (0, 148, (3, 4))


def test_crops_depend_on_the_generator_alone():
  image = ramp(11, 13)
  spec = 'decode|inception_crop(5)|flip_lr'
  np.testing.assert_array_equal(apply(spec, image, 1), apply(spec, image, 1))
  assert (apply(spec, image, 1) != apply(spec, image, 2)).any()
  np.testing.assert_array_equal(image, ramp(11, 13))  # the source is unchanged


def test_array_sources_pass_decode():
  assert apply('decode|resize(4)', ramp(4, 4, 1)).shape == (4, 4, 3)
  assert apply('decode|resize(4)', ramp(4, 4, 1)[..., 0]).shape == (4, 4, 3)
  assert apply('decode|resize(4)', ramp(4, 4, 4)).shape == (4, 4, 3)
  np.testing.assert_array_equal(apply('decode(1)|resize(4)', ramp(4, 4)), ramp(4, 4, 1))
