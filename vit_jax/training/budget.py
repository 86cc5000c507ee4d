"""The wall time that an attempt at a run may take: `--max_hours`."""

import collections
import contextlib
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from types import MappingProxyType
from typing import Any

import jax

from vit_jax import processes

_QUEUED = 2  # steps that may wait on a device, so that a step's end is known in time
_RECENT = 50  # steps, of which the slowest stands for the next
_BYTES_A_SECOND = 50e6  # of a checkpoint, before one was written
_REPORT_SECONDS = 20.0  # to write the report of the test
_END_SECONDS = 5.0  # until a process that has nothing left to do is gone
_MARGIN = 1.25  # of everything that is still to come


class TimeBudget:
  """Says when a run has to stop so that it has saved and ended in time.

  What the attempt has not done yet counts as long as its first step, which was compiled too, and a
  step for each batch. An attempt makes one step in any case, or the test of a run that is trained.
  Without a budget nothing is measured.

  Args:
    hours: since the command was started; 0 for no budget.
    state_bytes: of a checkpoint.
    batches: of each validation, of each evaluation of 'features', and of the 'test'.
    clock: seconds of wall time.
    passed: seconds since the command was started; None asks the system.
  """

  def __init__(
    self,
    hours: float,
    state_bytes: int = 0,
    batches: Mapping[str, int] = MappingProxyType({}),
    clock: Callable[[], float] = time.monotonic,
    passed: float | None = None,
  ):
    self.hours, self._clock, self._state_bytes, self._batches = hours, clock, state_bytes, batches
    self._made = clock()
    before = processes.command_seconds() if passed is None else passed
    self._end = self._made - before + 3600 * hours - _END_SECONDS
    self._running: collections.deque[Any] = collections.deque()
    self._first: float | None = None
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
    if self._first is None:
      self._first = self._clock() - self._made
    elif self._began is not None:
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
    done = {kind: seconds for kind, seconds in self._pauses.items() if kind <= frozenset(due)}
    new = set(due).difference({'checkpoint'}, *done)
    saving = save_seconds or self._seconds_of_first() + self._state_bytes / _BYTES_A_SECOND
    needed = (1 + _QUEUED + later) * self._slowest() + max(done.values(), default=0.0)
    return not self._is_time_for(needed + sum(map(self._unseen, new)) + saving)

  def leaves_test(self) -> bool:
    """Whether there is time to test a run that is trained, and to write its report."""
    if not self.hours or self._first is None:
      return True
    return self._is_time_for(self._unseen('test') + _REPORT_SECONDS)

  def _slowest(self) -> float:
    return max(self._steps, default=0.0)

  def _seconds_of_first(self) -> float:
    return self._first or 0.0

  def _unseen(self, what: str) -> float:
    """Seconds of what was not done yet."""
    return self._seconds_of_first() + self._batches.get(what, 0) * self._slowest()

  def _is_time_for(self, seconds: float) -> bool:
    return self._clock() + _MARGIN * seconds < self._end
