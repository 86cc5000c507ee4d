"""What every command does around its own work: settings of the process, errors, exit status."""

import logging
import os
import pathlib
import re
import shutil
import sys
from collections.abc import Callable, Sequence

from vit_jax import interrupts, machine, processes, runtime
from vit_jax.console import Console, show, show_problems
from vit_jax.errors import UserError, one_line


def run_cli(main: Callable[[], int | None]) -> None:
  """Runs a command; warnings are lines on stderr, a `UserError` is one and exit status 1.

  Set VIT_JAX_TRACEBACK=1 to see where it was raised. A signal ends with status 128 and its number
  and a closed pipe (`... | head`) quietly, as shells expect; a run goes on without what it prints.
  """
  runtime.start(alone=not processes.may_be_several())
  # Orbax's threads log with a traceback what was said in one line, and may end after the console.
  logging.getLogger('absl').setLevel(logging.CRITICAL)
  try:
    with interrupts.handled(), Console(information=False), processes.ending():
      status = main() or 0
  except UserError as e:
    if os.environ.get('VIT_JAX_TRACEBACK'):
      raise
    show_problems(e)
    status = e.status
  except ModuleNotFoundError as e:
    if os.environ.get('VIT_JAX_TRACEBACK') or (e.name or 'vit_jax').startswith('vit_jax'):
      raise
    show(
      f'error: {e}: it is not installed for {sys.executable}; activate the environment that has '
      "vit_jax's packages, or install them: python -m pip install .",
      error=True,
    )
    status = 1
  except (AssertionError, MemoryError, RuntimeError, ValueError) as e:
    problem = _out_of_memory(e) or _without_devices()
    if problem is None or os.environ.get('VIT_JAX_TRACEBACK'):
      raise
    show(f'error: {problem}', error=True)
    status = 1
  except KeyboardInterrupt:
    show('interrupted', error=True)
    status = 130
  except BrokenPipeError:
    status = 0  # console.show has silenced it
  processes.leave(status)
  runtime.leave(status)
  sys.exit(status)


def _without_devices() -> str | None:
  """What to say where JAX has none of the devices that $JAX_PLATFORMS names; else None."""
  asked = os.environ.get('JAX_PLATFORMS')
  if not asked:
    return None
  import jax

  try:
    jax.devices()
  except (AssertionError, RuntimeError) as e:
    reason = f' ({one_line(e)})' if str(e) else ''
    return f'JAX finds no device of JAX_PLATFORMS={asked}{reason}: unset it to use what there is'
  return None


def _out_of_memory(error: BaseException) -> str | None:
  """What to say where an error is of memory that ran out, on the host or on a device; else None."""
  said = str(error).partition('\n')[0].rstrip('.')
  if not isinstance(error, MemoryError):
    code, _, said = said.partition(': ')
    if code != 'RESOURCE_EXHAUSTED' or not re.search('memory|allocat', said, re.IGNORECASE):
      return None
  said = f' ({said})' if said else ''
  return (
    f'out of memory{said}: smaller batches, images or models need less, and in training '
    'config.accumulate and config.model.remat=block'
  )


def typed(command: str, argv: Sequence[str] | None = None) -> str:
  """The command line of this process, quoted as it may be typed again.

  Args:
    command: its name, as in `python -m vit_jax.NAME`.
    argv: its arguments, where it was called with some.
  """
  words = _original()
  given = list(words if argv is None else argv)
  if words[len(words) - len(given) :] != given:  # called by another program
    words = ['python', '-m', f'vit_jax.{command}', *given]
  return machine.shell_line(words)


def beside(command: str, *arguments: str) -> str:
  """The line that runs another command in the way that this one was run, quoted for a shell."""
  words = _original()
  module = words.index('-m') + 1 if '-m' in words[:-1] else 0
  if words[0] == 'vit_jax' or pathlib.Path(words[0]).stem == 'vit_jax':
    start = [words[0], command]
  elif module and words[module] == 'vit_jax':
    start = [*words[: module + 1], command]
  elif module and words[module].startswith('vit_jax.'):
    start = [*words[:module], f'vit_jax.{command}']
  else:
    start = ['python', '-m', f'vit_jax.{command}']
  return machine.shell_line([*start, *arguments])


def _original() -> list[str]:
  """The words that started this process, the console script by its own name."""
  words = list(sys.orig_argv)
  script = pathlib.Path(words[1]) if len(words) > 1 else pathlib.Path()
  if script.stem != 'vit_jax':
    return words
  found = shutil.which('vit_jax')
  same = found and pathlib.Path(found).resolve() == script.resolve()
  return ['vit_jax' if same else str(script), *words[2:]]
