"""Tokens as images: principal components as colors, single channels; nearest images."""

import functools
from collections.abc import Callable, Sequence

import flax.linen as nn
import jax
import numpy as np

from vit_jax.errors import ConfigError, ModelError
from vit_jax.visualization.activations import Variables
from vit_jax.visualization.learned import principal_components

METRICS = ('cosine', 'mse')


def token_pca(grids: Sequence[np.ndarray]) -> list[np.ndarray]:
  """The first three principal components of patch tokens as red, green and blue.

  Args:
    grids: patch tokens of images, each [rows, columns, d] (see `Captured.patches`). The components
      are common to all of them, so that similar colors mean similar tokens.

  Returns:
    [rows, columns, 3] for each image, 0 to 1; the outermost percent of values is clipped.
  """
  rows = np.concatenate([g.reshape(-1, g.shape[-1]) for g in grids])
  directions, _ = principal_components(rows, 3)
  values = (rows - rows.mean(axis=0)) @ directions.T
  if values.shape[1] < 3:  # of fewer than three channels
    values = np.pad(values, ((0, 0), (0, 3 - values.shape[1])))
  low, high = np.percentile(values, [1, 99], axis=0)
  values = np.clip((values - low) / np.maximum(high - low, 1e-12), 0.0, 1.0).astype(np.float32)
  ends = np.cumsum([g.shape[0] * g.shape[1] for g in grids])[:-1]
  return [v.reshape(*g.shape[:2], 3) for v, g in zip(np.split(values, ends), grids)]


def channel_maps(
  grid: np.ndarray, count: int = 8, channels: Sequence[int] | None = None
) -> tuple[list[int], np.ndarray]:
  """Single channels of tokens, queries, keys or values as images of one pixel per patch.

  Args:
    grid: [rows, columns, d].
    count: how many channels are chosen where none are named: those that vary most over the image,
      by the range without the outermost tenths (a few patches may be extreme).
    channels: the ones to take.

  Returns:
    Indices of the channels and [k, rows, columns].
  """
  d = grid.shape[-1]
  if channels is None:
    low, high = np.percentile(grid.reshape(-1, d), [10, 90], axis=0)
    spread = high - low
    channels = np.argsort(-spread, kind='stable')[:count].tolist()
  wrong = [c for c in channels if not 0 <= c < d]
  if wrong:
    raise ModelError(f'channel {wrong[0]} is not one of {d}: give 0 to {d - 1}')
  return list(channels), np.moveaxis(grid[..., list(channels)], -1, 0)


def embeddings(
  module: nn.Module, variables: Variables, images: np.ndarray, batch_size: int = 16
) -> np.ndarray:
  """Pooled features [b, d] of images, by any model.

  Args:
    module, variables: of the model, with or without a head.
    images: [b, h, w, c] in the value range of the weights.
    batch_size: images computed at a time.
  """
  run = _features(module.clone(num_classes=0))
  found = []
  for start in range(0, len(images), batch_size):
    batch = np.asarray(images[start : start + batch_size])
    count = len(batch)
    if start and count < batch_size:  # the last batch, filled up so that nothing compiles again
      batch = np.concatenate([batch, np.zeros((batch_size - count, *batch.shape[1:]), batch.dtype)])
    found.append(np.asarray(run(variables, batch))[:count])
  return np.concatenate(found)


@functools.lru_cache(maxsize=4)
def _features(module: nn.Module) -> Callable[..., jax.Array]:
  return jax.jit(lambda variables, images: module.apply(variables, images))


def nearest(
  queries: np.ndarray,
  gallery: np.ndarray,
  count: int = 5,
  metric: str = 'cosine',
  exclude: Sequence[int] | None = None,
) -> tuple[np.ndarray, np.ndarray]:
  """The most similar entries of a gallery.

  Args:
    queries: [q, ...], embeddings or pixels.
    gallery: [g, ...] of the same kind.
    count: how many, at most as many as there are.
    metric: 'cosine' similarity (of embeddings) or 'mse' (mean squared error, of pixels).
    exclude: for each query the gallery index of the query itself, -1 for none.

  Returns:
    Indices [q, k], the nearest first, and their similarity or error [q, k].
  """
  if metric not in METRICS:
    raise ConfigError(f'metric must be cosine or mse, got {metric!r}')
  q = np.asarray(queries, np.float32).reshape(len(queries), -1)
  g = np.asarray(gallery, np.float32).reshape(len(gallery), -1)
  if metric == 'cosine':
    q, g = (x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12) for x in (q, g))
    values = -(q @ g.T)
  else:
    # One query at a time: the differences, not the expanded square, which loses digits.
    values = np.stack([np.square(g - row).mean(axis=1) for row in q])
  skipped = 0
  if exclude is not None:
    for i, j in enumerate(exclude):
      if j >= 0:
        values[i, j] = np.inf
        skipped = 1
  order = np.argsort(values, axis=1, kind='stable')[:, : min(count, len(g) - skipped)]
  values = np.take_along_axis(values, order, axis=1)
  return order, -values if metric == 'cosine' else values
