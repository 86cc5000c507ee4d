"""Runs a step that was not finite once more and finds where the first such value appears.

It is the training step itself, on the same state and batch, with the same random numbers: the
model, the task and the optimizer it is made of count what is not finite of all that they give.
"""

import dataclasses
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax.core.tracers import current_trace

from vit_jax import processes, remote, rng, tree
from vit_jax.checkpoint.saved import by_path
from vit_jax.config import AUTO, Config, parse_saved
from vit_jax.console import phase
from vit_jax.files import workdir_of
from vit_jax.models.heads import backbone_of, with_backbone
from vit_jax.models.stack import apart, chosen_scan
from vit_jax.training import divergence
from vit_jax.training.display import console_for
from vit_jax.training.loop import HINT
from vit_jax.training.preparation import Plan, prepared
from vit_jax.training.starting import changes, restored
from vit_jax.training.train_state import TrainState

log = logging.getLogger(__name__)

_FORWARD, _ROWS = 'forward', 'rows'


@dataclasses.dataclass(frozen=True)
class Stage:
  """A part of the step, with what of it is not finite.

  Attributes:
    name: such as 'gradient'.
    bad: names of what is not finite to how much of it is not, the first to become so in front.
    among: how many things were looked at.
    unit: of the amounts: 'images' or 'values'.
    image: the only image that is not finite, where there is just one.
  """

  name: str
  bad: Mapping[str, int]
  among: int
  unit: str = 'values'
  image: str = ''


@dataclasses.dataclass(frozen=True)
class Replay:
  """What was found.

  Attributes:
    step: that was run again, from 1.
    stages: of the step, in order, up to the first that is not finite.
  """

  step: int
  stages: Sequence[Stage]

  @property
  def first(self) -> Stage | None:
    """The first stage with a value that is not finite; None where there is none."""
    return self.stages[-1] if self.stages and self.stages[-1].bad else None

  def lines(self) -> list[str]:
    """For a person: each stage, and a verdict."""
    found = [f'{stage.name}: finite' for stage in self.stages if not stage.bad]
    bad = self.first
    if bad is None:
      return [*found, f'step {self.step}: every value is finite when the step is run again here']
    name, count = next(iter(bad.bad.items()))
    where = f' ({bad.image})' if bad.image else ''
    others = f', and of {len(bad.bad) - 1} more of {bad.among}' if len(bad.bad) > 1 else ''
    return [
      *found,
      f'{bad.name}: not finite in {count:,} {bad.unit}{where} of {name}{others}',
      f'step {self.step}: what is not finite begins in {name} ({bad.name})',
    ]

  def facts(self) -> dict[str, Any]:
    """The same as JSON values."""
    first = self.first
    return {
      'event': 'replay',
      'step': self.step,
      'first': first and {'stage': first.name, 'name': next(iter(first.bad))},
      'stages': [dataclasses.asdict(stage) for stage in self.stages],
    }


def replay(config: Config, workdir: str, output: str = 'text') -> Replay:
  """Runs the step that `divergence.keep` has kept in a run's folder.

  Args:
    config: of the run; options may differ, to see what they change, as long as the state fits.
    workdir: the run's folder, of which nothing is changed.
    output: one of `display.DISPLAYS`.

  Raises:
    CheckpointError: nothing is kept there, or it does not fit.
    UserError: as `train` does.
  """
  path = remote.copy_of(workdir_of(str(workdir)))
  with console_for(output):
    kept = divergence.read(path)
    if config.batch_size == AUTO:
      before = kept.saved.meta['config']['batch_size']
      config = dataclasses.replace(config, batch_size=before)
    for change in changes(parse_saved(kept.saved.meta['config']), config):
      log.warning('%s', change)
    with prepared(config, path) as plan:
      ema = config.ema.decay > 0
      state = restored(kept.saved, plan.experiment, plan.optimization, ema)
      with phase(f'running step {kept.step} again', HINT, told_after=0):
        found = []
        for stage in _Steps(config, plan, kept.batch).stages(state):
          found.append(stage)
          if stage.bad:
            break
        return Replay(kept.step, found)


class _Steps:
  """The passes of a step, each with the state that it starts from.

  Args:
    config, plan: of the run.
    batch: all of it, [b, ...].
  """

  def __init__(self, config: Config, plan: Plan, batch: Mapping[str, np.ndarray]):
    self._config, self._plan = config, plan
    size = len(batch['index']) // processes.count()
    share = slice(processes.index() * size, (processes.index() + 1) * size)
    self._index = batch['index']
    rows = {'row': np.arange(len(self._index), dtype=np.float32)}
    self._batch = {k: v[share] for k, v in {**batch, **rows}.items() if k != 'index'}

  def stages(self, state: TrainState) -> Iterator[Stage]:
    """The parts of the step from this state, each computed when it is asked for."""
    sharpness = self._plan.optimization.sharpness
    yield _stage('state before the step', state)
    yield _stage('batch', self._batch)
    after, metrics, passed = self._pass(state, 'forward pass', 'gradient')
    yield from passed
    if sharpness:
      grads = after.opt_state['seen']['gradients']
      trained, fixed = tree.split(state.params, self._plan.optimization.frozen)
      ascended = tree.merge(sharpness.ascend(trained, grads, jnp.asarray(state.step)), fixed)
      yield _stage('weights after the ascent of SAM', ascended)
      second = state.replace(params=jax.device_get(ascended))
      yield from self._pass(second, "SAM's second forward pass", "SAM's second gradient")[2]
      after, metrics = self._run(state)
    seen = after.opt_state.pop('seen')
    if sharpness:
      yield _stage('combined gradient', seen['gradients'])
    yield _stage('update', seen['updates'])
    yield _stage('state after the step', after)
    # A sum of squares may overflow where no value does.
    norms = {name: metric.total for name, metric in metrics.items() if name.endswith('_norm')}
    yield _stage('norms of the step', norms)

  def _pass(
    self, state: TrainState, forward: str, backward: str
  ) -> tuple[TrainState, dict, list[Stage]]:
    """A step without SAM, its metrics, and what of its two passes is not finite."""
    watched = _Watched(self._plan.caching.module)
    after, metrics = self._run(
      state, module=watched, task=_WatchedTask(self._plan.experiment.task, watched), sharpness=None
    )
    grads = after.opt_state['seen']['gradients']
    counts = [int(metrics[f'{_FORWARD} {i}'].total) for i in range(len(watched.names))]
    bad = {name: count for name, count in zip(watched.names, counts) if count}
    image = ''
    if bad and next(iter(bad.values())) == 1:
      row = metrics[f'{_ROWS} {counts.index(1)}'].total
      image = self._plan.experiment.train.id(int(self._index[int(row)]))
    stages = [
      Stage(forward, bad, len(counts), 'images', image),
      _stage(backward, grads, lambda name: _backward(name, watched.names)),
    ]
    return after, metrics, stages

  def _run(self, state: TrainState, **changes: Any) -> tuple[TrainState, dict]:
    """One step with an optimizer that keeps what it gets and gives."""
    placement, plan = self._plan.placement, self._plan
    tx = _seeing(plan.optimization.tx)
    trained = tree.split(state.params, plan.optimization.frozen)[0]
    zeros = jax.tree.map(np.zeros_like, trained)
    state = state.replace(
      opt_state={'real': state.opt_state, 'seen': {'gradients': zeros, 'updates': zeros}}
    )
    step = placement.compile_train(plan.step_with(tx=tx, guarded=False, **changes))
    after, metrics = step(
      placement.put_state(state),
      placement.put_batch(self._batch),
      rng.stream(self._config.seed, 'dropout'),
    )
    return jax.device_get(placement.get_state(after)), placement.get_metrics(metrics)


class _Watched:
  """A module whose `apply` counts the images for which an output of a submodule is not finite.

  Args:
    module: the model. Blocks stay in a loop where they are in one, as random masks differ
      otherwise; they are then counted as one.

  Attributes:
    names: of the outputs, in the order in which they are computed.
    bad: of each, bool [b].
  """

  def __init__(self, module: nn.Module):
    body = backbone_of(module)
    if hasattr(body, 'remat'):
      module = with_backbone(module, remat='none', scan=chosen_scan(body.scan, body.remat))
    self._module = module
    self.names: list[str] = []
    self.bad: list[jax.Array] = []

  def apply(self, variables: Any, images: jax.Array, **options: Any) -> Any:
    """As of the module."""
    self.names, self.bad = [], []
    outside = current_trace()

    def note(call: Callable, args: Any, kwargs: Any, context: Any) -> Any:
      outputs = call(*args, **kwargs)
      if context.method_name == '__call__' and current_trace() == outside:
        self._note('/'.join(context.module.path), outputs, len(images))
      return outputs

    with nn.intercept_methods(note), apart():
      return self._module.apply(variables, images, **options)

  def _note(self, name: str, outputs: Any, size: int) -> None:
    # Tokens may be the rows of one matrix, [b n, d].
    arrays = [x for x in jax.tree.leaves(outputs) if x.ndim and len(x) and len(x) % size == 0]
    if not arrays:
      return
    rows = [~jnp.isfinite(x.reshape(size, -1)).all(axis=1) for x in arrays]
    name, count = name or 'the outputs of the model', 1
    while name in self.names:  # a module that is called again
      count += 1
      name = f'{name.partition(", call ")[0]}, call {count}'
    self.names.append(name)
    self.bad.append(jnp.stack(rows).any(axis=0))


class _WatchedTask:
  """A task whose metrics are the counts of a watched module, and its own loss.

  Args:
    task: of the run.
    module: that was watched.
  """

  def __init__(self, task: Any, module: _Watched):
    self._task, self._module = task, module

  def __getattr__(self, name: str) -> Any:
    return getattr(self._task, name)

  def metrics(self, outputs: Any, batch: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
    """By output: whether it is not finite [b], and then the number of the row [b]."""
    losses = self._task.losses(outputs, batch)
    self._module.names.append('the loss')
    self._module.bad.append(~jnp.isfinite(losses))
    found = {}
    for i, bad in enumerate(self._module.bad):
      found[f'{_FORWARD} {i}'] = bad.astype(jnp.float32)
      found[f'{_ROWS} {i}'] = jnp.where(bad, batch['row'], 0.0)
    return found


def _seeing(tx: optax.GradientTransformation) -> optax.GradientTransformation:
  """The optimizer, whose state holds the last gradients and updates too."""

  def update(grads: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
    updates, real = tx.update(grads, state['real'], params)
    return updates, {'real': real, 'seen': {'gradients': grads, 'updates': updates}}

  return optax.GradientTransformation(tx.init, update)


def _stage(name: str, arrays: Any, order: Callable[[str], Any] | None = None) -> Stage:
  counts = {
    key: int((~np.isfinite(np.asarray(x, np.float32))).sum()) for key, x in by_path(arrays).items()
  }
  bad = sorted((key for key, count in counts.items() if count), key=order)
  return Stage(name, {key: counts[key] for key in bad}, len(counts))


def _backward(name: str, modules: Sequence[str]) -> tuple[int, str]:
  """Sorts parameters by the order in which a backward pass comes to their modules."""
  owners = [i for i, module in enumerate(modules) if name.startswith(f'{module}/')]
  return -min(owners, default=-1), name
