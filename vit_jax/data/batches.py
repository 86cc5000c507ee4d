"""Batches for training and evaluation: Grain loads them in threads or processes, ahead of use.

What a thread makes at a time is a piece of a batch, and how many pieces are made ahead is bounded
in bytes, whatever the batch size and the number of threads.

A batch is a function of (seed, position): `position` counts images since the start of training over
all processes, so a resumed run, another number of threads, workers or processes sees the same
images with the same crops. Grain is imported where it is needed, because it imports jax (and
initialises nothing) and takes a second.
"""

import dataclasses
import itertools
import math
import sys
import threading
from collections.abc import Generator, Iterator
from typing import Any

import numpy as np

from vit_jax import machine
from vit_jax.data.cache import ImageCache
from vit_jax.data.dataset import Examples
from vit_jax.data.loader import (
  Batch,
  BatchLoader,
  EpochOrder,
  EvalLoader,
  Problems,
  Rows,
  TrainLoader,
)
from vit_jax.data.transforms.parse import Transform
from vit_jax.errors import CheckpointError, ConfigError

_ON_ERROR = ('raise', 'skip')
_PIECE = 32  # most rows of a batch that a thread makes at a time
_PREFETCH_BYTES = 1 << 30


@dataclasses.dataclass(frozen=True)
class Prefetch:
  """How far loading is ahead of use in a process.

  Attributes:
    threads, workers: as of `train_batches`.
    rows: of a piece.
    pieces: made ahead, or in the making.
    batch_size: images in this process's batch.
    example_bytes: of an image.
  """

  threads: int
  workers: int
  rows: int
  pieces: int
  batch_size: int
  example_bytes: int

  @classmethod
  def choose(
    cls,
    image_hw: tuple[int, int],
    batch_size: int,
    threads: int | None = None,
    workers: int = 0,
    limit_bytes: int | None = None,
  ) -> 'Prefetch':
    """Two batches ahead and work for every thread, or as much of that as the limit allows.

    Args:
      image_hw: height and width of a transformed image.
      batch_size: images in this process's batch.
      threads, workers: as of `train_batches`.
      limit_bytes: most that is ahead, None for 1 GiB; each thread has an image in work in any case.
    """
    limit_bytes = _PREFETCH_BYTES if limit_bytes is None else limit_bytes
    threads = machine.cores() if threads is None else threads
    example_bytes = 3 * math.prod(image_hw)
    loading = max(1, threads) * max(1, workers)
    rows = max(1, min(_PIECE, batch_size, limit_bytes // (example_bytes * loading)))
    wanted = 2 * -(-batch_size // rows) + loading
    pieces = max(loading, min(wanted, limit_bytes // (example_bytes * rows)))
    return cls(threads, workers, rows, pieces, batch_size, example_bytes)

  @property
  def examples(self) -> int:
    """Images that are ahead of use, or in the making."""
    return self.pieces * self.rows if self.threads or self.workers else 0

  @property
  def host_bytes(self) -> int:
    """Most memory of images in this process: batches begun, and the one in use."""
    begun = -(-self.examples // self.batch_size) + 1
    return (begun + 1) * self.batch_size * self.example_bytes


class _Batches:
  """What both iterators share: the count of images that could not be read."""

  def __init__(self) -> None:
    self.skipped = 0
    self.unreadable: dict[str, str] = {}

  def _count(self, problems: Problems) -> None:
    self.skipped += len(problems)
    self.unreadable.update(problems)


class TrainBatches(_Batches):
  """Endless training batches; made by `train_batches`.

  Attributes:
    skipped: how often an image that could not be read was replaced by another.
    unreadable: why, by the image's id.
  """

  def __init__(self, loader: TrainLoader, prefetch: Prefetch):
    super().__init__()
    self._loader, self._prefetch = loader, prefetch
    self._given = 0
    self._iterator: Any = None

  def __iter__(self) -> 'TrainBatches':
    return self

  def __next__(self) -> Batch:
    if self._iterator is None:
      self._iterator = _iterate(self._loader, self._given, None, self._prefetch)
    try:
      batch, problems = next(self._iterator)
    except BaseException:
      self.close()
      raise
    self._count(problems)
    self._given += 1
    return batch

  @property
  def _global_batch(self) -> int:
    return self._loader.batch_size * self._loader.process_count

  def get_state(self) -> dict:
    """The position after the batches handed out so far, as JSON values.

    What threads have loaded ahead is not counted. The state is the same in every process but for
    'skipped', of which a checkpoint holds the sum.
    """
    return {
      'position': self._loader.first + self._given * self._global_batch,
      'seed': self._loader.seed,
      'examples': len(self._loader.examples),
      'repeats': self._loader.repeats,
      'skipped': self.skipped,
    }

  def set_state(self, state: dict) -> None:
    """Resumes from a state; another batch size or process count resumes at the same image.

    Raises:
      CheckpointError: the state is of another dataset or seed.
    """
    have = self.get_state()
    problems = [
      f'the checkpoint is of training data with {key}={state[key]}, this run has {have[key]}; '
      'use the same data or start in a new workdir'
      for key in ('seed', 'examples', 'repeats')
      if state[key] != have[key]
    ]
    if problems:
      raise CheckpointError(problems)
    self.close()
    self._loader = dataclasses.replace(self._loader, first=state['position'])
    self._given = 0
    self.skipped = 0 if self._loader.process_index else state['skipped']  # of all processes

  def again(self, ago: int) -> Batch:
    """A batch that was handed out, made once more: 0 for the last one, 1 for the one before."""
    return self._loader.whole(self._given - 1 - ago)

  def close(self) -> None:
    """Stops threads and workers; the next batch starts them again."""
    if self._iterator is not None:
      self._iterator.close()
      self._iterator = None

  def __enter__(self) -> 'TrainBatches':
    return self

  def __exit__(self, *unused: object) -> None:
    self.close()


class EvalBatches(_Batches):
  """Every example once, in batches of one shape; made by `eval_batches`; may be iterated again.

  Attributes:
    skipped: images of the last pass that could not be read.
    unreadable: why, by the image's id.
  """

  def __init__(self, loader: EvalLoader, prefetch: Prefetch):
    super().__init__()
    self._loader, self._prefetch = loader, prefetch

  def __len__(self) -> int:
    per_batch = self._loader.batch_size * self._loader.process_count
    return -(-len(self._loader.examples) // per_batch)

  def __iter__(self) -> Iterator[Batch]:
    self.skipped, self.unreadable = 0, {}
    iterator = _iterate(self._loader, 0, len(self), self._prefetch)
    try:
      for batch, problems in iterator:
        self._count(problems)
        yield batch
    finally:
      iterator.close()


def train_batches(
  examples: Examples,
  transform: Transform,
  *,
  batch_size: int,
  seed: int,
  process_index: int = 0,
  process_count: int = 1,
  threads: int | None = None,
  workers: int = 0,
  on_error: str = 'raise',
  repeats: int = 1,
  cache: ImageCache | None = None,
  prefetch_bytes: int | None = None,
) -> TrainBatches:
  """Endless shuffled batches; every epoch is a fresh permutation.

  The n-th batch depends on (seed, n) alone. A dataset smaller than a batch is repeated within it.

  Args:
    examples: what to train on.
    transform: with a fixed output size.
    batch_size: images in this process's batch.
    seed: of order, crops and flips.
    process_index: of this process among those that share a global batch.
    process_count: number of processes; their batches in order make the global batch, which is the
      same for any number of them.
    threads: that load; None takes one per core, 0 loads in the caller.
    workers: processes that load, each with `threads` threads; 0 loads in this process.
    on_error: policy for images that cannot be read: 'raise' names the image; 'skip' takes the next
      readable one and counts.
    repeats: repeated augmentation: so many differently augmented copies of an image follow each
      other (3 in DeiT); one epoch's number of positions then shows 1/repeats of the images.
    cache: keeps decoded images across epochs, in this process alone: not with `workers`.
    prefetch_bytes: most memory of images that are made ahead, see `Prefetch.choose`.

  Returns:
    An iterator of 'image' uint8 `[b, h, w, c]`, 'label' int32 `[b]`, 'index' int64 `[b]` and
    whatever else the examples hold in numbers, with `get_state` and `set_state`.

  Raises:
    ConfigError: impossible sizes or options.
    ImageError: when iterating, an image that cannot be read.
  """
  _check(examples, transform, batch_size, process_index, process_count, on_error)
  if repeats < 1 or workers < 0:
    raise ConfigError(
      f'repeats must be at least 1 and workers at least 0, got {repeats}, {workers}'
    )
  if cache is not None and workers:
    raise ConfigError('a cache of images is shared by threads and not by processes: use workers=0')
  order = EpochOrder(len(examples), seed)
  loader = TrainLoader(
    examples,
    transform,
    seed,
    on_error,
    order,
    batch_size,
    process_index,
    process_count,
    first=0,
    repeats=repeats,
    kept=cache.of(examples, transform) if cache else None,
  )
  assert transform.output_hw  # _check has refused it otherwise
  prefetch = Prefetch.choose(transform.output_hw, batch_size, threads, workers, prefetch_bytes)
  return TrainBatches(loader, prefetch)


def eval_batches(
  examples: Examples,
  transform: Transform,
  *,
  batch_size: int,
  process_index: int = 0,
  process_count: int = 1,
  threads: int | None = None,
  on_error: str = 'raise',
  cache: ImageCache | None = None,
  prefetch_bytes: int | None = None,
) -> EvalBatches:
  """Every example once, in order; the last batch is filled up with masked rows.

  Args:
    examples: what to score.
    transform: with a fixed output size.
    batch_size: images in this process's batch.
    process_index: of this process among those that share the work.
    process_count: number of processes; all of them get the same number of batches.
    threads: that load; None takes one per core, 0 loads in the caller.
    on_error: policy for images that cannot be read: 'raise' names the image; 'skip' masks and
      counts it.
    cache: keeps transformed images from one evaluation to the next.
    prefetch_bytes: as of `train_batches`.

  Returns:
    An iterable of 'image', 'label', 'index' as in `train_batches`, and 'mask' bool `[b]`, False for
    rows that are excluded.

  Raises:
    ConfigError: impossible sizes or options.
    ImageError: when iterating, an image that cannot be read.
  """
  _check(examples, transform, batch_size, process_index, process_count, on_error)
  loader = EvalLoader(
    examples,
    transform,
    0,
    on_error,
    batch_size,
    process_index,
    process_count,
    kept=cache.of(examples, transform) if cache else None,
  )
  assert transform.output_hw
  prefetch = Prefetch.choose(transform.output_hw, batch_size, threads, 0, prefetch_bytes)
  return EvalBatches(loader, prefetch)


def _check(
  examples: Examples,
  transform: Transform,
  batch_size: int,
  process_index: int,
  process_count: int,
  on_error: str,
) -> None:
  problems = []
  if not len(examples):
    problems.append('there are no examples')
  if transform.output_hw is None:
    problems.append(f'transform {transform} gives images of varying size, which make no batch')
  if batch_size < 1:
    problems.append(f'batch size of a process must be at least 1, got {batch_size}')
  if not 0 <= process_index < process_count:
    problems.append(
      f'process index must be from 0 to below the process count {process_count}, '
      f'got {process_index}'
    )
  if on_error not in _ON_ERROR:
    problems.append(f"on_error must be 'raise' or 'skip', got {on_error!r}")
  if problems:
    raise ConfigError(problems)


class _Pieces:
  """Makes pieces of batches by number, in the memory of the batches that they belong to.

  Args:
    loader: of the batches.
    rows: of a piece.
    first: the batch that piece 0 belongs to.
  """

  def __init__(self, loader: BatchLoader, rows: int, first: int):
    self._loader, self._piece, self._first = loader, rows, first
    self._of: dict[int, Rows] = {}
    self._lock = threading.Lock()

  def __call__(self, number: int) -> Problems:
    batch, start, end = _place(self._loader, self._piece, number)
    with self._lock:
      rows = self._of.setdefault(batch, Rows(self._loader.batch_size))
    return self._loader.fill(rows, self._first + batch, start, end)

  def take(self, batch: int, made: list[Problems]) -> tuple[Rows, Problems]:
    """The rows of a batch whose pieces are all made, given what making them returned."""
    with self._lock:
      rows = self._of.pop(batch)
    return rows, list(itertools.chain.from_iterable(made))


@dataclasses.dataclass(frozen=True)
class _PiecesApart:
  """Makes pieces of batches in worker processes, each in memory of its own; as `_Pieces`."""

  loader: BatchLoader
  rows: int
  first: int

  def __call__(self, number: int) -> tuple[int, Batch, np.ndarray, Problems]:
    batch, start, end = _place(self.loader, self.rows, number)
    part = Rows(end - start)
    problems = self.loader.fill(_Shifted(part, start), self.first + batch, start, end)
    return start, part.arrays, part.given, problems

  def take(self, batch: int, made: list[Any]) -> tuple[Rows, Problems]:
    """The rows of a batch, copied out of the shared memory, which must not outlive the workers."""
    rows = Rows(self.loader.batch_size)
    problems: Problems = []
    for start, arrays, given, found in made:
      if arrays:
        rows.make({name: values[0] for name, values in arrays.items()})
      for name, values in arrays.items():
        rows.arrays[name][start : start + len(values)] = values
      rows.given[start : start + len(given)] = given
      problems += found
    return rows, problems


class _Shifted(Rows):
  """A part of a batch that is filled by the batch's row numbers.

  Args:
    part: its rows.
    start: the number of the first.
  """

  def __init__(self, part: Rows, start: int):
    self._part, self._start = part, start

  def put(self, row: int, example: dict) -> None:
    self._part.put(row - self._start, example)


def _place(loader: BatchLoader, rows: int, number: int) -> tuple[int, int, int]:
  """The batch of a piece, and its first row and the one after its last."""
  batch, piece = divmod(number, -(-loader.batch_size // rows))
  return batch, piece * rows, min(loader.batch_size, (piece + 1) * rows)


def _iterate(
  loader: BatchLoader, first: int, total: int | None, prefetch: Prefetch
) -> Generator[tuple[Batch, Problems], None, None]:
  """Batches `first`, `first + 1`, ...: so many, or without end, made ahead by Grain's threads."""
  import grain

  count = -(-loader.batch_size // prefetch.rows)
  workers = prefetch.workers
  pieces = (_PiecesApart if workers else _Pieces)(loader, prefetch.rows, first)
  ahead = -(-prefetch.pieces // max(1, workers)) if prefetch.threads else 0
  options = grain.ReadOptions(num_threads=prefetch.threads, prefetch_buffer_size=ahead)
  numbers = grain.MapDataset.range(sys.maxsize if total is None else total * count)
  dataset = numbers.map(pieces).to_iter_dataset(options)
  if workers:
    _make_grain_flags_readable()
    dataset = dataset.mp_prefetch(grain.MultiprocessingOptions(num_workers=workers))
  iterator: Any = iter(dataset)
  try:
    for batch in itertools.count() if total is None else range(total):
      rows, problems = pieces.take(batch, [next(iterator) for _ in range(count)])
      yield loader.finish(rows), problems
  finally:
    iterator.close()


def _make_grain_flags_readable() -> None:
  """Lets Grain read the defaults of its own absl flags where nobody has parsed a command line.

  Grain reads one when it starts worker processes, which absl refuses before flags are parsed,
  unless they are `present`; Grain does the same to its flags in the workers. All other flags are
  left as they are, and the program may still parse them later.
  """
  from absl import flags

  if not flags.FLAGS.is_parsed():
    for name in flags.FLAGS:
      if name.startswith('grain_'):
        flags.FLAGS[name].present = True
