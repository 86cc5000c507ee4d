"""All that a step changes."""

from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax

from vit_jax import tree


class TrainState(flax.struct.PyTreeNode):
  """The state of training between two steps.

  Attributes:
    step: updates made so far, int32 scalar.
    params: weights, trained and frozen, nested by module name.
    model_state: what the model updates by itself (batch statistics), by collection.
    opt_state: the optimizer's, of the trained weights.
    rate_scale: learning-rate multiplier of ReduceLROnPlateau, float32 scalar.
    ema: exponential moving average of `variables`, or None.
    finite: False after a step with a loss, gradient or update that is not finite. That step and all
      later ones leave the rest as it was before it. Checkpoints do not hold it.
  """

  step: jax.Array
  params: Any
  model_state: Any
  opt_state: Any
  rate_scale: jax.Array
  ema: Any = None
  finite: Any = True

  @property
  def variables(self) -> dict:
    """What `module.apply` takes."""
    return {'params': self.params, **self.model_state}

  @property
  def averaged(self) -> dict:
    """The variables to use: their EMA where there is one."""
    return self.variables if self.ema is None else self.ema


def create(
  variables: dict,
  tx: optax.GradientTransformation,
  frozen: frozenset[str] = frozenset(),
  ema: bool = False,
) -> TrainState:
  """The state before the first step.

  Args:
    variables: 'params' and the model's other collections.
    tx: the optimizer.
    frozen: names of parameters that are not trained, for which it has no state.
    ema: whether there is an EMA of the variables.
  """
  model_state = {name: value for name, value in variables.items() if name != 'params'}
  return TrainState(
    step=jnp.zeros((), jnp.int32),
    params=variables['params'],
    model_state=model_state,
    opt_state=tx.init(tree.split(variables['params'], frozen)[0]),
    rate_scale=jnp.ones((), jnp.float32),
    ema=jax.tree.map(jnp.array, dict(variables)) if ema else None,
  )


def shapes_of(
  variables: Any,
  tx: optax.GradientTransformation,
  frozen: frozenset[str] = frozenset(),
  ema: bool = False,
) -> TrainState:
  """The shapes of what `create` makes of variables, or of their shapes; nothing is computed."""
  return jax.eval_shape(lambda v: create(v, tx, frozen, ema), variables)


def to_checkpoint(state: TrainState) -> tuple[dict, dict]:
  """A state as the two items of a checkpoint: (variables to use, what resuming needs besides)."""
  training = {'step': state.step, 'opt_state': state.opt_state, 'rate_scale': state.rate_scale}
  if state.ema is not None:
    training['variables'] = state.variables
  return state.averaged, training


def from_checkpoint(averaged: dict, training: dict, ema: bool) -> TrainState:
  """The inverse of `to_checkpoint`."""
  variables = training.get('variables', averaged)
  return TrainState(
    step=training['step'],
    params=variables['params'],
    model_state={k: v for k, v in variables.items() if k != 'params'},
    opt_state=training['opt_state'],
    rate_scale=training['rate_scale'],
    ema=averaged if ema else None,
  )
