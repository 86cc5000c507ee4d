"""A dry run: the plan with time and memory as far as they can be known, and augmented images."""

import contextlib
import dataclasses
import math
import pathlib
import time
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import numpy as np

from vit_jax import data, processes, remote, rng
from vit_jax.checkpoint import has_checkpoint
from vit_jax.config import Config
from vit_jax.console import phase
from vit_jax.errors import counted
from vit_jax.evaluation.evaluator import make_eval_step
from vit_jax.files import workdir_of
from vit_jax.parallel import round_up
from vit_jax.parallel.collectives import collectives
from vit_jax.report.text import duration
from vit_jax.report.text import size as size_text
from vit_jax.training import batch_size, distillation, memory, outline, previews, summary
from vit_jax.training.display import DISPLAYS, console_for
from vit_jax.training.events import EstimateEvent
from vit_jax.training.experiment import loading_of
from vit_jax.training.loop import HINT, training_batches
from vit_jax.training.preparation import Plan, prepared
from vit_jax.training.starting import (
  first_state,
  refuse_other_data,
  refuse_other_run,
  refuse_unlike,
)
from vit_jax.training.table import rate_text
from vit_jax.training.train_state import TrainState

FILE = 'dry_run.html'
_STEPS = 3  # that are timed, after the first
_BATCHES = 4  # whose loading is timed, after the first


def dry_run(config: Config, workdir: str, output: str = 'text', runs: int = 1) -> EstimateEvent:
  """Prints the plan with an estimate of time and memory, and writes a page of augmented images.

  Nothing is trained, and of the run's folder nothing is changed but dry_run.html.

  Args:
    config: checked options.
    workdir: the run's folder.
    output: one of `display.DISPLAYS`.
    runs: of a sweep, of which this is one.

  Raises:
    UserError: as `train` does.
  """
  path = remote.copy_of(workdir_of(str(workdir)))
  refuse_unlike(config)
  with contextlib.ExitStack() as stack:
    console = stack.enter_context(console_for(output))
    refuse_other_run(config, path)
    config = given = batch_size.resolved(config, path)
    if hasattr(config.task, 'teacher_cache'):  # which a dry run does not touch
      task: Any = config.task
      config = dataclasses.replace(config, task=dataclasses.replace(task, teacher_cache=''))
    plan = stack.enter_context(prepared(config, path))
    display = DISPLAYS[output](console)
    refuse_other_data(given, plan.experiment, path)
    state, loaded = first_state(plan, config.ema.decay > 0)
    parameters = summary.describe_parameters(
      state.params, plan.optimization.factors, plan.optimization.frozen
    )
    event = outline.plan_event(config, plan, state, parameters, loaded, path)
    display.plan(event, None)
    with training_batches(config, plan.experiment) as batches:
      shown, load_seconds = _first_batches(batches)
    where = path / FILE
    if processes.index() == 0:
      previews.write_page(where, config, plan.experiment, shown)
    estimate = _estimate(config, plan, state, shown[0], load_seconds, runs, where)
    display.estimate(estimate)
  return estimate


def _first_batches(batches: Iterator[dict]) -> tuple[list[dict], float]:
  """The first batches of training, at least ten images, and seconds to load one more."""
  found = [next(batches)]
  began = time.monotonic()
  while len(found) <= _BATCHES or sum(len(batch['label']) for batch in found) < previews.IMAGES:
    found.append(next(batches))
  return found, (time.monotonic() - began) / (len(found) - 1)


# What the two rates mean, by whether training waits for images.
_LOADING = {
  False: 'more than the step takes, so that training does not wait for images',
  True: 'fewer than the step takes, so that training waits for images; config.input.cache may help',
}


@dataclasses.dataclass(frozen=True)
class _Measured:
  """A compiled step.

  Attributes:
    seconds: of one call.
    compile_seconds: of tracing and compiling.
    memory: XLA's analysis in bytes, by kind; empty where the backend has none.
    sent: bytes of the arrays that devices gather and reduce together, by kind.
  """

  seconds: float
  compile_seconds: float
  memory: Mapping[str, int]
  sent: Mapping[str, int] = dataclasses.field(default_factory=dict)


def _estimate(
  config: Config,
  plan: Plan,
  state: TrainState,
  batch: Mapping[str, np.ndarray],
  load_seconds: float,
  runs: int,
  where: pathlib.Path,
) -> EstimateEvent:
  exact = summary.memory_parts(config, state, plan.placement.bytes_of, plan.optimization.frozen)
  validations, rounds = _validations(config, plan)
  validation = _measure_validation(config, plan, state) if validations else None
  training = _measure_training(config, plan, state, batch)
  reads = not plan.caching.of_features  # those are of images that are read before the first step
  step_seconds = max(training.seconds, load_seconds * reads)
  seconds = plan.total_steps * step_seconds + training.compile_seconds
  if validation is not None:
    seconds += validations * rounds * validation.seconds + validation.compile_seconds
  needed = sum(training.memory.values())
  waits = step_seconds > training.seconds
  rows = {
    'step': f'{_milliseconds(training.seconds)} measured on this machine, '
    f'{rate_text(config.batch_size / training.seconds)} images/s; compiled in '
    f'{duration(training.compile_seconds)}',
    'reading': f'{rate_text(config.batch_size / load_seconds)} images/s can be read, decoded and '
    f'transformed, measured without training: {_LOADING[waits]}',
    'validation': '',
    'time': f'about {duration(seconds)} (estimate: steps and validations, without checkpoints and '
    'reports)',
    'memory': _memory_text(exact, training.memory),
    'sending': _sent_text(training.sent),
    'sweep': '',
    'resuming': '',
  }
  if validation is not None:
    each = _milliseconds(validation.seconds)
    rows['validation'] = (
      f'{validations:,} times {counted(rounds, "batch", "batches")}, {each} a batch measured'
    )
  if runs > 1:
    rows['sweep'] = f'{runs} runs; {duration(runs * seconds)} if all take as long as this one'
  if has_checkpoint(where.parent):
    rows['resuming'] = f'{where.parent} has a checkpoint, from which the run itself resumes'
  facts = {
    'step_seconds': training.seconds,
    'load_seconds': load_seconds,
    'compile_seconds': training.compile_seconds,
    'validations': validations,
    'validation_batch_seconds': validation and validation.seconds,
    'seconds': seconds,
    'memory_bytes': exact,
    'xla_memory_bytes': dict(training.memory),
    'xla_memory_sum_bytes': needed,
    'sent_bytes': dict(training.sent),
    'runs': runs,
  }
  return EstimateEvent({name: text for name, text in rows.items() if text}, facts, where)


def _milliseconds(seconds: float) -> str:
  return f'{seconds * 1000:,.0f} ms' if seconds >= 0.01 else f'{seconds * 1000:.2g} ms'


def _memory_text(exact: Mapping[str, int], xla: Mapping[str, int]) -> str:
  parts = ', '.join(f'{name} {size_text(size)}' for name, size in exact.items() if size)
  text = f'{size_text(sum(exact.values()))} per device by shapes ({parts})'
  if not xla:
    return f"{text}; this backend gives no analysis of the step's memory"
  found = ', '.join(f'{name} {size_text(size)}' for name, size in xla.items() if size)
  return f"{text}; {size_text(sum(xla.values()))} for the step by XLA's analysis ({found})"


def _validations(config: Config, plan: Plan) -> tuple[int, int]:
  """How often is validated, and in how many batches each time."""
  val = plan.experiment.held_out.get('val')
  if val is None:
    return 0, 0
  every = plan.durations.due
  due = sum(every(step, config.evaluation.every) for step in range(1, plan.total_steps))
  size = round_up(config.evaluation.batch_size or config.batch_size, plan.placement)
  return due + 1, math.ceil(len(val) / size)


def _measure_training(
  config: Config, plan: Plan, state: TrainState, batch: Mapping[str, np.ndarray]
) -> _Measured:
  placement, key = plan.placement, rng.stream(config.seed, 'dropout')
  batch = {k: v for k, v in batch.items() if k != 'index'}
  if plan.caching.of_features:
    batch['image'] = np.zeros((len(batch['image']), *plan.caching.input_shape), np.float32)
  images = placement.put_batch(batch)
  teacher = distillation.start(config, plan.experiment, placement, plan.teacher)

  def arrays(number: int) -> dict:
    return {**images, 'teacher': teacher(number, images, key)} if teacher else images

  placed = placement.put_state(state)
  began = time.monotonic()
  with phase('compiling the training step', HINT, told_after=0):
    step = plan.placed_step.lower(placed, arrays(0), key).compile()
  compile_seconds = time.monotonic() - began
  with phase('timing the training step'):
    placed, metrics = jax.block_until_ready(step(placed, arrays(0), key))
    began = time.monotonic()
    for number in range(_STEPS):
      placed, metrics = jax.block_until_ready(step(placed, arrays(number), key))
  seconds = (time.monotonic() - began) / _STEPS
  return _Measured(seconds, compile_seconds, memory.analysis(step), _sent(step))


def _measure_validation(config: Config, plan: Plan, state: TrainState) -> _Measured:
  experiment, placement = plan.experiment, plan.placement
  size = round_up(config.evaluation.batch_size or config.batch_size, placement)
  batches = data.eval_batches(
    experiment.held_out['val'],
    experiment.eval_transform,
    batch_size=size // processes.count(),
    **loading_of(config),
  )
  found = next(iter(batches))
  arrays = placement.put_batch({k: v for k, v in found.items() if k not in ('index', 'mask')})
  variables = placement.put_state(state.averaged)
  make = make_eval_step(experiment.module, experiment.task, experiment.preprocess)
  began = time.monotonic()
  with phase('compiling the evaluation step'):
    compile_eval: Any = placement.compile_eval
    step = compile_eval(make).lower(variables, arrays).compile()
  compile_seconds = time.monotonic() - began
  jax.block_until_ready(step(variables, arrays))
  began = time.monotonic()
  for _ in range(_STEPS):
    jax.block_until_ready(step(variables, arrays))
  return _Measured((time.monotonic() - began) / _STEPS, compile_seconds, {})


def _sent(compiled: Any) -> dict[str, int]:
  """Bytes of the arrays that the devices of a compiled step gather and reduce together."""
  found: dict[str, int] = {}
  for one in collectives(compiled.as_text()):
    found[one.kind] = found.get(one.kind, 0) + one.nbytes * one.times
  return found


def _sent_text(sent: Mapping[str, int]) -> str:
  """'12 MiB all-gather, 3 MiB all-reduce a step'; '' where nothing is."""
  parts = ', '.join(f'{kind} {size_text(size)}' for kind, size in sent.items())
  return parts and f'{parts} in a step, of whole arrays'
