"""What a run saved, for anything that uses its model."""

import dataclasses
import logging
import pathlib
from collections.abc import Mapping

from vit_jax.checkpoint.saved import (
  DamagedCheckpointError,
  best_step,
  read_arrays,
  read_metas,
  saved_steps,
)
from vit_jax.errors import CheckpointError

log = logging.getLogger(__name__)


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
    workdir: the run's folder.
  """

  variables: dict
  config: dict
  classes: tuple[str, ...]
  preprocess: dict
  step: int
  metrics: dict[str, float]
  workdir: pathlib.Path


def has_checkpoint(workdir: pathlib.Path) -> bool:
  """Whether a run in this folder has saved anything that it can be resumed from."""
  return bool(saved_steps(workdir / 'checkpoints'))


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
  metas, damaged = read_metas(folder)
  while metas:
    step = _choose(metas, which, damaged, folder)
    meta = metas.pop(step)
    try:
      variables = read_arrays(folder / str(step), 'variables')
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
      workdir=folder.parent,
    )
  if not damaged:
    raise CheckpointError(f'{folder} holds no complete checkpoint')
  raise CheckpointError(
    f'no checkpoint in {folder} can be used: ' + '; '.join(map(str, damaged.values()))
  )


def _choose(
  metas: Mapping[int, dict], which: str, damaged: Mapping[int, Exception], folder: pathlib.Path
) -> int:
  last = max(metas)
  if which == 'last':
    return last
  if which == 'best':
    kept = metas[last]['config'].get('checkpoint')
    options = kept if isinstance(kept, dict) else {}
    metric = str(options.get('best', 'accuracy'))
    scored = {s: m['metrics'][metric] for s, m in metas.items() if metric in m['metrics']}
    best = best_step(scored, str(options.get('best_mode', 'max')))
    return last if best is None else best
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
