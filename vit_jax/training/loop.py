"""The training loop. There is one."""

import json
import math
import pathlib
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from vit_jax import data, optimizers, parallel, rng
from vit_jax.checkpoint import Checkpointer
from vit_jax.config import Config, get, leaves, parse
from vit_jax.console import Progress
from vit_jax.errors import UserError
from vit_jax.files import make_workdir, write_json, write_text
from vit_jax.metric_writer import MetricWriter
from vit_jax.training import distillation, flops, summary, train_step
from vit_jax.training.callbacks import Watch
from vit_jax.training.experiment import Prepared, prepare
from vit_jax.training.timing import Interval, OneWorkspace, StopSignal
from vit_jax.training.train_state import TrainState, create, from_checkpoint, to_checkpoint
from vit_jax.training.validation import Examiner, loading

# Options that a run may change between two attempts; any other change makes it another run.
_FREE = (
  'total',
  'parallel',
  'pretrained_dir',
  'log.',
  'evaluation.',
  'fewshot.',
  'checkpoint.',
  'input.threads',
  'input.workers',
  'task.teacher_cache',
  'dataset.data_dir',
  'dataset.test',
)


def train(config: Config, workdir: str) -> dict[str, float]:
  """Trains, or goes on where an earlier attempt in the same folder stopped.

  Args:
    config: checked options.
    workdir: the run's folder; the README lists what is in it.

  Returns:
    The last metrics: of the test split, else of the validation split, else of training.

  Raises:
    UserError: for anything the user can mend; nothing already in the folder is lost.
  """
  path = make_workdir(workdir)
  run = prepare(config)
  placement = parallel.make(config.parallel)
  parallel.check_batch_size(
    'config.batch_size',
    config.batch_size,
    len(placement.devices) * config.accumulate,
    f'{len(placement.devices)} devices x {config.accumulate} parts',
  )
  total_steps = max(1, run.steps(config.total))
  schedule = optimizers.make_schedule(
    config.schedule, config.optimizer.learning_rate, total_steps, run.steps
  )
  shapes = run.shapes['params']
  factors = optimizers.factors(shapes, config.optimizer)
  tx = optimizers.make_optimizer(config.optimizer, schedule, factors)
  frozen = optimizers.frozen_names(shapes, config.freeze)
  watch = _watch(run)
  checkpointer = Checkpointer(
    path, config.checkpoint.keep, config.checkpoint.best, config.checkpoint.best_mode
  )
  state, data_state = _starting_point(run, tx, frozen, watch, checkpointer, path)
  start = int(state.step)
  first = jax.process_index() == 0
  if first:
    write_text(path / 'parameters.txt', summary.parameter_table(state.params, factors, frozen))
    _say_plan(run, state, placement, total_steps, path)
    print(summary.describe_factors(state.params, factors, frozen), flush=True)
  batches = data.train_batches(
    run.train,
    run.train_transform,
    **loading(config),
    batch_size=config.batch_size // jax.process_count(),
    seed=config.seed,
    workers=config.input.workers,
    repeats=config.input.repeats,
  )
  if data_state is not None:
    batches.set_state(data_state)
  writer = MetricWriter(path, config.log.tensorboard, resume_step=start, active=first)
  progress = Progress(total_steps, start, active=first)
  loop = _Loop(run, placement, checkpointer, writer, progress, batches, watch, total_steps)
  try:
    step = train_step.make_train_step(
      run.on_axis(placement.axis_name),
      run.task,
      tx,
      schedule,
      run.preprocess,
      accumulate=config.accumulate,
      axis_name=placement.axis_name,
      frozen=frozen,
      mixing=run.mixing,
      sharpness=optimizers.make_sharpness(config.optimizer, schedule),
      ema=config.ema,
    )
    stopped = loop.run(placement.compile_train(step), placement.put_state(state))
    checkpointer.wait()
    if stopped:
      raise UserError(f'stopped at step {stopped}; the same command goes on from there')
    metrics = loop.test(path)
    progress.say(f'files of this run: {path}')
    return metrics
  finally:
    batches.close()
    progress.close()
    writer.close()
    checkpointer.close()


def _starting_point(
  run: Prepared,
  tx: Any,
  frozen: frozenset[str],
  watch: Watch,
  checkpointer: Checkpointer,
  path: pathlib.Path,
) -> tuple[TrainState, Any]:
  """The newest checkpoint's state and data position, or the first state and None."""
  ema = run.config.ema.decay > 0
  if checkpointer.latest_step() is None:
    variables = run.variables()
    if jax.process_index() == 0:
      write_json(path / 'config.json', run.config.to_json())
      write_json(path / 'classes.json', list(run.dataset.classes))
      if run.dataset.made_split:
        write_json(path / 'split.json', run.dataset.manifest())
    return create(variables, tx, frozen, ema), None
  meta = checkpointer.latest_meta()
  _refuse_other_run(parse(meta['config']), run.config, path)
  split = path / 'split.json'
  if split.exists() and json.loads(split.read_text('utf-8')) != run.dataset.manifest():
    raise UserError(f'the pictures of {run.dataset.name} or their split changed since {path} began')
  shapes = jax.eval_shape(lambda variables: create(variables, tx, frozen, ema), run.shapes)
  watch.set_state(meta['watch'])
  restored = checkpointer.restore(*to_checkpoint(shapes))
  return from_checkpoint(*restored, ema), meta['data_state']


def _watch(run: Prepared) -> Watch:
  watch = Watch(run.config.plateau, run.config.early_stopping)
  if watch.active and 'val' not in run.held_out:
    raise UserError(
      'config.plateau and config.early_stopping watch a validation metric: set '
      "config.dataset.val='train[90%:]', say"
    )
  return watch


def _refuse_other_run(before: Config, now: Config, path: pathlib.Path) -> None:
  changed = [
    f'config.{name} is {get(now, name)!r} and was {get(before, name)!r}'
    for name, _ in leaves(Config)
    if not name.startswith(_FREE) and get(now, name) != get(before, name)
  ]
  if changed:
    raise UserError([f'--workdir={path} holds another run: take another folder', *changed])


def _say_plan(
  run: Prepared, state: TrainState, placement: Any, total_steps: int, path: pathlib.Path
) -> None:
  pictures = {'train': len(run.train)} | {k: len(v) for k, v in run.held_out.items()}
  print(summary.parameter_summary(state.params))
  print(
    summary.describe(
      run.config, run.module, state, placement.devices, run.image_hw, pictures, total_steps
    )
  )
  print(f'  classes   {len(run.dataset.classes)}')
  print(f'  files     {path}', flush=True)
  for role, spec in (('val', run.config.dataset.val), ('test', run.config.dataset.test)):
    if spec and role not in run.held_out:
      print(
        f'  note: {run.dataset.name} has no {spec!r} split, so there is no {role} metric; '
        f"set config.dataset.{role}='train[90%:]', say, or resplit=True"
      )
  if int(state.step):
    print(f'  going on from the checkpoint at step {int(state.step)}', flush=True)


class _Loop:
  """One attempt at a run: from its starting step to the end, a signal or a NaN."""

  def __init__(
    self,
    run: Prepared,
    placement,
    checkpointer,
    writer,
    progress,
    batches,
    watch: Watch,
    total_steps: int,
  ):
    self._run, self._placement, self._checkpointer = run, placement, checkpointer
    self._writer, self._progress, self._batches = writer, progress, batches
    self._watch = watch
    self._total = total_steps
    self._examiner = Examiner(run, placement, writer, progress, self._refuse_nan)
    self._teacher = distillation.start(run, placement)
    self._began = time.monotonic()
    self._seconds_before = writer.last('seconds')
    self._last: dict[str, float] = {}
    self._mfu_of_rate = flops.utilization_of_rate(
      run.module, run.shapes, (*run.image_hw, 3), placement.devices
    )

  def run(self, step_fn: Callable, state: Any) -> int | None:
    """Trains to the end; returns None, or the step at which a signal stopped it."""
    key = rng.stream(self._run.config.seed, 'dropout')
    step = int(np.max(self._placement.get_state(state).step))
    interval, compiling = Interval(self._run.config.batch_size), True
    workspace = OneWorkspace(on_cpu=self._placement.devices[0].platform == 'cpu')
    with StopSignal() as stop:
      while step < self._total and not self._watch.stop:
        with interval.waiting():
          batch = next(self._batches)
        arrays = self._placement.put_batch({k: v for k, v in batch.items() if k != 'index'})
        if self._teacher:
          arrays['teacher'] = self._teacher(step, arrays, key)
        state, metrics = step_fn(state, arrays, key)
        workspace.after(metrics)
        step += 1
        interval.add(step, metrics)
        if compiling:
          jax.block_until_ready(metrics)
          self._progress.say(f'first step after {interval.restart_clock():.1f} s')
          compiling = False
        self._progress.step(step)

        last = step == self._total
        evaluate = last or self._run.due(step, self._run.config.evaluation.every)
        save = evaluate or stop.requested or self._run.due(step, self._run.config.checkpoint.every)
        if save or self._run.due(step, self._run.config.log.every):
          self._report(step, interval)
        validation = self._examiner.validate(step, state) if evaluate else {}
        if validation:
          self._last = validation
          state = self._heed(validation, state)
        if last or self._run.due(step, self._run.config.fewshot.every):
          validation = self._examiner.score_features(step, state) | validation
          interval.restart_clock()
        if save:
          self._save(state, validation)
          interval.restart()
        if stop.requested and not last:
          return step
    return None

  def _heed(self, validation: dict[str, float], state: Any) -> Any:
    """What the watch makes of a validation: another learning rate, or the end of the loop."""
    before = self._watch.scale
    said = self._watch.update(validation)
    if said:
      self._progress.say(said)
    if self._watch.scale == before:
      return state
    scale = self._placement.put_state(np.float32(self._watch.scale))
    return state.replace(rate_scale=scale)

  def _report(self, step: int, interval: 'Interval') -> None:
    rows = [(s, self._placement.get_metrics(m)) for s, m in interval.metrics]
    for at, row in rows:
      self._refuse_nan(at, row)
    means = {name: float(np.mean([row[name] for _, row in rows])) for name in rows[0][1]}
    means['learning_rate'] = float(rows[-1][1]['learning_rate'])
    self._last = means | interval.timing() | {'seconds': self._seconds()}
    if self._mfu_of_rate and 'img_sec' in self._last:
      self._last['mfu'] = self._last['img_sec'] * self._mfu_of_rate
    if self._batches.skipped:
      self._last['skipped'] = self._batches.skipped
    self._writer.write(step, 'train', self._last)
    self._progress.report(step, self._last)
    interval.restart()

  def _seconds(self) -> float:
    """Wall time of training over all attempts, compilation and validation included."""
    return self._seconds_before + time.monotonic() - self._began

  def _refuse_nan(self, step: int, row: dict) -> None:
    bad = [name for name, value in row.items() if not math.isfinite(value)]
    if not bad:
      return
    self._checkpointer.wait()
    kept = self._checkpointer.latest_step()
    rest = f'the checkpoint at step {kept} is kept' if kept is not None else 'none was saved before'
    raise UserError(
      f'step {step}: {" and ".join(bad)} became {row[bad[0]]}; {rest}. Try a lower '
      'config.optimizer.learning_rate, a longer config.schedule.warmup or '
      'config.optimizer.clip_norm=1'
    )

  def test(self, path: pathlib.Path) -> dict[str, float]:
    """Metrics of the test split, or the last ones there are."""
    return self._examiner.final_test(path) or self._last

  def _save(self, state: Any, validation: dict[str, float]) -> None:
    run = self._run
    meta = {
      'data_state': self._batches.get_state(),
      'config': run.config.to_json(),
      'model': run.model_record,
      'classes': list(run.dataset.classes),
      'preprocess': run.preprocess.to_json(),
      'watch': self._watch.get_state(),
    }
    one = self._placement.get_state(state)
    self._checkpointer.save(int(one.step), *to_checkpoint(one), meta, validation)
