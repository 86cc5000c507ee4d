"""The wall time that an attempt at a run may take: `--max_hours`."""

import collections
import contextlib
import time
from collections.abc import Callable, Collection, Iterator
from typing import Any

import jax

from vit_jax import machine

_QUEUED = 2  # steps that may wait on a device, so that a step's end is known in time
_RECENT = 50  # steps, of which the slowest stands for the next
_BYTES_A_SECOND = 50e6  # of a checkpoint, before one was written
_MARGIN = 1.25  # of everything that is still to come


class TimeBudget:
  """Says when a run has to stop so that its checkpoint is written in time.

  An attempt makes one step in any case. Without a budget nothing is measured.

  Args:
    hours: since the process started; 0 for no budget.
    state_bytes: of a checkpoint.
    clock: seconds of wall time.
    passed: seconds since the process started; None asks the system.
  """

  def __init__(
    self,
    hours: float,
    state_bytes: int = 0,
    clock: Callable[[], float] = time.monotonic,
    passed: float | None = None,
  ):
    self.hours, self._clock, self._state_bytes = hours, clock, state_bytes
    before = machine.process_seconds() if passed is None else passed
    self._end = clock() - before + 3600 * hours
    self._running: collections.deque[Any] = collections.deque()
    self._steps: collections.deque[float] = collections.deque(maxlen=_RECENT)
    self._pauses: dict[frozenset[str], float] = {}
    self._began: float | None = None

  def after(self, outputs: Any) -> None:
    """To be called with the arrays that a step gives once it is started.

    Waits for the step before the one before, which leaves the device work to go on with.
    """
    if not self.hours:
      return
    self._running.append(outputs)
    if len(self._running) > _QUEUED:
      jax.block_until_ready(self._running.popleft())
    if self._began is not None:  # the first step is compiled
      self._steps.append(self._clock() - self._began)

  @contextlib.contextmanager
  def pause(self, due: Collection[str]) -> Iterator[None]:
    """Measures what is done after a step.

    Args:
      due: what that is: validation, a checkpoint.
    """
    began = self._clock()
    yield
    self._began = self._clock()
    kind = frozenset(due)
    self._pauses[kind] = max(self._pauses.get(kind, 0.0), self._began - began)

  def spent(self, due: Collection[str], save_seconds: float, later: int = 0) -> bool:
    """Whether another step might not leave the time to save it.

    Args:
      due: what is to be done after that step.
      save_seconds: until a checkpoint was on disk, the longest so far; 0 where none was.
      later: steps that are made before all processes know of it.
    """
    if not self.hours:
      return False
    slowest = max(self._steps, default=0.0)
    pauses = [seconds for kind, seconds in self._pauses.items() if kind <= frozenset(due)]
    saving = save_seconds or self._state_bytes / _BYTES_A_SECOND
    needed = (1 + _QUEUED + later) * slowest + max(pauses, default=0.0) + saving
    return self._clock() + _MARGIN * needed >= self._end
