"""Times and stops: what the loop needs to know besides numbers."""

import contextlib
import signal
import sys
import threading
import time
from typing import Any

import jax


class Interval:
  """Metrics and times since the last report. Metrics stay on the device until they are read."""

  def __init__(self, batch_size: int):
    self._batch_size = batch_size
    self._began = time.monotonic()
    self.metrics: list[tuple[int, dict]] = []
    self.restart()

  def restart(self) -> None:
    """Forgets metrics and starts the clock again."""
    self.metrics = []
    self.restart_clock()

  def restart_clock(self) -> float:
    """Leaves what came before out of the rate; returns its seconds."""
    now = time.monotonic()
    seconds, self._began = now - self._began, now
    self._waited, self._timed_steps = 0.0, 0
    return seconds

  @contextlib.contextmanager
  def waiting(self):
    """Counts the time within as waiting for input."""
    began = time.monotonic()
    yield
    self._waited += time.monotonic() - began

  def add(self, step: int, metrics: dict) -> None:
    self.metrics.append((step, metrics))
    self._timed_steps += 1

  def timing(self) -> dict[str, float]:
    """Pictures a second and the share of time waited for input; empty before any timed step."""
    seconds = time.monotonic() - self._began
    if not self._timed_steps:
      return {}
    return {
      'img_sec': self._timed_steps * self._batch_size / seconds,
      'input_wait': self._waited / seconds,
    }


class StopSignal:
  """Turns the first SIGTERM or Ctrl-C into a request; the second one acts as usual."""

  def __init__(self):
    self.requested = False
    self._before: dict[int, Any] = {}

  def __enter__(self) -> 'StopSignal':
    if threading.current_thread() is threading.main_thread() and jax.process_count() == 1:
      for number in (signal.SIGTERM, signal.SIGINT):
        self._before[number] = signal.signal(number, self._request)
    return self

  def __exit__(self, *_) -> None:
    for number, handler in self._before.items():
      signal.signal(number, handler)

  def _request(self, number: int, _) -> None:
    self.requested = True
    signal.signal(number, self._before[number])
    print('stopping after this step: saving a checkpoint', file=sys.stderr, flush=True)
