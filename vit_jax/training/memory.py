"""Memory of a training step before it is computed: exact once it is compiled, before that a guess.

XLA's analysis of the compiled step is what the step takes. Compiling takes up to minutes, so that
the plan of a run holds an estimate instead, of a step that is only traced.
"""

from typing import Any

import jax

from vit_jax import rng, tree
from vit_jax.config import Config
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
  state beside the old ones, until it is known whether they are finite (not if the plan is bounded).

  Args:
    config, plan: of the run.
    state: of arrays or shapes.
  """
  placement, frozen = plan.placement, plan.optimization.frozen
  devices, share = len(placement.devices), placement.bytes_of
  parts = memory_parts(config, state, share, frozen)
  batch = _batch(plan, config.batch_size // devices)
  if devices == 1 and not placement.axis_name:
    traced = traced_step(config, plan).jaxpr  # as the run compiles it, so that it is traced once
  else:
    alone = {} if plan.caching.of_features else {'module': plan.experiment.module}
    step = plan.step_with(axis_name=None, **alone)
    key = rng.stream(config.seed, 'dropout')
    traced = jax.make_jaxpr(step)(state_shapes(config, plan), batch, key)
  trained = {'params': tree.split(state.params, frozen)[0]}
  alive = int(_LAYOUTS * workspace(traced))
  if placement.divides_in_groups:  # XLA sums over groups at once, from all gradients to new ones
    alive += parts['gradients']
  beside = 0 if plan.bounded else share(trained) + parts['optimizer']
  needed = max(alive, beside, parts['gradients'])
  return parts | {'activations': needed - parts['gradients'], 'batch': bytes_of(batch)}


def traced_step(config: Config, plan: Plan) -> Any:
  """The training step as the run compiles it, traced; not for `pmap`, which JAX cannot trace so."""
  return plan.placed_step.trace(*_arguments(config, plan))


def of_step(config: Config, plan: Plan) -> int:
  """Bytes that a training step takes on a device; it is compiled, of shapes alone.

  Args:
    config: of the run; its batch size may be another one than that of the plan.
    plan: of the run.
  """
  compiled = plan.placed_step.lower(*_arguments(config, plan)).compile()
  return sum(analysis(compiled).values())


def _arguments(config: Config, plan: Plan) -> tuple[Any, Any, jax.Array]:
  """The shapes of a placed state and a placed batch, and a run's key: what a step takes."""
  state = plan.placement.like_state(state_shapes(config, plan))
  batch = plan.placement.like_batch(_batch(plan, config.batch_size))
  return state, batch, rng.stream(config.seed, 'dropout')


def state_shapes(config: Config, plan: Plan) -> TrainState:
  """The shapes of a training state, all of it."""
  make = plan.optimization
  return shapes_of(plan.experiment.shapes, make.tx, make.frozen, config.ema.decay > 0)


def _batch(plan: Plan, size: int) -> dict[str, jax.ShapeDtypeStruct]:
  return {name: jax.ShapeDtypeStruct((size, *x.shape), x.dtype) for name, x in plan.example.items()}
