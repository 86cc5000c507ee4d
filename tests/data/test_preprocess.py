"""The preprocessing record that is saved with weights."""

import json

import jax.numpy as jnp
import numpy as np
import pytest

from tests.support import raises
from vit_jax.data import Preprocess
from vit_jax.errors import ConfigError

SPEC = 'decode|resize_small(11, method=bicubic)|central_crop((7, 5))'


def test_image_size_and_json():
  record = Preprocess(SPEC, (0.1, 0.2, 0.3), (0.4, 0.5, 0.6), 'bgr')
  assert record.image_size == (7, 5)
  assert Preprocess.from_json(json.loads(json.dumps(record.to_json()))) == record
  assert hash(record) == hash(Preprocess.from_json(record.to_json()))


@pytest.mark.parametrize('xp', [np, jnp])
def test_normalize_by_hand(xp):
  pixels = xp.asarray(np.array([[[0, 255, 51]]], np.uint8))
  plain = Preprocess(SPEC).normalize(pixels)
  assert plain.dtype == np.float32
  np.testing.assert_allclose(plain[0, 0], [-1, 1, -0.6], atol=1e-6)
  other = Preprocess(SPEC, (0.5, 0.25, 0.2), (0.5, 0.25, 0.1), 'bgr').normalize(pixels)
  np.testing.assert_allclose(other[0, 0], [-0.6, 3, -2], atol=1e-6)


@pytest.mark.parametrize('xp', [np, jnp])
def test_grey(xp):
  record = Preprocess(SPEC, (0.0,), (1.0,), 'grey')
  colour = record.normalize(xp.asarray(np.array([[[100, 200, 50]]], np.uint8)))
  np.testing.assert_allclose(colour, [[[(29.9 + 117.4 + 5.7) / 255]]], rtol=1e-5)
  assert record.normalize(xp.zeros((2, 3, 5, 1), np.uint8)).shape == (2, 3, 5, 1)
  assert Preprocess(SPEC, channels='grey').mean == (0.5,)


def test_mistakes():
  with raises(ConfigError, 'mean', 'std', "'rbg'") as e:
    Preprocess(SPEC, (0.5,), (0.0, 1.0, 1.0), 'rbg')
  assert len(e.value.problems) == 3
  with raises(ConfigError, "'maen'", "did you mean 'mean'"):
    Preprocess.from_json({'transform': SPEC, 'maen': [0, 0, 0]})
  with raises(ConfigError, "'transform'"):
    Preprocess.from_json({})
