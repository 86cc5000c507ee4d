"""Metrics for each example, so that sums over masked batches count every picture once.

A metric is an array [b], or a pair (values [b], weights [b]) where it is not of every example.
"""

import jax
import jax.numpy as jnp


def rank_of_label(logits: jax.Array, labels: jax.Array) -> jax.Array:
  """How many classes are predicted before the true one; 0 means that it is the prediction.

  Among equal logits the lower class index comes first, as in `argmax`. A label whose logit is not
  a number ranks last.

  Args:
    logits: [b, k].
    labels: class indices [b].

  Returns:
    Ranks [b], from 0 to k - 1, or k for a NaN.
  """
  k = logits.shape[-1]
  true = jnp.take_along_axis(logits, labels[:, None], axis=-1)  # [b, 1]
  earlier = jnp.arange(k)[None, :] < labels[:, None]
  ahead = (logits > true) | ((logits == true) & earlier)  # [b, k]
  return jnp.where(jnp.isnan(true[:, 0]), k, ahead.sum(axis=-1))


def top_k(logits: jax.Array, labels: jax.Array, ks: tuple[int, ...] = (1, 3, 5)) -> dict:
  """Whether the true class is among the k best, for each k: {'accuracy': [b], 'top3': ...}.

  A k that is not below the number of classes says nothing and is left out.
  """
  ranks = rank_of_label(logits, labels)
  names = {k: 'accuracy' if k == 1 else f'top{k}' for k in ks if k == 1 or k < logits.shape[-1]}
  return {name: (ranks < k).astype(jnp.float32) for k, name in names.items()}


def mean(metric: jax.Array | tuple[jax.Array, jax.Array]) -> jax.Array:
  """The mean of a metric over a batch; 0 where all weights are."""
  if not isinstance(metric, tuple):
    return metric.mean()
  values, weights = metric
  total = weights.sum()
  return jnp.where(weights > 0, values * weights, 0.0).sum() / jnp.where(total > 0, total, 1.0)
