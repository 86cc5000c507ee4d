"""Signals at moments when Python would turn their exception into another, or drop it."""

import contextlib
import os
import signal
import threading
import time
from collections.abc import Iterator
from types import FrameType

_AGAIN_SECONDS, _LONGEST_SECONDS = 0.01, 2.0
_since: list[float] = []  # when the signal came that waits


@contextlib.contextmanager
def handled() -> Iterator[None]:
  """Has Ctrl-C end the block of a command by a KeyboardInterrupt, and after it the process at once.

  A handler that the parent has chosen stays: `nohup` and jobs in the background ignore Ctrl-C.
  """
  main = threading.current_thread() is threading.main_thread()
  if not main or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
    yield
    return
  signal.signal(signal.SIGINT, _interrupt)
  try:
    yield
  finally:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # a message and the process's end remain


def postponed(number: int, frame: FrameType | None) -> bool:
  """Whether a signal comes again in a moment, as an exception would not arrive now.

  One in the import of an extension comes out as an ImportError, or crashes the interpreter; one in
  a callback of the garbage collector is printed and lost. An import that takes longer than two
  seconds is ended with the process.

  Args:
    number: of the signal.
    frame: that it interrupted.
  """
  if not _must_wait(frame):
    _since.clear()
    return False
  now = time.monotonic()
  _since[:] = _since or [now]
  if now - _since[0] > _LONGEST_SECONDS:
    os.write(2, b'interrupted\n')  # print may be what was interrupted
    os._exit(128 + number)
  again = threading.Timer(_AGAIN_SECONDS, _send, (number,))
  again.daemon = True
  again.start()
  return True


def _send(number: int) -> None:
  """Sends a signal to the main thread, which a signal to another one would not wake."""
  if hasattr(signal, 'pthread_kill'):
    signal.pthread_kill(threading.main_thread().ident or 0, number)
  else:
    signal.raise_signal(number)


def _must_wait(frame: FrameType | None) -> bool:
  if frame is not None and frame.f_code.co_name == '_xla_gc_callback':
    return True
  while frame is not None:
    code = frame.f_code
    if code.co_name == '_find_and_load' and code.co_filename.startswith('<frozen importlib'):
      return True
    frame = frame.f_back
  return False


def _interrupt(number: int, frame: FrameType | None) -> None:
  if not postponed(number, frame):
    raise KeyboardInterrupt
