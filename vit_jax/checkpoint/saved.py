"""One checkpoint as it lies on disk: read, and verified."""

import contextlib
import dataclasses
import itertools
import json
import logging
import math
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from vit_jax import processes
from vit_jax.checkpoint import checksums
from vit_jax.errors import CheckpointError, StorageError

# Grows when a reader of the version before could not make sense of what is written.
FORMAT_VERSION = 1

ITEMS = ('variables', 'training', 'meta')
# What every reader needs of 'meta', and its types.
_NEEDED = ('config', 'model', 'classes', 'preprocess', 'metrics', 'step')
_TYPES: dict[str, type] = {
  **dict.fromkeys(('config', 'model', 'preprocess', 'metrics', 'data_state', 'watch'), dict),
  'classes': list,
  'step': int,
}


class DamagedCheckpointError(CheckpointError):
  """A checkpoint whose files are not what was written; another one may be whole."""

  code = 'damaged'


@dataclasses.dataclass(frozen=True)
class Saved:
  """One checkpoint, verified.

  Attributes:
    step: updates made when it was saved.
    meta: see `Checkpointer.save`.
    variables: arrays by their path in the tree, joined by '/'.
    training: likewise.
  """

  step: int
  meta: dict[str, Any]
  variables: dict[str, np.ndarray]
  training: dict[str, np.ndarray]

  @classmethod
  def read(cls, folder: pathlib.Path) -> 'Saved':
    """Reads a checkpoint.

    Raises:
      DamagedCheckpointError: its files are not what was written.
    """
    meta = read_meta(folder)
    variables, training = (read_arrays(folder, item) for item in ('variables', 'training'))
    return cls(int(folder.name), meta, by_path(variables), by_path(training))

  def fit(self, variables: dict, training: dict) -> tuple[dict, dict]:
    """The arrays as trees of the given structures.

    Args:
      variables, training: their structure, of arrays or shapes.

    Raises:
      CheckpointError: the checkpoint holds another model's or optimizer's state.
    """
    return self._fit(self.variables, variables), self._fit(self.training, training)

  def _fit(self, found: Mapping[str, np.ndarray], wanted: dict) -> dict:
    named = by_path(wanted)
    odd = [
      f'{name} is {_shape(found.get(name))} and should be {_shape(named.get(name))}'
      for name in sorted(found.keys() | named.keys())
      if _shape(found.get(name)) != _shape(named.get(name))
    ]
    if odd:
      more = f' and {len(odd) - 1} more' if len(odd) > 1 else ''
      raise CheckpointError(
        f'the checkpoint at step {self.step} does not fit this config: {odd[0]}{more}'
      )
    return jax.tree.unflatten(jax.tree.structure(wanted), [found[name] for name in named])


def saved_steps(folder: pathlib.Path) -> list[int]:
  """The steps that a checkpoints folder has a folder for, in order."""
  if not folder.is_dir():
    return []
  return sorted(int(p.name) for p in folder.iterdir() if p.name.isdecimal() and p.is_dir())


def best_step(scores: Mapping[int, float], mode: str) -> int | None:
  """Which step is the best by its score, of equal ones the newest; None where no score is a number.

  Args:
    scores: by step.
    mode: 'max' or 'min'.
  """
  sign = 1.0 if mode == 'max' else -1.0
  found = [(sign * score, step) for step, score in scores.items() if not math.isnan(score)]
  return max(found)[1] if found else None


def read_metas(
  folder: pathlib.Path,
) -> tuple[dict[int, dict[str, Any]], dict[int, DamagedCheckpointError]]:
  """The metadata of every checkpoint, and what is wrong with the others."""
  metas, damaged = {}, {}
  for step in saved_steps(folder):
    try:
      metas[step] = read_meta(folder / str(step))
    except DamagedCheckpointError as e:
      if (folder / str(step)).is_dir():  # else the run has just removed it
        damaged[step] = e
  return metas, damaged


def set_aside(folder: pathlib.Path) -> pathlib.Path:
  """Renames a damaged checkpoint, so that the run can write this step anew."""
  aside = folder.with_name(f'damaged-{folder.name}')
  for number in itertools.count(2):
    if not aside.exists():
      break
    aside = folder.with_name(f'damaged-{folder.name}-{number}')
  try:
    folder.rename(aside)
  except OSError as e:
    raise StorageError(f'cannot rename the damaged checkpoint {folder}: {e.strerror}') from e
  return aside


def read_meta(folder: pathlib.Path) -> dict[str, Any]:
  """The metadata of a checkpoint, verified."""
  _verify(folder, 'meta')
  path = folder / 'meta' / 'metadata'
  try:
    meta = json.loads(path.read_text('utf-8'))
  except (OSError, ValueError, RecursionError) as e:
    reason = e.strerror if isinstance(e, OSError) else 'it is no JSON'
    raise DamagedCheckpointError(f'{folder} is damaged ({path.name}: {reason})') from e
  if not isinstance(meta, dict):
    raise DamagedCheckpointError(f'{folder} is damaged ({path.name} is no JSON object)')
  version = meta.get('format_version')
  if isinstance(version, int) and version > FORMAT_VERSION:
    raise CheckpointError(
      f'{folder} has format {version}, of a newer version than this one, which reads '
      f'{FORMAT_VERSION}: update vit_jax'
    )
  if 'format_version' in meta and not (folder / checksums.FILE).exists():
    raise DamagedCheckpointError(f'{folder} is damaged ({checksums.FILE} is missing)')
  lacking = [name for name in _NEEDED if name not in meta]
  wrong = [name for name, kind in _TYPES.items() if not isinstance(meta.get(name, kind()), kind)]
  if lacking or wrong:
    what = f'lacks {", ".join(lacking)}' if lacking else f'has no valid {", ".join(wrong)}'
    raise DamagedCheckpointError(
      f'{folder} is damaged or was written by another program ({path.name} {what})'
    )
  if meta['step'] != int(folder.name):
    raise DamagedCheckpointError(f'{folder} holds step {meta["step"]}: it was renamed')
  return meta


def read_arrays(folder: pathlib.Path, item: str) -> dict:
  """An item of a checkpoint as a tree of numpy arrays, verified; each process reads by itself."""
  _verify(folder, item)
  jax.devices()  # orbax asks for them, and that there are none is no damage
  alone = ocp.options.MultiprocessingOptions(
    primary_host=processes.index(), active_processes={processes.index()}
  )
  try:
    handler = ocp.StandardCheckpointHandler(multiprocessing_options=alone)
    with _quiet_orbax(), ocp.Checkpointer(handler, multiprocessing_options=alone) as reader:
      # Numpy targets make orbax restore numpy, whatever devices wrote it. They take no memory.
      path = (folder / item).absolute()  # orbax reads no other
      wanted = jax.tree.map(_empty, reader.metadata(path).item_metadata.tree)
      return reader.restore(path, args=ocp.args.StandardRestore(wanted))
  except Exception as e:  # whatever a damaged file without a checksum makes the reader trip over
    reason = ' '.join(str(e).split())[:120] or type(e).__name__
    raise DamagedCheckpointError(f'{folder} is damaged ({item}: {reason})') from e


def _verify(folder: pathlib.Path, item: str) -> None:
  """Refuses an item whose files are not those that were written."""
  problem = checksums.find_damage(folder, f'{item}/')
  if problem:
    raise DamagedCheckpointError(f'{folder} is damaged ({problem})')


@contextlib.contextmanager
def _quiet_orbax() -> Iterator[None]:
  """Keeps orbax from remarking on every item that it reads, and on what it raises."""
  absl = logging.getLogger('absl')
  before = absl.level
  absl.setLevel(logging.CRITICAL)
  try:
    yield
  finally:
    absl.setLevel(before)


def by_path(tree: Any) -> dict[str, Any]:
  """{'a/b': leaf}, with the same names whether a container is a dict, a tuple or a named one."""
  leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
  return {jax.tree_util.keystr(path, simple=True, separator='/'): leaf for path, leaf in leaves}


def _shape(x: Any) -> str:
  return 'missing' if x is None else f'{x.dtype}{list(x.shape)}'


def _empty(x: Any) -> np.ndarray:
  return np.broadcast_to(np.zeros((), x.dtype), x.shape)
