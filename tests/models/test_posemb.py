"""Computed position embeddings against values worked by hand."""

import numpy as np

from vit_jax.models import posemb


def test_sinusoid_interleaves_sine_and_cosine():
  table = posemb.sinusoid_1d(3, 4)
  assert table.shape == (1, 3, 4)
  np.testing.assert_allclose(table[0, 0], [0, 1, 0, 1])
  np.testing.assert_allclose(
    table[0, 2], [np.sin(2), np.cos(2), np.sin(0.02), np.cos(0.02)], rtol=1e-6
  )


def test_sincos_2d_has_columns_before_rows():
  table = posemb.sincos_2d(2, 3, 8).reshape(2, 3, 8)
  slow = 1e-4  # the slower of the two waves: 1 / temperature
  row, column = 1, 2
  expected = [
    np.sin(column), np.sin(column * slow), np.cos(column), np.cos(column * slow),
    np.sin(row), np.sin(row * slow), np.cos(row), np.cos(row * slow),
  ]  # fmt: skip
  np.testing.assert_allclose(table[row, column], expected, rtol=1e-6)


def test_sincos_2d_tells_all_patches_apart():
  table = posemb.sincos_2d(5, 7, 12)[0]
  distances = np.linalg.norm(table[:, None] - table[None], axis=-1)
  assert distances[~np.eye(35, dtype=bool)].min() > 0.1
