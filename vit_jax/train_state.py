"""All that a step changes."""

from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax


@flax.struct.dataclass
class TrainState:
  """The state of training between two steps.

  Attributes:
    step: updates made so far, int32 scalar.
    params: trained weights, nested by module name.
    model_state: what the model updates by itself (batch statistics), by collection.
    opt_state: the optimizer's.
  """

  step: jax.Array
  params: Any
  model_state: Any
  opt_state: Any

  @property
  def variables(self) -> dict:
    """What `module.apply` takes."""
    return {'params': self.params, **self.model_state}


def create(variables: dict, tx: optax.GradientTransformation) -> TrainState:
  """The state before the first step.

  Args:
    variables: 'params' and the model's other collections.
    tx: the optimizer.
  """
  model_state = {name: value for name, value in variables.items() if name != 'params'}
  return TrainState(
    step=jnp.zeros((), jnp.int32),
    params=variables['params'],
    model_state=model_state,
    opt_state=tx.init(variables['params']),
  )
