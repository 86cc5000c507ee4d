"""Optimizers, learning-rate schedules, and which parameters they act on.

To add an optimizer, write a file here with a class under `@OPTIMIZERS.register('name')`; see
`rules`. To add a schedule, use `@SCHEDULES.register('name')`; see `schedules`.
"""

from vit_jax.optimizers.base import OPTIMIZERS, UpdateRule, build, is_bounded, make_optimizer
from vit_jax.optimizers.parameter_groups import (
  Factors,
  frozen_names,
  parameter_factors,
  parse_multiplier,
)
from vit_jax.optimizers.schedules import (
  SCHEDULES,
  Schedule,
  ScheduleFn,
  keeps_below_peak,
  make_schedule,
)
from vit_jax.optimizers.sharpness import Sharpness

__all__ = [
  'OPTIMIZERS',
  'SCHEDULES',
  'Factors',
  'Schedule',
  'ScheduleFn',
  'Sharpness',
  'UpdateRule',
  'build',
  'frozen_names',
  'is_bounded',
  'keeps_below_peak',
  'make_optimizer',
  'make_schedule',
  'parameter_factors',
  'parse_multiplier',
]
