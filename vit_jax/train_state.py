"""All that a step changes."""

from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax

from vit_jax import tree


@flax.struct.dataclass
class TrainState:
  """The state of training between two steps.

  Attributes:
    step: updates made so far, int32 scalar.
    params: weights, trained and frozen, nested by module name.
    model_state: what the model updates by itself (batch statistics), by collection.
    opt_state: the optimizer's, of the trained weights.
  """

  step: jax.Array
  params: Any
  model_state: Any
  opt_state: Any

  @property
  def variables(self) -> dict:
    """What `module.apply` takes."""
    return {'params': self.params, **self.model_state}


def create(
  variables: dict, tx: optax.GradientTransformation, frozen: frozenset[str] = frozenset()
) -> TrainState:
  """The state before the first step.

  Args:
    variables: 'params' and the model's other collections.
    tx: the optimizer.
    frozen: names of parameters that are not trained, for which it keeps no state.
  """
  model_state = {name: value for name, value in variables.items() if name != 'params'}
  return TrainState(
    step=jnp.zeros((), jnp.int32),
    params=variables['params'],
    model_state=model_state,
    opt_state=tx.init(tree.split(variables['params'], frozen)[0]),
  )
