"""What a run writes as it goes: metrics.jsonl, event files, and progress for the eye."""

import json
import math
import os
import pathlib
import sys
import time
from typing import Any

import numpy as np

from vit_jax.errors import UserError


class MetricWriter:
  """Appends metrics to `metrics.jsonl` and to TensorBoard event files (without TensorFlow).

  Args:
    workdir: the run's folder.
    tensorboard: whether to write event files.
    resume_step: rows after this step were written by an interrupted attempt whose checkpoint was
      lost; they are dropped, since they will be written again, as is the final test.
    active: False in all processes but the first, which write nothing.
  """

  def __init__(self, workdir: str, tensorboard: bool, resume_step: int = 0, active: bool = True):
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
    """Adds a picture, uint8 [h, w, c], to the event files."""
    if self._events:
      self._events.add_image(name, image, step, dataformats='HWC')

  def last(self, name: str) -> float:
    """The value that an earlier attempt wrote last, 0 where there is none."""
    return next((row[name] for row in reversed(self._rows) if row.get(name) is not None), 0.0)

  def close(self) -> None:
    if self._events:
      self._events.close()


def read_metrics(workdir: str | pathlib.Path) -> list[dict]:
  """The rows of a run's metrics.jsonl; a last line cut short by a kill is left out."""
  rows = []
  for line in (pathlib.Path(workdir) / 'metrics.jsonl').read_text().splitlines():
    try:
      rows.append(json.loads(line))
    except json.JSONDecodeError:
      continue
  return rows


def write_text(path: str | pathlib.Path, text: str) -> None:
  """Writes a file whole or not at all: a kill leaves the old one."""
  path = pathlib.Path(path)
  draft = path.with_name(f'.{path.name}.{os.getpid()}')
  draft.write_text(text, encoding='utf-8')
  os.replace(draft, path)


def write_json(path: str | pathlib.Path, value: Any) -> None:
  """Writes a value as indented JSON, whole or not at all."""
  write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + '\n')


def make_workdir(workdir: str) -> pathlib.Path:
  """Makes the folder and proves that it can be written.

  Raises:
    UserError: naming the folder and the system's reason.
  """
  path = pathlib.Path(workdir)
  try:
    path.mkdir(parents=True, exist_ok=True)
    probe = path / f'.probe.{os.getpid()}'
    probe.write_text('')
    probe.unlink()
  except OSError as e:
    raise UserError(f'cannot write to --workdir={workdir}: {e.strerror}') from e
  return path


class Progress:
  """One moving line on a terminal, one line a report in a log.

  Args:
    total: steps in all.
    start: steps already made by an earlier attempt.
    active: False in all processes but the first.
  """

  def __init__(self, total: int, start: int = 0, active: bool = True):
    self._total, self._start, self._active = total, start, active
    self._began = time.monotonic()
    self._bar = None
    if active and sys.stderr.isatty():
      import tqdm

      self._bar = tqdm.tqdm(total=total, initial=start, unit='step', dynamic_ncols=True)

  def step(self, step: int) -> None:
    """Moves the line on a terminal."""
    if self._bar is not None:
      self._bar.update(step - self._bar.n)

  def report(self, step: int, metrics: dict[str, float]) -> None:
    """Shows metrics with the rate and the time left."""
    if self._bar is not None:
      self._bar.set_postfix_str(format_metrics(metrics, ('loss', 'accuracy', 'img_sec')))
      return
    seconds = time.monotonic() - self._began
    left = seconds / max(1, step - self._start) * (self._total - step)
    self.say(f'step {step}/{self._total}  left {format_seconds(left)}  {format_metrics(metrics)}')

  def say(self, text: str) -> None:
    """Prints a line without breaking the moving one."""
    if not self._active:
      return
    if self._bar is not None:
      self._bar.write(text)
    else:
      print(text, flush=True)

  def close(self) -> None:
    if self._bar is not None:
      self._bar.close()


def format_metrics(metrics: dict[str, float], names: tuple[str, ...] = ()) -> str:
  """'loss 0.1234  accuracy 0.98', of the names given or of all."""
  return '  '.join(f'{k} {metrics[k]:.4g}' for k in names or metrics if k in metrics)


def format_seconds(seconds: float) -> str:
  """Hours, minutes and seconds as '1:02:03' or '2:03'."""
  minutes, seconds = divmod(round(seconds), 60)
  hours, minutes = divmod(minutes, 60)
  return f'{hours}:{minutes:02}:{seconds:02}' if hours else f'{minutes}:{seconds:02}'
