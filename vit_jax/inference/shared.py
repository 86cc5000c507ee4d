"""Features of many images by all processes, each computing its share on its own devices."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from vit_jax import errors, parallel, processes
from vit_jax.errors import UserError
from vit_jax.inference.loaded import Loaded


def features(
  loaded: Loaded,
  images: Sequence[Any],
  what: str = 'pooled',
  problems: dict[int, UserError] | None = None,
) -> np.ndarray:
  """`Loaded.features`, in every process; all have to call it with the same images.

  Args:
    loaded: the model.
    images: at least one.
    what: see `Loaded.features`.
    problems: receives the error of each image that cannot be read, by its index, and that image is
      left out; None to raise it.

  Returns:
    Features of the readable images [n, ...], in their order.
  """
  count = processes.count()
  if count == 1:
    return loaded.features(images, what, problems)
  each = -(-len(images) // count)
  start = min(processes.index() * each, len(images))
  mine = images[start : start + each]
  unread: dict[int, UserError] | None = None if problems is None else {}
  # One that has nothing to do computes an image too many, to know the shape.
  rows = loaded.features(list(mine) or list(images[:1]), what, unread)[: len(mine)]
  said = [(start + i, errors.to_json(e)) for i, e in (unread or {}).items() if i < len(mine)]
  every: list[tuple[int, list]] = processes.collected((len(rows), said))
  padded = np.zeros((each, *rows.shape[1:]), rows.dtype)
  padded[: len(rows)] = rows
  found = parallel.gather({'rows': padded})['rows'].reshape(count, *padded.shape)
  if problems is not None:
    problems |= {i: errors.of_json(e) for _, their in every for i, e in their}
  return np.concatenate([part[:n] for part, (n, _) in zip(found, every)])
