"""Several processes that compute as one: how they are started, find each other, and end.

Each process runs the same command with the same arguments. `cluster` finds out which of how many
this one is; `launcher` starts several on this machine. `hub` and `member` see to it that where one
ends or hangs the others end too, with one line that names it.
"""

import argparse
import sys
from collections.abc import Sequence

from vit_jax.errors import ConfigError
from vit_jax.processes import cluster, launcher
from vit_jax.processes.alike import refuse_unlike
from vit_jax.processes.cluster import check, flags, hide_flags, may_be_several
from vit_jax.processes.member import (
  agreed,
  busy,
  chosen,
  collected,
  command_seconds,
  count,
  ending,
  index,
  join,
  leave,
  tick,
)

__all__ = [
  'agreed',
  'busy',
  'check',
  'chosen',
  'collected',
  'command_seconds',
  'count',
  'ending',
  'flags',
  'hide_flags',
  'index',
  'leave',
  'may_be_several',
  'member_flags',
  'refuse_unlike',
  'start',
  'tick',
]


def start(command: str, args: argparse.Namespace, argv: Sequence[str] | None) -> int | None:
  """Makes this process one of several, or starts several and waits for them.

  Args:
    command: as in `python -m vit_jax.NAME`.
    args: of a parser with `flags`.
    argv: the arguments of the command; None for those of this process.

  Returns:
    The exit status where the processes that were started have ended; None where this process has
    the work to do.

  Raises:
    UserError: flags that do not fit together, processes that do not find each other, or that were
      started with different ones.
  """
  place = cluster.place_of(args)
  if place is not None:
    if place.words:
      sys.orig_argv = list(place.words)  # the command to type again is the launcher's
    join(place, args.process_timeout)
    refuse_unlike({f'--{k}': v for k, v in vars(args).items() if k not in cluster.WHO})
  elif args.processes > 1:
    return launcher.launch(command, argv, args.processes)
  return None


def member_flags(args: argparse.Namespace) -> list[str]:
  """The words that start each member of a sweep as this command was told to.

  Raises:
    ConfigError: a cluster has started several processes, each of which would start all members.
  """
  if cluster.place_of(args) is not None:
    raise ConfigError(
      'all members of a sweep are started by one process, and this is one of several: use '
      '--sweep=K for each member, or --processes=1'
    )
  return [f'--processes={args.processes}'] if args.processes else []
