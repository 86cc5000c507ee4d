"""What a run writes as it goes: metrics.jsonl, event files, and progress for the eye."""

import json
import logging
import math
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from vit_jax.errors import StorageError
from vit_jax.files import write_text

log = logging.getLogger(__name__)

# Rows that each checkpoint keeps a copy of.
_KEPT_ROWS = 200


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
    self._events = None
    self._path = pathlib.Path(workdir) / 'metrics.jsonl'
    found = read_metrics(workdir) if self._path.exists() else []
    if found and not resume_step and active:
      log.warning(
        '%s has metrics and no checkpoint to go on from: training starts anew', self._path.parent
      )
    self._rows = [r for r in found if r['step'] <= resume_step and r['split'] != 'test']
    if state is not None:
      self._rows = self._mended(state)
    if not active:
      return
    if self._rows:
      write_text(self._path, ''.join(json.dumps(row) + '\n' for row in self._rows))
    else:
      self._path.unlink(missing_ok=True)
    if tensorboard:
      import tensorboardX  # half a second that a run without it need not pay

      self._events = tensorboardX.SummaryWriter(
        str(workdir), purge_step=resume_step + 1 if resume_step else None
      )

  def write(self, step: int, split: str, metrics: dict[str, float]) -> None:
    """Writes one row; numbers that are not finite become null, as JSON has no word for them."""
    values = {name: float(value) for name, value in metrics.items()}
    row = {'step': step, 'split': split}
    row |= {k: v if math.isfinite(v) else None for k, v in values.items()}
    self._rows.append(row)
    if not self._active:
      return
    try:
      with open(self._path, 'a', encoding='utf-8') as f:
        f.write(json.dumps(row) + '\n')
    except OSError as e:
      raise StorageError(f'cannot write {self._path}: {e.strerror or e}') from e
    if self._events:
      for name, value in values.items():
        self._events.add_scalar(f'{split}/{name}', value, step)

  def write_image(self, step: int, name: str, image: np.ndarray) -> None:
    """Adds an image, uint8 [h, w, c], to the event files."""
    if self._events:
      self._events.add_image(name, image, step, dataformats='HWC')

  def get_state(self) -> dict[str, Any]:
    """How many rows there are, and the last ones, for a checkpoint."""
    return {'count': len(self._rows), 'last': self._rows[-_KEPT_ROWS:]}

  def _mended(self, state: Mapping[str, Any]) -> list[dict]:
    """The rows of the attempt before, whatever became of the end of the file."""
    before = state['count'] - len(state['last'])
    lost = before - len(self._rows)
    if lost > 0 and self._active:
      log.warning('%s has lost %d of its first rows', self._path, lost)
    return [*self._rows[:before], *state['last']]

  def last(self, name: str) -> float:
    """The value that an earlier attempt wrote last, 0 where there is none."""
    return next((row[name] for row in reversed(self._rows) if row.get(name) is not None), 0.0)

  def close(self) -> None:
    if self._events:
      self._events.close()


def read_metrics(workdir: str | pathlib.Path) -> list[dict]:
  """The rows of a run's metrics.jsonl; lines that a kill or a power cut spoiled are left out."""
  rows = []
  for line in (pathlib.Path(workdir) / 'metrics.jsonl').read_bytes().splitlines():
    try:
      row = json.loads(line)
    except ValueError:
      continue
    if isinstance(row, dict) and isinstance(row.get('step'), int) and 'split' in row:
      rows.append(row)
  return rows
