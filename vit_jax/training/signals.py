"""Signals that ask a run to stop."""

import contextlib
import logging
import signal
import threading
from collections.abc import Iterator
from types import FrameType, TracebackType
from typing import Any

import jax

from vit_jax import interrupts
from vit_jax.errors import InterruptedRunError

log = logging.getLogger(__name__)

# SIGHUP, which a closed terminal sends, is not everywhere.
NUMBERS = [getattr(signal, n) for n in ('SIGTERM', 'SIGINT', 'SIGHUP') if hasattr(signal, n)]


class _Stopped(KeyboardInterrupt):
  """No Exception, so that nothing on the way takes it for a failure of its own."""


class StopSignal:
  """Ends a run at the first SIGTERM, SIGHUP or Ctrl-C; a second one acts as usual.

  Attributes:
    number: of the signal that was received, 0 before.

  Raises:
    InterruptedRunError: when the block that a signal has ended is left.
  """

  def __init__(self) -> None:
    self.number = 0
    self._deferred = False
    self._before: dict[int, Any] = {}

  @property
  def requested(self) -> bool:
    """Whether a signal was received."""
    return self.number != 0

  @contextlib.contextmanager
  def deferred(self) -> Iterator[None]:
    """Makes a signal in the block a request, which the block looks for when it can stop."""
    self._deferred = True
    try:
      yield
    finally:
      self._deferred = False

  def __enter__(self) -> 'StopSignal':
    if threading.current_thread() is threading.main_thread() and jax.process_count() == 1:
      for number in NUMBERS:
        self._before[number] = signal.signal(number, self._receive)
    return self

  def __exit__(
    self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
  ) -> None:
    for number, handler in self._before.items():
      signal.signal(number, handler)
    if isinstance(error, _Stopped):
      raise InterruptedRunError(
        'interrupted: nothing that was saved is lost, and the same command resumes', self.number
      ) from None

  def _receive(self, number: int, frame: FrameType | None) -> None:
    if not self._deferred and interrupts.postponed(number, frame):
      return
    self.number = number
    for each, handler in self._before.items():
      signal.signal(each, handler)
    if not self._deferred:
      raise _Stopped
    log.warning('stopping after this step: saving a checkpoint')
