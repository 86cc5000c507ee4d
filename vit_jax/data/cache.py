"""Keeping examples in memory between epochs, for machines whose cores are few."""

from typing import Any

import numpy as np

from vit_jax.data.dataset import Examples
from vit_jax.data.transforms.parse import Transform
from vit_jax.errors import UserError


class CachedExamples:
  """Examples that are read once; made by `cached`. Stands wherever `Examples` do.

  Args:
    examples: where they come from.
    transform: applied before keeping, or None to keep the files' bytes.
  """

  def __init__(self, examples: Examples, transform: Transform | None):
    self._examples = examples
    self._transform = transform
    self._kept: dict[int, dict[str, Any]] = {}

  def __len__(self) -> int:
    return len(self._examples)

  def __getitem__(self, index: int) -> dict[str, Any]:
    example = self._kept.get(index)
    if example is None:  # two threads may both read it: wasteful, not wrong
      example = self._examples[index]
      example = self._transform(example) if self._transform else example
      self._kept[index] = example
    return dict(example)

  def id(self, index: int) -> str:
    """The picture's name."""
    return self._examples.id(index)

  @property
  def labels(self) -> np.ndarray:
    """int32 `[n]` class of every example."""
    return self._examples.labels

  @property
  def bytes_kept(self) -> int:
    """Memory that the pictures take so far."""
    return sum(getattr(e['image'], 'nbytes', len(e['image'])) for e in self._kept.values())

  def __getstate__(self) -> dict:
    return {**self.__dict__, '_kept': {}}  # worker processes fill their own


def cached(examples: Examples, transform: Transform | None = None) -> CachedExamples:
  """Keeps examples in memory from their first use on.

  Decoding again every epoch costs most of the input's time. With 'decode|resize_small(256)' a
  picture takes about 260 KB and the rest of the transformation starts from there ('decode' lets
  pixels pass); what it then sees of a large picture is what was kept of it.

  Args:
    examples: what to keep.
    transform: its leading part, without random ops (`parse_transform(..., fixed_size=False)`); None
      keeps the files' bytes, which spares a slow disk only.

  Raises:
    UserError: the transform is random, so one draw would be kept for ever.
  """
  if transform is not None and transform.random:
    raise UserError(f'cached transform {transform} is random; keep only what comes before that')
  return CachedExamples(examples, transform)
