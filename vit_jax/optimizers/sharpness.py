"""Sharpness-aware minimisation: SAM and GSAM."""

import dataclasses

import jax
import optax

from vit_jax.optimizers.schedules import ScheduleFn


@dataclasses.dataclass(frozen=True)
class Sharpness:
  """A second gradient, taken where the loss is higher.

  Attributes:
    rho: radius of the ascent step, by training step.
    alpha: GSAM's weight of the gradient component that lowers sharpness alone; 0 for SAM.

  Sources: SAM, Foret et al., 2010.01412; GSAM, Zhuang et al., 2203.08065, algorithm 1.
  """

  rho: ScheduleFn
  alpha: float

  @classmethod
  def scheduled(
    cls, rho: float, rho_end: float, alpha: float, schedule: ScheduleFn, peak: float
  ) -> 'Sharpness':
    """SAM whose radius falls with the learning rate.

    Args:
      rho: radius at the peak learning rate.
      rho_end: its fraction left at a learning rate of zero; between, in proportion to the rate.
      alpha: as above.
      schedule, peak: the learning rate.
    """
    return cls(lambda step: rho * (rho_end + (1 - rho_end) * schedule(step) / peak), alpha)

  def ascend(self, params: dict, grads: dict, step: jax.Array) -> dict:
    """The parameters at distance rho along the gradient."""
    scale = self.rho(step) / (optax.tree.norm(grads) + 1e-12)
    return jax.tree.map(lambda p, g: p + scale * g, params, grads)

  def combine(self, grads: dict, ascended_grads: dict) -> dict:
    """The gradient to descend, from those at the parameters and at the ascended ones."""
    if not self.alpha:
      return ascended_grads
    along = optax.tree.vdot(grads, ascended_grads) / (optax.tree.norm(ascended_grads) ** 2 + 1e-12)
    return jax.tree.map(lambda g, up: up - self.alpha * (g - along * up), grads, ascended_grads)
