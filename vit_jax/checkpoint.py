"""Checkpoints: all that a run needs to be resumed, or its model to be used, in one atomic unit.

A checkpoint holds 'variables' (what the model is used with: their EMA where there is one),
'training' (step, optimizer state, the variables behind an EMA) and 'meta' (data position, config,
classes, preprocessing, metrics): nothing that loads one needs flags.
"""

import contextlib
import dataclasses
import logging
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from orbax.checkpoint import checkpoint_managers

from vit_jax.errors import CheckpointError

logging.getLogger('absl').setLevel(logging.ERROR)  # orbax tells every step of every save

# Types of the metadata that are read again.
_META: dict[str, type] = {
  **dict.fromkeys(('config', 'model', 'preprocess', 'metrics', 'data_state', 'watch'), dict),
  'classes': list,
}
# What orbax raises for a file that is missing, cut short, or of another structure.
_UNREADABLE = (ValueError, KeyError, TypeError, OSError, AttributeError)


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
  """Writes checkpoints in the background and restores the newest.

  Args:
    workdir: the run's folder; checkpoints go to its `checkpoints/`.
    keep: how many of the newest are kept.
    best: validation metric whose best checkpoint is kept too.
    best_mode: 'max' or 'min'.
  """

  def __init__(self, workdir: str | pathlib.Path, keep: int, best: str, best_mode: str):
    sign = 1.0 if best_mode == 'max' else -1.0

    def score(metrics: Mapping[str, float]) -> float:
      return sign * metrics.get(best, -sign * np.inf)

    self._best, self._score = best, score
    self._folder = pathlib.Path(workdir).resolve() / 'checkpoints'

    policies = [
      checkpoint_managers.LatestN(max(1, keep)),
      checkpoint_managers.BestN(get_metric_fn=score, n=1, keep_checkpoints_without_metrics=False),
    ]
    self._manager = ocp.CheckpointManager(
      self._folder,
      options=ocp.CheckpointManagerOptions(
        preservation_policy=checkpoint_managers.AnyPreservationPolicy(policies),
        best_fn=score,
        best_mode='max',
        enable_async_checkpointing=True,
      ),
      item_names=('variables', 'training', 'meta'),
    )

  def latest_step(self) -> int | None:
    """The newest step that was saved, None where none was."""
    return self._manager.latest_step()

  def is_best(self, metrics: Mapping[str, float]) -> bool:
    """Whether validation metrics are better than those of every checkpoint there is."""
    if self._best not in metrics:
      return False
    step = self._manager.best_step()
    before = self._manager.metrics(step) if step is not None else None
    return before is None or self._score(metrics) > self._score(before)

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
    """
    if step in self._manager.all_steps():
      return
    self._manager.save(
      step,
      args=ocp.args.Composite(
        variables=ocp.args.StandardSave(variables),
        training=ocp.args.StandardSave(training),
        meta=ocp.args.JsonSave({**meta, 'step': step, 'metrics': metrics}),
      ),
      metrics=metrics or None,
    )

  def latest_meta(self) -> dict:
    """The metadata of the newest checkpoint; see `save`."""
    step = self.latest_step()
    assert step is not None
    meta = _meta(self._manager, self._folder, step)
    _refuse_lacking(meta, {'config', 'classes', 'data_state', 'watch'}, self._folder / str(step))
    return meta

  def restore(self, variables: dict, training: dict) -> tuple[dict, dict]:
    """The newest checkpoint's variables and training state, as numpy arrays.

    Args:
      variables, training: their structure, of arrays or shapes.

    Raises:
      CheckpointError: the checkpoint holds another model's or optimizer's state.
    """
    step = self.latest_step()
    assert step is not None
    try:
      found = self._manager.restore(
        step,
        args=ocp.args.Composite(
          variables=ocp.args.StandardRestore(jax.tree.map(_empty, variables)),
          training=ocp.args.StandardRestore(jax.tree.map(_empty, training)),
        ),
      )
    except _UNREADABLE as e:
      with _undamaged(self._folder, step):  # by itself, whatever this config expects of it
        _restored(self._manager, step, 'variables')
        _restored(self._manager, step, 'training')
      reason = ' '.join(str(e).split())[:300]
      raise CheckpointError(
        f'the checkpoint at step {step} does not fit this config: {reason}'
      ) from e
    return found.variables, found.training

  def wait(self) -> None:
    """Returns when every checkpoint begun is on disk."""
    self._manager.wait_until_finished()

  def close(self) -> None:
    self._manager.close()


@contextlib.contextmanager
def _undamaged(folder: pathlib.Path, step: int) -> Iterator[None]:
  """Says of a checkpoint that cannot be read in the block that it is damaged."""
  try:
    yield
  except _UNREADABLE as e:
    others = [p for p in folder.iterdir() if p.name.isdigit() and p.name != str(step)]
    rest = f'continue from step {max(int(p.name) for p in others)}' if others else 'start anew'
    raise CheckpointError(
      f'the checkpoint {folder / str(step)} is damaged, as by a power cut or a full disk while it '
      f'was written: remove that folder to {rest}'
    ) from e


def _restored(manager: ocp.CheckpointManager, step: int, item: str) -> Any:
  """One item of a checkpoint in its own structure, as numpy arrays."""
  structure = manager.item_metadata(step)[item]
  restore = ocp.args.StandardRestore(jax.tree.map(_empty, structure))
  return manager.restore(step, args=ocp.args.Composite(**{item: restore}))[item]


def _meta(manager: ocp.CheckpointManager, folder: pathlib.Path, step: int) -> dict:
  with _undamaged(folder, step):
    meta = manager.restore(step, args=ocp.args.Composite(meta=ocp.args.JsonRestore())).meta
    wrong = [k for k, kind in _META.items() if not isinstance(meta.get(k, kind()), kind)]
    if wrong:
      raise ValueError(f'{", ".join(wrong)} in its metadata')
    return meta


def _empty(x: Any) -> np.ndarray:
  # A numpy target makes orbax restore numpy, whatever devices wrote the checkpoint. No memory.
  return np.broadcast_to(np.zeros((), x.dtype), x.shape)


def has_checkpoint(workdir: pathlib.Path) -> bool:
  """Whether a run in this folder has saved anything that it can be resumed from."""
  folder = workdir / 'checkpoints'
  return folder.is_dir() and any(p.name.isdigit() and p.is_dir() for p in folder.iterdir())


def is_run(path: str) -> bool:
  """Whether a folder is a run's workdir, or its `checkpoints/`, or one checkpoint in it."""
  return _locate(pathlib.Path(path)) is not None


def load_run(path: str, which: str = 'best') -> Run:
  """What a run saved, without needing to know its model.

  Args:
    path: a workdir, its `checkpoints` folder or one checkpoint in that.
    which: 'best' by the run's validation metric (the newest where it has none), 'last' or a step.

  Raises:
    CheckpointError: where there is no complete checkpoint.
  """
  with _opened(path, which) as (manager, step, meta), _undamaged(_located(path)[0], step):
    variables = _restored(manager, step, 'variables')
  return Run(
    variables=variables,
    config={**meta['config'], 'model': meta['model']},
    classes=tuple(meta['classes']),
    preprocess=meta['preprocess'],
    step=step,
    metrics=meta['metrics'],
  )


def chosen_step(path: str, which: str = 'best') -> int:
  """The step whose weights `load_run` reads, without reading them; it takes and raises the same."""
  with _opened(path, which) as (_, step, _):
    return step


@contextlib.contextmanager
def _opened(path: str, which: str) -> Iterator[tuple[ocp.CheckpointManager, int, dict]]:
  """A run's checkpoints, the chosen step, and its metadata."""
  folder, named = _located(path)
  with ocp.CheckpointManager(
    folder.resolve(), item_names=('variables', 'meta', 'training', 'metrics')
  ) as manager:
    steps = sorted(manager.all_steps())
    if not steps:
      raise CheckpointError(f'{folder} holds no complete checkpoint')
    metas = {s: _meta(manager, folder, s) for s in steps}
    step = _choose(metas, which if named is None else str(named), folder)
    needed = {'config', 'model', 'classes', 'preprocess', 'metrics'}
    _refuse_lacking(metas[step], needed, folder / str(step))
    yield manager, step, metas[step]


def _located(path: str) -> tuple[pathlib.Path, int | None]:
  """As `_locate`, or a `CheckpointError`."""
  located = _locate(pathlib.Path(path))
  if located is None:
    raise CheckpointError(f'{path} holds no checkpoint of a run')
  return located


def _refuse_lacking(meta: dict, needed: set[str], path: pathlib.Path) -> None:
  if lacking := needed - meta.keys():
    raise CheckpointError(
      f'checkpoint {path} lacks {", ".join(sorted(lacking))}: it was written by another program'
    )


def _choose(metas: dict[int, dict], which: str, folder: pathlib.Path) -> int:
  last = max(metas)
  if which == 'last':
    return last
  if which == 'best':
    config = metas[last].get('config')
    kept = config.get('checkpoint') if isinstance(config, Mapping) else None
    options: Mapping = kept if isinstance(kept, Mapping) else {}
    metric = str(options.get('best', 'accuracy'))
    scored = {s: m['metrics'][metric] for s, m in metas.items() if metric in m.get('metrics', {})}
    if not scored:
      return last
    pick = min if options.get('best_mode') == 'min' else max
    best = pick(scored.values())
    return max(s for s, value in scored.items() if value == best)
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
