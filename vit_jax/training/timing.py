"""Metrics and throughput of the loop between two reports, and what limits its memory on CPU."""

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax

Row = dict[str, tuple[float, float]]  # by metric: total and weight


class Window:
  """Metrics of the steps since the last report, and their rate. Pauses are not timed.

  Metrics stay on the device until they are read.

  Args:
    batch_size: examples a step.
    fetch: brings a step's metrics to the host, {name: (total, weight)}.
    rows: read before an interruption, see `rows`.
  """

  def __init__(
    self,
    batch_size: int,
    fetch: Callable[[Any], Row],
    rows: Mapping[str, Mapping[str, tuple[float, float]]] | None = None,
  ):
    self._batch_size, self._fetch = batch_size, fetch
    self._rows: dict[int, Row] = {
      int(step): {name: (total, weight) for name, (total, weight) in row.items()}
      for step, row in (rows or {}).items()
    }
    self._pending: list[tuple[int, Any]] = []
    self._restart_clock()

  def _restart_clock(self) -> None:
    self._began, self._paused, self._waited, self._timed_steps = time.monotonic(), 0.0, 0.0, 0

  @contextlib.contextmanager
  def waiting(self) -> Iterator[None]:
    """Counts the time within as waiting for input."""
    began = time.monotonic()
    yield
    self._waited += time.monotonic() - began

  @contextlib.contextmanager
  def paused(self) -> Iterator[None]:
    """Excludes the time within: validation, saving."""
    began = time.monotonic()
    try:
      yield
    finally:
      self._paused += time.monotonic() - began

  def add(self, step: int, metrics: Any) -> None:
    """Takes the metrics of a step that was started."""
    self._pending.append((step, metrics))
    self._timed_steps += 1

  def end_compilation(self) -> float:
    """Waits for the first step and excludes it from the rate; returns its seconds."""
    jax.block_until_ready([metrics for _, metrics in self._pending])
    seconds = time.monotonic() - self._began
    self._restart_clock()
    return seconds

  def rows(self) -> dict[int, Row]:
    """The metrics of every step since the last report, as JSON values."""
    for step, metrics in self._pending:
      self._rows[step] = self._fetch(metrics)
    self._pending = []
    return self._rows

  def means(self) -> dict[str, float]:
    """The mean of each metric over the window; of no weight, 0."""
    rows = list(self.rows().values())
    found = {}
    for name in rows[0]:
      total, weight = (sum(row[name][i] for row in rows) for i in (0, 1))
      found[name] = total / weight if weight else 0.0
    return found | {'learning_rate': rows[-1]['learning_rate'][0]}

  def rates(self) -> dict[str, float]:
    """'img_sec', and the share of the time waited for input; empty before any timed step."""
    seconds = time.monotonic() - self._began - self._paused
    if not self._timed_steps:
      return {}
    return {
      'img_sec': self._timed_steps * self._batch_size / seconds,
      'input_wait': self._waited / seconds,
    }

  def restart(self) -> None:
    """Begins a new window."""
    self._rows, self._pending = {}, []
    self._restart_clock()


class CpuStepThrottle:
  """After long steps on CPU, waits until XLA has freed the workspace of the last one.

  XLA reports outputs as ready a moment before it frees the workspace. A step that starts in
  between, or is started before, gets a workspace of its own: 3.6 GB in the place of 2.1 GB for
  ViT-S/16, and some steps later 5.0 GB (docs/speed.md). The pause is a hundredth of the step.

  Args:
    on_cpu: whether steps run on the host; if not, there are no pauses.
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
