"""Where a run starts: from its newest checkpoint, or from the weights that its config names."""

import dataclasses
import logging
import os
import pathlib
import tempfile
from collections.abc import Callable, Mapping
from typing import Any

from vit_jax import machine, processes, remote
from vit_jax.checkpoint import Checkpointer, Saved, read_metas
from vit_jax.config import AUTO, Config, get, leaves, parse_saved
from vit_jax.console import phase
from vit_jax.errors import CheckpointError, ConfigError, UserError
from vit_jax.files import read_json, write_json, writing
from vit_jax.options import Length
from vit_jax.training.callbacks import Callbacks
from vit_jax.training.experiment import Experiment
from vit_jax.training.optimization import Optimization
from vit_jax.training.preparation import Plan
from vit_jax.training.train_state import (
  TrainState,
  create,
  from_checkpoint,
  shapes_of,
  to_checkpoint,
)

log = logging.getLogger(__name__)

# Options that may change between two attempts of a run; any other change makes it another run.
_FREE = (
  'total',
  'parallel',
  'mesh.',
  'pretrained_dir',
  'log.',
  'evaluation.',
  'fewshot.',
  'checkpoint.',
  'input.threads',
  'input.workers',
  'input.prefetch_gib',
  'task.teacher_cache',
  'dataset.data_dir',
  'dataset.test',
)


def first_state(plan: Plan, ema: bool) -> tuple[TrainState, str]:
  """The state before the first step of a new run, and what became of each tensor loaded.

  With fsdp it is made in its shards: no device ever holds all of it.

  Args:
    plan: of the run.
    ema: whether there is an EMA of the variables.
  """
  experiment, optimization, placement = plan.experiment, plan.optimization, plan.placement
  with phase('initialising the model' if experiment.weights is None else 'loading the weights'):
    variables, report = experiment.variables(placement.build)
    state = placement.build(
      lambda v: create(v, optimization.tx, optimization.frozen, ema), variables
    )
  return state, report


def write_description(path: pathlib.Path, config: Config, experiment: Experiment) -> None:
  """Writes what describes a new run: config.json, classes.json and split.json."""
  write_json(path / 'config.json', config.to_json())
  write_json(path / 'classes.json', list(experiment.dataset.classes))
  if experiment.dataset.made_split:
    write_json(path / 'split.json', experiment.dataset.manifest())


def mend_description(
  path: pathlib.Path, config: Config, experiment: Experiment, meta: Mapping[str, Any]
) -> None:
  """Writes those files of `write_description` anew that were lost or damaged.

  Args:
    path: the run's folder.
    config, experiment: of the run, which `resume` has found to be those of the checkpoint.
    meta: of the checkpoint.
  """
  whole: dict[str, tuple[Callable[[], Any], Callable[[Any], bool]]] = {
    'config.json': (lambda: meta['config'], _is_config_of(config)),
    'classes.json': (lambda: meta['classes'], lambda found: found == meta['classes']),
  }
  if experiment.dataset.made_split:  # `resume` has refused another split than this one
    whole['split.json'] = experiment.dataset.manifest, lambda found: isinstance(found, dict)
  for name, (make, is_whole) in whole.items():
    file = path / name
    if not is_whole(read_json(file)):
      what = 'was damaged' if file.exists() else 'was missing'
      source = 'checkpoint'
      if name == 'split.json':
        source = 'dataset, which is unchanged' if meta.get('dataset') else 'dataset as it is now'
      write_json(file, make())
      log.warning('%s %s: it was written again from the %s', file, what, source)


def _is_config_of(config: Config) -> Callable[[Any], bool]:
  def is_whole(found: Any) -> bool:
    try:
      return isinstance(found, dict) and not changes(parse_saved(found), config)
    except UserError:
      return False

  return is_whole


def resume(
  config: Config,
  experiment: Experiment,
  optimization: Optimization,
  callbacks: Callbacks,
  checkpointer: Checkpointer,
  path: pathlib.Path,
) -> tuple[TrainState, dict[str, Any]]:
  """The newest checkpoint's state and metadata.

  Args:
    config, experiment, optimization: of the run.
    callbacks: get their state from the checkpoint.
    checkpointer: of the run's folder.
    path: the run's folder.

  Raises:
    CheckpointError: the folder holds a run with other options, or the dataset has changed.
  """
  ema = config.ema.decay > 0
  saved = checkpointer.read_newest()
  meta = saved.meta
  before = parse_saved(meta['config'])
  _refuse_other_run(before, config, path)
  _refuse_other_data(meta, experiment, path, same_test=before.dataset.test == config.dataset.test)
  if before.total != config.total and not _ends_anywhere(config):
    log.warning(
      'config.total was %r and is %r: the learning-rate schedule of the steps to come is that of '
      'the new length',
      before.total,
      config.total,
    )
  callbacks.set_state(meta['watch'])
  return restored(saved, experiment, optimization, ema), meta


def restored(
  saved: Saved, experiment: Experiment, optimization: Optimization, ema: bool
) -> TrainState:
  """The state that a checkpoint holds.

  Args:
    saved: the checkpoint.
    experiment, optimization: whose state it is.
    ema: whether there is an EMA of the variables.

  Raises:
    CheckpointError: it holds another model's or optimizer's state.
  """
  shapes = shapes_of(experiment.shapes, optimization.tx, optimization.frozen, ema)
  return from_checkpoint(*saved.fit(*to_checkpoint(shapes)), ema)


def refuse_unlike(config: Config) -> None:
  """Raises a `ConfigError` where another process has other options, of another file, say."""

  def flat(name: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
      return {name: value}
    return {n: v for key, inner in value.items() for n, v in flat(f'{name}.{key}', inner).items()}

  processes.refuse_unlike(flat('config', config.to_json()))


def refuse_unshared(path: pathlib.Path) -> None:
  """Refuses a folder that another process does not see; all have to call it, in the same order.

  Raises:
    ConfigError: naming the first such process.
    StorageError: process 0 cannot write there.
  """
  if processes.count() == 1:
    return

  def mark() -> str:
    with writing(path), tempfile.NamedTemporaryFile(prefix='.seen.', dir=path, delete=False) as f:
      return f.name

  name = processes.agreed(mark)
  seen = processes.collected((path / os.path.basename(name)).exists())
  if not processes.index():
    os.unlink(name)
  if not all(seen):
    raise ConfigError(
      f'process {seen.index(False)} does not see --workdir={path} of process 0: all processes need '
      'the same folder, on a file system that their machines share'
    )


def refuse_other_run(config: Config, path: pathlib.Path) -> None:
  """Raises the `CheckpointError` of `resume` where the folder holds a run of other options.

  Reads files of the folder alone, so that it comes before anything is downloaded or computed.

  Args:
    config: checked options.
    path: the run's folder.
  """
  metas, _ = read_metas(path / 'checkpoints')
  if metas:
    before = parse_saved(metas[max(metas)]['config'])  # config.json may be lost or damaged
    if config.batch_size == AUTO:  # that of the run is taken
      config = dataclasses.replace(config, batch_size=before.batch_size)
    _refuse_other_run(before, config, path)


def refuse_other_data(config: Config, experiment: Experiment, path: pathlib.Path) -> None:
  """Raises the `CheckpointError` of `resume` where the folder's run had other images."""
  metas, _ = read_metas(path / 'checkpoints')
  if metas:
    meta = metas[max(metas)]
    before = parse_saved(meta['config'])
    _refuse_other_data(meta, experiment, path, before.dataset.test == config.dataset.test)


def _ends_anywhere(config: Config) -> bool:
  """Whether the learning rate does not depend on the length of training."""
  free = config.schedule.name in ('constant', 'rsqrt')
  return free and not Length.parse(config.schedule.cooldown).amount


def _refuse_other_data(
  meta: dict[str, Any], experiment: Experiment, path: pathlib.Path, same_test: bool
) -> None:
  dataset = experiment.dataset
  before, now = meta['classes'], list(dataset.classes)
  if before != now:
    new = [name for name in now if name not in before]
    gone = [name for name in before if name not in now]
    what = '; '.join(
      f'{word} {", ".join(map(repr, names))}'
      for word, names in (('new', new), ('gone', gone))
      if names
    )
    raise CheckpointError(
      f'the classes of {dataset.name} changed since {path} began ({what or "their order"}): its '
      'labels would change; restore the dataset, or use another --workdir'
    )
  split = read_json(path / 'split.json')
  # Where it is damaged, the fingerprints remain.
  changed = isinstance(split, dict) and split != dataset.manifest()
  fingerprints = meta.get('dataset', {})
  if dataset.made_split and not isinstance(split, dict) and not fingerprints:
    log.warning(
      '%s cannot be read, and version 0.1, which began the run, wrote nothing else that tells one '
      'split from another: whether training and test images are those of before is not known',
      path / 'split.json',
    )
  # The option that names the test split may change.
  for role, fingerprint in fingerprints.items():
    same = experiment.fingerprint.get(role) == fingerprint
    changed = changed or not (same or (role == 'test' and not same_test))
  if changed:
    raise CheckpointError(
      f'the images of {dataset.name} or their split changed since {path} began: restore the '
      'dataset, or use another --workdir'
    )


def _refuse_other_run(before: Config, now: Config, path: pathlib.Path) -> None:
  changed = changes(before, now)
  if changed:
    run = remote.address(path)
    weights = machine.shell_line([f'--config.init_from={run}'])
    other = (
      f'--workdir={run} holds a run with other options: use another folder, in which {weights} '
      'starts from its weights'
    )
    raise CheckpointError([other, *changed])


def changes(before: Config, now: Config) -> list[str]:
  """The options that make another run of it, each with both values."""
  return [
    f'config.{name} is {get(now, name)!r} and was {get(before, name)!r}'
    for name, _ in leaves()
    if not name.startswith(_FREE) and get(now, name) != get(before, name)
  ]
