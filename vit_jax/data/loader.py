"""Making batches from their numbers: the work that threads and worker processes do."""

import dataclasses
import functools
import multiprocessing
import multiprocessing.connection
import os
import threading
import zlib
from collections.abc import Iterable
from typing import Any

import numpy as np

from vit_jax.data.cache import KeptExamples, KeptFeatures
from vit_jax.data.dataset import Examples
from vit_jax.data.records import SKIPPING, announce
from vit_jax.data.transforms.parse import Transform
from vit_jax.errors import ImageError, counted

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
      raise ImageError(f'{example["id"]} has no label; remove it')
    return {**example, 'index': index}

  def load_readable(self, index: int, position: int, problems: Problems) -> dict:
    """Like `load`, but an image that cannot be read is replaced by the next one that can."""
    for offset in range(len(self.examples)):
      i = (index + offset) % len(self.examples)
      try:
        return self.load(i, position)
      except ImageError as e:
        if self.on_error == 'raise':
          raise ImageError(f'{e}; {SKIPPING} excludes it') from e
        problems.append((self.examples.id(i), str(e)))
    count = len(self.examples)
    raise ImageError(
      f'none of the {counted(count, "image")} can be read; the first: {problems[0][1]}'
    )


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


class BatchLoader(Loader):
  """Makes batches, each in any number of pieces."""

  batch_size: int

  def fill(self, rows: 'Rows', batch: int, start: int, end: int) -> Problems:
    """Makes the rows from `start` to below `end` of a batch."""
    raise NotImplementedError

  def _announce(self, indices: Iterable[int]) -> None:
    """Has images read from disk while those before them are decoded."""
    if self.kept is None:
      places = map(self.examples.place, indices)
      announce(place for place in places if place)

  def finish(self, rows: 'Rows') -> Batch:
    """The batch once all of its rows are made."""
    return rows.arrays

  def whole(self, batch: int) -> Batch:
    """A batch, made in the caller."""
    rows = Rows(self.batch_size)
    self.fill(rows, batch, 0, self.batch_size)
    return self.finish(rows)


@dataclasses.dataclass(frozen=True)
class TrainLoader(BatchLoader):
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

  def fill(self, rows: 'Rows', batch: int, start: int, end: int) -> Problems:
    """As of `BatchLoader`; consecutive positions are consecutive rows."""
    first = self.first + (batch * self.process_count + self.process_index) * self.batch_size
    problems: Problems = []
    indices = [self.order[(first + row) // self.repeats] for row in range(start, end)]
    self._announce(dict.fromkeys(indices))
    for row, index in zip(range(start, end), indices, strict=True):
      rows.put(row, self.load_readable(index, first + row, problems))
    return problems


@dataclasses.dataclass(frozen=True)
class EvalLoader(BatchLoader):
  """Makes an evaluation batch; rows beyond the end are zeros and masked.

  Args:
    batch_size: images in this process's batch.
    process_index: of this process.
    process_count: number of processes.
  """

  batch_size: int
  process_index: int
  process_count: int

  def fill(self, rows: 'Rows', batch: int, start: int, end: int) -> Problems:
    """As of `BatchLoader`; what cannot be read, or lies beyond the end, is left out."""
    first = (batch * self.process_count + self.process_index) * self.batch_size
    problems: Problems = []
    end = min(end, len(self.examples) - first)
    self._announce(range(first + start, first + end))
    for row in range(start, end):
      try:
        rows.put(row, self.load(first + row, first + row))
      except ImageError as e:
        if self.on_error == 'raise':
          raise ImageError(f'{e}; {SKIPPING} excludes it') from e
        problems.append((self.examples.id(first + row), str(e)))
    return problems

  def finish(self, rows: 'Rows') -> Batch:
    """As of `BatchLoader`, with 'mask'."""
    if not rows.arrays:  # nothing to read here, but the other processes wait for this one's batch
      rows.make(_numbers(self.load_readable(0, 0, [])))
    return {**rows.arrays, 'mask': rows.given}


class Rows:
  """A batch that is filled row by row, by any number of threads, without a second copy.

  Args:
    size: number of rows.

  Attributes:
    arrays: of the batch [size, ...] by name; zeros where no row was put. Empty before the first.
    given: which rows were put, bool [size].
  """

  def __init__(self, size: int):
    self.size = size
    self.arrays: Batch = {}
    self.given = np.zeros(size, bool)
    self._lock = threading.Lock()

  def put(self, row: int, example: dict) -> None:
    """Writes one example; text (ids, paths) is left out."""
    values = _numbers(example)
    if not self.arrays:
      self.make(values)
    for key, value in values.items():
      self.arrays[key][row] = value
    self.given[row] = True

  def make(self, values: Batch) -> None:
    """Makes the arrays for examples such as this one, unless they are there."""
    with self._lock:
      if self.arrays:
        return
      dtypes = {'label': np.int32, 'index': np.int64}
      made = {}
      for key, value in values.items():
        dtype = dtypes.get(key, value.dtype) if value.ndim == 0 else value.dtype
        made[key] = np.zeros((self.size, *value.shape), dtype)
      self.arrays = made


def _numbers(example: dict) -> Batch:
  values = {key: np.asarray(value) for key, value in example.items()}
  return {key: value for key, value in values.items() if value.dtype.kind in 'biuf'}
