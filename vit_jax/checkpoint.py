"""Checkpoints: all that a run needs to be resumed, or its model to be used, in one atomic unit.

A checkpoint holds 'variables' (what the model is used with: their EMA where there is one),
'training' (step, optimizer state, the variables behind an EMA) and 'meta' (data position, config,
classes, preprocessing, metrics): nothing that loads one needs flags.

Beside them lies a list of the files with their checksums, by which whoever reads a checkpoint
verifies what it reads: a damaged one is named, and the one before is taken. Version 0.1 wrote no
such list; its checkpoints are read as they are.
"""

import contextlib
import dataclasses
import itertools
import json
import logging
import pathlib
import shutil
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from orbax.checkpoint import checkpoint_managers

from vit_jax import checksums
from vit_jax.errors import CheckpointError, StorageError

log = logging.getLogger(__name__)

# Grows when a reader of the version before could not make sense of what is written.
FORMAT_VERSION = 1

_ITEMS = ('variables', 'training', 'meta')
# What every reader needs of 'meta'.
_NEEDED = ('config', 'model', 'classes', 'preprocess', 'metrics')
# A checkpoint's files beside its arrays, with room to spare.
_FILES_BYTES = 4 << 20


class DamagedCheckpointError(CheckpointError):
  """A checkpoint whose files are not what was written; another one may be whole."""

  code = 'damaged'


@dataclasses.dataclass(frozen=True)
class Run:
  """What a run saved, for anything that uses its model.

  Attributes:
    variables: numpy arrays: 'params' and the model's other collections.
    config: the run's options, as nested dictionaries; 'model' with all that its weights fixed.
    classes: names by index.
    preprocess: as `Preprocess.to_json` gives it.
    step: updates made when it was saved.
    metrics: validation metrics then, empty if there were none.
  """

  variables: dict
  config: dict
  classes: tuple[str, ...]
  preprocess: dict
  step: int
  metrics: dict[str, float]


class Checkpointer:
  """Writes checkpoints in the background and reads the newest that is whole.

  Args:
    workdir: the run's folder; checkpoints go to its `checkpoints/`.
    keep: how many of the newest are kept.
    best: validation metric whose best checkpoint is kept too.
    best_mode: 'max' or 'min'.
  """

  def __init__(self, workdir: str | pathlib.Path, keep: int, best: str, best_mode: str):
    self._folder = pathlib.Path(workdir).resolve() / 'checkpoints'
    self._best, self._sign = best, 1.0 if best_mode == 'max' else -1.0
    self._scores: dict[int, float] = {}
    self._manager: ocp.CheckpointManager | None = None
    self._keep, self._in_hand = max(1, keep), 0

  def read_newest(self) -> 'Saved':
    """The newest checkpoint that is whole; damaged ones are set aside under another name.

    Raises:
      CheckpointError: none is whole, which is said of each, and all stay where they are.
    """
    damaged: dict[int, DamagedCheckpointError] = {}
    for step in reversed(_steps(self._folder)):
      try:
        saved = Saved.read(self._folder / str(step))
        break
      except DamagedCheckpointError as e:
        damaged[step] = e
    else:
      reasons = '; '.join(str(e) for e in damaged.values()) or 'there is none'
      raise CheckpointError(f'no checkpoint in {self._folder} can be used: {reasons}')
    for step, error in damaged.items():
      aside = _set_aside(self._folder / str(step))
      log.warning('%s: going on from step %d; it was renamed to %s', error, saved.step, aside.name)
    for step, meta in _read_metas(self._folder)[0].items():
      self._note_score(step, meta)
    return saved

  def latest_step(self) -> int | None:
    """The newest step that was saved, None where none was."""
    return self._open().latest_step()

  def is_best(self, metrics: Mapping[str, float]) -> bool:
    """Whether validation metrics are better than those of every checkpoint there is."""
    if self._best not in metrics:
      return False
    kept = set(self._open().all_steps())
    before = [score for step, score in self._scores.items() if step in kept]
    return not before or self._sign * metrics[self._best] > max(before)

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
      StorageError: there is no room for it, or an earlier one could not be written.
    """
    if step in self._open().all_steps():
      return
    self.wait()
    meta = {
      **meta,
      'format_version': FORMAT_VERSION,
      'step': step,
      'metrics': metrics,
    }
    self._note_score(step, meta)
    self._in_hand = step
    with self._writing():
      self._check_room(step, sum(x.nbytes for x in jax.tree.leaves((variables, training))))
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

  def _open(self) -> ocp.CheckpointManager:
    """Orbax's manager, which is opened once damaged checkpoints are set aside."""
    if self._manager is None:
      policies = [checkpoint_managers.LatestN(self._keep), _Best(self._scores)]
      self._manager = ocp.CheckpointManager(
        self._folder,
        options=ocp.CheckpointManagerOptions(
          preservation_policy=checkpoint_managers.AnyPreservationPolicy(policies),
          enable_async_checkpointing=True,
          async_options=ocp.AsyncOptions(post_finalization_callback=self._write_checksums),
        ),
        item_names=_ITEMS,
      )
    return self._manager

  def _write_checksums(self) -> None:
    """Lists the files of the checkpoint in hand; called before it gets its name."""
    if jax.process_index() == 0:
      for folder in self._folder.iterdir():
        if folder.name.split('.')[0] == str(self._in_hand):  # '6.orbax-checkpoint-tmp', say
          checksums.write(folder)

  def _note_score(self, step: int, meta: Mapping[str, Any]) -> None:
    value = meta['metrics'].get(self._best)
    if value is not None:
      self._scores[step] = self._sign * value

  def _check_room(self, step: int, nbytes: int) -> None:
    """Refuses to begin what cannot be ended, and warns one checkpoint ahead."""
    need, free = nbytes + _FILES_BYTES, shutil.disk_usage(self._folder).free
    if free < need:
      raise StorageError(
        f'no room for the checkpoint of step {step}: {self._folder} has {free >> 20} MiB free and '
        f'it takes {need >> 20}; {self._safe()}'
      )
    if free < 2 * need:
      log.warning('%s has room for one more checkpoint (%d MiB)', self._folder, need >> 20)

  def _safe(self) -> str:
    steps = _steps(self._folder)
    if not steps:
      return 'none was saved before'
    return f'the checkpoint of step {steps[-1]} is safe, and the same command resumes from it'

  @contextlib.contextmanager
  def _writing(self) -> Iterator[None]:
    """Turns what the background writer raises into one line."""
    try:
      yield
    except (OSError, ValueError, RuntimeError) as e:
      reason = ' '.join(str(e).split())[:200]
      raise StorageError(
        f'cannot write a checkpoint to {self._folder}: {reason}; {self._safe()}'
      ) from e


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
    meta = _read_meta(folder)
    variables, training = (_read_arrays(folder, item) for item in ('variables', 'training'))
    return cls(int(folder.name), meta, _by_path(variables), _by_path(training))

  def fit(self, variables: dict, training: dict) -> tuple[dict, dict]:
    """The arrays as trees of the given structures.

    Args:
      variables, training: their structure, of arrays or shapes.

    Raises:
      CheckpointError: the checkpoint holds another model's or optimizer's state.
    """
    return self._fit(self.variables, variables), self._fit(self.training, training)

  def _fit(self, found: Mapping[str, np.ndarray], wanted: dict) -> dict:
    named = _by_path(wanted)
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


class _Best:
  """Orbax's preservation policy for the best checkpoint, the newest of those that are equal.

  Args:
    scores: by step, higher is better; grows as the run does.
  """

  def __init__(self, scores: Mapping[int, float]):
    self._scores = scores

  def should_preserve(self, checkpoints: Sequence[Any], *, context: Any) -> list[bool]:
    """Which checkpoints are kept, in the order given."""
    scored = [(self._scores[c.step], c.step) for c in checkpoints if c.step in self._scores]
    best = max(scored)[1] if scored else None
    return [c.step == best for c in checkpoints]


def has_checkpoint(workdir: pathlib.Path) -> bool:
  """Whether a run in this folder has saved anything that it can be resumed from."""
  return bool(_steps(workdir / 'checkpoints'))


def is_run(path: str) -> bool:
  """Whether a folder is a run's workdir, or its `checkpoints/`, or one checkpoint in it."""
  return _locate(pathlib.Path(path)) is not None


def load_run(path: str, which: str = 'best') -> Run:
  """What a run saved, without needing to know its model.

  A damaged checkpoint is passed over with a warning, unless it is the one that was asked for.

  Args:
    path: a workdir, its `checkpoints` folder or one checkpoint in that.
    which: 'best' by the run's validation metric (the newest where it has none), 'last' or a step.

  Raises:
    CheckpointError: where there is no complete checkpoint.
  """
  located = _locate(pathlib.Path(path))
  if located is None:
    raise CheckpointError(f'{path} holds no checkpoint of a run')
  folder, named = located
  which = which if named is None else str(named)
  metas, damaged = _read_metas(folder)
  while metas:
    step = _choose(metas, which, damaged, folder)
    meta = metas.pop(step)
    try:
      variables = _read_arrays(folder / str(step), 'variables')
    except DamagedCheckpointError as e:
      damaged[step] = e
      continue
    for error in damaged.values():
      log.warning('%s: step %d is used', error, step)
    return Run(
      variables=variables,
      config={**meta['config'], 'model': meta['model']},
      classes=tuple(meta['classes']),
      preprocess=meta['preprocess'],
      step=step,
      metrics=meta['metrics'],
    )
  if not damaged:
    raise CheckpointError(f'{folder} holds no complete checkpoint')
  raise CheckpointError(
    f'no checkpoint in {folder} can be used: ' + '; '.join(map(str, damaged.values()))
  )


def chosen_step(path: str, which: str = 'best') -> int:
  """The step whose weights `load_run` reads; it takes and raises the same."""
  return load_run(path, which).step


def _read_metas(
  folder: pathlib.Path,
) -> tuple[dict[int, dict[str, Any]], dict[int, DamagedCheckpointError]]:
  """The metadata of every checkpoint, and what is wrong with the others."""
  metas, damaged = {}, {}
  for step in _steps(folder):
    try:
      metas[step] = _read_meta(folder / str(step))
    except DamagedCheckpointError as e:
      if (folder / str(step)).is_dir():  # else the run has just removed it
        damaged[step] = e
  return metas, damaged


def _choose(
  metas: Mapping[int, dict], which: str, damaged: Mapping[int, Exception], folder: pathlib.Path
) -> int:
  last = max(metas)
  if which == 'last':
    return last
  if which == 'best':
    kept = metas[last]['config']['checkpoint']
    scored = {
      s: m['metrics'][kept['best']] for s, m in metas.items() if kept['best'] in m['metrics']
    }
    if not scored:
      return last
    pick = max if kept['best_mode'] == 'max' else min
    best = pick(scored.values())
    return max(s for s, value in scored.items() if value == best)
  if which.isdigit() and int(which) in damaged:
    raise damaged[int(which)]
  if not which.isdigit() or int(which) not in metas:
    raise CheckpointError(f'{folder} has no checkpoint {which!r}: it has {sorted(metas)}')
  return int(which)


def _locate(path: pathlib.Path) -> tuple[pathlib.Path, int | None] | None:
  """The checkpoints folder a path means, and the step if it names one."""
  if (path / 'checkpoints').is_dir():
    return path / 'checkpoints', None
  if path.name == 'checkpoints' and path.is_dir():
    return path, None
  if path.parent.name == 'checkpoints' and path.name.isdigit() and path.is_dir():
    return path.parent, int(path.name)
  return None


def _steps(folder: pathlib.Path) -> list[int]:
  """The steps that a checkpoints folder has a folder for, in order."""
  if not folder.is_dir():
    return []
  return sorted(int(p.name) for p in folder.iterdir() if p.name.isdecimal() and p.is_dir())


def _set_aside(folder: pathlib.Path) -> pathlib.Path:
  """Renames a damaged checkpoint, so that the run can write this step anew."""
  aside = folder.with_name(f'damaged-{folder.name}')
  for number in itertools.count(2):
    if not aside.exists():
      break
    aside = folder.with_name(f'damaged-{folder.name}-{number}')
  if jax.process_index() == 0:
    try:
      folder.rename(aside)
    except OSError as e:
      raise StorageError(f'cannot rename the damaged checkpoint {folder}: {e.strerror}') from e
  return aside


def _read_meta(folder: pathlib.Path) -> dict[str, Any]:
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
  lacking = [name for name in (*_NEEDED, 'step') if name not in meta]
  if lacking:
    raise DamagedCheckpointError(
      f'{folder} is damaged or was written by another program ({path.name} lacks '
      f'{", ".join(lacking)})'
    )
  if meta['step'] != int(folder.name):
    raise DamagedCheckpointError(f'{folder} holds step {meta["step"]}: it was renamed')
  return meta


def _read_arrays(folder: pathlib.Path, item: str) -> dict:
  """An item of a checkpoint as a tree of numpy arrays, verified."""
  _verify(folder, item)
  try:
    with _quiet_orbax(), ocp.Checkpointer(ocp.StandardCheckpointHandler()) as reader:
      # Numpy targets make orbax restore numpy, whatever devices wrote it. They take no memory.
      wanted = jax.tree.map(_empty, reader.metadata(folder / item).item_metadata.tree)
      return reader.restore(folder / item, args=ocp.args.StandardRestore(wanted))
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
  """Keeps orbax from remarking on every item that it reads."""
  absl = logging.getLogger('absl')
  before = absl.level
  absl.setLevel(logging.ERROR)
  try:
    yield
  finally:
    absl.setLevel(before)


def _by_path(tree: Any) -> dict[str, Any]:
  """{'a/b': leaf}, with the same names whether a container is a dict, a tuple or a named one."""
  leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
  return {jax.tree_util.keystr(path, simple=True, separator='/'): leaf for path, leaf in leaves}


def _shape(x: Any) -> str:
  return 'missing' if x is None else f'{x.dtype}{list(x.shape)}'


def _empty(x: Any) -> np.ndarray:
  return np.broadcast_to(np.zeros((), x.dtype), x.shape)
