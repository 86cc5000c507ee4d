"""Sends a run's rows to its trackers, none of which can stop or delay it."""

import collections
import dataclasses
import importlib.util
import json
import logging
import os
import pathlib
import queue
import threading
import time
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any

from vit_jax import files
from vit_jax.errors import ConfigError, InterruptedRunError, UserError, one_line
from vit_jax.trackers.base import TRACKERS, Ending, TrackedRun

log = logging.getLogger(__name__)

_FILE = 'trackers.json'
_PROJECT = 'vit_jax'
_START_SECONDS = 15.0  # that a run waits for its trackers to start
_FINISH_SECONDS: dict[Ending, float] = {'finished': 60.0, 'interrupted': 10.0, 'failed': 10.0}
_LONGEST_REASON = 300


def check_installed(names: Sequence[str]) -> None:
  """Raises a `ConfigError` for trackers whose package is not there."""
  packages = {name: TRACKERS[name].package for name in names}
  missing = {
    name: package
    for name, package in packages.items()
    if package and importlib.util.find_spec(package) is None
  }
  if missing:
    raise ConfigError(
      [
        f'config.log.to={name} needs the package {package}: pip install {package}'
        for name, package in missing.items()
      ]
    )


class Tracking:
  """The trackers of a run, each in a thread of its own, until the block ends.

  What each has got is kept in the run's folder: a resumed run continues the same run of the
  tracker, with each row once; a tracker that is new, or failed before, gets the rows it lacks.

  Args:
    names: of `TRACKERS`; none in all processes but the first.
    folder: the run's.
    config: all options, nested.
    project: as `TrackedRun.project`; '' for that of the environment, else 'vit_jax'.
    resuming: whether an earlier attempt is resumed; else what is kept is of another run.
  """

  def __init__(
    self,
    names: Sequence[str],
    folder: pathlib.Path,
    config: Mapping[str, Any],
    project: str,
    resuming: bool,
  ):
    self._report = folder / 'report' / 'report.html'
    run = TrackedRun(folder.resolve().name, project, folder, json.loads(json.dumps(config)))
    kept = _Kept(folder / _FILE, resuming)
    self._senders = [_Sender(name, run, kept) for name in dict.fromkeys(names)]

  def __enter__(self) -> 'Tracking':
    for sender in self._senders:
      sender.start()
    end = time.monotonic() + _START_SECONDS
    for sender in self._senders:
      if not sender.started.wait(max(0.0, end - time.monotonic())):
        log.warning(
          'tracker %s has not answered yet: training goes on, and metrics.jsonl has its rows',
          sender.name,
        )
    return self

  def __exit__(
    self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
  ) -> None:
    ending: Ending = 'failed' if kind else 'finished'
    if kind and issubclass(kind, InterruptedRunError):
      ending = 'interrupted'
    report = self._report if ending == 'finished' and self._report.exists() else None
    for sender in self._senders:
      sender.queue.put((ending, report))
    began = time.monotonic()
    for sender in self._senders:
      there = sender.started.is_set()
      patience = _FINISH_SECONDS[ending if there else 'failed']
      sender.join(max(0.0, began + patience - time.monotonic()))
      if sender.is_alive() and there:  # the others were warned of
        log.warning('tracker %s did not take all rows in time; metrics.jsonl has them', sender.name)

  def log(self, row: Mapping[str, Any]) -> None:
    """Takes a row of metrics.jsonl: 'step', 'split' and metrics, None where one is not finite."""
    for sender in self._senders:
      if sender.is_alive():
        sender.queue.put(row)


class _Kept:
  """For each tracker the id of its run and the last step that it got of each metric, on disk."""

  def __init__(self, path: pathlib.Path, resuming: bool):
    self._path, self._lock = path, threading.Lock()
    found = files.read_json(path) if resuming else None
    self._states: dict[str, Any] = found if isinstance(found, dict) else {}

  def read(self, name: str) -> tuple[str, dict[str, int]]:
    """(id, last step by metric) of a tracker: '' and none where it is new."""
    state = self._states.get(name)
    if not isinstance(state, dict) or not isinstance(state.get('sent'), dict):
      return '', {}
    return str(state.get('id', '')), {k: int(step) for k, step in state['sent'].items()}

  def write(self, name: str, id: str, sent: Mapping[str, int]) -> None:
    with self._lock:
      self._states[name] = {'id': id, 'sent': dict(sent)}
      files.write_json(self._path, self._states)


class _Sender(threading.Thread):
  """A tracker's thread: takes rows, then an ending.

  Attributes:
    queue: rows, and (ending, report) last.
    started: set when the tracker has started or failed.
  """

  def __init__(self, name: str, run: TrackedRun, kept: _Kept):
    super().__init__(name=name, daemon=True)  # one that hangs does not keep the process
    self._about, self._kept = run, kept
    self.queue: queue.SimpleQueue[Any] = queue.SimpleQueue()
    self.started = threading.Event()

  def run(self) -> None:
    try:
      self._send()
    except (Exception, SystemExit) as e:  # whatever a foreign package does
      reason = one_line(e if isinstance(e, UserError) else f'{type(e).__name__}: {e}')
      log.warning(
        'tracker %s failed and gets no more rows (%s): training goes on, metrics.jsonl has them',
        self.name,
        reason[:_LONGEST_REASON],
      )
    self.started.set()

  def _send(self) -> None:
    tracker = TRACKERS[self.name]()
    id, arrived = self._kept.read(self.name)
    given = dict(arrived)
    waiting: collections.deque[tuple[float, dict[str, int]]] = collections.deque()
    project = self._about.project or os.environ.get(tracker.project_variable) or _PROJECT
    id = tracker.start(dataclasses.replace(self._about, id=id, project=project))
    self._kept.write(self.name, id, arrived)
    self.started.set()
    while isinstance(row := self.queue.get(), Mapping):
      step = int(row['step'])
      new = {name: value for name, value in _named(row).items() if step > given.get(name, -1)}
      if not new:
        continue
      tracker.log(new, step)
      given.update(dict.fromkeys(new, step))
      waiting.append((time.monotonic(), dict.fromkeys(new, step)))
      while waiting and time.monotonic() - waiting[0][0] >= tracker.lag_seconds:
        arrived.update(waiting.popleft()[1])
      self._kept.write(self.name, id, arrived)
    tracker.finish(*row)
    self._kept.write(self.name, id, given)


def _named(row: Mapping[str, Any]) -> dict[str, float]:
  """The finite metrics of a row as {'val/accuracy': 0.5}."""
  return {
    f'{row["split"]}/{name}': value
    for name, value in row.items()
    if name not in ('step', 'split') and value is not None
  }
