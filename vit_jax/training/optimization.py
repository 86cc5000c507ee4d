"""From options to an optimizer for a model's parameters."""

import dataclasses
from collections.abc import Callable, Mapping

import optax

from vit_jax import optimizers
from vit_jax.config import Optimizer, Schedule
from vit_jax.errors import Problems


@dataclasses.dataclass(frozen=True)
class Optimization:
  """How parameters are updated.

  Attributes:
    tx: the optimizer.
    schedule: the learning rate by step.
    factors: of every parameter's learning rate and weight decay.
    frozen: names of parameters that are not trained.
    sharpness: SAM or GSAM, where one is used.
    bounded: whether weights stay finite with finite gradients, see `optimizers.is_bounded`.
  """

  tx: optax.GradientTransformation
  schedule: optimizers.ScheduleFn
  factors: Mapping[str, optimizers.Factors]
  frozen: frozenset[str]
  sharpness: optimizers.Sharpness | None
  bounded: bool


def make_optimization(
  optimizer: Optimizer,
  schedule: Schedule,
  freeze: tuple[str, ...],
  params: Mapping,
  total_steps: int,
  steps_of: Callable[[str], int],
) -> Optimization:
  """Builds optimizer and schedule for parameters.

  Args:
    optimizer, schedule, freeze: options.
    params: arrays or shapes.
    total_steps: length of training.
    steps_of: turns a length such as '5 epochs' into steps.

  Raises:
    ConfigError: patterns that match no parameter, or leave some unmatched.
  """
  rate = optimizers.make_schedule(
    schedule.name, vars(schedule), optimizer.learning_rate, total_steps, steps_of
  )
  problems = Problems()
  with problems.collect():
    factors = optimizers.parameter_factors(
      params,
      optimizer.multipliers,
      optimizer.decay,
      optimizer.weight_decay,
      optimizer.layer_decay,
    )
  with problems.collect():
    frozen = optimizers.frozen_names(params, freeze)
  problems.raise_if_any()
  rule = optimizers.build(optimizer.name, vars(optimizer))
  tx = optimizers.make_optimizer(
    rule,
    rate,
    factors,
    weight_decay=optimizer.weight_decay,
    clip_norm=optimizer.clip_norm,
    clip_value=optimizer.clip_value,
  )
  sharpness = None
  if optimizer.sam_rho:
    sharpness = optimizers.Sharpness.scheduled(
      optimizer.sam_rho,
      optimizer.sam_rho_end,
      optimizer.gsam_alpha,
      rate,
      optimizer.learning_rate,
    )
  bounded = optimizers.keeps_below_peak(schedule.name) and optimizers.is_bounded(
    rule, optimizer.learning_rate, factors, optimizer.weight_decay
  )
  return Optimization(tx, rate, factors, frozen, sharpness, bounded)
