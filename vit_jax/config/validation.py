"""The door: types, names and combinations, all problems at once."""

import dataclasses
import math
import re
import types
import typing
from typing import Any

import ml_collections

from vit_jax.config.options import Config, Fewshot, Length, get, leaves, parse_multiplier
from vit_jax.errors import UserError, did_you_mean


def parse(config: ml_collections.ConfigDict | dict) -> Config:
  """Checks names, types and combinations, all at once, before anything is started.

  Raises:
    UserError: naming every problem found.
  """
  if isinstance(config, ml_collections.ConfigDict):
    config = config.to_dict()
  problems: list[str] = []
  parsed = _build(Config, config, '', problems)
  if not problems:
    problems += _impossible(parsed)
  if problems:
    raise UserError(problems)
  return parsed


def _build(cls: type, values: dict, prefix: str, problems: list[str]) -> Any:
  fields = {f.name: f for f in dataclasses.fields(cls)}
  for name in values:
    if name not in fields:
      problems.append(
        f'unknown config key {prefix + name!r}: {did_you_mean(name, fields, every_up_to=0)}'
      )
  made = {}
  for name, field in fields.items():
    if name not in values:
      continue
    value, full = values[name], prefix + name
    if dataclasses.is_dataclass(field.type):
      made[name] = _build(field.type, dict(value), full + '.', problems)
    elif full == 'model':
      # JSON has lists where models have tuples.
      made[name] = {k: tuple(v) if isinstance(v, list) else v for k, v in value.items()}
    else:
      made[name] = _checked(full, field, value, problems)
  return cls(**made)


def _checked(name: str, field: dataclasses.Field, value: Any, problems: list[str]) -> Any:
  kinds = [field.type]
  if isinstance(field.type, types.UnionType):
    kinds = list(typing.get_args(field.type))
  for kind in kinds:
    origin = typing.get_origin(kind) or kind
    if origin is tuple and isinstance(value, list | tuple):
      item = typing.get_args(kind)[0]
      if all(isinstance(v, int | float) if item is float else type(v) is item for v in value):
        return tuple(item(v) for v in value)
    elif origin is float and type(value) in (int, float):
      return float(value)
    elif type(value) is origin:
      choices = field.metadata['choices']
      if choices and value not in choices:
        problems.append(f'config.{name}={value!r}: {did_you_mean(value, choices)}')
      return value
  wanted = ' or '.join(
    'None'
    if k is types.NoneType
    else getattr(k, '__name__', str(k))
    if typing.get_origin(k) is None
    else str(k)
    for k in kinds
  )
  problems.append(f'config.{name} must be {wanted}, got {value!r}')
  return value


def _impossible(config: Config) -> list[str]:
  """Combinations that no run could satisfy; devices and data are checked when they are known."""
  problems = []

  def need(condition: bool, text: str) -> None:
    if not condition:
      problems.append(text)

  need(config.batch_size > 0, f'config.batch_size must be positive, got {config.batch_size}')
  need(config.accumulate > 0, f'config.accumulate must be positive, got {config.accumulate}')
  if config.accumulate > 0 and config.batch_size % config.accumulate:
    below = config.batch_size // config.accumulate * config.accumulate
    near = ' or '.join(str(n) for n in (below, below + config.accumulate) if n)
    problems.append(
      f'config.batch_size={config.batch_size} cannot be computed in '
      f'config.accumulate={config.accumulate} equal parts: use {near}'
    )
  for name, _ in leaves(Config):
    if name in (
      'total',
      'schedule.warmup',
      'schedule.timescale',
      'schedule.cooldown',
      'evaluation.every',
      'checkpoint.every',
      'log.every',
      'fewshot.every',
    ):
      if name == 'fewshot.every' and not config.fewshot.every:
        continue
      try:
        Length.parse(get(config, name))
      except UserError as e:
        problems.append(f'config.{name}: {e}')
  for option in ('multipliers', 'decay'):
    for pattern in getattr(config.optimizer, option):
      try:
        parse_multiplier(pattern)
      except UserError as e:
        problems.append(f'config.optimizer.{option}: {e}')
  for word in config.freeze:
    try:
      re.compile(word)
    except re.error as e:
      problems.append(f'config.freeze: {word!r} is no regex: {e}')
  need(
    config.head == 'reset' or bool(config.init_from),
    "config.head='keep' needs config.init_from: there are no weights to keep it from",
  )
  need(
    len(config.input.image_size) in (1, 2),
    f'config.input.image_size takes one or two numbers, got {config.input.image_size}',
  )
  need(
    0 <= config.task.label_smoothing < 1,
    f'config.task.label_smoothing must be in [0, 1), got {config.task.label_smoothing}',
  )
  need(
    config.task.name != 'boxes' or not (config.mixing.mixup or config.mixing.cutmix),
    "config.task.name='boxes' has one box a picture: set config.mixing.mixup=0 and cutmix=0",
  )
  need(
    config.task.class_divisor > 0,
    f'config.task.class_divisor must be positive, got {config.task.class_divisor}',
  )
  need(
    config.task.head_hidden > 0,
    f'config.task.head_hidden must be positive, got {config.task.head_hidden}',
  )
  need(
    0 <= config.task.head_dropout < 1,
    f'config.task.head_dropout must be in [0, 1), got {config.task.head_dropout}',
  )
  fractions = config.dataset.split_fractions
  need(
    len(fractions) == 3 and min(fractions, default=0) >= 0 and abs(sum(fractions) - 1) < 1e-6,
    f'config.dataset.split_fractions must be three shares that add up to 1, got {fractions}',
  )
  distills = config.task.name == 'distill'
  need(
    bool(config.task.teacher) == distills,
    "config.task.name='distill' and config.task.teacher=MODEL need each other",
  )
  need(
    config.task.temperature > 0,
    f'config.task.temperature must be positive, got {config.task.temperature}',
  )
  for name, low, high in _RANGES:
    value = get(config, name)
    need(low <= value <= high, f'config.{name} must be from {low:g} to {high:g}, got {value}')
  need(
    not config.optimizer.gsam_alpha or config.optimizer.sam_rho > 0,
    'config.optimizer.gsam_alpha needs config.optimizer.sam_rho',
  )
  problems += _fewshot_problems(config.fewshot)
  return problems + _unfit(config)


def _fewshot_problems(fewshot: Fewshot) -> list[str]:
  problems = [
    f'config.fewshot.{name} takes positive numbers, got {values}'
    for name, values in (
      ('shots', fewshot.shots),
      ('neighbours', fewshot.neighbours),
      ('l2', fewshot.l2),
      ('temperature', (fewshot.temperature,)),
    )
    if min(values, default=1) <= 0
  ]
  if not fewshot.l2:
    problems.append('config.fewshot.l2 needs at least one penalty')
  if fewshot.every and not fewshot.shots + fewshot.neighbours:
    problems.append('config.fewshot.every without shots and neighbours has nothing to score')
  return problems


_RANGES = (
  ('input.repeats', 1, math.inf),
  ('fewshot.draws', 1, math.inf),
  ('task.alpha', 0, 1),
  ('mixing.mixup', 0, math.inf),
  ('mixing.cutmix', 0, math.inf),
  ('mixing.switch', 0, 1),
  ('mixing.probability', 0, 1),
  ('ema.decay', 0, 1),
  ('optimizer.layer_decay', 0, 1),
  ('optimizer.clip_value', 0, math.inf),
  ('optimizer.sam_rho', 0, math.inf),
  ('optimizer.sam_rho_end', 0, 1),
  ('optimizer.gsam_alpha', 0, math.inf),
  ('plateau.factor', 0, 1),
  ('plateau.patience', 1, math.inf),
  ('plateau.floor', 0, 1),
  ('early_stopping.patience', 0, math.inf),
)


def _unfit(config: Config) -> list[str]:
  """What the models and the transformations say against their options."""
  from vit_jax import data, models  # options must be listed without loading these

  size = config.input.image_size
  image_size = size * 2 if len(size) == 1 else size
  checks = {
    'config.model': lambda: models.build(
      config.model.get('name', ''),
      num_classes=2,
      **{k: v for k, v in config.model.items() if k != 'name'},
    ),
    'config.input.train_transform': lambda: data.parse_transform(
      config.input.train_transform, image_size, train=True
    ),
    'config.input.eval_transform': lambda: data.parse_transform(
      config.input.eval_transform, image_size, train=False
    ),
  }
  problems = []
  for option, check in checks.items():
    try:
      check()
    except UserError as e:
      problems += [f'{option}: {text}' for text in e.problems]
  return problems
