"""Sweeps: several runs of one config file that differ in some options."""

import hashlib
import itertools
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from vit_jax.config.loading import load, run_function
from vit_jax.config.options import Config
from vit_jax.errors import ConfigError
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


def load_sweep(path: str, overrides: Mapping[str, str]) -> dict[str, tuple[Member, Config]]:
  """The members of a config file's sweep, each checked as a run of its own.

  Args:
    path: 'FILE' or 'FILE:ARGUMENT'; the file's `get_sweep` returns a list of overrides, and takes
      the argument where there is one.
    overrides: from the command line, for all members.

  Returns:
    The overrides and the options of each member by name, in order.

  Raises:
    ConfigError: naming every problem found and the members that have it.
  """
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
