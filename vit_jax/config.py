"""The one list of options, and the door at which every configuration is checked.

An experiment file edits `config.default()`, a locked `ConfigDict`; the command line overrides any
leaf; `config.parse` returns the frozen dataclasses below, or one error that names every problem.
"""

import ast
import dataclasses
import importlib.util
import pathlib
import re
import traceback
import types
import typing
from typing import Any, Literal

import ml_collections

from vit_jax.errors import UserError, did_you_mean


def _option(default: Any, text: str, choices: tuple = ()) -> Any:
  metadata = {'help': text, 'choices': choices}
  return dataclasses.field(default=default, metadata=metadata)


def _group(cls: type, text: str) -> Any:
  return dataclasses.field(default_factory=cls, metadata={'help': text})


@dataclasses.dataclass(frozen=True)
class Length:
  """A stretch of training: a number with its unit, written '500 steps' or '5 epochs'."""

  amount: float
  unit: Literal['steps', 'epochs', 'examples']

  @classmethod
  def parse(cls, text: str | int) -> 'Length':
    match = re.fullmatch(r'\s*([\d.]+(?:e\d+)?)\s*([a-z]*)\s*', str(text).lower())
    units = {'': 'steps', 'step': 'steps', 'epoch': 'epochs', 'example': 'examples'}
    unit = match and units.get(match[2].removesuffix('s'))
    try:
      if not unit:
        raise ValueError
      return cls(float(match[1]), unit)
    except ValueError:
      raise UserError(
        f"expected a length such as '500 steps', '5 epochs' or '1e6 examples', got {text!r}"
      ) from None

  def steps(self, batch_size: int, num_examples: int) -> int:
    """The length in steps of `batch_size` examples from a set of `num_examples`, rounded."""
    examples = {
      'steps': self.amount * batch_size,
      'epochs': self.amount * num_examples,
      'examples': self.amount,
    }[self.unit]
    return round(examples / batch_size)


@dataclasses.dataclass(frozen=True)
class Dataset:
  name: str = _option('digits', "a folder of pictures, a TFDS name ('stanford_dogs') or 'digits'")
  data_dir: str = _option('', 'where prepared TFDS datasets lie; empty: ~/tensorflow_datasets')
  train: str = _option('train', "split trained on, in TFDS notation: 'train[:90%]'")
  val: str = _option('val', 'split validated on during training; empty or absent: none')
  test: str = _option('test', 'split scored once at the end; empty or absent: none')
  classes: tuple[str, ...] = _option((), 'use these classes alone, in this order; empty: all')
  per_class: int = _option(0, 'at most this many pictures of each class, by seed; 0: all')
  split_fractions: tuple[float, ...] = _option(
    (0.8, 0.1, 0.1), 'train, val, test shares where the dataset has no splits of its own'
  )
  resplit: bool = _option(False, 'pool all pictures and split them by split_fractions anyway')
  seed: int = _option(0, 'seed of the subset and of the split; the same for every model compared')
  on_error: str = _option('raise', 'what an unreadable picture does', ('raise', 'skip'))

  def open(self):
    """The `data.Dataset` that these options mean."""
    from vit_jax import data  # noqa: PLC0415  (options must be listed without loading the readers)

    return data.open_dataset(
      self.name,
      data_dir=self.data_dir,
      seed=self.seed,
      classes=self.classes,
      per_class=self.per_class,
      split_fractions=self.split_fractions,
      resplit=self.resplit,
    )


@dataclasses.dataclass(frozen=True)
class Input:
  image_size: tuple[int, ...] = _option(
    (224,), 'height and width, pixels (one number: square), for operations that name no size'
  )
  train_transform: str = _option('decode|inception_crop|flip_lr', 'what the host does in training')
  eval_transform: str = _option('decode|resize_small|central_crop', 'what it does in evaluation')
  mean: tuple[float, ...] | None = _option(
    None, 'subtracted from each channel, 0..1 scale; None: as the weights want, else 0.5'
  )
  std: tuple[float, ...] | None = _option(None, 'divides each channel, 0..1 scale; None: likewise')
  threads: int = _option(0, 'reading threads a process; 0: one a core')
  workers: int = _option(0, 'reading processes; 0: threads alone')


@dataclasses.dataclass(frozen=True)
class Task:
  name: str = _option('classify', 'what is learned', ('classify',))
  loss: str = _option('softmax', 'cross-entropy over classes or for each', ('softmax', 'sigmoid'))
  label_smoothing: float = _option(0.0, 'share of the target spread over all classes, 0 to 1')


@dataclasses.dataclass(frozen=True)
class Optimizer:
  name: str = _option('sgd', 'the update rule', ('sgd', 'adamw'))
  learning_rate: float = _option(0.01, 'peak learning rate')
  momentum: float = _option(0.9, 'sgd: share of the last update kept')
  b1: float = _option(0.9, 'adamw: decay of the first moment')
  b2: float = _option(0.999, 'adamw: decay of the second moment')
  eps: float = _option(1e-8, 'adamw: added to the root of the second moment')
  state_dtype: str = _option(
    'float32', 'precision of momentum or first moment', ('float32', 'bfloat16')
  )
  weight_decay: float = _option(
    0.0, 'adamw: decoupled, times the learning rate; sgd: added to the gradient'
  )
  decay: str = _option('kernel$', 'regex over parameter names that weight decay applies to')
  clip_norm: float = _option(0.0, 'gradients are scaled down to this global norm; 0: never')


@dataclasses.dataclass(frozen=True)
class Schedule:
  name: str = _option('cosine', 'decay', ('cosine', 'linear', 'rsqrt', 'constant'))
  warmup: str = _option('0 steps', 'linear rise from zero to the peak: steps, epochs or examples')
  end: float = _option(0.0, 'cosine, linear: final rate as a share of the peak')
  timescale: str = _option('10000 steps', 'rsqrt: length over which the rate halves its square')
  cooldown: str = _option('0 steps', 'rsqrt, constant: linear fall to zero at the end')


@dataclasses.dataclass(frozen=True)
class Evaluation:
  every: str = _option('1 epoch', 'validate this often: steps, epochs or examples')
  batch_size: int = _option(0, 'pictures a step over all devices; 0: as in training')


@dataclasses.dataclass(frozen=True)
class Checkpoint:
  every: str = _option('1 epoch', 'save this often: steps, epochs or examples')
  keep: int = _option(2, 'newest checkpoints kept')
  best: str = _option('accuracy', 'validation metric whose best checkpoint is kept too')
  best_mode: str = _option('max', 'whether more or less of it is better', ('max', 'min'))


@dataclasses.dataclass(frozen=True)
class Log:
  every: str = _option('20 steps', 'write training metrics this often')
  tensorboard: bool = _option(True, 'write event files too')


@dataclasses.dataclass(frozen=True)
class Config:
  seed: int = _option(0, 'seed of initial weights, order, crops and dropout')
  total: str = _option('10 epochs', "length of training: '500 steps', '5 epochs', '1e6 examples'")
  batch_size: int = _option(64, 'pictures an update, over all devices')
  accumulate: int = _option(1, 'parts a batch is computed in, to need less memory')
  parallel: str = _option('data', 'how devices share a batch', ('data', 'pmap'))
  init_from: str = _option('', 'weights to start from: a run, a file or a zoo name; empty: none')
  head: str = _option('reset', 'the classifier of those weights', ('reset', 'keep'))
  pretrained_dir: str = _option('', 'folder searched for named weights before any download')
  model: dict = dataclasses.field(
    default_factory=lambda: {'name': 'vit_ti16'},
    metadata={'help': "name, and any field of that model: pool, dtype, drop_path_rate ..."},
  )
  dataset: Dataset = _group(Dataset, 'which pictures')
  input: Input = _group(Input, 'how pictures become arrays')
  task: Task = _group(Task, 'what is learned')
  optimizer: Optimizer = _group(Optimizer, 'how weights move')
  schedule: Schedule = _group(Schedule, 'how the learning rate moves')
  evaluation: Evaluation = _group(Evaluation, 'when and how to validate')
  checkpoint: Checkpoint = _group(Checkpoint, 'what is kept')
  log: Log = _group(Log, 'what is written')

  def to_json(self) -> dict:
    return dataclasses.asdict(self)


def default() -> ml_collections.ConfigDict:
  """Every option at its default, locked: an experiment file edits this and returns it."""
  config = ml_collections.ConfigDict(dataclasses.asdict(Config()), convert_dict=True)
  config.lock()
  config.model.unlock()  # a model's fields are its own; `parse` checks them
  return config


def load(path: str, overrides: dict[str, str] | None = None) -> 'Config':
  """Reads an experiment file, applies command-line overrides and checks the result.

  Args:
    path: 'FILE' or 'FILE:ARGUMENT'; the argument goes to the file's `get_config`.
    overrides: dotted names to values as typed, such as {'optimizer.learning_rate': '0.03'}.

  Raises:
    UserError: naming every problem found.
  """
  config = _run_file(path)
  problems = []
  for name, text in (overrides or {}).items():
    try:
      _set(config, name, _value_of(name, text))
    except UserError as e:
      problems += e.problems
  try:
    parsed = parse(config)
  except UserError as e:
    problems += e.problems
  if problems:
    raise UserError(problems)
  return parsed


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


def describe() -> str:
  """All options with defaults and meaning, for --help."""
  lines = []
  for name, field in leaves(Config):
    default_value = {'name': 'vit_ti16'} if name == 'model' else field.default
    choices = field.metadata['choices'] if name != 'model' else ()
    text = field.metadata['help'] + (f' ({", ".join(choices)})' if choices else '')
    shown = f'--config.{name}={default_value}' if name != 'model' else '--config.model.FIELD=...'
    lines.append(f'  {shown}\n      {text}')
  return '\n'.join(lines)


def leaves(cls: type, prefix: str = '') -> list[tuple[str, dataclasses.Field]]:
  """Every option below a dataclass, as (dotted name, field)."""
  found = []
  for field in dataclasses.fields(cls):
    if dataclasses.is_dataclass(field.type):
      found += leaves(field.type, f'{prefix}{field.name}.')
    else:
      found.append((prefix + field.name, field))
  return found


def _run_file(path: str) -> ml_collections.ConfigDict:
  file, _, argument = path.partition(':')
  if not pathlib.Path(file).is_file():
    near = did_you_mean(file, [str(p) for p in pathlib.Path('configs').glob('*.py')])
    raise UserError(f'no config file {file!r}: {near}')
  spec = importlib.util.spec_from_file_location('vit_jax_experiment', file)
  module = importlib.util.module_from_spec(spec)
  try:
    spec.loader.exec_module(module)
    config = module.get_config(argument) if argument else module.get_config()
  except UserError:
    raise
  except Exception as e:  # whatever a user's file does wrong is reported with its line
    line = next((f.lineno for f in reversed(traceback.extract_tb(e.__traceback__))
                 if f.filename == file), '?')
    reason = ' '.join(str(e).split())
    raise UserError(f'{file}, line {line}: {type(e).__name__}: {reason}') from e
  if not isinstance(config, ml_collections.ConfigDict):
    raise UserError(f'{file}: get_config must return config.default() edited, got {type(config)}')
  return config


def _field(name: str) -> dataclasses.Field:
  known = dict(leaves(Config))
  if name not in known:
    full = did_you_mean(name, [*known, 'model.name'], every_up_to=0)
    raise UserError(f'unknown config key {name!r}: {full}')
  return known[name]


def _value_of(name: str, text: str) -> Any:
  """A command-line word as the value of an option: its type is the option's."""
  if name.startswith('model.'):
    return _literal(text)
  field = _field(name)
  if field.type in (str, 'str'):
    return text
  if typing.get_origin(field.type) is tuple and typing.get_args(field.type)[0] is str:
    return tuple(word.strip() for word in text.split(',') if word.strip())
  value = _literal(text)
  if 'tuple' in str(field.type) and isinstance(value, int | float) and not isinstance(value, bool):
    value = (value,)
  return value


def _literal(text: str) -> Any:
  words = {'true': True, 'false': False, 'none': None}
  if text.lower() in words:
    return words[text.lower()]
  try:
    return ast.literal_eval(text)
  except (ValueError, SyntaxError):
    return text


def _set(config: ml_collections.ConfigDict, name: str, value: Any) -> None:
  *groups, leaf = name.split('.')
  if groups[:1] != ['model']:
    _field(name)
  node = config
  for group in groups:
    node = node[group]
  with node.ignore_type(), node.unlocked():  # `parse` checks types, all of them at once
    node[leaf] = value


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
      made[name] = dict(value)
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
  wanted = ' or '.join('None' if k is types.NoneType else getattr(k, '__name__', str(k))
                       if typing.get_origin(k) is None else str(k) for k in kinds)
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
  need(
    config.accumulate < 1 or config.batch_size % config.accumulate == 0,
    f'config.batch_size={config.batch_size} cannot be computed in '
    f'config.accumulate={config.accumulate} equal parts',
  )
  for name, _ in leaves(Config):
    if name in ('total', 'schedule.warmup', 'schedule.timescale', 'schedule.cooldown',
                'evaluation.every', 'checkpoint.every', 'log.every'):
      try:
        Length.parse(get(config, name))
      except UserError as e:
        problems.append(f'config.{name}: {e}')
  need(config.head == 'reset' or bool(config.init_from),
       "config.head='keep' needs config.init_from: there are no weights to keep it from")
  need(len(config.input.image_size) in (1, 2),
       f'config.input.image_size takes one or two numbers, got {config.input.image_size}')
  need(0 <= config.task.label_smoothing < 1,
       f'config.task.label_smoothing must be in [0, 1), got {config.task.label_smoothing}')
  fractions = config.dataset.split_fractions
  need(len(fractions) == 3 and min(fractions, default=0) >= 0 and abs(sum(fractions) - 1) < 1e-6,
       f'config.dataset.split_fractions must be three shares that add up to 1, got {fractions}')
  try:
    re.compile(config.optimizer.decay)
  except re.error as e:
    problems.append(f'config.optimizer.decay={config.optimizer.decay!r} is no regex: {e}')
  return problems


def get(config: Config, name: str) -> Any:
  """The value of a dotted option name."""
  for part in name.split('.'):
    config = config[part] if isinstance(config, dict) else getattr(config, part)
  return config
