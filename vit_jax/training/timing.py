"""Times, pauses and stops: what the loop needs to know besides numbers."""

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


class OneWorkspace:
  """After long steps on CPU, waits until XLA has freed the workspace of the last one.

  XLA says that outputs are ready a moment before it frees the workspace. A step that starts in
  between, or is started before, gets a workspace of its own: 3.6 GB in the place of 2.1 GB for
  ViT-S/16, and some steps later 5.0 GB (docs/speed.md). The pause is a hundredth of the step.

  Args:
    on_cpu: whether steps run on the host; if not, nothing is waited for.
  """

  _SHORT = 0.2  # seconds; a step that takes no longer has little workspace
  _LONGEST_PAUSE = 0.02  # seconds

  def __init__(self, on_cpu: bool):
    self._waits, self._before = on_cpu, time.monotonic()

  def after(self, outputs: Any) -> None:
    """To be called with the arrays that a step gives as soon as the step was started."""
    if not self._waits:
      return
    jax.block_until_ready(outputs)
    seconds = time.monotonic() - self._before
    self._waits = seconds > self._SHORT
    time.sleep(min(self._LONGEST_PAUSE, seconds / 100))
    self._before = time.monotonic()


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
