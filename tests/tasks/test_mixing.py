"""Mixup and CutMix against the pixels of the mixed images."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vit_jax.tasks.mixing import Mixing, paste_mask

B, H, W, K = 7, 11, 13, 7
# Image i is i everywhere, so a pixel tells its image; the middle one is mixed with itself.
IMAGES = jnp.broadcast_to(jnp.arange(B, dtype=jnp.float32)[:, None, None, None], (B, H, W, 3))
TARGETS = jnp.eye(K)
MIRROR = np.arange(B)[::-1]


def _mix(seed=0, **options):
  images, targets = Mixing(**options)(jax.random.key(seed), IMAGES, TARGETS)
  return np.asarray(images), np.asarray(targets)


def _own_share(targets):
  """What each target gives to the image's own class."""
  share = targets[np.arange(B), np.arange(B)]
  rest = targets[np.arange(B), MIRROR]
  pairs = np.arange(B) != MIRROR
  np.testing.assert_allclose((share + rest)[pairs], 1.0, rtol=1e-6)
  return share


@pytest.mark.parametrize('per_pair', [False, True])
def test_mixup_mixes_pixels_and_targets_alike(per_pair):
  images, targets = _mix(mixup=0.8, per_pair=per_pair)
  share = _own_share(targets)
  expected = share * np.arange(B) + (1 - share) * MIRROR
  np.testing.assert_allclose(
    images, np.broadcast_to(expected[:, None, None, None], images.shape), rtol=1e-5
  )
  others = np.delete(share, B // 2)
  assert len(np.unique(others.round(5))) == (3 if per_pair else 1)
  np.testing.assert_allclose(others, others[::-1], rtol=1e-6)  # both of a pair alike


@pytest.mark.parametrize('per_pair', [False, True])
def test_cutmix_targets_are_shares_of_pixels(per_pair):
  sizes = set()
  for seed in range(13):
    images, targets = _mix(seed, cutmix=1.0, per_pair=per_pair)
    for i in set(range(B)) - {B // 2}:
      own, other = (images[i] == i).all(-1), (images[i] == MIRROR[i]).all(-1)
      assert (own ^ other).all()
      np.testing.assert_allclose(targets[i, i], own.mean(), rtol=1e-5)
      rows, columns = other.any(1).sum(), other.any(0).sum()
      assert rows * columns == other.sum()  # one box
      sizes.add((rows, columns))
  assert len(sizes) > 5


def test_a_cutmix_box_by_hand():
  """A quarter of 8 x 12 pixels is a box of 4 x 6; at the corner a quarter of it is left."""
  mask = np.asarray(
    paste_mask(jnp.array([0.75, 0.75]), jnp.array([[0.5, 0.0], [0.5, 0.0]]), (8, 12))
  )
  expected = np.zeros((2, 8, 12))
  expected[0, 2:6, 3:9] = 1
  expected[1, 0:2, 0:3] = 1
  np.testing.assert_array_equal(mask, expected)


def test_switch_and_probability():
  kinds = {'mixup': 0, 'cutmix': 0, 'unmixed': 0}
  for seed in range(60):
    images, _ = _mix(seed, mixup=0.5, cutmix=1.0, switch=0.25, probability=0.6)
    flat = images[0] == images[0, 0, 0, 0]
    whole = not images[0].any()
    kinds['unmixed' if whole else 'mixup' if flat.all() else 'cutmix'] += 1
  # Of 60: 24 unmixed, 27 by Mixup, 9 by CutMix; three standard deviations are 11, 11 and 8.
  assert 13 <= kinds['unmixed'] <= 38
  assert 16 <= kinds['mixup'] <= 38 and 1 <= kinds['cutmix'] <= 17


def test_it_is_off_by_default():
  assert not Mixing() and not Mixing(mixup=0.5, probability=0.0)
  assert Mixing(mixup=0.5) and Mixing(cutmix=0.5)


def test_draws_depend_on_the_key_alone():
  for x, y in zip(_mix(3, mixup=0.8, cutmix=1.0), _mix(3, mixup=0.8, cutmix=1.0)):
    np.testing.assert_array_equal(x, y)
