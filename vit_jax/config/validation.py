"""Config validation: names, types, ranges and combinations, all problems at once."""

import dataclasses
import json
import logging
import math
import typing
from collections.abc import Mapping
from typing import Any

import ml_collections

from vit_jax import data, models, tasks
from vit_jax.config.options import COMPONENTS, Config, Fewshot, Input, get, group_of, schema
from vit_jax.errors import ConfigError, UserError, did_you_mean, dimensions, shown
from vit_jax.options import checked, component_options, rule_of

log = logging.getLogger(__name__)

# Names that version 0.1 wrote, and what they are now.
_RENAMED = {('task.box_from', 'places'): 'dense'}
SET_ELSEWHERE = {'num_classes': 'the dataset', 'axis_name': 'config.parallel'}


def parse(config: ml_collections.ConfigDict | Mapping[str, Any]) -> Config:
  """Checks names, types, ranges and combinations before anything is started.

  Raises:
    ConfigError: naming every problem found.
  """
  parsed, problems = parse_all(config)
  if problems:
    raise ConfigError(problems)
  return parsed


def parse_all(
  config: ml_collections.ConfigDict | Mapping[str, Any],
) -> tuple[Config, list[str]]:
  """Like `parse`, with the problems beside the options, which are at their defaults where wrong."""
  values = config.to_dict() if isinstance(config, ml_collections.ConfigDict) else config
  problems: list[str] = []
  parsed = _build(schema(), values, '', problems)
  problems += [p for p in _impossible(parsed) if p not in problems]
  if not problems:
    _warn_of_unused(parsed)
    _warn_of_unused_size(parsed.input)
  return parsed, problems


def parse_saved(config: Mapping[str, Any]) -> Config:
  """The options that a run saved, whichever version wrote them.

  Options that no longer exist are passed over, those that are new are at their defaults, and
  combinations are not checked: the run exists.
  """
  return _build_saved(config)[0]


def usable(config: Mapping[str, Any]) -> dict[str, Any]:
  """What a run saved of its options, nested, without those that `parse_saved` does not use.

  Args:
    config: nested; some groups or options alone where not all were saved. 'model' is kept as it is.
  """
  parsed, kept = _build_saved({k: v for k, v in config.items() if k != 'model'})
  known = json.loads(json.dumps(_like(parsed.to_json(), kept)))
  return known | {k: v for k, v in config.items() if k == 'model'}


def _build_saved(config: Mapping[str, Any]) -> tuple[Config, dict[str, Any]]:
  """The options, and those among the saved ones that this version knows; warns of the rest once."""
  problems: list[str] = []
  unknown: list[str] = []
  kept = _known(schema(), config, '', unknown)
  parsed = _build(schema(), kept, '', problems)
  if unknown:
    problems.append(f'this version has no option {", ".join(unknown)}')
  if problems:
    log.warning('some options that the run saved are not used: %s', '; '.join(problems))
  return parsed, kept


def _like(values: Mapping[str, Any], names: Mapping[str, Any]) -> dict[str, Any]:
  """The values whose names occur, group by group."""
  return {
    name: _like(value, names[name])
    if isinstance(value, Mapping) and isinstance(names[name], Mapping)
    else value
    for name, value in values.items()
    if name in names
  }


def _known(cls: type, values: Mapping[str, Any], prefix: str, unknown: list[str]) -> dict[str, Any]:
  fields = {f.name: f for f in dataclasses.fields(cls)}
  kept = {}
  for name, value in values.items():
    if name not in fields:
      unknown.append(prefix + name)
    elif (group := group_of(fields[name])) is not None and isinstance(value, Mapping):
      kept[name] = _known(group, value, f'{prefix}{name}.', unknown)
    else:
      kept[name] = value
  return kept


def _build(cls: type, values: Mapping[str, Any], prefix: str, problems: list[str]) -> Any:
  fields = {f.name: f for f in dataclasses.fields(cls)}
  for name in values:
    if name not in fields:
      near = did_you_mean(name, fields, every_up_to=0)
      problems.append(f'unknown config key {shown(prefix + name)}: {near}')
  made = {}
  for name, field in fields.items():
    if name not in values:
      continue
    value, full = values[name], prefix + name
    if (group := group_of(field)) is not None:
      if isinstance(value, Mapping):
        made[name] = _build(group, value, full + '.', problems)
      else:
        problems.append(f'config.{full} is a group of options: set config.{full}.NAME')
      continue
    try:
      made[name] = _checked(full, value, field)
    except ConfigError as e:
      problems += e.problems
  return cls(**made)


def _checked(name: str, value: Any, field: dataclasses.Field) -> Any:
  if name == 'model':
    if not isinstance(value, Mapping):
      raise ConfigError(f'config.model is a group: set config.model.name, got {shown(value)}')
    given = [
      f'config.model.{field} is not an option: {by} sets it'
      for field, by in SET_ELSEWHERE.items()
      if value.get(field) is not None
    ]
    if given:
      raise ConfigError(given)
    # JSON has lists where models have tuples.
    return {k: tuple(v) if isinstance(v, list) else v for k, v in value.items()}
  if isinstance(value, str) and (name, value) in _RENAMED:
    return _RENAMED[name, value]
  return checked(f'config.{name}', value, field.type, rule_of(field))


def _impossible(config: Config) -> list[str]:
  """Combinations that no run could satisfy; devices and data are checked when they are known."""
  problems = []

  def need(condition: bool, text: str) -> None:
    if not condition:
      problems.append(text)

  if config.batch_size % config.accumulate:
    below = config.batch_size // config.accumulate * config.accumulate
    near = ' or '.join(str(n) for n in (below, below + config.accumulate) if n)
    problems.append(
      f'config.batch_size={config.batch_size} cannot be divided into '
      f'config.accumulate={config.accumulate} equal gradient accumulation steps: use {near}'
    )
  need(
    config.head == 'reset' or bool(config.init_from),
    "config.head='keep' needs config.init_from: there are no weights to keep it from",
  )
  fractions = config.dataset.split_fractions
  need(
    math.isclose(sum(fractions), 1, abs_tol=1e-6),
    f'config.dataset.split_fractions must add up to 1, got {fractions}',
  )
  need(
    not config.optimizer.gsam_alpha or config.optimizer.sam_rho > 0,
    'config.optimizer.gsam_alpha needs config.optimizer.sam_rho',
  )
  need(
    not (config.input.cache and config.input.workers),
    f'config.input.cache={config.input.cache!r} is memory that threads share and processes do not: '
    'set config.input.workers=0',
  )
  problems += _fewshot_problems(config.fewshot)
  problems += _task_problems(config)
  return problems + _unfit(config)


def _fewshot_problems(fewshot: Fewshot) -> list[str]:
  problems = []
  if not fewshot.l2:
    problems.append('config.fewshot.l2 needs at least one penalty')
  if fewshot.every and not fewshot.shots + fewshot.neighbours:
    problems.append('config.fewshot.every has nothing to evaluate without shots and neighbours')
  return problems


def _task_problems(config: Config) -> list[str]:
  options = dataclasses.asdict(config.task)
  task = tasks.build(num_classes=2, **options)
  problems = task.problems()
  if not task.can_mix and config.mixing:
    problems.append(
      f'config.task.name={config.task.name!r} cannot mix targets: set config.mixing.mixup=0 and '
      'config.mixing.cutmix=0'
    )
  if options.get('teacher') and not hasattr(task, 'teacher'):
    problems.append("config.task.teacher needs config.task.name='distill'")
  # Which metrics there are depends on the number of classes too, which is known later.
  return problems + metric_problems(config, tasks.build(num_classes=1 << 30, **options))


def metric_problems(config: Config, task: tasks.Task) -> list[str]:
  """Monitored metrics that no validation gives, or whose worst value would count as the best.

  Args:
    config: options.
    task: with the number of classes, where it is known.
  """
  modes = {**task.metric_modes, 'img_sec': 'max'}
  if config.fewshot.every:
    modes |= {f'fewshot_{n}': 'max' for n in config.fewshot.shots}
    modes |= {f'knn_{n}': 'max' for n in config.fewshot.neighbours}
  monitored = [('checkpoint.best', 'checkpoint.best_mode')]
  if config.plateau.factor < 1:
    monitored.append(('plateau.metric', 'plateau.mode'))
  if config.early_stopping.patience:
    monitored.append(('early_stopping.metric', 'early_stopping.mode'))
  problems = []
  for name, mode in monitored:
    metric = get(config, name)
    if metric not in modes:
      near = did_you_mean(metric, modes)
      problems.append(f'config.{name}={shown(metric)} is not a validation metric: {near}')
    elif modes[metric] and get(config, mode) != modes[metric]:
      problems.append(
        f'config.{mode}={get(config, mode)!r} would take the worst {metric!r} for the best '
        f'(config.{name}): set config.{mode}={modes[metric]!r}'
      )
  return problems


def _unfit(config: Config) -> list[str]:
  """Problems that models and transforms find in their options, and whether they fit together."""
  size = config.input.image_size
  image_size = typing.cast(tuple[int, int], size * 2 if len(size) == 1 else size)
  problems: list[str] = []

  def attempt(option: str, check: typing.Callable[[], Any]) -> Any:
    try:
      return check()
    except UserError as e:
      problems.extend(f'{option}: {text}' for text in e.problems)

  module = attempt(
    'config.model',
    lambda: models.build(
      config.model.get('name', ''),
      num_classes=2,
      **{k: v for k, v in config.model.items() if k != 'name'},
    ),
  )
  train = attempt(
    'config.input.train_transform',
    lambda: data.parse_transform(config.input.train_transform, image_size, train=True),
  )
  evaluation = attempt(
    'config.input.eval_transform',
    lambda: data.parse_transform(config.input.eval_transform, image_size, train=False),
  )
  if train and evaluation and train.output_hw != evaluation.output_hw:
    problems.append(
      f'config.input.train_transform gives images of {train.output_hw} pixels and '
      f'config.input.eval_transform of {evaluation.output_hw}: use one size in both, or none, for '
      'that of config.input.image_size'
    )
  elif module and train and not config.init_from:  # weights bring their own size of patches
    attempt('config.input.image_size', lambda: models.check_image_size(module, train.output_hw))
  return problems


def _warn_of_unused(config: Config) -> None:
  """Says which options were set although the component that is named has no use for them."""
  for group, registry in COMPONENTS.items():
    options = getattr(config, group)
    own = component_options(registry, options.name)
    for name, (_, default, _) in component_options(registry).items():
      if name not in own and getattr(options, name) != default:
        log.warning(
          'config.%s.%s has no effect with config.%s.name=%r', group, name, group, options.name
        )
  for field in dataclasses.fields(config.mesh):
    if config.parallel != 'fsdp' and getattr(config.mesh, field.name) != field.default:
      log.warning(
        'config.mesh.%s has no effect with config.parallel=%r', field.name, config.parallel
      )


def _warn_of_unused_size(options: Input) -> None:
  """Says so where every operation of the transforms names another size than `image_size`."""
  size = options.image_size
  if size == Input().image_size:
    return
  made = set()
  for spec, train in ((options.train_transform, True), (options.eval_transform, False)):
    found = data.parse_transform(spec, (size[0], size[-1]), train)
    if found != data.parse_transform(spec, (size[0] + 1, size[-1] + 1), train, fixed_size=False):
      return  # it is used
    made.add(found.output_hw)
  if (size[0], size[-1]) not in made:
    log.warning(
      'config.input.image_size=%r has no effect: the transforms name sizes of their own and give '
      'images of %s',
      size,
      dimensions(made.pop()),
    )
