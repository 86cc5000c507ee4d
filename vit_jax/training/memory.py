"""Memory of a training step before it is computed: exact once it is compiled, before that a guess.

XLA's analysis of the compiled step is what the step takes. Compiling takes up to minutes, so that
the plan of a run holds an estimate instead, of a step that is only traced.
"""

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

# What XLA takes for copies in other layouts, and for gaps between arrays.
_LAYOUTS = 1.04


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

  The gradients and activations together are the most that is alive at once in the step, which is
  only traced, see `liveness`. Once the activations are gone, it holds the new weights and optimizer
  state beside the old ones, until it is known whether they are finite.

  Args:
    config, plan: of the run.
    state: of arrays or shapes.
  """
  placement, frozen = plan.placement, plan.optimization.frozen
  devices, share = len(placement.devices), placement.bytes_of
  parts = memory_parts(config, state, share, frozen)
  batch = _batch(config, plan, config.batch_size // devices)
  if devices == 1 and not placement.axis_name:
    traced = traced_step(config, plan).jaxpr  # as the run compiles it, so that it is traced once
  else:
    alone = {} if plan.caching.of_features else {'module': plan.experiment.module}
    step = plan.step_with(axis_name=None, **alone)
    key = rng.stream(config.seed, 'dropout')
    traced = jax.make_jaxpr(step)(state_shapes(config, plan), batch, key)
  trained = {'params': tree.split(state.params, frozen)[0]}
  alive = int(_LAYOUTS * workspace(traced))
  needed = max(alive, share(trained) + parts['optimizer'], parts['gradients'])
  return parts | {'activations': needed - parts['gradients'], 'batch': bytes_of(batch)}


def traced_step(config: Config, plan: Plan) -> Any:
  """The training step as the run compiles it, traced; not for `pmap`, which JAX cannot trace so."""
  placement = plan.placement
  return plan.placed_step.trace(
    placement.like_state(state_shapes(config, plan)),
    placement.like_batch(_batch(config, plan, config.batch_size)),
    rng.stream(config.seed, 'dropout'),
  )


def of_step(config: Config, plan: Plan) -> int:
  """Bytes that a training step takes on a device; it is compiled, of shapes alone.

  Args:
    config: of the run; its batch size may be another one than that of the plan.
    plan: of the run.
  """
  placement, batch = plan.placement, _batch(config, plan, config.batch_size)
  state = placement.like_state(state_shapes(config, plan))
  step = plan.placed_step.lower(
    state, placement.like_batch(batch), rng.stream(config.seed, 'dropout')
  )
  return sum(analysis(step.compile()).values())


def state_shapes(config: Config, plan: Plan) -> TrainState:
  """The shapes of a training state, all of it."""
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
