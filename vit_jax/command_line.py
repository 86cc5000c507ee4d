"""What every command does around its own work: settings of the process, errors, exit status."""

import logging
import os
import sys
from collections.abc import Callable

from vit_jax import runtime
from vit_jax.console import Console, show, show_problems
from vit_jax.errors import UserError


def run_cli(main: Callable[[], int | None]) -> None:
  """Runs a command; warnings are lines on stderr, a `UserError` is one and exit status 1.

  Set VIT_JAX_TRACEBACK=1 to see where it was raised. A signal ends with status 128 and its number
  and a closed pipe (`... | head`) quietly, as shells expect.
  """
  runtime.start()
  # Orbax's threads log with a traceback what was said in one line, and may end after the console.
  logging.getLogger('absl').setLevel(logging.CRITICAL)
  try:
    with Console(information=False):
      status = main() or 0
  except UserError as e:
    if os.environ.get('VIT_JAX_TRACEBACK'):
      raise
    show_problems(e)
    status = e.status
  except KeyboardInterrupt:
    show('interrupted', error=True)
    status = 130
  except BrokenPipeError:
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    status = 0
  sys.exit(status)
