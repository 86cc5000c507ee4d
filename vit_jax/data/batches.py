"""Batches for training and evaluation: Grain loads them in threads or processes, a few ahead.

A batch is a function of (seed, position): `position` counts images since the start of training over
all processes, so a resumed run, another number of threads, workers or processes sees the same
images with the same crops. Grain is imported where it is needed, because it imports jax (and
initialises nothing) and takes a second.
"""

import dataclasses
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np

from vit_jax import machine
from vit_jax.data.cache import ImageCache
from vit_jax.data.dataset import Examples
from vit_jax.data.loader import Batch, EpochOrder, EvalLoader, Problems, TrainLoader
from vit_jax.data.transforms.parse import Transform
from vit_jax.errors import CheckpointError, ConfigError

_ON_ERROR = ('raise', 'skip')


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

  def __init__(self, loader: TrainLoader, threads: int, workers: int):
    super().__init__()
    self._loader = loader
    self._threads = threads
    self._workers = workers
    self._given = 0
    self._iterator: Any = None

  def __iter__(self) -> 'TrainBatches':
    return self

  def __next__(self) -> Batch:
    if self._iterator is None:
      self._iterator = _start(self._loader, sys.maxsize, self._threads, self._workers)
    batch, problems = next(self._iterator)
    self._count(problems)
    if self._workers:  # out of the shared memory, which must not outlive the workers
      batch = {key: np.array(values) for key, values in batch.items()}
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

  def __init__(self, loader: EvalLoader, threads: int):
    super().__init__()
    self._loader = loader
    self._threads = threads

  def __len__(self) -> int:
    per_batch = self._loader.batch_size * self._loader.process_count
    return -(-len(self._loader.examples) // per_batch)

  def __iter__(self) -> Iterator[Batch]:
    self.skipped, self.unreadable = 0, {}
    iterator = _start(self._loader, len(self), self._threads, workers=0)
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
  return TrainBatches(loader, _threads(threads), workers)


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
  return EvalBatches(loader, _threads(threads))


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


def _threads(threads: int | None) -> int:
  return machine.cores() if threads is None else threads


def _start(loader: TrainLoader | EvalLoader, batches: int, threads: int, workers: int) -> Any:
  """Grain's iterator over batches 0, 1, ...; each thread makes whole batches, a few ahead."""
  import grain

  ahead = threads + 1 if threads else 0
  options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=ahead)
  dataset = grain.MapDataset.range(batches).map(loader).to_iter_dataset(options)
  if workers:
    _make_grain_flags_readable()
    dataset = dataset.mp_prefetch(grain.MultiprocessingOptions(num_workers=workers))
  return iter(dataset)


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
