"""The training step of a run, made of what its config means."""

from collections.abc import Callable
from typing import Any

from vit_jax.config import Config
from vit_jax.training.preparation import Plan
from vit_jax.training.train_step import make_train_step


def step_of(config: Config, plan: Plan, **changes: Any) -> Callable:
  """The training step of a run, (state, batch, rng) -> (state, metrics).

  Args:
    config, plan: of the run.
    **changes: arguments of `make_train_step` that differ from the run's.
  """
  optimization, caching = plan.optimization, plan.caching
  arguments = {
    'module': caching.module,
    'task': plan.experiment.task,
    'tx': optimization.tx,
    'schedule': optimization.schedule,
    'preprocess': caching.preprocess,
    'accumulate': config.accumulate,
    'axis_name': plan.placement.axis_name,
    'frozen': optimization.frozen,
    'mixing': config.mixing,
    'sharpness': optimization.sharpness,
    'ema': config.ema,
    'constrain': plan.placement.constrain,
  }
  return make_train_step(**arguments | changes)


def compiled_step(config: Config, plan: Plan, **changes: Any) -> Any:
  """`step_of`, placed on the run's devices."""
  return plan.placement.compile_train(step_of(config, plan, **changes))
