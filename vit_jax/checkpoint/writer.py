"""Writing checkpoints in the background, and resuming from the newest."""

import contextlib
import logging
import os
import pathlib
import re
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import orbax.checkpoint as ocp
from orbax.checkpoint import checkpoint_managers

from vit_jax import processes
from vit_jax.checkpoint import checksums
from vit_jax.checkpoint.leftovers import Leftovers
from vit_jax.checkpoint.saved import (
  FORMAT_VERSION,
  ITEMS,
  DamagedCheckpointError,
  Saved,
  best_step,
  read_metas,
  saved_steps,
  set_aside,
)
from vit_jax.errors import CheckpointError, StorageError

log = logging.getLogger(__name__)

# A checkpoint's files beside its arrays, with room to spare.
_FILES_BYTES = 4 << 20


class Checkpointer:
  """Writes checkpoints in the background and reads the newest that is whole.

  Args:
    workdir: the run's folder; checkpoints go to its `checkpoints/`.
    keep: how many of the newest are kept.
    best: validation metric whose best checkpoint is kept too.
    best_mode: 'max' or 'min'.

  Attributes:
    in_hand: step of the checkpoint that was begun last; 0 before.
    seconds: from the start of a save until all of it was on disk, the longest so far.
  """

  def __init__(self, workdir: str | pathlib.Path, keep: int, best: str, best_mode: str):
    self._folder = pathlib.Path(workdir).resolve() / 'checkpoints'
    self._best, self._mode = best, best_mode
    self._scores: dict[int, float] = {}
    self._manager: ocp.CheckpointManager | None = None
    self._keep, self.in_hand = max(1, keep), 0
    self._failed = False
    self._began = 0.0
    self.seconds = 0.0
    self._leftovers = Leftovers()

  def read_newest(self) -> Saved:
    """The newest checkpoint that is whole; damaged ones are set aside under another name.

    Of several processes the first decides which it is, and all read it.

    Raises:
      CheckpointError: none is whole, which is said of each, and all stay where they are.
    """
    saved = processes.chosen(
      self._newest_whole,
      lambda saved: saved.step,
      lambda step: Saved.read(self._folder / str(step)),
    )
    for step, metrics in processes.agreed(self._saved_metrics):
      self._note_score(step, metrics)
    return saved

  def _saved_metrics(self) -> list[tuple[int, dict[str, float]]]:
    metas, _ = read_metas(self._folder)
    return [(step, meta['metrics']) for step, meta in metas.items()]

  def _newest_whole(self) -> Saved:
    damaged: dict[int, DamagedCheckpointError] = {}
    for step in reversed(saved_steps(self._folder)):
      try:
        saved = Saved.read(self._folder / str(step))
        break
      except DamagedCheckpointError as e:
        damaged[step] = e
    else:
      reasons = '; '.join(str(e) for e in damaged.values()) or 'there is none'
      raise CheckpointError(f'no checkpoint in {self._folder} can be used: {reasons}')
    for step, error in damaged.items():
      aside = set_aside(self._folder / str(step))
      log.warning('%s: resuming from step %d; it was renamed to %s', error, saved.step, aside.name)
    return saved

  def latest_step(self) -> int | None:
    """The newest step that was saved, None where none was."""
    return self._open().latest_step()

  def is_best(self, step: int, metrics: Mapping[str, float]) -> bool:
    """Whether a checkpoint of a step with these validation metrics would be the best there is."""
    if self._best not in metrics:
      return False
    kept = set(self._open().all_steps())
    before = {s: score for s, score in self._scores.items() if s in kept}
    return best_step({**before, step: metrics[self._best]}, self._mode) == step

  def save(
    self, step: int, variables: dict, training: dict, meta: dict, metrics: dict[str, float]
  ) -> None:
    """Begins to write a checkpoint; arrays are copied before it returns.

    Args:
      step: updates made so far; a checkpoint that exists is not written again.
      variables: what a model is used with.
      training: what resuming needs besides.
      meta: JSON-able: 'data_state', 'config', 'model', 'classes', 'preprocess'.
      metrics: validation metrics at this step, or empty.

    Raises:
      StorageError: there is no room for it, or one before could not be written.
    """
    self.wait()
    if step in self._open().all_steps():
      return
    meta = {
      **meta,
      'format_version': FORMAT_VERSION,
      'step': step,
      'metrics': metrics,
    }
    self._note_score(step, metrics)
    self.in_hand, self._began = step, time.monotonic()
    nbytes = sum(x.nbytes for x in jax.tree.leaves((variables, training)))
    processes.agreed(lambda: self._check_room(step, nbytes))
    with self._writing():
      self._open().save(
        step,
        args=ocp.args.Composite(
          variables=ocp.args.StandardSave(variables),
          training=ocp.args.StandardSave(training),
          meta=ocp.args.JsonSave(meta),
        ),
      )

  def wait(self) -> None:
    """Returns when every checkpoint begun is on disk.

    Raises:
      StorageError: one could not be written.
    """
    if self._manager is not None:
      with self._writing():
        self._manager.wait_until_finished()

  def close(self) -> None:
    """Ends the background writer; what it could not write was said by `wait`."""
    if self._manager is not None:
      with contextlib.suppress(Exception):
        self._manager.close()
    if not self._failed:
      self._leftovers.release()

  @contextlib.contextmanager
  def saying_what_is_safe(self) -> Iterator[None]:
    """Adds to a `StorageError` of the block which checkpoint is safe from it."""
    try:
      yield
    except StorageError as e:
      with contextlib.suppress(StorageError):
        self.wait()
      steps = saved_steps(self._folder)
      safe = 'no checkpoint was saved before'
      if steps:
        safe = f'the checkpoint of step {steps[-1]} is safe, and the same command resumes from it'
      raise StorageError(f'{e}; {safe}') from e

  def _open(self) -> ocp.CheckpointManager:
    """Orbax's manager, which is opened once damaged checkpoints are set aside."""
    if self._manager is None:
      self._leftovers.silence()
      policies = [checkpoint_managers.LatestN(self._keep), _Best(self._scores, self._mode)]
      with self._writing():
        self._manager = ocp.CheckpointManager(
          self._folder,
          options=ocp.CheckpointManagerOptions(
            preservation_policy=checkpoint_managers.AnyPreservationPolicy(policies),
            enable_async_checkpointing=True,
            async_options=ocp.AsyncOptions(
              post_finalization_callback=self._write_checksums,
              # Where one cannot be made, what waits for it would keep the process for ten minutes.
              create_directories_asynchronously=False,
            ),
          ),
          item_names=ITEMS,
        )
    return self._manager

  def _write_checksums(self) -> None:
    """Lists the files of the checkpoint in hand; called before it gets its name."""
    if processes.index() == 0:
      for folder in self._folder.iterdir():
        if folder.name.split('.')[0] == str(self.in_hand):  # '6.orbax-checkpoint-tmp', say
          checksums.write(folder)
    self.seconds = max(self.seconds, time.monotonic() - self._began)

  def _note_score(self, step: int, metrics: Mapping[str, float]) -> None:
    value = metrics.get(self._best)
    if value is not None:
      self._scores[step] = value

  def _check_room(self, step: int, nbytes: int) -> None:
    """Refuses to begin what cannot be ended, and warns one checkpoint ahead."""
    with self._writing():
      need, free = nbytes + _FILES_BYTES, shutil.disk_usage(self._folder).free
    if free < need:
      raise StorageError(
        f'no room for the checkpoint of step {step}: {self._folder} has {free >> 20} MiB free and '
        f'it takes {need >> 20}'
      )
    if free < 2 * need:
      log.warning('%s has room for one more checkpoint (%d MiB)', self._folder, need >> 20)

  @contextlib.contextmanager
  def _writing(self) -> Iterator[None]:
    """Turns what orbax and its threads raise into one line."""
    try:
      yield
    except Exception as e:
      self._failed = True
      raise StorageError(f'cannot write a checkpoint to {self._folder}: {_reason(e)}') from e


def _reason(error: Exception) -> str:
  """The system's reason of an error of Python's or of tensorstore's, which names files first."""
  if isinstance(error, OSError) and error.strerror:
    return error.strerror
  text = ' '.join(str(error).split())
  number = re.search(r"os_error_code='(\d+)'", text)
  return os.strerror(int(number[1])) if number else text[:200]


class _Best:
  """Orbax's preservation policy for the best checkpoint.

  Args:
    scores: by step; grows as the run does.
    mode: 'max' or 'min'.
  """

  def __init__(self, scores: Mapping[int, float], mode: str):
    self._scores, self._mode = scores, mode

  def should_preserve(self, checkpoints: Sequence[Any], *, context: Any) -> list[bool]:
    """Which checkpoints are kept, in the order given."""
    scored = {c.step: self._scores[c.step] for c in checkpoints if c.step in self._scores}
    best = best_step(scored, self._mode)
    return [c.step == best for c in checkpoints]
