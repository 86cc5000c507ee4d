"""What a run needs before its first computation, with every problem found on the way."""

import contextlib
import dataclasses
import functools
import logging
import os
import pathlib
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np

from vit_jax import data, parallel, remote
from vit_jax.checkpoint import has_checkpoint
from vit_jax.config import Config
from vit_jax.config.validation import metric_problems
from vit_jax.errors import ConfigError, Problems, counted
from vit_jax.files import is_remote, make_workdir, remove_empty, workdir_unless_it_fails
from vit_jax.inference.loaded import Loaded
from vit_jax.trackers import check_installed
from vit_jax.training import distillation, summary
from vit_jax.training.caching import Caching, make_caching
from vit_jax.training.callbacks import Callbacks
from vit_jax.training.durations import Durations
from vit_jax.training.experiment import Experiment, build_experiment, open_inputs
from vit_jax.training.optimization import Optimization, make_optimization
from vit_jax.training.train_step import make_train_step

log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Plan:
  """What a config means on this machine and this dataset; nothing is computed yet.

  Attributes:
    config: checked options.
    experiment: dataset, transforms, model and task.
    placement: of state and batches on devices.
    durations: from lengths to steps.
    total_steps: length of training.
    optimization: how parameters are updated.
    callbacks: of validation.
    teacher: whose logits are distilled; None without one.
    caching: what is kept in memory across epochs, and what the steps compute with.
  """

  config: Config
  experiment: Experiment
  placement: parallel.Placement
  durations: Durations
  total_steps: int
  optimization: Optimization
  callbacks: Callbacks
  teacher: Loaded | None
  caching: Caching

  def finished(self, step: int) -> bool:
    """Whether training has ended at a step, by its length or early."""
    return step >= self.total_steps or self.callbacks.stop

  @functools.cached_property
  def step(self) -> Callable:
    """(state, batch, rng) -> (state, metrics); always the same function, which JAX traces once."""
    return self.step_with()

  @functools.cached_property
  def placed_step(self) -> Any:
    """`step` as its placement compiles it, once for all who call, trace or compile it."""
    return self.placement.compile_train(self.step)

  @functools.cached_property
  def example(self) -> dict[str, jax.ShapeDtypeStruct]:
    """The shapes of all that a step gets of an example, the first one being read."""
    config, experiment, caching = self.config, self.experiment, self.caching
    with data.train_batches(
      experiment.train,
      experiment.train_transform,
      batch_size=1,
      seed=config.seed,
      threads=0,
      on_error=config.dataset.on_error,
    ) as batches:
      batch = next(batches)
    shapes = {k: jax.ShapeDtypeStruct(x.shape[1:], x.dtype) for k, x in batch.items()}
    del shapes['index']
    if caching.of_features:
      shapes['image'] = jax.ShapeDtypeStruct(caching.input_shape, np.float32)
    if self.teacher is not None:
      shapes['teacher'] = jax.ShapeDtypeStruct((len(experiment.dataset.classes),), np.float32)
    return shapes

  @property
  def bounded(self) -> bool:
    """Whether it is known before the update that a step is made, see `make_train_step`.

    On one CPU: several devices would have to agree on it, and an accelerator to be waited for.
    """
    devices = self.placement.devices
    return self.optimization.bounded and len(devices) == 1 and devices[0].platform == 'cpu'

  def step_with(self, **changes: Any) -> Callable:
    """The training step with other arguments of `make_train_step` than the run's."""
    optimization, caching, placement = self.optimization, self.caching, self.placement
    arguments = {
      'module': caching.module,
      'task': self.experiment.task,
      'tx': optimization.tx,
      'schedule': optimization.schedule,
      'preprocess': caching.preprocess,
      'accumulate': self.config.accumulate,
      'axis_name': placement.axis_name,
      'frozen': optimization.frozen,
      'mixing': self.config.mixing,
      'sharpness': optimization.sharpness,
      'ema': self.config.ema,
      'constrain': placement.constrain,
      'bounded': self.bounded,
      'divided': placement.divides_state,
    }
    return make_train_step(**arguments | changes)


@contextlib.contextmanager
def prepared(config: Config, path: pathlib.Path) -> Iterator[Plan]:
  """Checks all that can be checked before the first computation, and makes the run's folder.

  What was made of the folder is removed again where the block fails.

  Args:
    config: checked options.
    path: the run's folder.

  Raises:
    UserError: naming everything that is missing or does not fit.
  """
  problems = Problems()
  with contextlib.ExitStack() as stack:
    with problems.collect():
      _refuse_workdir_in_dataset(config, path)
      stack.enter_context(workdir_unless_it_fails(path))
    with problems.collect():
      check_installed(config.log.to)
    placement = None
    with problems.collect():
      placement = parallel.make(config.parallel, mesh=config.mesh)
      parallel.check_batch_size(
        'config.batch_size',
        config.batch_size,
        len(placement.devices) * config.accumulate,
        summary.shares_text(len(placement.devices), config.accumulate),
      )
    experiment = teacher = None
    with problems.collect():
      experiment = build_experiment(config, may_download=not problems.sentences)
    with problems.collect():
      teacher = distillation.open_teacher(config, experiment, may_download=not problems.sentences)
    callbacks = Callbacks(config.plateau, config.early_stopping)
    optimization = None
    if experiment is not None and placement is not None:
      with problems.collect():
        placement.check_names(experiment.shapes['params'])
    if experiment is not None:
      durations = Durations(config.batch_size, len(experiment.train))
      with problems.collect():
        _check_validation(config, experiment, callbacks.active)
      with problems.collect():
        total_steps = max(1, durations.steps(config.total, 'config.total'))
        _warn_of_ramps(config, durations, total_steps)
        optimization = make_optimization(
          config.optimizer,
          config.schedule,
          config.freeze,
          experiment.shapes['params'],
          total_steps,
          durations.steps,
        )
    problems.raise_if_any()
    assert placement is not None and experiment is not None and optimization is not None
    caching = make_caching(config, experiment, placement, optimization.frozen)
    yield Plan(
      config,
      experiment,
      placement,
      durations,
      total_steps,
      optimization,
      callbacks,
      teacher,
      caching,
    )


def outer_problems(config: Config, workdir: str | None) -> list[str]:
  """Problems of the workdir, the dataset and the weights alone, whatever else is wrong.

  Args:
    config: options.
    workdir: as it was given; None where it was not.
  """
  problems = Problems()
  with problems.collect():
    if workdir is None:
      pass
    elif is_remote(workdir):
      check_remote_workdir(config, workdir)
    else:
      _refuse_workdir_in_dataset(config, pathlib.Path(workdir))
      remove_empty(make_workdir(pathlib.Path(workdir)))
  with problems.collect():
    open_inputs(config, may_download=False)
  return problems.sentences


def check_remote_workdir(config: Config, workdir: str) -> None:
  """Raises what is known to be wrong with a workdir's URL before it is opened."""
  if remote.inside(workdir, config.dataset.name):
    raise ConfigError(_in_dataset(workdir, config))
  remote.check(workdir)


def _refuse_workdir_in_dataset(config: Config, path: pathlib.Path) -> None:
  """Raises a `ConfigError` where a new run's files would become part of the dataset."""
  root = os.path.realpath(os.path.expanduser(config.dataset.name))
  inside = os.path.isdir(root) and pathlib.Path(os.path.realpath(path)).is_relative_to(root)
  if inside and not has_checkpoint(path):
    raise ConfigError(_in_dataset(path, config))


def _in_dataset(workdir: str | pathlib.Path, config: Config) -> str:
  return (
    f'--workdir={workdir} lies in the dataset {config.dataset.name}, where its files would be '
    'taken for images of a class: use a folder outside'
  )


def _check_validation(config: Config, experiment: Experiment, monitored: bool) -> None:
  """Raises a `ConfigError` for options that need a validation split or a metric there is not."""
  if 'val' in experiment.held_out:
    if problems := metric_problems(config, experiment.task):
      raise ConfigError(problems)
    return
  lacking = [
    f'{option} {"needs" if len(option.split()) == 1 else "need"} a validation split: set '
    "config.dataset.train='train[:90%]' and config.dataset.val='train[90%:]', say"
    for option, active in (
      ('config.plateau and config.early_stopping', monitored),
      ('config.fewshot.every', bool(config.fewshot.every)),
    )
    if active
  ]
  if lacking:
    raise ConfigError(lacking)


def _warn_of_ramps(config: Config, durations: Durations, total_steps: int) -> None:
  warmup = durations.steps(config.schedule.warmup, 'config.schedule.warmup')
  cooldown = durations.steps(config.schedule.cooldown, 'config.schedule.cooldown')
  if warmup + cooldown > total_steps:
    log.warning(
      'config.schedule.warmup of %d and config.schedule.cooldown of %d steps are longer than the '
      'run of %s (config.total=%r): the learning rate never reaches '
      'config.optimizer.learning_rate',
      warmup, cooldown, counted(total_steps, 'step'), config.total,
    )  # fmt: skip
