"""One run in a folder at a time."""

import contextlib
import json
import os
import pathlib
import socket
import time
from collections.abc import Iterator

from vit_jax import processes
from vit_jax.errors import StorageError
from vit_jax.files import read_json, try_lock

_FILE = '.lock'


@contextlib.contextmanager
def run_lock(workdir: pathlib.Path) -> Iterator[None]:
  """Keeps other runs, of this machine and of others that share the disk, out of a folder.

  The system lets go of the lock however the process ends, so none is ever stale. Of several
  processes of one run the first takes it, and the others hear where it cannot. Where the file
  system has no locks there is none.

  Args:
    workdir: an existing folder.

  Raises:
    StorageError: naming the process that runs there.
  """
  with contextlib.ExitStack() as stack:
    processes.agreed(lambda: stack.enter_context(_held(workdir)))
    yield


@contextlib.contextmanager
def _held(workdir: pathlib.Path) -> Iterator[None]:
  path = (workdir / _FILE).resolve()
  with contextlib.ExitStack() as stack:
    try:
      file = stack.enter_context(open(path, 'a+', encoding='utf-8'))
      taken = try_lock(file.fileno())
    except OSError as e:
      raise StorageError(f'cannot lock {path}: {e.strerror or e}') from e
    if not taken:
      raise StorageError(
        f'another run works in {workdir} ({_holder(path)}): wait for it, stop it, or use another '
        '--workdir'
      )
    _write_holder(file.fileno())
    yield
    # The file stays: who removes a lock's file lets two others lock two files of that name.


def _write_holder(descriptor: int) -> None:
  """Says who has the lock, where the disk has room for it."""
  holder = {
    'host': socket.gethostname(),
    'pid': os.getpid(),
    'started': time.strftime('%Y-%m-%d %H:%M:%S'),
  }
  with contextlib.suppress(OSError):
    os.ftruncate(descriptor, 0)
    os.write(descriptor, json.dumps(holder).encode())


def _holder(path: pathlib.Path) -> str:
  try:
    found = read_json(path)
    return f'process {found["pid"]} on {found["host"]} since {found["started"]}'
  except (KeyError, TypeError):
    return 'it has not said which'
