"""Sweeps: several runs of one config file that differ in some options."""

import hashlib
import itertools
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from vit_jax.config.loading import load, run_function, value_of
from vit_jax.config.options import Config, leaves
from vit_jax.errors import ConfigError, Problems, shown
from vit_jax.files import short_name

Member = Mapping[str, Any]


def product(options: Mapping[str, Sequence[Any]]) -> list[dict[str, Any]]:
  """Every combination of some options' values; the last option changes fastest.

  Args:
    options: values by dotted name, such as {'seed': (0, 1, 2), 'batch_size': (32, 64)}.

  Returns:
    Overrides of one run each. Lists may be added: `product(a) + product(b)`.
  """
  return [dict(zip(options, values)) for values in itertools.product(*options.values())]


def member_names(members: Sequence[Member]) -> list[str]:
  """A readable folder name for each: 'learning_rate=0.001,seed=0'.

  Raises:
    ConfigError: two members are the same.
  """
  options = list(dict.fromkeys(option for member in members for option in member))
  leaves = [option.split('.')[-1] for option in options]
  short = {
    option: leaf if leaves.count(leaf) == 1 else option for option, leaf in zip(options, leaves)
  }
  names = [_name({short[o]: v for o, v in member.items()}) for member in members]
  twice = sorted({name for name in names if names.count(name) > 1})
  if twice:
    raise ConfigError(f'the sweep holds {", ".join(map(repr, twice))} more than once')
  return names


def _name(member: Member) -> str:
  text = ','.join(f'{option}={_word(value)}' for option, value in member.items()) or 'base'
  plain = re.sub(r'[^\w.=,+-]+', '_', text)
  if plain == text == short_name(text):
    return text
  # What was replaced or cut off still tells members apart.
  told = hashlib.blake2b(text.encode('utf-8', 'backslashreplace'), digest_size=4).hexdigest()
  return f'{short_name(plain)}-{told}'


def _word(value: Any) -> str:
  return 'x'.join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def split_sweep(words: Sequence[str]) -> tuple[list[str], str]:
  """What a command line says by `--sweep`, once or several times.

  Returns:
    The words that name values, for `load_sweep`; and 'all', 'list' or a number, '' for no sweep.

  Raises:
    ConfigError: one is blank, or several choose runs.
  """
  if not all(word.strip() for word in words):
    raise ConfigError(
      '--sweep= names no run: use --sweep for all, --sweep=K, --sweep=list or '
      '--sweep=NAME=VALUE,VALUE'
    )
  swept = [word for word in words if '=' in word]
  chosen = [word.strip() for word in words if '=' not in word]
  known = {name for name, _ in leaves()}
  for word in chosen:
    if word in known or word.startswith('model.'):
      raise ConfigError(f'--sweep={word} names no values: --sweep={word}=VALUE,VALUE')
  if len(chosen) > 1:
    raise ConfigError(f'--sweep chooses {" and ".join(map(shown, chosen))}: once is meant')
  return swept, chosen[0] if chosen else 'all' if swept else ''


def _product_of(words: Sequence[str]) -> list[dict[str, Any]]:
  """The members of 'NAME=VALUE,VALUE;NAME=VALUE', of one word or several."""
  options: dict[str, list[Any]] = {}
  problems = Problems()
  for part in (part.strip() for word in words for part in _parts(word, ';')):
    name, equals, values = part.partition('=')
    name = name.strip()
    with problems.collect():
      if not part:
        continue
      if not equals:
        raise ConfigError(f'--sweep: expected NAME=VALUE,VALUE, got {shown(part)}')
      if name in options:
        raise ConfigError(f'--sweep gives {name} twice: write all of its values in one list')
      options[name] = [value_of(name, _unquoted(text)) for text in _parts(values, ',')]
  problems.raise_if_any()
  return product(options)


def _parts(text: str, separator: str) -> list[str]:
  """Splits outside of brackets and of values in quotes."""
  parts, depth, quote = [''], 0, ''
  for char in text:
    if quote:
      quote = '' if char == quote else quote
    elif char in '"\'' and parts[-1].rstrip()[-1:] in ('', '=', ','):
      quote = char
    elif char in '([{':
      depth += 1
    elif char in ')]}':
      depth = max(0, depth - 1)
    if char == separator and not depth and not quote:
      parts.append('')
    else:
      parts[-1] += char
  return parts


def _unquoted(text: str) -> str:
  text = text.strip()
  quoted = len(text) > 1 and text[0] == text[-1] and text[0] in '"\''
  return text[1:-1] if quoted else text


def _members_of(path: str) -> list[Member]:
  """What a config file's `get_sweep` returns, checked to be a list of overrides."""
  members = run_function(path, 'get_sweep')
  if isinstance(members, Mapping) or not isinstance(members, Iterable):
    members = [members]
  members = list(members)
  if not members or not all(
    isinstance(m, Mapping) and all(type(k) is str for k in m) for m in members
  ):
    raise ConfigError(
      f"{path}: get_sweep must return a list such as product({{'seed': (0, 1)}}) or "
      f"[{{'seed': 0}}, {{'seed': 1}}], got {members!r}"
    )
  return members


def load_sweep(
  path: str, overrides: Mapping[str, str], swept: Sequence[str] = ()
) -> dict[str, tuple[Member, Config]]:
  """The members of a sweep, each checked as a run of its own.

  Args:
    path: 'FILE' or 'FILE:ARGUMENT'; the file's `get_sweep` returns a list of overrides, and takes
      the argument where there is one.
    overrides: from the command line, for all members.
    swept: options with their values, 'seed=0,1;batch_size=16,32', in place of the file's
      `get_sweep`: every combination.

  Returns:
    The overrides and the options of each member by name, in order.

  Raises:
    ConfigError: naming every problem found and the members that have it.
  """
  members = _product_of(swept) if swept else _members_of(path)
  both = sorted({option for member in members for option in member} & set(overrides))
  problems: dict[str, list[str]] = {
    f'config.{option} is set by the sweep: leave it out of the command line': [] for option in both
  }
  names = member_names(members)
  checked = {}
  for name, member in zip(names, members):
    try:
      checked[name] = (member, load(path, dict(overrides), member))
    except ConfigError as e:
      for problem in e.problems:
        problems.setdefault(problem, []).append(name)
  if problems:
    raise ConfigError(
      [
        problem if len(where) in (0, len(members)) else f'{problem} ({" and ".join(where)})'
        for problem, where in problems.items()
      ]
    )
  return checked


def pick(names: Sequence[str], which: str) -> str:
  """The name of the k-th member, counted from 0, or ConfigError."""
  if not re.fullmatch(r'\d+', which) or int(which) >= len(names):
    raise ConfigError(
      f'--sweep={which}: this sweep has members 0 to {len(names) - 1}; --sweep=list names them'
    )
  return names[int(which)]
