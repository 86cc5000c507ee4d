"""Memory of a training step, known before it is computed: XLA's analysis of the program."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from vit_jax import data, rng
from vit_jax.config import Config
from vit_jax.training.experiment import Experiment
from vit_jax.training.preparation import Plan
from vit_jax.training.summary import bytes_of
from vit_jax.training.train_state import create

MakeStep = Callable[[Config, Plan], Any]  # `loop.compiled_step`


def analysis(compiled: Any) -> dict[str, int]:
  """XLA's memory of a compiled step on a device; arguments that outputs reuse count once.

  Returns:
    Bytes by kind; empty where the backend has no analysis.
  """
  found = compiled.memory_analysis()
  if found is None:
    return {}
  outputs = found.output_size_in_bytes - found.alias_size_in_bytes
  return {
    'arguments': found.argument_size_in_bytes,
    'outputs': max(0, outputs),
    'temporaries': found.temp_size_in_bytes,
    'program': found.generated_code_size_in_bytes,
  }


def of_step(config: Config, plan: Plan, make: MakeStep) -> int:
  """Bytes that a training step takes on a device; it is compiled, of shapes alone.

  Args:
    config: of the run; its batch size may be another one than that of the plan.
    plan: of the run.
    make: of the step.
  """
  placement, size = plan.placement, config.batch_size
  batch = {
    name: jax.ShapeDtypeStruct((size, *x.shape[1:]), x.dtype)
    for name, x in _one_example(config, plan).items()
  }
  state = placement.like_state(_state(config, plan))
  step = make(config, plan).lower(
    state, placement.like_batch(batch), rng.stream(config.seed, 'dropout')
  )
  return sum(analysis(step.compile()).values())


def state_bytes(config: Config, plan: Plan) -> int:
  """Bytes of a training state, all of it."""
  return bytes_of(_state(config, plan))


def _state(config: Config, plan: Plan) -> Any:
  make = plan.optimization
  return jax.eval_shape(
    lambda v: create(v, make.tx, make.frozen, config.ema.decay > 0), plan.experiment.shapes
  )


def _one_example(config: Config, plan: Plan) -> Mapping[str, np.ndarray]:
  """A training batch of one, with all that a step gets of it."""
  found = dict(_first(config, plan.experiment))
  found.pop('index')
  if plan.caching.of_features:
    found['image'] = np.zeros((1, *plan.caching.input_shape), np.float32)
  if plan.teacher is not None:
    found['teacher'] = np.zeros((1, len(plan.experiment.dataset.classes)), np.float32)
  return found


def _first(config: Config, experiment: Experiment) -> Mapping[str, np.ndarray]:
  with data.train_batches(
    experiment.train,
    experiment.train_transform,
    batch_size=1,
    seed=config.seed,
    threads=0,
    on_error=config.dataset.on_error,
  ) as batches:
    return next(batches)
