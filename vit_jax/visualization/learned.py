"""Position embeddings, first filters, and the distance over which heads attend."""

import flax.linen as nn
import numpy as np

from vit_jax import tree
from vit_jax.errors import ModelError
from vit_jax.models import posemb
from vit_jax.visualization.activations import Captured, Layer, NotApplicable, Variables

# Where a model's first linear map of pixels is; a hybrid's patches are cut from feature maps.
_FIRST_FILTERS = ('stem/root/conv/kernel', 'patch_embedding/kernel')


def position_similarity(
  module: nn.Module, variables: Variables, grid: tuple[int, int]
) -> np.ndarray:
  """Cosine similarity of the position embeddings of all pairs of patches.

  Args:
    module, variables: of the model.
    grid: rows and columns of patches that the variables are for.

  Returns:
    [rows, columns, rows, columns]; entry [i, j] is the map of similarities to patch (i, j).

  Raises:
    NotApplicable: no position embeddings.
    ModelError: they are for another grid.

  Source: Dosovitskiy et al. 2021 (2010.11929), figures 7 and 10.
  """
  rows, columns = grid
  table = _position_table(module, variables, grid)
  slots = len(table) - rows * columns
  if not 0 <= slots <= getattr(module, 'num_prefix_tokens', 0):
    raise ModelError(f'{len(table)} position embeddings do not fit a grid of {rows} x {columns}')
  table = table[slots:].astype(np.float64)
  table /= np.maximum(np.linalg.norm(table, axis=1, keepdims=True), 1e-12)
  return (table @ table.T).reshape(rows, columns, rows, columns).astype(np.float32)


def _position_table(module: nn.Module, variables: Variables, grid: tuple[int, int]) -> np.ndarray:
  """Position embeddings [slots + rows * columns, d], learned or computed."""
  params = variables.get('params', {})
  if 'position_embedding' in params:
    return np.asarray(params['position_embedding'])[0]
  kind = getattr(module, 'position_embedding', 'none')
  if kind == 'sincos_2d':
    return posemb.sincos_2d(*grid, module.width)[0]
  if kind == 'sinusoid_1d':
    class_slots = module.num_prefix_tokens - getattr(module, 'num_registers', 0)
    slots = class_slots if getattr(module, 'position_for_class_token', True) else 0
    return posemb.sinusoid_1d(slots + grid[0] * grid[1], module.width)[0]
  raise NotApplicable(f'this {type(module).__name__} has no position embeddings')


def patch_filters(variables: Variables, count: int = 28) -> tuple[np.ndarray, np.ndarray]:
  """Principal components of the filters that see the pixels first.

  Args:
    variables: of a ViT, DeiT, Mixer or CaiT, or of a hybrid, whose ResNet's first layer is taken.
    count: how many components.

  Returns:
    Components [k, p, q, c] of length one, the one that explains most first, and the share of the
    filters' variance that each explains [k].

  Raises:
    NotApplicable: the first layer is not a linear map of pixels.

  Source: Dosovitskiy et al. 2021 (2010.11929), figure 7 left.
  """
  params = tree.flatten(variables.get('params', {}))
  name = next((n for n in _FIRST_FILTERS if n in params), None)
  kernel = None if name is None else np.asarray(params[name], np.float64)
  if kernel is None or kernel.ndim != 4 or kernel.shape[2] not in (1, 3):
    raise NotApplicable('the patch embedding of this model is not one linear map of pixels')
  filters = kernel.reshape(-1, kernel.shape[3]).T  # [d, p * q * c]
  components, shares = principal_components(filters, count)
  return components.reshape(-1, *kernel.shape[:3]).astype(np.float32), shares


def principal_components(rows: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
  """Directions of the greatest variance.

  Args:
    rows: [n, d].
    count: directions wanted; there are fewer where n or d is smaller.

  Returns:
    Orthonormal directions [k, d] and the share of the variance along each [k]. The sign is such
    that a direction's largest entry is positive.
  """
  centred = np.asarray(rows, np.float64) - np.mean(rows, axis=0, dtype=np.float64)
  # Of the smaller Gram matrix, which is quicker than an SVD of all rows.
  if centred.shape[0] < centred.shape[1]:
    _, sizes, directions = np.linalg.svd(centred, full_matrices=False)
    variances = sizes**2
  else:
    variances, vectors = np.linalg.eigh(centred.T @ centred)
    variances, directions = np.maximum(variances[::-1], 0.0), vectors.T[::-1]
  directions = directions[:count]
  largest = np.abs(directions).argmax(axis=1)
  signs = np.where(directions[np.arange(len(directions)), largest] < 0, -1.0, 1.0)
  shares = variances[:count] / max(variances.sum(), 1e-30)
  return directions * signs[:, None], shares


def patch_distances(grid: tuple[int, int], patch_size: tuple[int, int]) -> np.ndarray:
  """Distances in pixels between the centres of all pairs of patches: [n, n]."""
  rows, columns = np.mgrid[: grid[0], : grid[1]]
  places = np.stack([rows.ravel() * patch_size[0], columns.ravel() * patch_size[1]], axis=1)
  return np.sqrt(((places[:, None] - places[None]) ** 2).sum(axis=-1))


def attention_distance(captured: Captured) -> tuple[list[Layer], np.ndarray]:
  """Mean attention distance: between the patches of query and key, weighted by attention.

  Without prefix tokens; the weights of patches are scaled to sum to one.

  Args:
    captured: with 'weights'; images are averaged.

  Returns:
    The self-attention layers, and pixels [layers, h].

  Raises:
    NotApplicable: the model has no attention between patches.

  Source: Dosovitskiy et al. 2021 (2010.11929), figures 7 right and 11.
  """
  layers = [layer for layer in captured.layers if layer.kind == 'self']
  if not layers:
    raise NotApplicable('attention distance needs attention between patches')
  distances = patch_distances(captured.grid, captured.patch_size)
  means = []
  for layer in layers:
    weights = layer.weights[:, :, layer.prefix :, layer.prefix :].astype(np.float64)
    weights = weights / np.maximum(weights.sum(axis=-1, keepdims=True), 1e-30)
    means.append(np.einsum('bhnm,nm->h', weights, distances) / (len(weights) * len(distances)))
  return layers, np.array(means)


def uniform_distance(grid: tuple[int, int], patch_size: tuple[int, int]) -> float:
  """The attention distance in pixels of a head of uniform attention."""
  return float(patch_distances(grid, patch_size).mean())
