"""Command lines: flags that state type, help and range where they stand, as options do."""

import argparse
import collections
import contextvars
import dataclasses
import sys
import typing
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from vit_jax.errors import ConfigError, Problems, did_you_mean, shown
from vit_jax.options import Rule, checked, describe_type, from_text, to_text


@dataclasses.dataclass(frozen=True)
class Flag:
  """A flag: whether a value must follow it, the only ones allowed (empty: any), what it means."""

  name: str
  needs_value: bool
  valid: tuple[str, ...]
  help: str


class _Made(Exception):
  """Brings out the parser that a command was asked for."""


_asking: contextvars.ContextVar[bool] = contextvars.ContextVar('_asking', default=False)


def parser_of(command: Callable[[list[str]], Any]) -> 'Parser | None':
  """The parser of a command whose first work is to parse its words; it does no other."""
  token = _asking.set(True)
  try:
    command([])
  except _Made as made:
    return made.args[0]
  finally:
    _asking.reset(token)
  return None


def flags_of(command: Callable[[list[str]], Any]) -> list[Flag]:
  """The flags of a command, by its parser; none where it has no `Parser`."""
  parser = parser_of(command)
  return parser.flags() if parser else []


class Parser(argparse.ArgumentParser):
  """argparse that reports every mistake of a command line at once, as a `ConfigError`.

  Args:
    command: its name, as in `python -m vit_jax.NAME`.
    **options: of `argparse.ArgumentParser`.

  Attributes:
    needs_all: False where a flag of the words being read, such as --help, does without the others.
  """

  def __init__(self, command: str, **options: Any):
    options.setdefault('formatter_class', argparse.RawDescriptionHelpFormatter)
    super().__init__(prog=f'python -m vit_jax.{command}', allow_abbrev=False, **options)
    self._stated: dict[str, tuple[str, Any, Rule]] = {}
    self.needs_all = True

  def option(
    self,
    flag: str,
    kind: Any,
    help: str,
    default: Any = None,
    metavar: str = '',
    dest: str = '',
    **rule: Any,
  ) -> None:
    """Adds a flag that takes a value.

    Args:
      flag: '--NAME', or a word for an argument that stands for itself, as all of its values do
        where `kind` is a tuple.
      kind: type of the value, such as int or tuple[float, ...].
      help: meaning and unit; range and default are added to it.
      default: value without the flag; ... where it must be given.
      metavar: what help calls the value.
      dest: attribute of the parsed values; default: the flag's name.
      **rule: range, choices and the like; see `options.Rule`.
    """
    stated = Rule(help, **rule)
    name = flag.removeprefix('--')
    required = default is ...
    details = [', '.join(map(str, stated.valid)), stated.range]
    if flag != name and not required and default not in (None, '', ()):
      details.append(f'default: {to_text(default)}')
    text = help.replace('%', '%%') + ''.join(f' ({detail})' for detail in details if detail)
    more: dict[str, Any] = {'help': text, 'metavar': metavar or None}
    if flag != name:
      more |= {'required': required, 'default': None if required else default}
    elif typing.get_origin(kind) is tuple:
      more['nargs'] = '+'
    if dest:
      more['dest'] = dest
    self._stated[self.add_argument(flag, **more).dest] = (
      flag if flag != name else name,
      kind,
      stated,
    )

  def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
    """Reads and checks a command line.

    Raises:
      ConfigError: naming every problem found.
    """
    found, problems = self.read(args, namespace)
    if problems:
      raise ConfigError(problems)
    return found

  def parse_with(
    self, args: Sequence[str] | None, **readers: Callable[[Any], Any]
  ) -> tuple[Any, dict[str, Any]]:
    """Like `parse_args`, with what is read from several flags or from the files that they name.

    Args:
      args: words of the command line; None for those of this process.
      **readers: from the values of the flags, each at its default where wrong, to what they mean.

    Returns:
      The values of the flags, and what each reader made of them.

    Raises:
      UserError: of the first one's type, naming every problem of the flags and of the readers.
    """
    found, wrong = self.read(args)
    problems = Problems()
    problems.add(wrong)
    made = {}
    for name, reader in readers.items():
      with problems.collect():
        made[name] = reader(found)
    problems.raise_if_any()
    return found, made

  def read(self, args: Any = None, namespace: Any = None) -> tuple[Any, list[str]]:
    """Like `parse_args`, with the problems beside the values, each at its default where wrong."""
    if _asking.get():
      raise _Made(self)
    words = list(sys.argv[1:] if args is None else args)
    found = argparse.Namespace() if namespace is None else namespace
    required = [action for action in self._actions if action.required]
    unknown: list[str] = []
    wrong: list[str] = []
    self.needs_all = True
    try:
      for action in required:  # argparse would report what is missing and nothing else
        action.required = False
      _, unknown = self.parse_known_args(words, found)
    except ConfigError as e:
      wrong = e.problems
    finally:
      for action in required:
        action.required = True
    missing = [self._title(a) for a in required if getattr(found, a.dest) in (None, [])]
    if missing and self.needs_all and not wrong:
      wrong = [f'the following arguments are required: {", ".join(missing)}; see --help']
    problems = [*wrong, *self._repeated(words), *(self.unknown(word) for word in unknown)]
    for dest, (flag, kind, rule) in self._stated.items():
      given, default = getattr(found, dest), self.get_default(dest)
      if given == default and not isinstance(given, list):
        continue
      try:
        setattr(found, dest, self._checked(flag, given, kind, rule, default))
      except ConfigError as e:
        problems += e.problems
        setattr(found, dest, default)
    return found, problems

  @staticmethod
  def _title(action: argparse.Action) -> str:
    """What argparse calls an argument."""
    return '/'.join(action.option_strings) or str(action.metavar or action.dest)

  def _checked(self, flag: str, given: Any, kind: Any, rule: Rule, default: Any) -> Any:
    texts = given if isinstance(given, list) else [given]
    if default not in ('', ()) and not all(text.strip() for text in texts):
      words = describe_type(kind) if kind is not str else 'a value'
      raise ConfigError(f'{flag} is empty: expected {words}')
    value = tuple(given) if isinstance(given, list) else from_text(given, kind)
    return checked(flag, value, kind, rule)

  def _repeated(self, words: Sequence[str]) -> list[str]:
    """Flags that are given twice, of which argparse would silently take the last."""
    counts = collections.Counter(w.partition('=')[0] for w in words if w.startswith('--'))
    once = [a for a in self._actions if not isinstance(a, argparse._AppendAction)]
    return [
      f'{flag} is given {counts[flag]} times: once is meant'
      for action in once
      for flag in action.option_strings
      if counts[flag] > 1
    ]

  def unknown(self, word: str) -> str:
    """What to say of a word that is no argument of this command."""
    flags = [flag for action in self._actions for flag in action.option_strings]
    name = word.partition('=')[0]
    near = did_you_mean(name, [f for f in flags if f.startswith('--')], every_up_to=0)
    return f'unknown argument {word!r}: {near if "did you mean" in near else "see --help"}'

  def flags(self) -> 'list[Flag]':
    """The flags, as completion needs them."""
    found = []
    for action in self._actions:
      stated = self._stated.get(action.dest)
      valid = stated[2].valid if stated else action.choices or ()
      for name in action.option_strings:
        if name.startswith('--'):
          meaning = (action.help or '').replace('%%', '%')
          found.append(Flag(name, action.nargs not in (0, '?'), tuple(map(str, valid)), meaning))
    return found

  def error(self, message: str) -> NoReturn:
    """Raises what argparse finds wrong."""
    raise ConfigError(f'{message}; see --help')


def split_overrides(words: Sequence[str]) -> tuple[list[str], dict[str, str], list[str]]:
  """A command line as (other words, values by option of `--config.NAME=VALUE`, problems)."""
  rest, others, given, problems = list(words), [], [], []
  while rest:
    word = rest.pop(0)
    name, equals, value = word.removeprefix('--config.').partition('=')
    if not word.startswith('--config.'):
      others.append(word)
    elif not equals and (not rest or rest[0].startswith('--')):
      problems.append(f'{word} needs a value: {word}=VALUE')
    else:
      given.append((name, value if equals else rest.pop(0)))
  overrides = dict(given)
  for name in overrides:
    values = [shown(value) for other, value in given if other == name]
    if len(values) > 1:
      problems.append(f'--config.{name} is given {len(values)} times: {" and ".join(values)}')
  return others, overrides, problems
