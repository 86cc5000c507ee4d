"""The plan that a run prints: about ten lines, with the rest in plan.txt."""

import dataclasses
import pathlib
from collections.abc import Mapping
from typing import Any

from vit_jax import data, kernels, remote
from vit_jax.config import Config, get, leaves
from vit_jax.errors import counted, dimensions
from vit_jax.models.heads import backbone_of
from vit_jax.models.shapes import title
from vit_jax.options import Length
from vit_jax.report.text import size as size_text
from vit_jax.training import memory, summary
from vit_jax.training.events import PlanEvent
from vit_jax.training.experiment import prefetch_of
from vit_jax.training.preparation import Plan
from vit_jax.training.train_state import TrainState

FILE = 'plan.txt'

# Groups of options that the plan names where they are not at their defaults.
_METHODS = ('task.', 'mixing.', 'ema.', 'plateau.', 'early_stopping.', 'fewshot.', 'freeze')


def plan_event(
  config: Config,
  plan: Plan,
  state: TrainState,
  parameters: summary.Parameters,
  loaded: str,
  workdir: pathlib.Path,
) -> PlanEvent:
  """What a run tells before it starts.

  Args:
    config, plan: of the run.
    state: of arrays or shapes.
    parameters: how each is trained.
    loaded: what became of each tensor of `init_from`; '' from scratch or from a checkpoint.
    workdir: the run's folder.
  """
  experiment, devices, total = plan.experiment, plan.placement.devices, plan.total_steps
  dataset, step = experiment.dataset, int(state.step)
  finished = plan.finished(step)
  whole = plan.placement.whole_arrays(state)
  needed = memory.estimate(config, plan, state)
  (h, w), epochs = experiment.image_hw, total * config.batch_size / len(experiment.train)
  prefetch = prefetch_of(config, experiment.image_hw)
  libraries = kernels.describe(plan.placed_step)
  model, size = title(experiment.model_record), summary.count(state.params)
  accumulated = f' in {config.accumulate} gradient accumulation steps'
  kind = devices[0].device_kind
  rows = {
    'model': f'{model}, {size:,} parameters, {dimensions((h, w))}'
    + summary.tokens_text(experiment.module, h, w),
    'weights': _weights(config, step, loaded),
    'dataset': f'{dataset.name} ({dataset.kind}): {summary.split_text(experiment)}; '
    f'{counted(len(dataset.classes), "class", "classes")}',
    'transform': f'{experiment.train_transform}; evaluation {experiment.eval_transform}',
    'kept': plan.caching.text,
    'loading': f'{counted(prefetch.examples, "image")} ahead of their step by '
    f'{_loaders(prefetch)}, at most {size_text(prefetch.host_bytes)} of host memory',
    'length': f'{counted(total, "step")} = {counted(epochs, "epoch")}, '
    f'batch size {config.batch_size}' + accumulated * (config.accumulate > 1),
    'optimizer': _optimizer(config),
    'methods': ', '.join(_changed(config, _METHODS)),
    'devices': f'{len(devices)} x {kind}, {plan.placement.title}, '
    f'{backbone_of(experiment.module).dtype}; memory '
    f'{summary.memory_text(needed).split(":")[0]} (estimate)',
    'results': f'{remote.address(workdir)}{_resuming(step, finished)}',
  }
  if whole:
    rows['devices'] += f'; {len(whole)} large arrays stay whole on each, which {FILE} lists'
  rows = {name: text for name, text in rows.items() if text}
  details = [
    '\n'.join(f'  {name:9} {text}' for name, text in rows.items()),
    summary.description(config, experiment, state, devices, total, needed, libraries),
    f'parameters by part of the model\n{parameters.counts}',
    f'parameters by learning rate and weight decay\n{parameters.groups}',
    _whole_text(whole),
    loaded,
  ]
  notes = summary.notes(config, experiment)
  if finished:
    notes.append(_of_finished(config, plan, step))
  if 'left out' in dataset.found:
    notes.append(f'left out of {dataset.name}: {dataset.found["left out"]}')
  facts = {
    'model': model,
    'parameters': size,
    'image_size': [h, w],
    'init_from': config.init_from or None,
    'dataset': dataset.name,
    'classes': len(dataset.classes),
    'images': summary.split_sizes(experiment),
    'batch_size': config.batch_size,
    'steps': total,
    'epochs': epochs,
    'start_step': step,
    'optimizer': config.optimizer.name,
    'schedule': config.schedule.name,
    'devices': len(devices),
    'device_kind': kind,
    'parallel': config.parallel,
    'memory_bytes': needed,
    'host_bytes': prefetch.host_bytes,
    'workdir': remote.address(workdir),
  }
  return PlanEvent(rows, notes, '\n\n'.join(filter(None, details)) + '\n', facts)


def _whole_text(arrays: Mapping[str, Any]) -> str:
  """Arrays that fsdp does not divide; '' where there are none."""
  if not arrays:
    return ''
  rows = [f'  {name}  {list(x.shape)}, {summary.bytes_of(x):,} bytes' for name, x in arrays.items()]
  return '\n'.join(['large arrays that stay whole on every device', *rows])


def _weights(config: Config, step: int, loaded: str) -> str:
  if step:
    return f'of the checkpoint at step {step:,}'
  if loaded:
    return '; '.join(map(str.strip, loaded.splitlines())).removeprefix('weights ')
  return f'fresh, from seed {config.seed}'


def _resuming(step: int, finished: bool) -> str:
  if finished:
    return f', finished at step {step:,}'
  return f', resuming from step {step:,}' if step else ''


def _of_finished(config: Config, plan: Plan, step: int) -> str:
  """What a run that is finished does when it is started again, and how it is trained longer."""
  what = f'the run is finished at step {step:,}'
  if 'test' in plan.experiment.held_out:
    what += ': its best checkpoint is tested and the report written again'
  if plan.callbacks.stop:
    return f'{what}; early stopping ended it'
  length = Length.parse(config.total)
  while round(length.steps(config.batch_size, len(plan.experiment.train))) <= step:
    length = dataclasses.replace(length, amount=2 * length.amount)
  return f"{what}; to train longer: the same command with --config.total='{length}'"


def _loaders(prefetch: data.Prefetch) -> str:
  threads = counted(prefetch.threads, 'thread')
  workers = counted(prefetch.workers, 'process', 'processes')
  return f'{workers} of {threads}' if prefetch.workers else threads


def _optimizer(config: Config) -> str:
  """Update rule and schedule, with every option that is not at its default."""
  rule = [f'{config.optimizer.name}, learning rate {config.optimizer.learning_rate:g}']
  rule += _changed(config, ('optimizer.',), ('name', 'learning_rate'))
  return ', '.join(rule) + '; ' + _schedule(config)


def _schedule(config: Config) -> str:
  return ', '.join([config.schedule.name, *_changed(config, ('schedule.',), ('name',))])


def _changed(config: Config, groups: tuple[str, ...], said: tuple[str, ...] = ()) -> list[str]:
  """'NAME VALUE' of the options of these groups that are not at their defaults.

  Args:
    config: of the run.
    groups: beginnings of option names; of one group the options' own names are given.
    said: options of it that are left out.
  """
  found = []
  for name, field in leaves():
    short = name.removeprefix(groups[0]) if len(groups) == 1 else name
    value = get(config, name)
    if name.startswith(groups) and short not in said and value != field.default:
      text = ' '.join(map(str, value)) if isinstance(value, tuple) else str(value)
      found.append(f'{short} {text}')
  return found
