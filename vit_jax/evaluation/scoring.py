"""Means of metrics over a split, every example once whatever the batch size and device count."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from vit_jax import parallel, processes
from vit_jax.errors import DatasetError

# What a batch holds besides what a step computes with.
_ABOUT_ROWS = ('mask', 'index')


def score(
  eval_step: Callable[[Any, dict], tuple[dict, Any]],
  placement: parallel.Placement,
  variables: Any,
  batches: Iterable[dict],
  on_batch: Callable[[dict, Any], None] | None = None,
  split_metrics: Callable[[np.ndarray, Mapping[str, np.ndarray]], dict[str, float]] | None = None,
) -> dict[str, float]:
  """Means of the metrics over all unmasked examples.

  Args:
    eval_step: compiled by the placement: (variables, batch) -> ({name: [b]}, outputs [b, ...]); a
      metric may be a pair of values and weights, see `tasks.metrics`.
    placement: puts batches on devices and brings rows back.
    variables: placed.
    batches: with 'mask' [b], False for padding.
    on_batch: sees each batch with this process's outputs, padding included.
    split_metrics: computes metrics that are not means, from the logits [n, k] and the targets of
      all examples.

  Returns:
    The mean of each metric (left out where it is of no example) and 'examples', how many there
    were, over all processes.

  Raises:
    DatasetError: there is no example to score.
  """
  sums: dict[str, np.ndarray] = {}  # by metric: sum and number of examples
  count = 0
  kept: dict[str, list[np.ndarray]] = {}
  for batch in batches:
    arrays = {name: x for name, x in batch.items() if name not in _ABOUT_ROWS}
    metrics, outputs = eval_step(variables, placement.put_batch(arrays))
    processes.tick()
    mask = batch['mask']
    for name, values in placement.get_examples(metrics).items():
      values, weights = values if isinstance(values, tuple) else (values, np.ones(len(mask)))
      weights = np.where(mask, weights, 0.0)
      # Chosen, not multiplied: a padded row's NaN must not spoil the sum.
      total = np.where(weights > 0, values.astype(np.float64) * weights, 0.0).sum()
      sums[name] = sums.get(name, np.zeros(2)) + [total, weights.sum()]
    count += int(mask.sum())
    rows = placement.get_examples(outputs) if on_batch or split_metrics else None
    if on_batch:
      on_batch(batch, rows)
    if split_metrics:
      targets = {name: batch[name] for name in ('label', 'labels') if name in batch}
      logits = rows['logits'] if isinstance(rows, Mapping) else rows
      for name, values in {'logits': logits, 'mask': mask, **targets}.items():
        kept.setdefault(name, []).append(np.asarray(values))
  sums, count = _over_processes(sums, count)
  if not count:
    raise DatasetError('no image could be evaluated: the split is empty or undecodable')
  means = {name: float(total / n) for name, (total, n) in sums.items() if n}
  if split_metrics:
    rows = parallel.gather({name: np.concatenate(parts) for name, parts in kept.items()})
    valid = {name: values[rows['mask']] for name, values in rows.items() if name != 'mask'}
    means |= split_metrics(valid.pop('logits'), valid)
  return means | {'examples': count}


def _over_processes(sums: dict[str, np.ndarray], count: int) -> tuple[dict[str, np.ndarray], int]:
  """Sums and counts over all processes."""
  names = list(sums)  # in the order of the step, which is the same everywhere
  mine = np.array([*np.ravel([sums[n] for n in names]), count], np.float64)
  # Sent as bytes: JAX would round float64 to float32 on the way.
  every = parallel.gather({'bytes': np.frombuffer(mine.tobytes(), np.uint8)})['bytes']
  total = np.frombuffer(every.tobytes(), np.float64).reshape(-1, len(mine)).sum(axis=0)
  return dict(zip(names, total[:-1].reshape(-1, 2))), int(total[-1])
