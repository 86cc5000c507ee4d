"""The optimizers: optax's update rules with the options of each."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import optax

from vit_jax.optimizers.base import OPTIMIZERS, UpdateRule
from vit_jax.options import option


@dataclasses.dataclass(frozen=True)
class _WithState(UpdateRule):
  state_dtype: str = option(
    'float32', 'precision of the momentum or first moment', choices=('float32', 'bfloat16')
  )


@dataclasses.dataclass(frozen=True)
class _WithMomentum(_WithState):
  momentum: float = option(0.9, 'sgd, adafactor: momentum; 0: none', low=0, below=1)


@dataclasses.dataclass(frozen=True)
class _WithSecondMoment(UpdateRule):
  b2: float = option(
    0.999,
    'adamw, lamb, lion: decay rate of the second moment; adafactor: its largest',
    low=0,
    below=1,
  )


@dataclasses.dataclass(frozen=True)
class _WithMoments(_WithState, _WithSecondMoment):
  b1: float = option(0.9, 'adamw, lamb, lion: decay rate of the first moment', low=0, below=1)


@OPTIMIZERS.register('sgd')
@dataclasses.dataclass(frozen=True)
class SGD(_WithMomentum):
  """Stochastic gradient descent with momentum; weight decay is added to the gradient (L2)."""

  def transforms(self) -> list[optax.GradientTransformation]:
    if not self.momentum:
      return []
    return [optax.trace(decay=self.momentum, accumulator_dtype=jnp.dtype(self.state_dtype))]

  def chain(
    self, weight_decay: list[optax.GradientTransformation]
  ) -> list[optax.GradientTransformation]:
    return [*weight_decay, *self.transforms()]


@OPTIMIZERS.register('adamw')
@dataclasses.dataclass(frozen=True)
class AdamW(_WithMoments):
  """Adam with decoupled weight decay. Source: 1711.05101."""

  eps: float = option(1e-8, 'adamw, lamb: added to the root of the second moment', low=0, high=1)

  def transforms(self) -> list[optax.GradientTransformation]:
    dtype = jnp.dtype(self.state_dtype)
    return [optax.scale_by_adam(self.b1, self.b2, self.eps, mu_dtype=dtype)]

  def is_bounded(self) -> bool:
    """By the Cauchy-Schwarz inequality for the two moments, sums with powers of b1 and of b2."""
    b1, b2 = np.float32(self.b1), np.float32(self.b2)  # which may be 1
    decay = b1**2 < b2 < 1 and self.state_dtype == 'float32'  # in bfloat16 a moment may stand still
    return bool(decay and self.eps >= 1e-12)  # gradients below 1e-22 have squares of 0


@OPTIMIZERS.register('lamb')
@dataclasses.dataclass(frozen=True)
class Lamb(AdamW):
  """Adam with a trust ratio for each array. Source: 1904.00962."""

  def chain(
    self, weight_decay: list[optax.GradientTransformation]
  ) -> list[optax.GradientTransformation]:
    return [*super().chain(weight_decay), optax.scale_by_trust_ratio()]


@OPTIMIZERS.register('lion')
@dataclasses.dataclass(frozen=True)
class Lion(_WithMoments):
  """The sign of an interpolated momentum. Source: 2302.06675."""

  def transforms(self) -> list[optax.GradientTransformation]:
    return [optax.scale_by_lion(self.b1, self.b2, mu_dtype=jnp.dtype(self.state_dtype))]

  def is_bounded(self) -> bool:
    return True


@OPTIMIZERS.register('adafactor')
@dataclasses.dataclass(frozen=True)
class Adafactor(_WithMomentum, _WithSecondMoment):
  """Factored second moments with momentum, as Scaling ViT trains. Source: 2106.04560, 3.4."""

  def transforms(self) -> list[optax.GradientTransformation]:
    rms = optax.scale_by_factored_rms(
      min_dim_size_to_factor=32,
      decay_rate_fn=lambda step, power: jnp.minimum(
        self.b2, 1.0 - (jnp.asarray(step, jnp.float32) + 1.0) ** -power
      ),
    )
    if not self.momentum:
      return [rms]
    dtype = jnp.dtype(self.state_dtype)
    return [rms, optax.ema(self.momentum, debias=False, accumulator_dtype=dtype)]
