"""Learning-rate schedules: decay after a linear warm-up, and a linear cool-down.

The shapes are written out instead of taken from optax because they differ from its own in the last
bit, and a run that is resumed shall end as it would have.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from vit_jax.options import Length, build_component, option, rule_of
from vit_jax.registry import Registry

ScheduleFn = Callable[[jax.Array], jax.Array]

SCHEDULES: Registry[type['Schedule']] = Registry('schedule', 'vit_jax.optimizers')


@dataclasses.dataclass(frozen=True)
class Schedule:
  """How the learning rate decays; a subclass's fields, made by `option`, are its options.

  They appear as `config.schedule.FIELD` and in `--help`. Text fields that `Length` parses are given
  in steps.
  """

  def __call__(self, since: jax.Array, decay_steps: int) -> jax.Array:
    """The learning rate as a fraction of its peak.

    Args:
      since: steps since the end of the warm-up, float32.
      decay_steps: from the end of the warm-up to the end of training.
    """
    raise NotImplementedError


@dataclasses.dataclass(frozen=True)
class _WithEnd(Schedule):
  end: float = option(
    0.0, 'cosine, linear: final learning rate as a fraction of the peak', low=0, high=1
  )


@SCHEDULES.register('cosine')
@dataclasses.dataclass(frozen=True)
class Cosine(_WithEnd):
  """Half a period of a cosine. Source: 1608.03983, equation 5, without restarts."""

  def __call__(self, since: jax.Array, decay_steps: int) -> jax.Array:
    progress = jnp.clip(since / decay_steps, 0.0, 1.0)
    return self.end + (1 - self.end) * 0.5 * (1 + jnp.cos(jnp.pi * progress))


@SCHEDULES.register('linear')
@dataclasses.dataclass(frozen=True)
class Linear(_WithEnd):
  """A straight line."""

  def __call__(self, since: jax.Array, decay_steps: int) -> jax.Array:
    return 1 - (1 - self.end) * jnp.clip(since / decay_steps, 0.0, 1.0)


@SCHEDULES.register('rsqrt')
@dataclasses.dataclass(frozen=True)
class Rsqrt(Schedule):
  """Nearly flat for one timescale, then 1 / sqrt(step). Source: 2106.04560, section 3.5."""

  timescale: str = option(
    '10000 steps', 'rsqrt: timescale t of 1 / sqrt(1 + step / t)', parse=Length.parse_positive
  )

  def __call__(self, since: jax.Array, decay_steps: int) -> jax.Array:
    return 1 / jnp.sqrt(1 + since / float(self.timescale))


@SCHEDULES.register('constant')
@dataclasses.dataclass(frozen=True)
class Constant(Schedule):
  """No decay."""

  def __call__(self, since: jax.Array, decay_steps: int) -> jax.Array:
    return jnp.float32(1.0)


def keeps_below_peak(name: str) -> bool:
  """Whether a schedule never exceeds 1, as those of this file; a user's may do as it wants."""
  return SCHEDULES[name].__module__ == __name__


def make_schedule(
  name: str,
  options: Mapping[str, Any],
  peak: float,
  total_steps: int,
  steps_of: Callable[[str], int],
) -> ScheduleFn:
  """The learning rate as a function of the step.

  Args:
    name: one of SCHEDULES.
    options: 'warmup' and 'cooldown' as lengths, and the schedule's own; others are passed over.
    peak: the highest learning rate.
    total_steps: length of training.
    steps_of: turns a length such as '5 epochs' into steps.

  Returns:
    A function from the step (0 first) to the learning rate used in that step.
  """
  decay = build_component(SCHEDULES, name, options)
  lengths = {
    field.name: str(max(1, steps_of(getattr(decay, field.name))))
    for field in dataclasses.fields(decay)
    if rule_of(field).parse in (Length.parse, Length.parse_positive)
  }
  decay = dataclasses.replace(decay, **lengths)
  warmup, cooldown = steps_of(options['warmup']), steps_of(options['cooldown'])
  decay_steps = max(1, total_steps - warmup)

  def rate(step: jax.Array) -> jax.Array:
    share = decay(jnp.maximum(0.0, step - warmup), decay_steps)
    if warmup:
      share *= jnp.minimum(1.0, (step + 1) / warmup)
    if cooldown:
      share *= jnp.clip((total_steps - step) / cooldown, 0.0, 1.0)
    return peak * share

  return rate
