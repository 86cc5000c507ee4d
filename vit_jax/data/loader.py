"""Making one batch from its number: the work that threads and worker processes do."""

import dataclasses
import functools
import multiprocessing
import multiprocessing.connection
import os
import threading
import zlib
from typing import Any

import numpy as np

from vit_jax.data.cache import KeptExamples, KeptFeatures
from vit_jax.data.dataset import Examples
from vit_jax.data.transforms.parse import Transform
from vit_jax.errors import ImageError

Batch = dict[str, np.ndarray]
Problems = list[tuple[str, str]]  # of images that could not be read: id and reason


def example_rng(seed: int, position: int) -> np.random.Generator:
  """The generator of one image's random decisions; positions draw independently of each other."""
  return np.random.Generator(np.random.Philox(key=[seed, position]))


class EpochOrder:
  """The endless order of training: each epoch a permutation drawn from (seed, epoch).

  Grain's own shuffle looks up one index at a time, which for a small set takes a quarter of a
  decode; a whole permutation takes microseconds and four bytes an image.

  Args:
    size: number of examples.
    seed: of the order.
  """

  def __init__(self, size: int, seed: int):
    self.size = size
    self.key = zlib.crc32(f'shuffle {seed}'.encode())
    self._epochs: dict[int, np.ndarray] = {}

  def __getitem__(self, position: int) -> int:
    epoch, row = divmod(position, self.size)
    order = self._epochs.get(epoch)
    if order is None:  # two threads may both draw it: the same numbers
      rng = np.random.Generator(np.random.Philox(key=[self.key, epoch]))
      order = rng.permutation(self.size).astype(np.uint32)
      # Batches are made a few ahead and may span epochs, so the neighbours stay.
      self._epochs = {e: o for e, o in self._epochs.items() if abs(e - epoch) < 3} | {epoch: order}
    return int(order[row])

  def __getstate__(self) -> dict:
    return {**self.__dict__, '_epochs': {}}  # worker processes draw their own


@dataclasses.dataclass(frozen=True)
class Loader:
  """Reads and transforms the images of a batch. Pickled into worker processes.

  Args:
    examples: where images come from.
    transform: applied to each.
    seed: of the random decisions.
    on_error: 'raise' or 'skip'.
    kept: what is kept in memory of these examples, where something is.
  """

  examples: Examples
  transform: Transform
  seed: int
  on_error: str
  kept: KeptExamples | KeptFeatures | None = dataclasses.field(default=None, kw_only=True)

  def __setstate__(self, state: dict[str, Any]) -> None:
    self.__dict__.update(state)
    _end_with_parent()

  def load(self, index: int, position: int) -> dict:
    """One transformed example; its random decisions depend on the seed and the position alone."""
    rng = example_rng(self.seed, position)
    if self.kept is None:
      return self.transform(self._read(index), rng)
    return self.kept.load(index, lambda: self._read(index), rng)

  def _read(self, index: int) -> dict:
    example = self.examples[index]
    if example['label'] < 0 and 'labels' not in example:
      raise ImageError(f"{example['id']} has no label: remove it, or pass on_error='skip'")
    return {**example, 'index': index}

  def load_readable(self, index: int, position: int, problems: Problems) -> dict:
    """Like `load`, but an image that cannot be read is replaced by the next one that can."""
    for offset in range(len(self.examples)):
      i = (index + offset) % len(self.examples)
      try:
        return self.load(i, position)
      except ImageError as e:
        if self.on_error == 'raise':
          raise
        problems.append((self.examples.id(i), str(e)))
    count = len(self.examples)
    raise ImageError(f'none of the {count} images can be read; the first: {problems[0][1]}')


@functools.cache
def _end_with_parent() -> None:
  """Has a worker process end when its parent does, even where that is killed."""
  parent = multiprocessing.parent_process()
  if parent is None:
    return

  def watch() -> None:
    multiprocessing.connection.wait([parent.sentinel])
    os._exit(1)

  threading.Thread(target=watch, daemon=True).start()


@dataclasses.dataclass(frozen=True)
class TrainLoader(Loader):
  """Makes the training batch that starts at a position.

  Args:
    order: which example is at a position.
    batch_size: images in this process's batch.
    process_index: of this process.
    process_count: number of processes; a global batch is their batches in order.
    first: position of batch 0.
    repeats: consecutive positions with the same image.
  """

  order: EpochOrder
  batch_size: int
  process_index: int
  process_count: int
  first: int
  repeats: int

  def __call__(self, batch: int) -> tuple[Batch, Problems]:
    start = self.first + (batch * self.process_count + self.process_index) * self.batch_size
    problems: Problems = []
    rows = _Rows(self.batch_size)
    for row in range(self.batch_size):
      position = start + row
      index = self.order[position // self.repeats]
      rows.put(row, self.load_readable(index, position, problems))
    return rows.batch, problems


@dataclasses.dataclass(frozen=True)
class EvalLoader(Loader):
  """Makes an evaluation batch; rows beyond the end are zeros and masked.

  Args:
    batch_size: images in this process's batch.
    process_index: of this process.
    process_count: number of processes.
  """

  batch_size: int
  process_index: int
  process_count: int

  def __call__(self, batch: int) -> tuple[Batch, Problems]:
    start = (batch * self.process_count + self.process_index) * self.batch_size
    problems: Problems = []
    rows, mask = _Rows(self.batch_size), np.zeros(self.batch_size, bool)
    for row in range(max(0, min(self.batch_size, len(self.examples) - start))):
      try:
        rows.put(row, self.load(start + row, start + row))
        mask[row] = True
      except ImageError as e:
        if self.on_error == 'raise':
          raise
        problems.append((self.examples.id(start + row), str(e)))
    if not rows.batch:  # nothing to read here, but the other processes wait for this one's batch
      rows.put(0, self.load_readable(0, 0, []))
    rows.batch = {key: _masked(values, mask) for key, values in rows.batch.items()}
    return {**rows.batch, 'mask': mask}, problems


def _masked(values: np.ndarray, mask: np.ndarray) -> np.ndarray:
  values[~mask] = 0
  return values


class _Rows:
  """A batch that is filled row by row, without a second copy.

  Args:
    size: number of rows.
  """

  def __init__(self, size: int):
    self.size = size
    self.batch: Batch = {}

  def put(self, row: int, example: dict) -> None:
    """Writes one example; text (ids, paths) is left out."""
    values = {key: np.asarray(value) for key, value in example.items()}
    values = {key: value for key, value in values.items() if value.dtype.kind in 'biuf'}
    if not self.batch:
      dtypes = {'label': np.int32, 'index': np.int64}
      for key, value in values.items():
        dtype = dtypes.get(key, value.dtype) if value.ndim == 0 else value.dtype
        self.batch[key] = np.zeros((self.size, *value.shape), dtype)
    for key, value in values.items():
      self.batch[key][row] = value
