"""Metrics and throughput of the loop between two reports, and what limits its memory on CPU."""

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax

from vit_jax import runtime

Row = dict[str, tuple[float, float]]  # by metric: total and weight


class Window:
  """Metrics of the steps since the last report, and their rate. Pauses are not timed.

  Metrics stay on the device until they are read. Those of the window before are kept: the last
  report of a run may be of a few steps, and is then filled up with the steps before.

  Args:
    batch_size: examples a step.
    fetch: brings a step's metrics to the host, {name: (total, weight)}.
    rows: read before an interruption, see `rows`.
    reported: the step of the last report then.

  Attributes:
    reported: the step of the last report.
  """

  def __init__(
    self,
    batch_size: int,
    fetch: Callable[[Any], Row],
    rows: Mapping[str, Mapping[str, tuple[float, float]]] | None = None,
    reported: int = 0,
  ):
    self._batch_size, self._fetch = batch_size, fetch
    self._rows: dict[int, Row] = {
      int(step): {name: (total, weight) for name, (total, weight) in row.items()}
      for step, row in (rows or {}).items()
    }
    self.reported = reported
    self._pending: list[tuple[int, Any]] = []
    self._pausing = False
    self._before = (0, 0.0, 0.0)  # timed steps of the window before, their seconds and their waits
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
    """Excludes the time within (validation, saving), but for what `rows` waits for steps."""
    began = time.monotonic()
    self._pausing = True
    try:
      yield
    finally:
      self._pausing = False
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
    """The metrics of every step since the last report and of the window before, as JSON values."""
    began = time.monotonic()
    for step, metrics in self._pending:
      self._rows[step] = self._fetch(metrics)
    self._pending = []
    if self._pausing:  # steps run on after they were started
      self._paused -= time.monotonic() - began
    return self._rows

  def means(self, least: int = 1) -> dict[str, float]:
    """The mean of each metric over the window; without those that are of no example.

    Args:
      least: steps that it is over, those of the window before included.
    """
    kept = self.rows()
    since = min(self.reported, max(kept) - least)
    rows = [row for step, row in kept.items() if step > since]
    found = {}
    for name in rows[0]:
      total, weight = (sum(row[name][i] for row in rows) for i in (0, 1))
      if weight:
        found[name] = total / weight
    return found | {'learning_rate': rows[-1]['learning_rate'][0]}

  def rates(self, least: int = 1) -> dict[str, float]:
    """'img_sec', and the share of the time waited for input; empty before any timed step.

    Args:
      least: steps that they are over; if there are fewer, the window before is added.
    """
    steps, seconds, waited = self._timed()
    if not steps:
      return {}
    if steps < least:
      before = self._before
      steps, seconds, waited = steps + before[0], seconds + before[1], waited + before[2]
    return {'img_sec': steps * self._batch_size / seconds, 'input_wait': waited / seconds}

  def _timed(self) -> tuple[int, float, float]:
    return self._timed_steps, time.monotonic() - self._began - self._paused, self._waited

  def restart(self) -> None:
    """Begins a new window."""
    self._before = self._timed()
    self._rows = {step: row for step, row in self.rows().items() if step > self.reported}
    self.reported = max(self._rows, default=self.reported)
    self._restart_clock()


class CpuStepThrottle:
  """After long steps in threads of XLA's on CPU, waits until the last one's workspace is free.

  XLA reports outputs as ready a moment before it frees the workspace. A step that starts in
  between, or is started before, gets a workspace of its own: 3.6 GB in the place of 2.1 GB for
  ViT-S/16, and some steps later 5.0 GB (docs/speed.md). The pause is a hundredth of the step.

  Args:
    devices: that the steps run on; there are no pauses but on CPUs, nor where the caller's thread
      computes (see `runtime.computes_inline`).
  """

  _SHORT = 0.2  # seconds; a step that takes no longer has little workspace
  _LONGEST_PAUSE = 0.02  # seconds

  def __init__(self, devices: Sequence[Any]):
    self._waits = devices[0].platform == 'cpu' and not runtime.computes_inline(devices)
    self._before = time.monotonic()

  def after(self, outputs: Any) -> None:
    """To be called with the arrays that a step gives as soon as the step was started."""
    if not self._waits:
      return
    jax.block_until_ready(outputs)
    seconds = time.monotonic() - self._before
    self._waits = seconds > self._SHORT
    time.sleep(min(self._LONGEST_PAUSE, seconds / 100))
    self._before = time.monotonic()
