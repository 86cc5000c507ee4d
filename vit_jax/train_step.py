"""The pure steps: what one update and one evaluation compute, wherever they are placed."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from vit_jax import tree
from vit_jax.data import Preprocess
from vit_jax.train_state import TrainState


def make_train_step(
  module: nn.Module,
  task: Any,
  tx: optax.GradientTransformation,
  schedule: Callable[[jax.Array], jax.Array],
  preprocess: Preprocess,
  accumulate: int = 1,
  axis_name: str | None = None,
  frozen: frozenset[str] = frozenset(),
) -> Callable[[TrainState, dict, jax.Array], tuple[TrainState, dict]]:
  """Builds the function (state, batch, rng) -> (state, metrics).

  Args:
    module: the model.
    task: its losses and metrics.
    tx: the optimizer.
    schedule: the learning rate by step, reported among the metrics.
    preprocess: the value range that the model wants.
    accumulate: parts that a batch is computed in, one after another; their mean gradient equals
      that of the whole batch.
    axis_name: the mapped axis to average over, under pmap; None where the batch is global.
    frozen: names of parameters that stay; no gradient is computed for them.

  Returns:
    The step. `batch` has 'image' uint8 [b, h, w, c] and the task's targets [b, ...]; `rng` is the
    run's key, from which the step derives its own.
  """

  def loss_fn(trained, fixed, model_state, batch, key):
    params = tree.merge(trained, fixed)
    images = preprocess.normalize(batch['image'])
    outputs, updated = module.apply(
      {'params': params, **model_state},
      images,
      train=True,
      rngs={'dropout': key},
      mutable=list(model_state),
    )
    metrics = task.metrics(outputs, batch)
    means = {name: value.mean() for name, value in metrics.items()}
    return task.losses(outputs, batch).mean(), (dict(updated), means)

  def gradients(params, model_state, batch, key):
    trained, fixed = tree.split(params, frozen)
    grads, (model_state, metrics) = jax.grad(loss_fn, has_aux=True)(
      trained, fixed, model_state, batch, key
    )
    return grads, model_state, metrics

  def train_step(state: TrainState, batch: dict, rng: jax.Array) -> tuple[TrainState, dict]:
    key = jax.random.fold_in(rng, state.step)
    if axis_name:
      key = jax.random.fold_in(key, jax.lax.axis_index(axis_name))
    if accumulate == 1:
      grads, model_state, metrics = gradients(state.params, state.model_state, batch, key)
    else:
      grads, model_state, metrics = _accumulated(gradients, state, batch, key, accumulate)
    if axis_name:
      grads, model_state, metrics = jax.lax.pmean((grads, model_state, metrics), axis_name)
    trained, fixed = tree.split(state.params, frozen)
    updates, opt_state = tx.update(grads, state.opt_state, trained)
    metrics['learning_rate'] = jnp.asarray(schedule(state.step), jnp.float32)
    metrics['grad_norm'] = optax.tree.norm(grads)
    state = TrainState(
      step=state.step + 1,
      params=tree.merge(optax.apply_updates(trained, updates), fixed),
      model_state=model_state,
      opt_state=opt_state,
    )
    return state, metrics

  return train_step


def _accumulated(gradients, state: TrainState, batch: dict, key: jax.Array, parts: int):
  """Mean gradients and metrics over equal parts of a batch, one part in memory at a time."""

  def split(x):  # [b, ...] -> [parts, b / parts, ...], each device keeping its own examples
    return jnp.moveaxis(x.reshape(x.shape[0] // parts, parts, *x.shape[1:]), 1, 0)

  def body(carry, part):
    total, model_state = carry
    index, examples = part
    grads, model_state, metrics = gradients(
      state.params, model_state, examples, jax.random.fold_in(key, index)
    )
    return (jax.tree.map(jnp.add, total, (grads, metrics)), model_state), None

  batches = jax.tree.map(split, batch)
  shapes = jax.eval_shape(
    gradients, state.params, state.model_state, jax.tree.map(lambda x: x[0], batches), key
  )
  zeros = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), (shapes[0], shapes[2]))
  (total, model_state), _ = jax.lax.scan(
    body, (zeros, state.model_state), (jnp.arange(parts), batches)
  )
  grads, metrics = jax.tree.map(lambda x: x / parts, total)
  return grads, model_state, metrics


def make_eval_step(
  module: nn.Module, task: Any, preprocess: Preprocess
) -> Callable[[dict, dict], tuple[dict, jax.Array]]:
  """Builds the function (variables, batch) -> (metrics of each example {name: [b]}, logits)."""

  def eval_step(variables: dict, batch: dict) -> tuple[dict, jax.Array]:
    outputs = module.apply(variables, preprocess.normalize(batch['image']), train=False)
    return task.metrics(outputs, batch), outputs

  return eval_step
