"""Augmentations against images worked by hand."""

import numpy as np
import pytest

from tests.support import raises
from vit_jax.data import AUGREG, parse_transform
from vit_jax.data.transforms import operations, policies
from vit_jax.data.transforms.operations import OPERATIONS, Operation
from vit_jax.errors import ConfigError

OPS = [
  'randaugment(2, 10)',
  'trivial_augment',
  'random_erasing(1)',
  'color_jitter',
  'three_augment',
  'augreg(strong1)',
  'randaugment_increasing(3, p=1)',
]


def grey(rows):
  return np.array(rows, np.uint8)[..., None].repeat(3, 2)


def apply(op, image, seed=0, decode='decode'):
  spec = f'{decode}|resize({image.shape[0]}, {image.shape[1]})|{op}'
  return parse_transform(spec, train=True)({'image': image}, np.random.default_rng(seed))['image']


def moved(change, rows, value):
  return change({'image': grey(rows)}, value)['image'][..., 0]


@pytest.mark.parametrize(
  'change, value, before, after',
  [
    (operations.solarize, 128, [0, 127, 128, 255], [0, 127, 127, 0]),
    (operations.solarize, 256, [0, 127, 128, 255], [0, 127, 128, 255]),
    (operations.solarize, 0, [0, 127, 128, 255], [255, 128, 127, 0]),
    (operations.posterize, 2, [0, 63, 64, 255], [0, 0, 64, 192]),
    (operations.posterize, 8, [0, 63, 64, 255], [0, 63, 64, 255]),
    (operations.solarize_add, 30, [0, 100, 127, 128], [30, 130, 157, 128]),
    (operations.solarize_add, 255, [0, 127, 128, 255], [255, 255, 128, 255]),
    (operations.invert, 0, [0, 127, 128, 255], [255, 128, 127, 0]),
    (operations.posterize, 1, [0, 127, 128, 255], [0, 0, 128, 128]),
    (operations.posterize, 0, [0, 127, 128, 255], [0, 0, 0, 0]),
    (operations.contrast, 1.5, [0, 50, 100, 250], [0, 25, 100, 255]),
    (operations.autocontrast, 0, [50, 100, 150, 150], [0, 127, 255, 255]),
    (operations.brightness, 0.5, [0, 60, 100, 200], [0, 30, 50, 100]),
    (operations.brightness, 1.5, [0, 60, 100, 200], [0, 90, 150, 255]),
    (operations.contrast, 0.5, [0, 50, 100, 250], [50, 75, 100, 175]),
    (operations.contrast, 0.0, [0, 50, 100, 250], [100, 100, 100, 100]),
    (operations.color, 0.0, [0, 50, 100, 250], [0, 50, 100, 250]),
    (operations.sharpness, 1.0, [0, 50, 100, 250], [0, 50, 100, 250]),
  ],
)
def test_colour_operations(change, value, before, after):
  np.testing.assert_allclose(change(grey([before]), value)[0, :, 0], after, atol=1)
  one = np.array([before], np.uint8)[..., None]
  np.testing.assert_allclose(change(one, value)[0, :, 0], after, atol=1)


def test_color_zero_is_luma():
  red = np.array([[[200, 0, 0]]], np.uint8)
  assert (np.abs(operations.color(red, 0.0).astype(int) - 0.299 * 200) <= 1).all()
  assert (np.abs(operations.greyscale(red).astype(int) - 0.299 * 200) <= 1).all()


def test_equalize_spreads_the_values():
  image = grey(np.repeat([[10, 11, 12, 13]], 340, 0))
  assert sorted(set(operations.equalize(image)[..., 0].ravel())) == [0, 85, 170, 255]


def test_sharpness_zero_smooths_the_inside():
  spike = np.zeros((3, 3))
  spike[1, 1] = 130
  result = operations.sharpness(grey(spike), 0.0)[..., 0]
  assert result[1, 1] == 50  # weights 5 in the middle and 1 around, of 13
  assert result[0].tolist() == [0, 0, 0]  # the border stays


@pytest.mark.parametrize('sigma', [0.8, 1.7])
def test_blur_spreads_by_sigma_and_keeps_the_sum(sigma):
  """Nine equal rows have the second moment (9 ** 2 - 1) / 12, to which a blur adds its square."""
  rows = np.arange(23) - 11
  stripe = grey(np.where(np.abs(rows) < 5, 250, 0)[:, None].repeat(23, 1))
  blurred = operations.gaussian_blur(stripe, sigma)[:, 11, 0].astype(float)
  assert blurred.sum() == pytest.approx(9 * 250, rel=0.01)
  assert (rows**2 * blurred).sum() / blurred.sum() == pytest.approx(80 / 12 + sigma**2, rel=0.04)


def test_geometric_operations():
  image = [[1, 2, 3], [4, 5, 6], [7, 8, 9]]
  fill = 128
  np.testing.assert_array_equal(moved(operations.rotate, image, 0), image)
  np.testing.assert_array_equal(moved(operations.rotate, image, 180), np.array(image)[::-1, ::-1])
  np.testing.assert_array_equal(moved(operations.rotate, image, 90), np.rot90(image, -1))
  np.testing.assert_array_equal(
    moved(operations.translate_x, image, 1 / 3), [[fill, 1, 2], [fill, 4, 5], [fill, 7, 8]]
  )
  np.testing.assert_array_equal(
    moved(operations.translate_y, image, -1 / 3), [[4, 5, 6], [7, 8, 9], [fill] * 3]
  )
  sheared = moved(operations.shear_x, np.tile([0, 0, 250, 0, 0, 0], (3, 1)), 1.0)
  # Row centres are 0.5, 1.5, 2.5 below the top: so far each row moves right.
  np.testing.assert_allclose(
    sheared[:, 2:], [[125, 125, 0, 0], [0, 125, 125, 0], [0, 0, 125, 125]], atol=2
  )
  np.testing.assert_array_equal(
    moved(operations.shear_y, np.array(image), 1.0),
    moved(operations.shear_x, np.array(image).T, 1.0).T,
  )


@pytest.mark.parametrize('op', OPS)
@pytest.mark.parametrize('decode', ['decode', 'decode(1)'])
def test_keeps_size_and_kind_and_is_repeatable(op, decode):
  image = np.random.default_rng(0).integers(0, 256, (23, 29, 3), np.uint8)
  before = image.copy()
  results = [apply(op, image, seed, decode) for seed in range(31)]
  assert {r.shape for r in results} == {(23, 29, 3 if decode == 'decode' else 1)}
  assert {r.dtype for r in results} == {np.dtype(np.uint8)}
  assert len({r.tobytes() for r in results}) > 2
  np.testing.assert_array_equal(apply(op, image, 7, decode), results[7])
  np.testing.assert_array_equal(image, before)


@pytest.fixture
def seen(monkeypatch):
  """(name, value) of every operation that a policy applies; images stay as they are."""
  applied = []
  monkeypatch.setattr(
    Operation, '__call__', lambda self, e, value: applied.append((self.name, value)) or e
  )
  return applied


def names_of(policy):
  return [operation.name for operation in policies.operations_of(policy)]


def test_published_operations_and_their_order():
  """A random index selects one, so another order would change every run."""
  fourteen = (
    'identity autocontrast equalize solarize posterize color contrast brightness sharpness '
    'rotate shear_x shear_y translate_x translate_y'
  )
  fifteen = (
    'autocontrast equalize invert rotate posterize solarize solarize_add color contrast '
    'brightness sharpness shear_x shear_y translate_x translate_y'
  )
  assert names_of('randaugment') == names_of('trivial_augment') == fourteen.split()
  assert names_of('randaugment_increasing') == fifteen.split()
  geometric = [name for name, operation in OPERATIONS.items() if operation.geometric]
  assert sorted(geometric) == ['rotate', 'shear_x', 'shear_y', 'translate_x', 'translate_y']


def test_randaugment_draws_all_operations_evenly(seen):
  rng = np.random.default_rng(0)
  op = policies.RandAugment(3, 10.0)
  for _ in range(1400):
    op({'image': None}, rng)
  names = [name for name, _ in seen]
  assert len(names) == 4200 and len(set(names)) == 14
  assert all(abs(names.count(name) - 300) < 80 for name in names_of('randaugment'))
  values = {name: {round(v, 6) for n, v in seen if n == name} for name in names_of('randaugment')}
  assert values['rotate'] == {-30, 30} and values['shear_x'] == {-0.3, 0.3}
  assert values['solarize'] == {256} and values['posterize'] == {8} and values['color'] == {1.9}
  assert values['translate_y'] == {-0.453172, 0.453172}


def test_randaugment_magnitudes_beyond_the_scale():
  ranges = {o.name: o.ranges['randaugment'] for o in policies.operations_of('randaugment')}
  assert {n: round(f(20), 3) for n, f in ranges.items() if f is not operations.no_value} == {
    'rotate': 60,
    'shear_x': 0.6,
    'shear_y': 0.6,
    'translate_x': 0.906,
    'translate_y': 0.906,
    'solarize': 256,
    'posterize': 8,
    'color': 3.7,
    'contrast': 3.7,
    'brightness': 3.7,
    'sharpness': 3.7,
  }


def test_increasing_randaugment_by_its_table(seen):
  rng = np.random.default_rng(0)
  op = policies.RandAugmentIncreasing(2, 5.0, 0.0, 0.5)
  for _ in range(1500):
    op({'image': None}, rng)
  assert abs(len(seen) - 1500) < 120  # every other change of two
  values = {name: {round(v, 6) for n, v in seen if n == name} for name in dict(seen)}
  assert len(values) == 15 and 'identity' not in values
  assert values['rotate'] == {-15, 15} and values['shear_y'] == {-0.15, 0.15}
  assert values['translate_x'] == {-0.225, 0.225} and values['posterize'] == {2}
  assert values['solarize'] == {128} and values['solarize_add'] == {55}
  assert values['color'] == {0.55, 1.45} and values['sharpness'] == {0.55, 1.45}
  seen.clear()
  op = policies.RandAugmentIncreasing(1, 9.0, 0.5, 1.0)
  for _ in range(3000):
    op({'image': None}, rng)
  degrees = np.abs([v for n, v in seen if n == 'rotate'])
  assert degrees.max() == 30 and abs(np.median(degrees) - 27) < 0.5 and degrees.std() > 0.8
  assert min(v for n, v in seen if n == 'brightness') >= 0.1


def test_trivial_augment_covers_its_space(seen):
  rng = np.random.default_rng(0)
  for _ in range(5000):
    policies.TrivialAugment()({'image': None}, rng)
  spans = {
    name: (min(v for n, v in seen if n == name), max(v for n, v in seen if n == name))
    for name in names_of('randaugment')
  }
  assert spans['rotate'] == (-135, 135) and spans['posterize'] == (2, 8)
  assert spans['color'] == pytest.approx((0.01, 1.99)) and spans['solarize'] == (0, 256)


def test_random_erasing_covers_its_area():
  image = np.full((53, 47, 3), 200, np.uint8)
  areas = []
  for seed in range(97):
    erased = apply('random_erasing(1, 10, 20, black)', image, seed)[..., 0] == 0
    rows, columns = np.flatnonzero(erased.any(1)), np.flatnonzero(erased.any(0))
    assert erased[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].all()
    areas.append(erased.mean())
  assert min(areas) > 0.09 and max(areas) < 0.21
  erased = apply('random_erasing(1, 10, 20, grey)', image, 3)
  assert set(np.unique(erased)) == {128, 200}
  noise = apply('random_erasing(1, 30, 33)', image, 3)
  values = noise[(noise != 200).any(2)]
  assert len(np.unique(values)) > 200 and abs(values.mean() - 127.5) < 5
  changed = [(apply('random_erasing(0.25)', image, s) != 200).any() for s in range(400)]
  assert abs(np.mean(changed) - 0.25) < 0.07


def test_color_jitter_within_its_range():
  image = grey([[100, 100]])
  values = [int(apply('color_jitter(0.4, 0, 0)', image, s)[0, 0, 0]) for s in range(199)]
  assert 59 <= min(values) < 66 and 134 < max(values) <= 140
  assert apply('color_jitter(0.4, p=0)', image)[0, 0, 0] == 100
  for seed in range(17):  # contrast: both move from their mean of 100 by one factor
    low, high = apply('color_jitter(0, 0.5, 0)', grey([[60, 140]]), seed)[0, :, 0].astype(int)
    assert abs((100 - low) - (high - 100)) <= 2 and 20 - 1 <= high - 100 <= 60 + 1
  red = np.array([[[200, 100, 100]]], np.uint8)
  for seed in range(17):  # saturation: all move from the luma of 130 by one factor
    r, g, b = apply('color_jitter(0, 0, 0.5)', red, seed)[0, 0].astype(int)
    assert g == b and abs((r - 130) / 70 - (130 - g) / 30) < 0.08 and 35 - 1 <= r - 130 <= 105 + 1


def test_three_augment_does_one_of_three():
  image = np.zeros((9, 9, 3), np.uint8)
  image[4, 4] = [250, 0, 0]
  kinds = []
  for seed in range(90):
    result = apply('three_augment', image, seed)
    if (result[4, 4] == result[4, 4, 0]).all() and result[4, 4, 0] == 75:
      kinds.append('grey')
    elif (result == np.where(image < 128, image, 255 - image)).all():
      kinds.append('solarize')
    else:
      kinds.append('blur')
  assert all(15 < kinds.count(k) < 45 for k in ('grey', 'solarize', 'blur'))


def test_augreg_table():
  assert AUGREG['medium2'] == policies.AugReg(2, 15, 0.5) and len(AUGREG) == 7
  image = np.random.default_rng(0).integers(0, 256, (11, 13, 3), np.uint8)
  np.testing.assert_array_equal(apply('augreg(none)', image, 3), image)
  np.testing.assert_array_equal(
    apply('augreg(medium1)', image, 3), apply('randaugment(2, 15)', image, 3)
  )
  with raises(ConfigError, 'setting', 'none, light1'):
    parse_transform('decode|resize(7)|augreg(medium)', train=True)
