"""Signals that ask a run to stop."""

import collections
import contextlib
import logging
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from types import FrameType, TracebackType
from typing import Any

import numpy as np

from vit_jax import interrupts, processes
from vit_jax.console import current_phase, tell_soon
from vit_jax.errors import InterruptedRunError
from vit_jax.training.train_step import STOPS

log = logging.getLogger(__name__)

# SIGHUP, which a closed terminal sends, and SIGUSR1, by which SLURM announces the end of the time,
# are not everywhere.
_NAMES = ('SIGTERM', 'SIGINT', 'SIGHUP', 'SIGUSR1')
NUMBERS = [getattr(signal, n) for n in _NAMES if hasattr(signal, n)]


_SOON_SECONDS = 0.3  # in which a signal's handler is called where nothing keeps Python from it


class _Stopped(KeyboardInterrupt):
  """No Exception, so that nothing on the way takes it for a failure of its own."""


class StopSignal:
  """Ends a run at the first SIGTERM, SIGHUP, SIGUSR1 or Ctrl-C; a second one acts as usual.

  Attributes:
    number: of the signal that was received, 0 before.

  Raises:
    InterruptedRunError: when the block that a signal has ended is left.
  """

  def __init__(self) -> None:
    self.number = 0
    self._deferred = False
    self._before: dict[int, Any] = {}
    self._handled = threading.Event()
    self._wakeup: tuple[socket.socket, int] | None = None

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
    if threading.current_thread() is threading.main_thread():
      for number in NUMBERS:
        self._before[number] = signal.signal(number, self._receive)
      reader, writer = socket.socketpair()
      writer.setblocking(False)
      before = signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
      self._wakeup = writer, before
      threading.Thread(target=self._listen, args=(reader,), daemon=True).start()
    return self

  def __exit__(
    self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
  ) -> None:
    for number, handler in self._before.items():
      signal.signal(number, handler)
    if self._wakeup is not None:
      writer, before = self._wakeup
      signal.set_wakeup_fd(before)
      writer.close()
    if isinstance(error, _Stopped):
      raise InterruptedRunError(
        'interrupted: nothing that was saved is lost, and the same command resumes', self.number
      ) from None

  def _receive(self, number: int, frame: FrameType | None) -> None:
    if not self._deferred and interrupts.postponed(number, frame):
      return
    self.number = number
    self._handled.set()
    for each, handler in self._before.items():
      signal.signal(each, handler)
    if not self._deferred:
      raise _Stopped

  def _listen(self, reader: socket.socket) -> None:
    """Says what the first signal waits for, from a thread: Python's handler waits for it too.

    A program that XLA compiles takes a minute, in which Python does not run in the main thread.

    Args:
      reader: receives the number of each signal that arrives.
    """
    told = False
    with reader:
      while received := reader.recv(1):
        if received[0] in NUMBERS and not told:
          told = True
          self._tell()

  def _tell(self) -> None:
    handled = self._handled.wait(_SOON_SECONDS)
    doing = current_phase()
    tell_soon()
    if self._deferred:
      further = ', within a few steps that all processes make' * (processes.count() > 1)
      log.warning('stopping after %s%s: saving a checkpoint', doing or 'this step', further)
    elif not handled:
      log.warning('stopping after %s', doing or 'what cannot be interrupted')


class SharedStop:
  """What any of several processes has to stop for, known to all of them at the same step.

  The request travels in the batch, a row for each example with a column for each of NUMBERS and one
  for the end of the time, whose sum over all processes comes back among the metrics of the step. It
  is read some steps later, so that nobody waits for a step that has just been started. One process
  alone looks at its own signal, and adds nothing.

  Args:
    stop: the signal of this process.
    rows: examples of this process in a batch.
    fetch: brings what a step gives to the host.

  Attributes:
    number: of the signal that all stop for; 0 before, and where the time is over.
    later: steps between a request and the stop.
  """

  _LAG = 2  # steps

  def __init__(self, stop: StopSignal, rows: int, fetch: Callable[[dict], dict[str, Any]]):
    self._stop, self._rows, self._fetch = stop, rows, fetch
    self._alone = processes.count() == 1
    self._pending: collections.deque[Any] = collections.deque()
    self._number, self._spent, self._agreed = 0, False, False
    self.later = 0 if self._alone else self._LAG + 1

  @property
  def number(self) -> int:
    return self._stop.number if self._alone else self._number

  def requested(self, spent: bool = False) -> bool:
    """Whether the run is to stop after the step that was taken last.

    Args:
      spent: the time of this process is over.
    """
    self._spent = self._spent or spent
    return self._stop.requested or spent if self._alone else self._agreed

  def asked(self) -> dict[str, np.ndarray]:
    """What this process adds to a batch: {STOPS: [b, numbers + 1]}."""
    if self._alone:
      return {}
    asked = np.zeros((self._rows, len(NUMBERS) + 1), np.float32)
    asked[0, -1] = self._spent
    if self._stop.requested:
      asked[0, NUMBERS.index(self._stop.number)] = 1
    return {STOPS: asked}

  def take(self, metrics: dict) -> None:
    """Takes what a step gave, out of its metrics."""
    if self._alone:
      return
    self._pending.append(metrics.pop(STOPS))
    if len(self._pending) > self._LAG:
      total = np.asarray(self._fetch({STOPS: self._pending.popleft()})[STOPS][0])
      if total.any() and not self._agreed:
        self._agreed = True
        self._number = next((n for n, t in zip(NUMBERS, total) if t), 0)
        if self._number and not self._stop.requested:
          log.warning('another process was asked to stop: saving a checkpoint')
