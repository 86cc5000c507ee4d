"""What a run writes as it goes: metrics.jsonl, event files, and progress for the eye."""

import json
import math
import pathlib

import numpy as np

from vit_jax.files import write_text


class MetricWriter:
  """Appends metrics to `metrics.jsonl` and to TensorBoard event files (without TensorFlow).

  Args:
    workdir: the run's folder.
    tensorboard: whether to write event files.
    resume_step: rows after this step were written by an interrupted attempt whose checkpoint was
      lost; they are dropped, since they will be written again, as is the final test.
    active: False in all processes but the first, which write nothing.
  """

  def __init__(
    self, workdir: str | pathlib.Path, tensorboard: bool, resume_step: int = 0, active: bool = True
  ):
    self._active = active
    self._events = None
    self._path = pathlib.Path(workdir) / 'metrics.jsonl'
    self._rows: list[dict] = []
    if self._path.exists():
      self._rows = [
        row
        for row in read_metrics(workdir)
        if row['step'] <= resume_step and row['split'] != 'test'
      ]
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
    if not self._active:
      return
    values = {name: float(value) for name, value in metrics.items()}
    row = {'step': step, 'split': split}
    row |= {k: v if math.isfinite(v) else None for k, v in values.items()}
    with open(self._path, 'a') as f:
      f.write(json.dumps(row) + '\n')
    if self._events:
      for name, value in values.items():
        self._events.add_scalar(f'{split}/{name}', value, step)

  def write_image(self, step: int, name: str, image: np.ndarray) -> None:
    """Adds an image, uint8 [h, w, c], to the event files."""
    if self._events:
      self._events.add_image(name, image, step, dataformats='HWC')

  def last(self, name: str) -> float:
    """The value that an earlier attempt wrote last, 0 where there is none."""
    return next((row[name] for row in reversed(self._rows) if row.get(name) is not None), 0.0)

  def close(self) -> None:
    if self._events:
      self._events.close()


def read_metrics(workdir: str | pathlib.Path) -> list[dict]:
  """The rows of a run's metrics.jsonl; what a kill or a power cut left of a row is left out."""
  rows = []
  text = (pathlib.Path(workdir) / 'metrics.jsonl').read_text('utf-8', errors='replace')
  for line in text.splitlines():
    try:
      row = json.loads(line)
    except json.JSONDecodeError:
      continue
    if isinstance(row, dict) and isinstance(row.get('step'), int) and 'split' in row:
      rows.append(row)
  return rows
