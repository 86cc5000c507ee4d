"""What an option may be, stated once, where the option is: type, help, range and choices.

Config groups, model fields and registered components (optimizers, schedules, tasks, losses) are
dataclasses whose fields are made by `option`; one function checks them all.
"""

import ast
import dataclasses
import math
import re
import types
import typing
import warnings
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal

from vit_jax.errors import ConfigError, UserError, did_you_mean, shown
from vit_jax.files import path_of
from vit_jax.registry import Registry

LARGEST_SIDE = 8192  # pixels of an image for a model


@dataclasses.dataclass(frozen=True)
class Rule:
  """What is known of an option besides its type.

  Attributes:
    help: meaning and unit.
    choices: the only values allowed, or a function that lists them; empty for any value.
    low, high: smallest and largest number allowed, of each number in a tuple.
    above, below: numbers must be larger, or smaller, than these.
    lengths: how many items a tuple may have; empty for any.
    parse: raises a `ConfigError` for text of a wrong form.
    path: whether text may name a file or folder: a leading '~' becomes the home folder.
    remote: whether a path may be a URL of something in a store, such as gs://bucket/run.
    words: that stand for a value, which cannot be given in another way.
  """

  help: str = ''
  choices: tuple | Callable[[], Iterable[Any]] = ()
  low: float | None = None
  high: float | None = None
  above: float | None = None
  below: float | None = None
  lengths: tuple[int, ...] = ()
  parse: Callable[[str], Any] | None = None
  path: bool = False
  remote: bool = False
  words: Mapping[str, Any] = dataclasses.field(default_factory=dict)

  @property
  def valid(self) -> tuple:
    """The choices as values."""
    return tuple(self.choices() if callable(self.choices) else self.choices)

  @property
  def range(self) -> str:
    """The numbers allowed, in words; '' for all."""
    words = [
      f'{word} {int(bound) if bound == int(bound) else bound}'
      for word, bound in (
        ('at least', self.low),
        ('above', self.above),
        ('at most', self.high),
        ('below', self.below),
      )
      if bound is not None
    ]
    return ', or '.join(filter(None, [' and '.join(words), *self.words]))

  def admits(self, number: float) -> bool:
    """Whether a number lies in the range."""
    return (
      (self.low is None or number >= self.low)
      and (self.high is None or number <= self.high)
      and (self.above is None or number > self.above)
      and (self.below is None or number < self.below)
    )


def option(default: Any, help: str, **rule: Any) -> Any:
  """A dataclass field with its help and range; see `Rule`."""
  metadata = {'rule': Rule(help, **rule)}
  if isinstance(default, type):
    return dataclasses.field(default_factory=default, metadata=metadata)
  return dataclasses.field(default=default, metadata=metadata)


def component(registry: Registry, default: str, help: str) -> Any:
  """A field that holds a registered component, which its option names.

  Args:
    registry: of dataclasses, whose own options stand beside this one.
    default: a name of it.
    help: as of `option`.
  """
  return dataclasses.field(
    default_factory=lambda: build_component(registry, default, {}),
    metadata={'rule': Rule(help, choices=lambda: registry), 'of': (registry, default)},
  )


def build_component(registry: Registry, name: str, options: Mapping[str, Any], **fixed: Any) -> Any:
  """A registered component with the options that are its own.

  Args:
    registry: of dataclasses.
    name: of the component.
    options: by name; those of others are passed over, those that are missing are at their defaults.
    **fixed: fields that are no options.

  Raises:
    ConfigError: no component has this name.
  """
  values = dict(fixed)
  kind = registry[name]
  for field in dataclasses.fields(kind):
    if field.name not in options or not field.init:
      continue
    value = options[field.name]
    if 'of' in field.metadata and isinstance(value, str):
      value = build_component(field.metadata['of'][0], value, options)
    values[field.name] = value
  return kind(**values)


def component_options(
  registry: Registry, name: str = ''
) -> dict[str, tuple[Any, Any, dataclasses.Field]]:
  """The options of a registry's components: {name: (type, default, field)}.

  Components may share an option by stating it alike.

  Args:
    registry: of dataclasses.
    name: of one component; '' for all.

  Raises:
    ConfigError: a component is no dataclass, or two state one of the same name otherwise.
  """
  found: dict[str, tuple[Any, Any, dataclasses.Field]] = {}
  for kind in [registry[name]] if name else registry.values():
    if any(isinstance(value, dataclasses.Field) for value in vars(kind).values()):
      raise ConfigError(
        f'{registry.kind} {kind.__name__} ({kind.__module__}) has options and is not decorated by '
        '@dataclasses.dataclass(frozen=True)'
      )
    hints = typing.get_type_hints(kind)
    for field in dataclasses.fields(kind):
      if 'rule' not in field.metadata or not field.init:
        continue
      own = {field.name: (hints[field.name], field.default, field)}
      if 'of' in field.metadata:
        inner, default = field.metadata['of']
        own = {field.name: (str, default, field), **component_options(inner)}
      for key, stated in own.items():
        if found.setdefault(key, stated)[:2] != stated[:2]:
          raise ConfigError(
            f'{registry.kind} {kind.__name__} ({kind.__module__}) states the option {key!r} in '
            f'another way than one before it: begin the name with that of the {registry.kind}'
          )
  return found


def rule_of(field: dataclasses.Field) -> Rule:
  """The rule of a field made by `option`; of any other, one that allows everything."""
  return field.metadata.get('rule', Rule())


def checked(name: str, value: Any, hint: Any, rule: Rule = Rule()) -> Any:
  """A value from a command line, a config file or JSON, brought to an option's type.

  Args:
    name: how the option is called in the message.
    value: lists count as tuples, integers as floats, and one number as a pair where a pair of equal
      numbers is meant.
    hint: the option's type.
    rule: its range and choices.

  Raises:
    ConfigError: the value is of another type, or outside of the range.
  """
  if isinstance(value, str) and value in rule.words:
    return rule.words[value]
  try:
    value = _converted(value, hint)
  except (TypeError, OverflowError):  # an integer too large for a float
    raise ConfigError(f'{name} must be {describe_type(hint)}, got {shown(value)}') from None
  if rule.lengths and isinstance(value, tuple) and len(value) not in rule.lengths:
    counts = ' or '.join(map(str, rule.lengths))
    raise ConfigError(f'{name} takes {counts} values, got {shown(value)}')
  if rule.path:
    if isinstance(value, tuple):
      value = tuple(path_of(name, each, rule.remote) for each in value)
    elif value:
      value = path_of(name, value, rule.remote)
  choices = rule.valid
  items = value if isinstance(value, tuple) else (value,)
  for item in items:
    if choices and item is not None and item not in choices:
      raise ConfigError(f'{name}={shown(value)}: {did_you_mean(item, choices)}')
    is_number = isinstance(item, int | float) and not isinstance(item, bool)
    if isinstance(item, float) and not math.isfinite(item):
      raise ConfigError(f'{name} must be finite, got {shown(value)}')
    if is_number and not rule.admits(item):
      raise ConfigError(f'{name} must be {rule.range}, got {shown(value)}')
    if rule.parse and isinstance(item, str):
      try:
        rule.parse(item)
      except UserError as e:
        raise ConfigError([f'{name}: {problem}' for problem in e.problems]) from None
  return value


def from_text(text: str, hint: Any) -> Any:
  """A word of a command line as the value that it stands for; `checked` checks it.

  Args:
    text: tuples are written with commas between, or as Python writes them.
    hint: the option's type; Any for whatever the text looks like.
  """
  if hint is str:
    return text
  is_tuple = typing.get_origin(hint) is tuple
  if is_tuple and typing.get_args(hint)[0] is str:
    if text.strip()[:1] in ('[', '(') and isinstance(found := _literal(text), list | tuple):
      return found  # "['cat', 'dog']"; a regex may begin with a bracket too
    return tuple(word.strip() for word in text.split(',') if word.strip())
  if is_tuple and not text.strip():
    return ()
  value = _literal(text)
  if 'tuple' in str(hint) and isinstance(value, int | float) and not isinstance(value, bool):
    value = (value,)
  return value


def to_text(value: Any) -> str:
  """A value as one types it; `from_text` reads it back, given the option's type."""
  if isinstance(value, list | tuple):
    items = [to_text(item) for item in value]
    separable = all(item and ',' not in item and item[0] not in '[(' for item in items)
    return ','.join(items) if separable else repr(tuple(value))
  if value is None or isinstance(value, bool):
    return str(value).lower()
  return str(value)


def _literal(text: str) -> Any:
  words = {'true': True, 'false': False, 'none': None}
  if text.lower() in words:
    return words[text.lower()]
  try:
    with warnings.catch_warnings():
      warnings.simplefilter('ignore')  # of the parser, about a backslash for example
      return ast.literal_eval(text)
  except (ValueError, SyntaxError, MemoryError, RecursionError):  # the last two: nested too deeply
    return text


def _converted(value: Any, hint: Any) -> Any:
  kinds = typing.get_args(hint) if _is_union(hint) else (hint,)
  for kind in kinds:
    origin = typing.get_origin(kind) or kind
    if origin is types.NoneType:
      if value is None:
        return None
    elif origin is tuple:
      if not isinstance(value, str) and (found := _as_tuple(value, kind)) is not None:
        return found
    elif origin is float:
      if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    elif origin is dict:
      if isinstance(value, dict):
        return value
    elif type(value) is origin:
      return value
  raise TypeError(hint)


def _as_tuple(value: Any, kind: Any) -> tuple | None:
  items = typing.get_args(kind)
  fixed = None if Ellipsis in items else len(items)
  if isinstance(value, int) and not isinstance(value, bool) and fixed:
    value = (value,) * fixed
  if not isinstance(value, list | tuple) or (fixed is not None and len(value) != fixed):
    return None
  try:
    return tuple(_converted(v, items[0]) for v in value)
  except TypeError:
    return None


def _is_union(hint: Any) -> bool:
  return isinstance(hint, types.UnionType) or typing.get_origin(hint) is typing.Union


def describe_type(hint: Any) -> str:
  """A type in words, for messages and help."""
  if _is_union(hint):
    return ' or '.join(describe_type(h) for h in typing.get_args(hint))
  if typing.get_origin(hint) is tuple:
    items = typing.get_args(hint)
    noun = {'int': 'integers', 'float': 'numbers', 'str': 'words'}[items[0].__name__]
    return f'a tuple of {noun}' if Ellipsis in items else f'a tuple of {len(items)} {noun}'
  if hint is types.NoneType:
    return 'None'
  return {'int': 'an integer', 'float': 'a number', 'str': 'text', 'bool': 'true or false'}.get(
    getattr(hint, '__name__', ''), str(hint)
  )


@dataclasses.dataclass(frozen=True)
class Length:
  """A stretch of training: a number with its unit, written '500 steps' or '5 epochs'."""

  amount: float
  unit: Literal['steps', 'epochs', 'examples']

  @classmethod
  def parse(cls, text: str | int) -> 'Length':
    """Reads a length.

    Raises:
      ConfigError: the text is of another form.
    """
    match = re.fullmatch(r'\s*(\d+\.?\d*|\.\d+)(e\+?\d{1,3})?\s*([a-z]*)\s*', str(text).lower())
    units: dict[str, Literal['steps', 'epochs', 'examples']] = {
      '': 'steps',
      'step': 'steps',
      'epoch': 'epochs',
      'example': 'examples',
    }
    unit = units.get(match[3].removesuffix('s')) if match else None
    amount = float(match[1] + (match[2] or '')) if match else math.inf
    if unit is None or not math.isfinite(amount):
      raise ConfigError(
        f"expected a length such as '500 steps', '5 epochs' or '1e6 examples', got {shown(text)}"
      )
    return cls(amount, unit)

  @classmethod
  def parse_positive(cls, text: str) -> 'Length':
    """Reads a length that is longer than nothing."""
    length = cls.parse(text)
    if not length.amount:
      raise ConfigError(f'must be longer than 0, got {shown(text)}')
    return length

  def __str__(self) -> str:
    return f'{self.amount:g} {self.unit.removesuffix("s") if self.amount == 1 else self.unit}'

  def steps(self, batch_size: int, num_examples: int) -> float:
    """The length in steps of `batch_size` examples from a set of `num_examples`; not rounded."""
    examples = {
      'steps': self.amount * batch_size,
      'epochs': self.amount * num_examples,
      'examples': self.amount,
    }[self.unit]
    return examples / batch_size
