"""The pure steps: what one update and one evaluation compute, wherever they are placed."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from vit_jax import tree
from vit_jax.config import Ema
from vit_jax.data import Preprocess
from vit_jax.optimizers import Sharpness
from vit_jax.rng import named
from vit_jax.tasks import Mixing, Task
from vit_jax.tasks.metrics import batch_total
from vit_jax.training.train_state import TrainState

# In a batch of several processes: who was asked to stop, see `signals.SharedStop`.
STOPS = 'stops'

# Elements of an array up to which it is joined with others for a norm.
_SMALL = 4096


class StepMetric(NamedTuple):
  """A metric of one step.

  Attributes:
    total: sum over the global batch, or a number of the step itself.
    weight: what it is to be divided by: examples, or 1.
  """

  total: jax.Array
  weight: jax.Array | float = 1.0


def make_train_step(
  module: nn.Module,
  task: Task,
  tx: optax.GradientTransformation,
  schedule: Callable[[jax.Array], jax.Array],
  preprocess: Preprocess,
  *,
  accumulate: int = 1,
  axis_name: str | None = None,
  frozen: frozenset[str] = frozenset(),
  mixing: Mixing | None = None,
  sharpness: Sharpness | None = None,
  ema: Ema | None = None,
  constrain: Callable[[dict], dict] = lambda params: params,
  guarded: bool = True,
  bounded: bool = False,
  divided: bool = False,
) -> Callable[[TrainState, dict, jax.Array], tuple[TrainState, dict]]:
  """Builds the function (state, batch, rng) -> (state, metrics).

  Args:
    module: the model.
    task: its losses and metrics.
    tx: the optimizer.
    schedule: the learning rate by step, reported among the metrics.
    preprocess: the value range of the model's input.
    accumulate: gradient accumulation steps; the mean of their gradients equals that of the whole
      batch.
    axis_name: the mapped axis to average over, under pmap; None where the batch is global.
    frozen: names of parameters that are not trained; no gradient is computed for them.
    mixing: Mixup and CutMix.
    sharpness: SAM or GSAM, whose second gradient takes as long as the first.
    ema: how EMA parameters are updated, if the state has them.
    constrain: keeps parameters, and their gradients with them, where a placement puts them.
    guarded: whether a step with a metric that is not finite, and all steps after it, change nothing
      but the state's `finite`.
    bounded: whether new weights are finite wherever gradients and state are. It is then known
      before the update whether a step is made, and no array is kept for the case that it is not.
    divided: whether arrays of the state are divided among devices.

  Returns:
    The step; its metrics are `StepMetric`s by name. `batch` has 'image' uint8 [b, h, w, c] and the
    task's targets [b, ...]; `rng` is the run's key, from which the step derives its own. STOPS in
    the batch, [b, k], become a metric whose total is their sum, [k].
  """

  norm = optax.tree.norm if divided else _joined_norm
  mean_gradients = _make_gradients(
    module, task, preprocess, accumulate, axis_name, frozen, constrain
  )

  def train_step(state: TrainState, batch: dict, rng: jax.Array) -> tuple[TrainState, dict]:
    key = step_key(rng, state.step, axis_name)
    batch, stops = _without_stops(batch, axis_name)
    batch = mixed(mixing, task, batch, key)
    grads, model_state, metrics = mean_gradients(state.params, state.model_state, batch, key)
    metrics['grad_norm'] = StepMetric(norm(grads))
    trained, fixed = tree.split(state.params, frozen)
    if sharpness:
      ascended = tree.merge(sharpness.ascend(trained, grads, state.step), fixed)
      grads = sharpness.combine(grads, mean_gradients(ascended, state.model_state, batch, key)[0])
      metrics['sam_grad_norm'] = StepMetric(norm(grads))
    rate = jnp.asarray(schedule(state.step), jnp.float32) * state.rate_scale
    metrics['learning_rate'] = StepMetric(rate)
    if guarded and bounded:  # new weights are finite where all of this is
      finite = state.finite & _all_finite(metrics, norm((trained, model_state)))
      after = jax.lax.cond(finite, updated, lambda state, *_: state, state, grads, model_state)
    else:
      after = updated(state, grads, model_state)
    trained = tree.split(after.params, frozen)[0]
    metrics['weights_norm'] = StepMetric(norm((trained, model_state)))
    if guarded:
      finite = state.finite & _all_finite(metrics)
      if not bounded:
        after = jax.tree.map(functools.partial(jnp.where, finite), after, state)
      after = after.replace(finite=finite)
    return after, metrics | stops

  def updated(state: TrainState, grads: dict, model_state: dict) -> TrainState:
    trained, fixed = tree.split(state.params, frozen)
    updates, opt_state = tx.update(grads, state.opt_state, trained)
    updates = jax.tree.map(lambda u: u * state.rate_scale, updates)
    after = state.replace(
      step=state.step + 1,
      params=tree.merge(optax.apply_updates(trained, updates), fixed),
      model_state=model_state,
      opt_state=opt_state,
    )
    return _averaged(after, ema)

  return train_step


def _without_stops(batch: dict, axis_name: str | None) -> tuple[dict, dict[str, StepMetric]]:
  """The batch, and the metric that STOPS in it make."""
  if STOPS not in batch:
    return batch, {}
  total = batch[STOPS].sum(axis=0)
  total = jax.lax.psum(total, axis_name) if axis_name else total
  return {k: v for k, v in batch.items() if k != STOPS}, {STOPS: StepMetric(total)}


def _make_gradients(
  module: nn.Module,
  task: Task,
  preprocess: Preprocess,
  accumulate: int,
  axis_name: str | None,
  frozen: frozenset[str],
  constrain: Callable[[dict], dict],
) -> Callable[[dict, dict, dict, jax.Array], tuple[dict, dict, dict]]:
  """Builds the function (params, model_state, batch, key) -> (gradients, model_state, metrics)."""

  def loss_fn(trained, fixed, model_state, batch, key):
    params = constrain(tree.merge(trained, fixed))
    images = preprocess.normalize(batch['image'])
    outputs, updated = module.apply(
      {'params': params, **model_state},
      images,
      train=True,
      rngs={'dropout': key},
      mutable=list(model_state),
    )
    totals = {name: batch_total(value) for name, value in task.metrics(outputs, batch).items()}
    return task.losses(outputs, batch).mean(), (dict(updated), totals)

  def gradients(params, model_state, batch, key):
    trained, fixed = tree.split(params, frozen)
    grads, (model_state, totals) = jax.grad(loss_fn, has_aux=True)(
      trained, fixed, model_state, batch, key
    )
    return grads, model_state, totals

  def mean_gradients(params, model_state, batch, key):
    if accumulate == 1:
      grads, model_state, totals = gradients(params, model_state, batch, key)
    else:
      grads, model_state, totals = _accumulated(
        gradients, params, model_state, batch, key, accumulate
      )
    if axis_name:
      grads, model_state = jax.lax.pmean((grads, model_state), axis_name)
      totals = jax.lax.psum(totals, axis_name)
    return grads, model_state, {name: StepMetric(*total) for name, total in totals.items()}

  return mean_gradients


def step_key(rng: jax.Array, step: jax.Array, axis_name: str | None) -> jax.Array:
  """The key of one step, and of one device where the step is mapped."""
  key = jax.random.fold_in(rng, step)
  return jax.random.fold_in(key, jax.lax.axis_index(axis_name)) if axis_name else key


def mixed(mixing: Mixing | None, task: Task, batch: dict, key: jax.Array) -> dict:
  """The batch with mixed images, 'target' [b, k] and the truth of what prevails; or as it is."""
  if not mixing:
    return batch
  images, targets = mixing(named(key, 'mixing'), batch['image'], task.targets(batch))
  return {**batch, 'image': images, 'target': targets, **task.prevailing(targets)}


def _joined_norm(arrays: Any) -> jax.Array:
  """`optax.tree.norm`; kernels for each small array would take a second to compile."""
  leaves = jax.tree.leaves(arrays)
  small = [x.ravel() for x in leaves if x.size <= _SMALL]
  large = [x for x in leaves if x.size > _SMALL]
  return optax.tree.norm([*large, jnp.concatenate(small)] if small else large)


def _all_finite(metrics: dict, *others: jax.Array) -> jax.Array:
  """Whether all metrics, and other numbers, are finite."""
  totals = [metric.total for metric in metrics.values()]
  return jnp.stack([jnp.isfinite(x).all() for x in (*totals, *others)]).all()


def _averaged(state: TrainState, ema: Ema | None) -> TrainState:
  if state.ema is None or ema is None:
    return state
  decay: Any = ema.decay
  if ema.warmup:  # of `step` updates made
    decay = jnp.minimum(decay, (1.0 + state.step) / (10.0 + state.step))
  return state.replace(
    ema=jax.tree.map(lambda e, x: e + (1.0 - decay) * (x - e), state.ema, state.variables)
  )


def _accumulated(
  gradients: Callable, params: dict, model_state: dict, batch: dict, key: jax.Array, parts: int
):
  """Mean gradients and totals of metrics over equal parts of a batch, one in memory at a time."""

  def split(x):  # [b, ...] -> [parts, b / parts, ...], each device keeping its own examples
    return jnp.moveaxis(x.reshape(x.shape[0] // parts, parts, *x.shape[1:]), 1, 0)

  def body(carry, part):
    total, model_state = carry
    index, examples = part
    grads, model_state, totals = gradients(
      params, model_state, examples, jax.random.fold_in(key, index)
    )
    return (jax.tree.map(jnp.add, total, (grads, totals)), model_state), None

  batches = jax.tree.map(split, batch)
  shapes = jax.eval_shape(
    gradients, params, model_state, jax.tree.map(lambda x: x[0], batches), key
  )
  zeros = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), (shapes[0], shapes[2]))
  ((grads, totals), model_state), _ = jax.lax.scan(
    body, (zeros, model_state), (jnp.arange(parts), batches)
  )
  return jax.tree.map(lambda x: x / parts, grads), model_state, totals
