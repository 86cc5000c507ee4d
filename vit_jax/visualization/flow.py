"""Attention maps of single layers, and attention rollout through all of them."""

from collections.abc import Callable, Sequence

import numpy as np

from vit_jax.errors import ConfigError, ModelError, did_you_mean
from vit_jax.visualization.activations import Captured, Layer, NotApplicable

FUSIONS: dict[str, Callable[..., np.ndarray]] = {'mean': np.mean, 'max': np.max, 'min': np.min}

Query = str | tuple[int, int] | None


def fuse_heads(weights: np.ndarray, fusion: str = 'mean') -> np.ndarray:
  """Fuses the heads [b, h, n, m] by their 'mean', 'max' or 'min': [b, n, m]."""
  if fusion not in FUSIONS:
    raise ConfigError(f'fusion {fusion!r}: {did_you_mean(fusion, FUSIONS)}')
  return FUSIONS[fusion](np.asarray(weights, np.float32), axis=1)


def drop_lowest(fused: np.ndarray, ratio: float, prefix: int = 1) -> np.ndarray:
  """Sets the lowest weights of each image to zero, over the whole matrix.

  The weights among class token, distillation token and registers are kept; with a class token alone
  that is the one entry [0, 0], as in the published code.

  Args:
    fused: [b, n, m].
    ratio: share to drop, 0 to below 1.
    prefix: tokens in front of the patches.

  Source: Gildenblat 2020, "Exploring explainability for vision transformers" (vit-explain).
  """
  if not 0.0 <= ratio < 1.0:
    raise ConfigError(f'discard ratio must be from 0 to below 1, got {ratio}')
  flat = fused.reshape(len(fused), -1)
  count = int(flat.shape[1] * ratio)
  lowest = np.argpartition(flat, count, axis=1)[:, :count]
  flags = np.zeros(flat.shape, bool)
  np.put_along_axis(flags, lowest, True, axis=1)
  dropped = flags.reshape(fused.shape)
  dropped[:, :prefix, :prefix] = False
  return np.where(dropped, 0.0, fused)


def with_residual(fused: np.ndarray) -> np.ndarray:
  """Half attention, half the residual connection, rows summing to one: [b, n, n].

  Source: Abnar and Zuidema 2020 (2005.00928), section 3.
  """
  mixed = 0.5 * fused + 0.5 * np.eye(fused.shape[-1], dtype=fused.dtype)
  return mixed / mixed.sum(axis=-1, keepdims=True)


def rollout(
  weights: Sequence[np.ndarray], fusion: str = 'mean', discard: float = 0.0, prefix: int = 1
) -> np.ndarray:
  """Multiplies the attention of all blocks, residual connections included.

  Args:
    weights: [b, h, n, n] of each block, the first block first.
    fusion: of the heads, see `fuse_heads`.
    discard: share of the weights to drop in each block, see `drop_lowest`.
    prefix: tokens in front of the patches, as `drop_lowest` needs them.

  Returns:
    [b, n, n]: row i is how much of each input token is in output token i; rows sum to one.

  Source: Abnar and Zuidema 2020 (2005.00928), equation 1.
  """
  return _product([drop_lowest(fuse_heads(w, fusion), discard, prefix) for w in weights])


def gradient_rollout(
  weights: Sequence[np.ndarray],
  gradients: Sequence[np.ndarray],
  discard: float = 0.0,
  prefix: int = 1,
) -> np.ndarray:
  """Rollout for one class, of weights times gradients where positive.

  Args:
    weights: as in `rollout`.
    gradients: of the class's logit with respect to the weights, of the same shapes.
    discard, prefix: as in `rollout`.

  Returns:
    [b, n, n], rows summing to one.

  Source: Chefer et al. 2021 (2103.15679), equation 5; residual and normalisation as in `rollout`.
  """
  relevances = [relevance(w, g) for w, g in zip(weights, gradients, strict=True)]
  return _product([drop_lowest(r, discard, prefix) for r in relevances])


def relevance(weights: np.ndarray, gradients: np.ndarray) -> np.ndarray:
  """The mean over heads of weights * gradients, where they are positive: [b, n, m]."""
  product = np.asarray(weights, np.float32) * np.asarray(gradients, np.float32)
  return np.maximum(product, 0.0).mean(axis=1)


def _product(fused: Sequence[np.ndarray]) -> np.ndarray:
  if not fused:
    raise ModelError('rollout needs the attention weights of at least one block')
  result = with_residual(fused[0])
  for matrix in fused[1:]:
    result = with_residual(matrix) @ result
  return result


def rollout_map(
  captured: Captured, fusion: str = 'mean', discard: float = 0.0, query: Query = None
) -> np.ndarray:
  """Attention rollout as a map over the patches, for any transformer.

  Args:
    captured: by `capture`, with 'weights'.
    fusion, discard: as in `rollout`.
    query: whose row: None for what the head reads (the class token, the pooling probe, or the mean
      of the patches), 'class', 'distillation', or (row, column) of a patch.

  Returns:
    [b, rows, columns], the weight of each patch; that of prefix tokens is left out. Negative
    weights, as talking heads (CaiT) have, are set to zero.
  """
  return _map(
    captured, lambda layer: fuse_heads(np.maximum(layer.weights, 0.0), fusion), discard, query
  )


def gradient_rollout_map(
  captured: Captured, discard: float = 0.0, query: Query = None
) -> np.ndarray:
  """Class attribution: rollout for one class as a map over the patches.

  Args:
    captured: by `capture_gradients`.
    discard, query: as in `rollout_map`.
  """

  def fuse(layer: Layer) -> np.ndarray:
    if layer.gradient is None:
      raise ModelError('gradient rollout needs gradients: use capture_gradients(..., classes)')
    return relevance(layer.weights, layer.gradient)

  return _map(captured, fuse, discard, query)


def _map(
  captured: Captured, fuse: Callable[[Layer], np.ndarray], discard: float, query: Query
) -> np.ndarray:
  matrix: np.ndarray | None = None
  probe: np.ndarray | None = None
  for layer in captured.layers:
    fused = drop_lowest(fuse(layer), discard, layer.prefix)
    if layer.kind == 'probe':
      probe = fused  # replaces the token it starts from: there is no residual connection
      continue
    if layer.kind == 'class':
      fused = _square(fused)
    step = with_residual(fused)
    if matrix is not None and len(step[0]) > len(matrix[0]):
      matrix = _with_class_token(matrix, len(step[0]) - len(matrix[0]))
    matrix = step if matrix is None else step @ matrix
  if matrix is None:
    raise NotApplicable('rollout needs attention, and this model has none')
  count = captured.grid[0] * captured.grid[1]
  if probe is not None and query is None:
    rows = (probe @ matrix[:, -probe.shape[-1] :])[:, 0]
  else:
    rows = _row(captured, matrix, query)
  return rows[:, -count:].reshape(-1, *captured.grid)


def _square(fused: np.ndarray) -> np.ndarray:
  """Class attention [b, 1, m] as a square, in whose other rows are zeros: patches do not change."""
  b, queries, m = fused.shape
  return np.concatenate([fused, np.zeros((b, m - queries, m), fused.dtype)], axis=1)


def _with_class_token(matrix: np.ndarray, count: int) -> np.ndarray:
  """A rollout of patches alone [b, n, n], with unchanged tokens put in front."""
  b, n, _ = matrix.shape
  result = np.tile(np.eye(n + count, dtype=matrix.dtype), (b, 1, 1))
  result[:, count:, count:] = matrix
  return result


def _row(captured: Captured, matrix: np.ndarray, query: Query) -> np.ndarray:
  """The row [b, n] of square matrices [b, n, n] that belongs to a query."""
  index = token_index(captured, matrix.shape[-1], query)
  if index is not None:
    return matrix[:, index]
  return matrix[:, -captured.grid[0] * captured.grid[1] :].mean(axis=1)


def token_index(captured: Captured, tokens: int, query: Query) -> int | None:
  """The index of a query's token among `tokens`; None for the mean of all patches.

  Raises:
    ModelError: the model has no such token.
  """
  rows, columns = captured.grid
  prefix = tokens - rows * columns
  if query is None:
    return 0 if captured.class_token and prefix else None
  if query == 'mean':
    return None
  if query == 'class' and captured.class_token and prefix:
    return 0
  if query == 'distillation' and captured.distilled and prefix > 1:
    return 1
  if isinstance(query, str):
    raise ModelError(
      f'no {query} token here: name a patch (row, column) of {rows} x {columns}, or the mean'
    )
  row, column = query
  if not (0 <= row < rows and 0 <= column < columns):
    raise ModelError(
      f'patch {row},{column} is outside the grid: rows 0 to {rows - 1}, columns 0 to {columns - 1}'
    )
  return prefix + row * columns + column


def attention_map(captured: Captured, layer: Layer, query: Query = None) -> np.ndarray:
  """The attention of one token to the patches in one layer.

  Args:
    captured: what the layer belongs to.
    layer: one of `captured.layers`.
    query: as in `rollout_map`; layers with one query (class attention, pooling) have only that one.

  Returns:
    [b, h, rows, columns]; the weight of prefix tokens is left out, so a map sums to at most one.
  """
  if layer.kind != 'self':
    if query is not None and query != 'class':
      raise ModelError(f'{layer.label} has a single query: no other token can be chosen')
    picked = layer.weights[:, :, 0]
  else:
    index = token_index(captured, layer.weights.shape[-1], query)
    if index is None:
      picked = layer.weights[:, :, layer.prefix :].mean(axis=2)
    else:
      picked = layer.weights[:, :, index]
  return picked[..., layer.prefix :].reshape(*picked.shape[:2], *captured.grid)


def attention_terms(
  captured: Captured, layer: Layer, query: Query = None, scale: float | None = None
) -> np.ndarray:
  """What each channel of queries and keys adds to the logits of one token's attention.

  The sum over channels, through a softmax over all tokens, is the token's row of the attention
  weights.

  Args:
    captured: what the layer belongs to.
    layer: of self-attention, with 'query' and 'key'.
    query: as in `rollout_map`; None for the class token, or the mean of the patches without one.
    scale: of the products; None for 1 / sqrt(head width), as all models have but some T2T-ViT.

  Returns:
    [b, h, k, rows, columns]; prefix tokens are left out.

  Raises:
    ModelError: another kind of layer, or one without queries and keys.

  Source: the neuron view of Vig 2019 (1906.05714), section 2.3.
  """
  if layer.kind != 'self' or layer.query is None or layer.key is None:
    raise ModelError(f'{layer.label} has no queries and keys of patches: capture both')
  index = token_index(captured, layer.query.shape[-2], query)
  if index is None:
    chosen = layer.query[:, :, layer.prefix :].mean(axis=2)
  else:
    chosen = layer.query[:, :, index]
  if scale is None:
    scale = layer.query.shape[-1] ** -0.5
  products = captured.patches(layer.key) * (scale * chosen)[:, :, None, None]
  return np.moveaxis(products, -1, 2)
