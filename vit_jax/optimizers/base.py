"""The table of optimizers, and what surrounds every one: clipping, weight decay, learning rates."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import optax

from vit_jax import tree
from vit_jax.optimizers.parameter_groups import Factors
from vit_jax.optimizers.schedules import ScheduleFn
from vit_jax.options import build_component
from vit_jax.registry import Registry

OPTIMIZERS: Registry[type['UpdateRule']] = Registry('optimizer', 'vit_jax.optimizers')


@dataclasses.dataclass(frozen=True)
class UpdateRule:
  """How gradients become updates; a subclass's fields, made by `option`, are its options.

  They appear as `config.optimizer.FIELD` and in `--help`; optimizers may share one by stating it
  alike.
  """

  def transforms(self) -> list[optax.GradientTransformation]:
    """From gradients to updates, before weight decay and learning rate."""
    raise NotImplementedError

  def chain(
    self, weight_decay: list[optax.GradientTransformation]
  ) -> list[optax.GradientTransformation]:
    """`transforms` with weight decay in its place: decoupled, after them, unless overridden."""
    return [*self.transforms(), *weight_decay]

  def is_bounded(self) -> bool:
    """Whether a bound holds for the size of updates, whatever the gradients, if these are finite.

    A step then need not look at the new weights before it writes them over the old ones. It is not
    inherited: a subclass that states the same has its own.
    """
    return False


def build(name: str, options: Mapping[str, Any]) -> UpdateRule:
  """An optimizer by its name, which takes the options that are its own."""
  return build_component(OPTIMIZERS, name, options)


def is_bounded(
  rule: UpdateRule, rate: float, factors: Mapping[str, Factors], weight_decay: float
) -> bool:
  """Whether weights stay finite with finite gradients: they grow by a bounded step at a time.

  Args:
    rule: the optimizer.
    rate: the highest learning rate.
    factors, weight_decay: as in `make_optimizer`.
  """
  largest = rate * max(
    factor.rate * max(1.0, weight_decay * factor.decay) for factor in factors.values()
  )
  return 'is_bounded' in vars(type(rule)) and rule.is_bounded() and largest <= 1


def make_optimizer(
  rule: UpdateRule,
  schedule: ScheduleFn,
  factors: Mapping[str, Factors],
  *,
  weight_decay: float = 0.0,
  clip_norm: float = 0.0,
  clip_value: float = 0.0,
) -> optax.GradientTransformation:
  """An optimizer with clipping before it, weight decay, and learning rates after it.

  Args:
    rule: the optimizer.
    schedule: the learning rate by step.
    factors: of every parameter that it may see.
    weight_decay: multiplied by each parameter's own factor. optax's masks know decay or none alone,
      so the factors are applied here.
    clip_norm: gradients are scaled down to this global norm; 0 for never.
    clip_value: each gradient is clipped to this size; 0 for never.
  """

  def decayed(updates: dict, params: dict) -> dict:
    def decay(name: str, update: jax.Array, param: jax.Array) -> jax.Array:
      factor = weight_decay * factors[name].decay
      return update + factor * param if factor else update

    return tree.map_pairs(decay, updates, params)

  def scaled(updates: dict, _: Any) -> dict:
    return tree.map_named(lambda name, u: u * factors[name].rate, updates)

  steps = []
  if clip_norm:
    steps.append(optax.clip_by_global_norm(clip_norm))
  if clip_value:
    steps.append(optax.clip(clip_value))
  steps += rule.chain([optax.stateless(decayed)] if weight_decay else [])
  steps.append(optax.scale_by_learning_rate(schedule))
  if any(factor.rate != 1.0 for factor in factors.values()):
    steps.append(optax.stateless(scaled))
  return optax.chain(*steps)
