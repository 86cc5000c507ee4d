"""Boxes follow their image, and overlap as worked by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vit_jax.data import boxes, parse_transform
from vit_jax.data.header import turn_upright
from vit_jax.data.transforms.operations import OPERATIONS

HW = (40, 80)
BOX = np.float32([0.25, 0.5, 0.25, 0.5])  # pixels 10..30 across, 10..30 down


def test_corners():
  np.testing.assert_allclose(boxes.to_xyxy(BOX, HW), [10, 10, 30, 30])
  np.testing.assert_allclose(boxes.from_xyxy(np.array([10, 10, 30, 30]), HW), BOX)
  np.testing.assert_allclose(
    boxes.from_xyxy(np.array([-5, 30, 40, 99]), HW), [0.25, 0.875, 0.5, 0.25]
  )


@pytest.mark.parametrize('orientation', range(1, 9))
def test_boxes_turn_as_their_pixels(orientation):
  pixels = np.zeros((*HW, 1), np.uint8)
  pixels[10:30, 10:30] = 1
  turned = turn_upright(pixels, orientation)
  left, top, right, bottom = boxes.to_xyxy(boxes.turn_upright(BOX, orientation), turned.shape[:2])
  assert turned.sum() == turned[round(top) : round(bottom), round(left) : round(right)].sum() == 400


# Boxes and their IoU with ONE, whose area is 0.08.
ONE = [0.5, 0.5, 0.4, 0.2]
OTHERS = {
  'equal': ([0.5, 0.5, 0.4, 0.2], 1),
  'shifted right': ([0.7, 0.5, 0.4, 0.2], 1 / 3),  # 0.04 of 0.08 + 0.08 - 0.04
  'shifted both ways': ([0.7, 0.6, 0.4, 0.2], 1 / 7),  # 0.02 of 0.08 + 0.08 - 0.02
  'within': ([0.5, 0.5, 0.2, 0.1], 0.02 / 0.08),
  'away': ([0.1, 0.1, 0.1, 0.1], 0),
  'touching': ([0.8, 0.5, 0.2, 0.2], 0),
  'empty': ([0.5, 0.5, 0, 0], 0),
  'of negative width': ([0.5, 0.5, -0.4, 0.2], 0),
}


@pytest.mark.parametrize('xp', [np, jnp])
def test_iou_by_hand(xp):
  others, expected = zip(*OTHERS.values())
  one, other = xp.asarray([ONE] * len(others)), xp.asarray(others)
  for found in (boxes.iou(one, other), boxes.iou(other, one)):
    assert type(found) is type(one) and found.shape == (len(others),)
    np.testing.assert_allclose(found, expected, atol=1e-6)
  nothing = xp.zeros((2, 4))
  np.testing.assert_array_equal(boxes.iou(nothing, nothing), [0, 0])


def test_iou_keeps_nan_and_the_precision_of_numpy():
  one, other = np.array([ONE, [np.nan] * 4], np.float32), np.array([ONE, ONE], np.float32)
  found = boxes.iou(one, other)
  assert found.dtype == np.float64
  np.testing.assert_array_equal(found, [1, np.nan])


def test_iou_under_jit_and_its_gradients():
  rng = np.random.default_rng(3)
  one, other = rng.uniform(-0.2, 1.0, (2, 101, 4))  # some of negative size
  found = jax.jit(boxes.iou)(jnp.array(one), jnp.array(other))
  assert found.dtype == jnp.float32
  np.testing.assert_allclose(found, boxes.iou(one, other), atol=1e-5)
  gradient = jax.grad(lambda box: boxes.iou(box, jnp.array(ONE)))
  # Moving it right by d leaves 0.04 - 0.2 d shared, of 0.12 + 0.2 d.
  np.testing.assert_allclose(
    gradient(jnp.array([0.7, 0.5, 0.4, 0.2]))[0], -0.2 / 0.12 - 0.04 * 0.2 / 0.12**2, rtol=1e-5
  )
  assert np.isfinite(gradient(jnp.zeros(4))).all()
  both_empty = jax.grad(lambda box: boxes.iou(box, jnp.zeros(4)))(jnp.zeros(4))
  np.testing.assert_array_equal(both_empty, 0)


def test_intersection_and_union_by_hand():
  one, other = boxes.corners(np.array(ONE)), boxes.corners(np.array([0.7, 0.6, 0.4, 0.2]))
  np.testing.assert_allclose(one, [0.3, 0.4, 0.7, 0.6])
  np.testing.assert_allclose(boxes.intersection_and_union(one, other), [0.02, 0.14])


def example_with_box():
  """A black image in which the box is white."""
  image = np.zeros((*HW, 3), np.uint8)
  image[10:30, 10:30] = 255
  return {'image': image, 'box': BOX, 'has_box': True}


@pytest.mark.parametrize(
  'spec, expected',
  [
    ('resize(20)', [0.25, 0.5, 0.25, 0.5]),
    ('flip_lr(1)', [0.75, 0.5, 0.25, 0.5]),
    ('central_crop(40)', [0.125, 0.5, 0.25, 0.5]),  # columns 20..60: half of the box is left
    ('pad(10)', [0.3, 0.5, 0.2, 1 / 3]),
    ('pad_square', [0.25, 0.5, 0.25, 0.25]),
    ('resize_small(20)|central_crop(20)', [0.125, 0.5, 0.25, 0.5]),
    ('tighten_box(0)', [0.25, 0.5, 0.25, 0.5]),
    # 20 x 20 pixels were s x s before each side grew by tan(10 degrees) of the other.
    ('tighten_box(10)', [0.25, 0.5, 0.25 / 1.176327, 0.5 / 1.176327]),
  ],
)
def test_ops_move_the_box(spec, expected):
  transform = parse_transform(f'decode|{spec}', train=True, fixed_size=False)
  result = transform(example_with_box(), np.random.default_rng(0))
  np.testing.assert_allclose(result['box'], expected, atol=1e-6)
  assert result['has_box']


def white(image):
  """The box around what is brighter than half."""
  bright = image[..., 0] > 127
  ys, xs = np.flatnonzero(bright.any(1)), np.flatnonzero(bright.any(0))
  return np.array([xs[0], ys[0], xs[-1] + 1, ys[-1] + 1])


@pytest.mark.parametrize(
  'op',
  [
    'inception_crop(61, 30, object_min=60)|flip_lr',
    'random_crop((31, 53))|flip_lr',
  ],
)
def test_random_ops_keep_the_box_on_the_object(op):
  transform = parse_transform(f'decode|{op}', train=True)
  for seed in range(41):
    result = transform(example_with_box(), np.random.default_rng(seed))
    if result['has_box']:
      corners = boxes.to_xyxy(result['box'], result['image'].shape[:2])
      np.testing.assert_allclose(corners, white(result['image']), atol=1.01)


def test_tightening_undoes_turning():
  box, hw, degrees = np.float32([0.5, 0.5, 0.4, 0.3]), (50, 80), 7
  sine, cosine = np.sin(np.radians(degrees)), np.cos(np.radians(degrees))
  centre = np.array([40, 25])
  turn = np.array([[cosine, -sine], [sine, cosine]])
  loose = boxes.affine(box, hw, np.concatenate([turn, (centre - turn @ centre)[:, None]], axis=1))
  assert loose[2] > 0.41 and loose[3] > 0.36
  np.testing.assert_allclose(boxes.tighten(loose, hw, degrees), box, rtol=0.008)  # 1 - cosine
  # A needle turned by more than its box can tell loses half, not all.
  thin = boxes.tighten(np.float32([0.5, 0.5, 0.02, 0.9]), hw, 20)
  np.testing.assert_allclose(thin, [0.5, 0.5, 0.01, thin[3]])


@pytest.mark.parametrize(
  'name, value',
  [
    ('rotate', 30),
    ('rotate', -90),
    ('shear_x', 0.3),
    ('shear_y', -0.2),
    ('translate_x', 0.2),
    ('translate_y', -0.3),
  ],
)
def test_turned_boxes_surround_the_object(name, value):
  # A square turned inside its box is looser; a disc would be too. Corners decide, so compare those.
  result = OPERATIONS[name](example_with_box(), value)
  outside = result['image'][..., 0] != 128
  corners = boxes.to_xyxy(result['box'], HW)
  found = white(np.where(outside[..., None], result['image'], 0))
  np.testing.assert_allclose(corners, found, atol=1.6)


def test_a_box_outside_the_image_is_none():
  transform = parse_transform('decode|central_crop(40, 10)', fixed_size=False)
  result = transform(example_with_box())
  assert not result['has_box']
  assert np.isfinite(result['box']).all()


def test_object_min_keeps_the_object():
  transform = parse_transform('decode|inception_crop(31, 5, 30, object_min=90)', train=True)
  for seed in range(41):
    result = transform(example_with_box(), np.random.default_rng(seed))
    assert result['has_box'] and (result['image'] > 200).any()
