"""What a run writes as it goes: metrics.jsonl, event files, and progress for the eye."""

import contextlib
import json
import logging
import math
import os
import pathlib
import socket
import time
from collections.abc import Mapping
from typing import Any

import numpy as np

from vit_jax.errors import StorageError
from vit_jax.files import write_text, writing

log = logging.getLogger(__name__)

# Rows that each checkpoint keeps a copy of.
_KEPT_ROWS = 200
_FLUSH_SECONDS = 120.0


class MetricWriter:
  """Appends metrics to `metrics.jsonl` and to TensorBoard event files (without TensorFlow).

  Args:
    workdir: the run's folder.
    tensorboard: whether to write event files.
    resume_step: rows after this step were written by an interrupted attempt; they are dropped,
      since they will be written again, as is the final test.
    state: of the attempt before at that step, by `get_state`: lost and doubled rows are mended.
    active: False in all processes but the first, which write nothing.
  """

  def __init__(
    self,
    workdir: str | pathlib.Path,
    tensorboard: bool,
    resume_step: int = 0,
    state: Mapping[str, Any] | None = None,
    active: bool = True,
  ):
    self._active = active
    self._events: _EventFile | None = None
    self._path = pathlib.Path(workdir) / 'metrics.jsonl'
    found = read_metrics(workdir)
    if found and not resume_step and active:
      log.warning(
        '%s has metrics and no checkpoint to resume from: training starts anew', self._path.parent
      )
    self._rows = [r for r in found if r['step'] <= resume_step and r['split'] != 'test']
    if state is not None:
      self._rows = self._mended(state)
    if not active:
      return
    self._there = bool(self._rows)
    if self._rows:
      write_text(self._path, ''.join(json.dumps(row) + '\n' for row in self._rows))
    else:
      with writing(self._path):
        self._path.unlink(missing_ok=True)
    if tensorboard:
      self._events = _EventFile(pathlib.Path(workdir), resume_step)

  def write(self, step: int, split: str, metrics: dict[str, float]) -> None:
    """Writes one row; numbers that are not finite become null, as JSON has no word for them.

    Raises:
      StorageError: the file cannot be written, or is there no more.
    """
    values = {name: float(value) for name, value in metrics.items()}
    row = {'step': step, 'split': split}
    row |= {k: v if math.isfinite(v) else None for k, v in values.items()}
    self._rows.append(row)
    if not self._active:
      return
    if self._there and not self._path.exists():
      raise StorageError(
        f'{self._path} has vanished while the run wrote to it: its folder was removed or renamed'
      )
    self._there = True
    with writing(self._path), open(self._path, 'a', encoding='utf-8') as f:
      f.write(json.dumps(row) + '\n')
    if self._events:
      self._events.add_scalars({f'{split}/{name}': v for name, v in values.items()}, step)

  def write_image(self, step: int, name: str, image: np.ndarray) -> None:
    """Adds an image, uint8 [h, w, c], to the event files."""
    if self._events:
      self._events.add_image(name, image, step)

  def get_state(self) -> dict[str, Any]:
    """How many rows there are, and the last ones, for a checkpoint."""
    return {'count': len(self._rows), 'last': self._rows[-_KEPT_ROWS:]}

  def _mended(self, state: Mapping[str, Any]) -> list[dict]:
    """The rows of the attempt before, whatever became of the end of the file."""
    before = state['count'] - len(state['last'])
    lost = before - len(self._rows)
    if not self._rows and state['last'] and self._active:
      log.warning(
        '%s was lost: its last %d rows were written again from the checkpoint',
        self._path,
        len(state['last']),
      )
    if lost > 0 and self._active:
      log.warning('%s has lost %d of its first rows', self._path, lost)
    return [*self._rows[:before], *state['last']]

  def last(self, name: str) -> float:
    """The value that an earlier attempt wrote last, 0 where there is none."""
    return next((row[name] for row in reversed(self._rows) if row.get(name) is not None), 0.0)

  def flush(self) -> None:
    """Returns when everything is on disk.

    Raises:
      StorageError: naming the file that cannot be written.
    """
    if self._events:
      self._events.flush()

  def close(self) -> None:
    """Ends writing; what cannot be written any more was said before."""
    if self._events:
      self._events.close()


class _EventFile:
  """A TensorBoard event file that is written at once.

  The thread of `tensorboardX.SummaryWriter` ends with a traceback when the disk is full, and the
  run then waits for it for ever.

  Args:
    workdir: the run's folder.
    resume_step: events after this step, of an earlier attempt, are not shown.
  """

  def __init__(self, workdir: pathlib.Path, resume_step: int):
    # Half a second that a run without it need not pay.
    from tensorboardX.proto import event_pb2
    from tensorboardX.record_writer import RecordWriter

    self._new_event, self._flushed = event_pb2.Event, time.monotonic()
    # The process's number keeps two attempts of one second apart.
    about = f'{int(time.time())}.{socket.gethostname()}.{os.getpid()}'
    self._path = workdir / f'events.out.tfevents.{about}'
    with writing(self._path):
      self._file = RecordWriter(str(self._path))
    self._add(0, file_version='brain.Event:2')
    if resume_step:
      began = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
      self._add(resume_step + 1, session_log=began)
    self.flush()

  def add_scalars(self, values: Mapping[str, float], step: int) -> None:
    from tensorboardX import summary

    for name, value in values.items():
      self._add(step, summary=summary.scalar(name, value))
    if time.monotonic() - self._flushed > _FLUSH_SECONDS:
      self.flush()

  def add_image(self, name: str, image: np.ndarray, step: int) -> None:
    from tensorboardX import summary

    self._add(step, summary=summary.image(name, image, dataformats='HWC'))

  def flush(self) -> None:
    with writing(self._path):
      self._file.flush()
    self._flushed = time.monotonic()

  def close(self) -> None:
    with contextlib.suppress(OSError):
      self._file.close()

  def _add(self, step: int, **what: Any) -> None:
    with writing(self._path):
      event = self._new_event(wall_time=time.time(), step=step, **what)
      self._file.write(event.SerializeToString())


def read_metrics(workdir: str | pathlib.Path) -> list[dict]:
  """The rows of a run's metrics.jsonl, none where it is missing.

  Lines that a kill or a power cut spoiled are left out.

  Raises:
    StorageError: the file cannot be read.
  """
  path = pathlib.Path(workdir) / 'metrics.jsonl'
  try:
    lines = path.read_bytes().splitlines()
  except FileNotFoundError:
    return []
  except OSError as e:
    raise StorageError(f'cannot read {path}: {e.strerror or e}') from e
  rows = []
  for line in lines:
    try:
      row = json.loads(line)
    except ValueError:
      continue
    if isinstance(row, dict) and isinstance(row.get('step'), int) and 'split' in row:
      rows.append(row)
  return rows
