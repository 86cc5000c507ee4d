"""Memory of a training step before it is computed: exact once it is compiled, before that a guess.

XLA's analysis of the compiled step is what the step takes. Compiling takes up to minutes, so that
the plan of a run holds an estimate between two bounds instead, of a step that is only traced.
"""

import math
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from vit_jax import data, rng, tree
from vit_jax.config import Config
from vit_jax.training.experiment import Experiment
from vit_jax.training.liveness import workspace
from vit_jax.training.preparation import Plan
from vit_jax.training.summary import bytes_of, memory_parts
from vit_jax.training.train_state import TrainState, shapes_of


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


def estimate(config: Config, plan: Plan, state: TrainState) -> dict[str, int]:
  """Bytes on a device by what they are for: all but the activations are exact, from shapes.

  XLA keeps less for the backward pass than JAX's residuals, which it computes again in part, and
  more than if it fused all that it can: the estimate is the geometric mean of the two. Once the
  activations are gone, the step holds the new weights and optimizer state beside the old ones,
  until it is known whether they are finite.

  Args:
    config, plan: of the run.
    state: of arrays or shapes.
  """
  devices = len(plan.placement.devices)
  experiment, frozen = plan.experiment, plan.optimization.frozen
  share = plan.placement.bytes_of
  parts = memory_parts(config, experiment, state, devices, share, frozen)
  batch = _batch(config, plan, config.batch_size // devices)
  key = rng.stream(config.seed, 'dropout')
  if devices == 1 and not plan.placement.axis_name:
    # As the run compiles it, so that it is not traced twice.
    state_shapes = plan.placement.like_state(_state(config, plan))
    step = plan.placement.compile_train(plan.step)
    traced = step.trace(state_shapes, plan.placement.like_batch(batch), key).jaxpr
  else:
    alone = {} if plan.caching.of_features else {'module': experiment.module}
    step = plan.step_with(axis_name=None, constrain=lambda params: params, **alone)
    traced = jax.make_jaxpr(step)(_state(config, plan), batch, key)
  gradients, trained = parts['gradients'], {'params': tree.split(state.params, frozen)[0]}
  whole = gradients * bytes_of(trained) // max(1, share(trained))  # on one device, as traced
  between = math.sqrt(workspace(traced) * (whole + parts['activations'])) - (whole - gradients)
  needed = max(int(between), share(trained) + parts['optimizer'], gradients)
  return parts | {'activations': needed - gradients, 'batch': bytes_of(batch)}


def of_step(config: Config, plan: Plan) -> int:
  """Bytes that a training step takes on a device; it is compiled, of shapes alone.

  Args:
    config: of the run; its batch size may be another one than that of the plan.
    plan: of the run.
  """
  placement, batch = plan.placement, _batch(config, plan, config.batch_size)
  state = placement.like_state(_state(config, plan))
  step = placement.compile_train(plan.step).lower(
    state, placement.like_batch(batch), rng.stream(config.seed, 'dropout')
  )
  return sum(analysis(step.compile()).values())


def state_bytes(config: Config, plan: Plan) -> int:
  """Bytes of a training state, all of it."""
  return bytes_of(_state(config, plan))


def _state(config: Config, plan: Plan) -> Any:
  make = plan.optimization
  return shapes_of(plan.experiment.shapes, make.tx, make.frozen, config.ema.decay > 0)


def _batch(config: Config, plan: Plan, size: int) -> dict[str, jax.ShapeDtypeStruct]:
  return {
    name: jax.ShapeDtypeStruct((size, *x.shape[1:]), x.dtype)
    for name, x in _one_example(config, plan).items()
  }


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
