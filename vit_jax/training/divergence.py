"""The step that was not finite: its state and batch are kept in the workdir, to be run again.

They lie in `diverged/`: the state before the step as a checkpoint, and for each process the batch
that it gave. `training/replay.py` reads them.
"""

import contextlib
import dataclasses
import logging
import pathlib
import re
import shutil
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from vit_jax import processes
from vit_jax.checkpoint import Checkpointer, Saved, has_checkpoint
from vit_jax.errors import CheckpointError, StorageError, UserError
from vit_jax.files import make_folder, replacing, writing
from vit_jax.report.text import size as size_text
from vit_jax.training.train_state import TrainState, to_checkpoint

log = logging.getLogger(__name__)

FOLDER = 'diverged'
_OPTION = 'config.checkpoint.diverged_gib'


@dataclasses.dataclass(frozen=True)
class Kept:
  """A step that was not finite.

  Attributes:
    step: its number, from 1.
    saved: the state before it.
    batch: this process's arrays [b, ...], with 'index' of each example, as the step got them.
  """

  step: int
  saved: Saved
  batch: dict[str, np.ndarray]


def keep(
  workdir: pathlib.Path,
  state: TrainState,
  batch: Mapping[str, np.ndarray],
  meta: Mapping[str, Any],
  limit_gib: float,
) -> bool:
  """Keeps what a step was made of; where that fails, a warning says why.

  Args:
    workdir: the run's folder.
    state: before the step, one copy.
    batch: this process's share.
    meta: as of `Checkpointer.save`.
    limit_gib: most that state and batch may take, in GiB.

  Returns:
    Whether they are kept.
  """
  step, folder = int(state.step) + 1, workdir / FOLDER
  items = to_checkpoint(state)
  size = sum(x.nbytes for x in jax.tree.leaves((*items, dict(batch))))
  if size > limit_gib * 2**30:
    if limit_gib:
      log.warning(
        'state and batch of step %d take %s, more than %s=%g allows, and are not kept', step,
        size_text(size), _OPTION, limit_gib,
      )  # fmt: skip
    return False
  try:
    processes.agreed(lambda: _make_room(folder, step, size))
    with replacing(_batch_file(folder, step)) as temporary, open(temporary, 'wb') as f:
      np.savez(f, allow_pickle=False, **batch)
    with contextlib.closing(Checkpointer(folder, 1, '', 'max')) as saver:
      saver.save(step - 1, *items, {**meta, 'parts': processes.count()}, {})
      saver.wait()
  except (UserError, OSError) as e:
    log.warning('state and batch of step %d are not kept: %s', step, e)
    if processes.index() == 0:
      shutil.rmtree(folder, ignore_errors=True)
    return False
  return True


def _make_room(folder: pathlib.Path, step: int, size: int) -> None:
  make_folder(folder)
  with writing(folder):
    _remove_others(folder, step)
    free = shutil.disk_usage(folder).free
  if free < size:
    raise StorageError(f'{folder} has {size_text(free)} free, and they take {size_text(size)}')


def read(workdir: pathlib.Path) -> Kept:
  """What `keep` has kept.

  Raises:
    CheckpointError: nothing, or it is damaged.
  """
  folder = workdir / FOLDER
  if not has_checkpoint(folder):
    raise CheckpointError(
      f'{folder} holds no step to replay: one is kept when a loss, gradient or update is not finite'
    )
  with contextlib.closing(Checkpointer(folder, 1, '', 'max')) as saver:
    saved = saver.read_newest()
  step = saved.step + 1
  parts = sorted(folder.glob(f'batch-{step}-*.npz'), key=_process)
  if len(parts) != saved.meta.get('parts', 1):
    raise CheckpointError(f'{folder} has lost the batch of step {step}, or a part of it')
  found: list[dict[str, np.ndarray]] = []
  for part in parts:
    try:
      with np.load(part, allow_pickle=False) as arrays:
        found.append(dict(arrays))
    except Exception as e:  # whatever a damaged archive makes its reader trip over
      raise CheckpointError(f'{part} is damaged ({" ".join(str(e).split())[:120]})') from e
  whole = {name: np.concatenate([part[name] for part in found]) for name in found[0]}
  return Kept(step, saved, whole)


def _batch_file(folder: pathlib.Path, step: int) -> pathlib.Path:
  return folder / f'batch-{step}-{processes.index()}.npz'


def _process(file: pathlib.Path) -> int:
  number = re.search(r'(\d+)\.npz$', file.name)
  return int(number[1]) if number else 0


def _remove_others(folder: pathlib.Path, step: int) -> None:
  """Removes what was kept of other steps."""
  for file in folder.glob(f'batch-*-{processes.index()}.npz'):
    if file != _batch_file(folder, step):
      file.unlink(missing_ok=True)
  for old in (folder / 'checkpoints').glob('*'):
    if old.name != str(step - 1) and processes.index() == 0:
      shutil.rmtree(old, ignore_errors=True)
