"""The training loop. There is one."""

import contextlib
import functools
import logging
import math
import pathlib
import time
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from vit_jax import data, heap, parallel, processes, remote, rng
from vit_jax.checkpoint import Checkpointer, has_checkpoint
from vit_jax.config import Config
from vit_jax.console import phase, tell_soon
from vit_jax.errors import CheckpointError, DivergenceError, InterruptedRunError
from vit_jax.files import remove_temporaries, workdir_of, write_text
from vit_jax.metric_writer import MetricWriter
from vit_jax.trackers import Tracking
from vit_jax.training import batch_size, distillation, divergence, ending, flops, outline, summary
from vit_jax.training.ahead import compile_ahead
from vit_jax.training.budget import TimeBudget
from vit_jax.training.caching import compute_features
from vit_jax.training.display import DISPLAYS, Display, console_for
from vit_jax.training.events import Course
from vit_jax.training.experiment import Experiment, loading_of
from vit_jax.training.preparation import Plan, check_remote_workdir, prepared
from vit_jax.training.run_lock import run_lock
from vit_jax.training.signals import SharedStop, StopSignal
from vit_jax.training.starting import (
  first_state,
  mend_description,
  refuse_other_run,
  refuse_unlike,
  refuse_unshared,
  resume,
  write_description,
)
from vit_jax.training.timing import CpuStepThrottle, Window
from vit_jax.training.train_state import TrainState, to_checkpoint
from vit_jax.training.validation import Validation

log = logging.getLogger(__name__)

HINT = 'about a minute for large models'


def train(
  config: Config, workdir: str, output: str = 'text', max_hours: float = 0.0
) -> dict[str, float]:
  """Trains, or resumes an earlier attempt in the same folder from its newest checkpoint.

  Args:
    config: checked options.
    workdir: the run's folder or its URL; the README lists its files.
    output: one of `display.DISPLAYS`: 'text', 'quiet' or 'json'.
    max_hours: wall time since the process started, before whose end the run is saved and raises
      `InterruptedRunError`; 0 for any.

  Returns:
    The last metrics: of the test split, else of the validation split, else of training.

  Raises:
    UserError: for anything the user can mend; nothing already in the folder is lost.
  """
  workdir = workdir_of(str(workdir))
  check_remote_workdir(config, workdir)
  refuse_unlike(config)
  with console_for(output) as console, StopSignal() as stop, remote.workdir(workdir) as path:
    processes.agreed(lambda: refuse_other_run(config, path))
    config = batch_size.resolved(config, path)
    return _train(config, path, DISPLAYS[output](console), stop, max_hours)


def _train(
  config: Config, path: pathlib.Path, display: Display, stop: StopSignal, max_hours: float
) -> dict[str, float]:
  first = processes.index() == 0
  resuming = processes.agreed(lambda: has_checkpoint(path))
  state: TrainState | None = None
  meta: dict[str, Any] = {}
  loaded = ''
  wait_for_step: Callable[[], None] | None = None
  with prepared(config, path) as plan:
    refuse_unshared(path)
    experiment, optimization, total_steps = plan.experiment, plan.optimization, plan.total_steps
    began = time.monotonic()
    if not resuming:
      if experiment.weights is None:
        wait_for_step = compile_ahead(config, plan)
      state, loaded = first_state(plan, config.ema.decay > 0)
  with contextlib.ExitStack() as stack:
    stack.enter_context(run_lock(path))
    if processes.agreed(lambda: has_checkpoint(path)) != resuming:
      raise CheckpointError(f'another run was in {path} meanwhile: run the same command again')
    if first:
      for folder in (path, path / 'report', path / 'report' / 'figures'):
        remove_temporaries(folder)
    if first and not resuming:
      write_description(path, config, experiment)
    kept = config.checkpoint
    checkpointer = Checkpointer(path, kept.keep, kept.best, kept.best_mode)
    stack.enter_context(contextlib.closing(checkpointer))
    stack.enter_context(checkpointer.saying_what_is_safe())
    if state is None:
      with phase('reading the checkpoint'):
        state, meta = resume(config, experiment, optimization, plan.callbacks, checkpointer, path)
      if first:
        mend_description(path, config, experiment, meta)
    if wait_for_step is None:  # given weights and checkpoints may yet have been refused
      wait_for_step = compile_ahead(config, plan, int(state.step))
    parameters = summary.describe_parameters(
      state.params, optimization.factors, optimization.frozen
    )
    event = outline.plan_event(config, plan, state, parameters, loaded, path)
    if first:
      write_text(path / 'parameters.txt', parameters.table)
      write_text(path / outline.FILE, event.details)
    display.plan(event, path / outline.FILE)
    if int(state.step) > total_steps:
      log.warning(
        'the checkpoint is of step %d, and config.total=%r ends at step %d', int(state.step),
        config.total, total_steps,
      )  # fmt: skip
    to, project = config.log.to if first else (), config.log.project
    tracking = stack.enter_context(Tracking(to, path, config.to_json(), project, bool(state.step)))
    writer = MetricWriter(
      path, config.log.tensorboard, int(state.step), meta.get('rows'), first, tracking.log
    )
    stack.enter_context(contextlib.closing(writer))
    caching = plan.caching
    if caching.of_features:
      compute_features(config, experiment, plan.placement, caching.cache, state.variables)
    batches = training_batches(config, experiment, caching.cache)
    stack.enter_context(contextlib.closing(batches))
    if meta:
      batches.set_state(meta['data_state'])
    loop = _Loop(config, plan, checkpointer, writer, batches, display, meta, path, began)
    display.begin(loop.course(int(state.step)))
    budget = TimeBudget(max_hours, summary.bytes_of(state), loop.batches())
    with stop.deferred():
      loop.run(state, stop, budget, wait_for_step)
      with phase(f'waiting for the checkpoint of step {checkpointer.in_hand}'):
        checkpointer.wait()
    heap.give_back()
    if loop.interrupted_at:
      why = 'interrupted' if loop.interrupted_by else f'--max_hours={max_hours:g}: stopped'
      raise InterruptedRunError(
        f'{why} at step {loop.interrupted_at}, which is saved in {path}: the same command resumes',
        loop.interrupted_by,
      )
    if 'test' in experiment.held_out and not processes.agreed(budget.leaves_test):
      raise InterruptedRunError(
        f'--max_hours={max_hours:g}: trained and saved in {path}, without time for the test: the '
        'same command tests it and writes the report',
        0,
      )
    metrics = loop.validation.final_test(path) or loop.last_metrics
    writer.flush()
    display.summary(ending.summary_event(config, plan, path, loop.validation, loop.seconds()))
    return metrics


def training_batches(
  config: Config, experiment: Experiment, cache: data.ImageCache | None = None
) -> data.TrainBatches:
  """This process's share of the batches that a run trains on, by a cache where one is given."""
  return data.train_batches(
    experiment.train,
    experiment.train_transform,
    **loading_of(config),
    batch_size=config.batch_size // processes.count(),
    seed=config.seed,
    workers=config.input.workers,
    repeats=config.input.repeats,
    cache=cache,
  )


class _Loop:
  """One attempt at a run: from its starting step to the end, a signal or a NaN.

  Attributes:
    validation: scores held-out splits.
    interrupted_at: the step at which a signal stopped the run; 0 where none did.
    interrupted_by: the number of that signal.
    last_metrics: of validation, else of training.
  """

  def __init__(
    self,
    config: Config,
    plan: Plan,
    checkpointer: Checkpointer,
    writer: MetricWriter,
    batches: data.TrainBatches,
    display: Display,
    meta: Mapping[str, Any],
    path: pathlib.Path,
    began: float,
  ):
    self._config, self._plan, self._experiment = config, plan, plan.experiment
    self._placement, self._callbacks = plan.placement, plan.callbacks
    self._checkpointer, self._writer, self._batches = checkpointer, writer, batches
    self._display, self._workdir = display, path
    self._log_every = plan.durations.log_interval(config.log.every, plan.total_steps)
    self._state: Any = None
    self._replayable = False
    self._teacher: distillation.Teacher | None = None
    self._window = Window(
      config.batch_size, self._fetch, meta.get('window'), meta.get('reported', 0)
    )
    self._began = began
    # Version 0.1 saved no seconds: those after its last report are not known.
    self._seconds_before = meta.get('seconds', writer.last('seconds'))
    self.validation = Validation(config, plan, self._record, self._write_image, self._refuse_nan)
    self.interrupted_at = self.interrupted_by = 0
    self.last_metrics: dict[str, float] = {}

  def run(
    self,
    state: TrainState,
    stop: StopSignal,
    budget: TimeBudget,
    wait_for_step: Callable[[], None],
  ) -> None:
    """Trains to the end, or until a signal or the end of the time budget."""
    config, experiment, placement = self._config, self._experiment, self._placement
    total = self._plan.total_steps
    with phase('preparing the training step'):
      teacher = distillation.start(config, experiment, placement, self._plan.teacher)
      self._teacher = teacher
    step_fn = self._plan.placed_step
    key = rng.stream(config.seed, 'dropout')
    step, state = int(state.step), placement.put_state(state)
    compiling = True
    stopping = SharedStop(stop, config.batch_size // processes.count(), placement.get_metrics)
    throttle = CpuStepThrottle(placement.devices)
    while not self._plan.finished(step):
      with self._window.waiting():
        batch = next(self._batches)
      arrays = {k: v for k, v in batch.items() if k != 'index'} | stopping.asked()
      arrays = placement.put_batch(arrays)
      if teacher:
        arrays['teacher'] = teacher(step, arrays, key)
      if compiling:
        with phase('compiling the training step', HINT, told_after=0):
          wait_for_step()
          state, metrics = step_fn(state, arrays, key)
          jax.block_until_ready(metrics)
      else:
        state, metrics = step_fn(state, arrays, key)
      processes.tick()
      throttle.after(metrics)
      budget.after(metrics)
      self._state = state
      step += 1
      stopping.take(metrics)
      self._window.add(step, metrics)
      if compiling:
        self._window.end_compilation()
        compiling = False
      self._display.step(step)

      last = step == total
      if last or self._plan.durations.due(step, self._log_every):
        self._report(step, last)
      saved_in = self._checkpointer.seconds
      asked = stopping.requested(budget.spent(self._due(step + 1), saved_in, stopping.later))
      if asked:
        tell_soon()
      with self._window.paused(), budget.pause(self._due(step)):
        state = self._evaluate_and_save(step, state, last, asked)
      if asked and not last:
        self.interrupted_at, self.interrupted_by = step, stopping.number
        return

  def batches(self) -> dict[str, int]:
    """Batches of a validation, of an evaluation of frozen features and of the test."""
    size = self._config.evaluation.batch_size or self._config.batch_size
    held_out = self._experiment.held_out
    counts = {role: math.ceil(len(held_out.get(role, ())) / size) for role in ('val', 'test')}
    features = math.ceil(len(self._experiment.train) / size) + counts['val']
    return {'validation': counts['val'], 'features': features, 'test': counts['test']}

  def _due(self, step: int) -> list[str]:
    """What follows a step and takes long."""
    config, last = self._config, step >= self._plan.total_steps
    every = {
      'validation': config.evaluation.every,
      'features': config.fewshot.every,
      'checkpoint': config.checkpoint.every,
    }
    due = self._plan.durations.due
    return [what for what, each in every.items() if each and (last or due(step, each))]

  def _evaluate_and_save(self, step: int, state: Any, last: bool, stopping: bool) -> Any:
    """Validation, callbacks, frozen features and a checkpoint, where they are due."""
    config, due = self._config, self._plan.durations.due
    validated: dict[str, float] = {}
    if last or stopping:
      heap.give_back()
    if last or due(step, config.evaluation.every):
      self._check_window()
      validated = self.validation.validate(step, state)
    if validated:
      self.last_metrics = validated
      state = self._apply_callbacks(validated, state)
    if last or due(step, config.fewshot.every):
      validated = self.validation.score_features(step, state) | validated
    save = last or stopping or due(step, config.checkpoint.every)
    if save or self._callbacks.stop or self._checkpointer.is_best(step, validated):
      self._check_window()
      with phase(f'saving the checkpoint of step {step}', told_after=None):
        self._save(state, validated)
    return state

  def _apply_callbacks(self, validated: Mapping[str, float], state: Any) -> Any:
    before = self._callbacks.lr_multiplier
    self._callbacks.update(validated)
    if self._callbacks.lr_multiplier == before:
      return state
    multiplier = self._placement.put_state(np.float32(self._callbacks.lr_multiplier))
    return state.replace(rate_scale=multiplier)

  def _report(self, step: int, last: bool) -> None:
    self._check_window()
    # The last window may be of a step or two: it is made as long as the others.
    least = self._plan.durations.steps(self._log_every) if last else 1
    means, rates = self._window.means(least), self._window.rates(least)
    self.last_metrics = means | rates | {'seconds': self.seconds()}
    with self._window.paused():
      if 'img_sec' in rates and self._mfu_of_rate:
        self.last_metrics['mfu'] = rates['img_sec'] * self._mfu_of_rate
    if skipped := self._skipped():
      self.last_metrics['skipped'] = skipped
    self._record(step, 'train', self.last_metrics)
    self._window.restart()

  @functools.cached_property
  def _mfu_of_rate(self) -> float | None:
    """Found at the first report; the peak of a CPU is measured, between two steps."""
    optimization, caching = self._plan.optimization, self._plan.caching
    return flops.mfu_of_rate(
      caching.module,
      self._experiment.shapes,
      caching.input_shape,
      self._placement.devices,
      optimization.frozen,
      passes=2 if optimization.sharpness else 1,
      teacher=self._teacher.flops_per_image if self._teacher else 0,
    )

  def _skipped(self) -> int:
    """How often an image could not be read, in all processes."""
    mine = self._batches.skipped
    if self._config.dataset.on_error != 'skip':
      return mine
    return int(parallel.gather({'skipped': np.array([mine])})['skipped'].sum())

  def course(self, start: int) -> Course:
    """What the display needs to know before the first step."""
    config, experiment = self._config, self._experiment
    return Course(
      total=self._plan.total_steps,
      start=start,
      batch_size=config.batch_size,
      examples=len(experiment.train),
      validates='val' in experiment.held_out,
      metrics=experiment.task.metric_names,
      best=config.checkpoint.best,
      best_mode=config.checkpoint.best_mode,
      before=self._writer.rows,
      seconds_before=self._seconds_before,
    )

  def _record(self, step: int, split: str, metrics: dict[str, float]) -> None:
    """Writes a row of metrics and shows it."""
    if split == 'val':
      metrics = metrics | {'seconds': self.seconds()}
    self._writer.write(step, split, metrics)
    self._display.row(step, split, metrics)

  def _write_image(self, step: int, name: str, image: np.ndarray) -> None:
    self._writer.write_image(step, name, image)

  def _fetch(self, metrics: Any) -> dict[str, tuple[float, float]]:
    """A step's metrics as host numbers: {name: (total, weight)}."""
    found = self._placement.get_metrics(metrics)
    return {name: (float(metric[0]), float(metric[1])) for name, metric in found.items()}

  def _check_window(self) -> None:
    """Refuses to go on, and to save, after a step whose metrics are not finite."""
    rows = self._window.rows()
    for step, row in rows.items():
      totals = {name: total for name, (total, _) in row.items()}
      if not all(map(math.isfinite, totals.values())):
        self._keep_step(step, ago=max(rows) - step)
      self._refuse_nan(step, totals)

  def _keep_step(self, step: int, ago: int) -> None:
    """Keeps state and batch of a step that is not finite, which has left the state as it was."""
    batch = self._batches.again(ago)
    if self._teacher:
      arrays = self._placement.put_batch({k: v for k, v in batch.items() if k != 'index'})
      logits = self._teacher(step - 1, arrays, rng.stream(self._config.seed, 'dropout'))
      batch['teacher'] = self._placement.get_examples(logits)
    one, limit = self._placement.get_state(self._state), self._config.checkpoint.diverged_gib
    self._replayable = divergence.keep(self._workdir, one, batch, self._meta(), limit)

  def seconds(self) -> float:
    """Wall time of all attempts from the making of their state on, compilation and all included."""
    return self._seconds_before + time.monotonic() - self._began

  def _refuse_nan(self, step: int, row: Mapping[str, float]) -> None:
    bad = [name for name, value in row.items() if not math.isfinite(value)]
    if not bad:
      return
    self._checkpointer.wait()
    kept = self._checkpointer.latest_step()
    rest = f'the checkpoint at step {kept} is kept' if kept is not None else 'none was saved before'
    if self._replayable:
      rest += '; the same command with --replay says where in the step it begins'
    raise DivergenceError(
      f'step {step}: {" and ".join(bad)} became {row[bad[0]]}; {rest}. Try a lower '
      'config.optimizer.learning_rate, a longer config.schedule.warmup or '
      'config.optimizer.clip_norm=1'
    )

  def _meta(self) -> dict[str, Any]:
    """What a checkpoint holds besides arrays."""
    return {
      'data_state': self._batches.get_state() | {'skipped': self._skipped()},
      'config': self._config.to_json(),
      'model': self._experiment.model_record,
      'classes': list(self._experiment.dataset.classes),
      'preprocess': self._experiment.preprocess.to_json(),
      'watch': self._callbacks.get_state(),
      'window': self._window.rows(),
      'rows': self._writer.get_state(),
      'reported': self._window.reported,
      'seconds': self.seconds(),
      'dataset': self._experiment.fingerprint,
    }

  def _save(self, state: Any, validated: dict[str, float]) -> None:
    one = self._placement.get_state(state)
    self._checkpointer.save(int(one.step), *to_checkpoint(one), self._meta(), validated)
