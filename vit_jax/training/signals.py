"""Signals that ask a run to stop."""

import logging
import signal
import threading
from types import FrameType, TracebackType
from typing import Any

import jax

log = logging.getLogger(__name__)


class StopSignal:
  """Turns the first SIGTERM or Ctrl-C into a request; the second one acts as usual."""

  def __init__(self) -> None:
    self.requested = False
    self._before: dict[int, Any] = {}

  def __enter__(self) -> 'StopSignal':
    if threading.current_thread() is threading.main_thread() and jax.process_count() == 1:
      for number in (signal.SIGTERM, signal.SIGINT):
        self._before[number] = signal.signal(number, self._request)
    return self

  def __exit__(
    self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
  ) -> None:
    for number, handler in self._before.items():
      signal.signal(number, handler)

  def _request(self, number: int, frame: FrameType | None) -> None:
    self.requested = True
    signal.signal(number, self._before[number])
    log.warning('stopping after this step: saving a checkpoint')
