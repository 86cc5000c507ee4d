"""Position embeddings that are computed instead of learned."""

import numpy as np

KINDS = ('learned', 'sinusoid_1d', 'sincos_2d', 'none')


def sinusoid_1d(n: int, d: int) -> np.ndarray:
  """Sines and cosines of the token's number, interleaved.

  Args:
    n: tokens.
    d: width.

  Returns:
    [1, n, d] float32; channel 2i is sin(position / 10000^(2i/d)) and channel 2i+1 its cosine.

  Source: Vaswani et al. 2017 (1706.03762), section 3.5; T2T-ViT uses it.
  """
  rates = 10_000.0 ** (-2.0 * (np.arange(d) // 2) / d)
  angles = np.arange(n)[:, None] * rates[None, :]
  table = np.where(np.arange(d) % 2 == 0, np.sin(angles), np.cos(angles))
  return table[None].astype(np.float32)


def sincos_2d(h: int, w: int, d: int, temperature: float = 10_000.0) -> np.ndarray:
  """Sines and cosines of a patch's column and row, a quarter of the channels each.

  Args:
    h: rows of the patch grid.
    w: columns of the patch grid.
    d: width, a multiple of four and at least eight.
    temperature: ratio of the slowest to the quickest wave.

  Returns:
    [1, h * w, d] float32: sin(x), cos(x), sin(y), cos(y).

  Source: Chen et al. 2021 (2104.02057), section 4; Beyer et al. 2022 (2205.01580).
  """
  rates = temperature ** -np.linspace(0.0, 1.0, d // 4)
  rows, columns = np.mgrid[:h, :w]
  y = rows.reshape(-1, 1) * rates  # [n, d/4]
  x = columns.reshape(-1, 1) * rates
  table = np.concatenate([np.sin(x), np.cos(x), np.sin(y), np.cos(y)], axis=1)
  return table[None].astype(np.float32)
