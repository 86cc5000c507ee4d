"""A command of several processes, one of which ends as it is told; the others wait for it.

`--do=WHAT:NUMBER`, where WHAT is 'fail', 'crash', 'kill', 'stop', 'ask' or 'none'; 'ask' is a
SIGTERM.
"""

import os
import signal
import time

from vit_jax import processes
from vit_jax.arguments import Parser
from vit_jax.command_line import run_cli
from vit_jax.console import show
from vit_jax.errors import ImageError


def main() -> int:
  parser = Parser('evaluate')
  processes.flags(parser)
  parser.option('--do', str, 'what and who', 'none:0')
  args = parser.parse_args()
  status = processes.start('evaluate', args, None)
  if status is not None:
    return status
  what, _, number = args.do.partition(':')
  if processes.index() == int(number):
    _do(what)
  show(f'all: {processes.collected(processes.index())}')
  show(f'first: {processes.agreed(lambda: processes.index())}')
  return 0


def _do(what: str) -> None:
  if what == 'fail':
    raise ImageError('image 3 cannot be decoded')
  if what == 'crash':
    raise ZeroDivisionError
  if what != 'none':
    numbers = {'kill': signal.SIGKILL, 'stop': signal.SIGSTOP, 'ask': signal.SIGTERM}
    os.kill(os.getpid(), numbers[what])
    time.sleep(3)  # or all would be done before they heard of it


if __name__ == '__main__':
  run_cli(main)
