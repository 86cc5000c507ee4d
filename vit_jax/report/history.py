"""What metrics.jsonl records of the training itself."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

Rows = Sequence[Mapping[str, Any]]


@dataclasses.dataclass(frozen=True)
class Training:
  """How long a run trained.

  Attributes:
    steps: updates.
    seconds: None where nothing was measured.
    seconds_estimated: whether `seconds` was added up from the rates, which leave out compilation,
      validation and saving.
    img_sec: training images/s, the median over reports.
    memory_bytes: peak on a device, where a run recorded it.
  """

  steps: int
  seconds: float | None
  seconds_estimated: bool
  img_sec: float | None
  memory_bytes: int | None


def training(rows: Rows, batch_size: int | None) -> Training | None:
  """Sums up the training rows of metrics.jsonl; None where there are none.

  Args:
    rows: in order of steps.
    batch_size: images per step.
  """
  trained = [row for row in rows if row['split'] == 'train']
  if not trained:
    return None
  steps = max(row['step'] for row in trained)
  rates = sorted(row['img_sec'] for row in trained if row.get('img_sec'))
  timed = [row['seconds'] for row in trained if row.get('seconds') is not None]
  memory = [int(row['memory_bytes']) for row in trained if row.get('memory_bytes')]
  return Training(
    steps=steps,
    seconds=max(timed) if timed else _added_up(trained, batch_size),
    seconds_estimated=not timed,
    img_sec=rates[len(rates) // 2] if rates else None,
    memory_bytes=max(memory, default=None),
  )


def _added_up(rows: Rows, batch_size: int | None) -> float | None:
  """Seconds from images and rates; a stretch without a rate counts like the others."""
  seconds, timed_steps, last = 0.0, 0, 0
  for row in rows:
    if row.get('img_sec') and batch_size:
      seconds += (row['step'] - last) * batch_size / row['img_sec']
      timed_steps += row['step'] - last
    last = row['step']
  return seconds * last / timed_steps if timed_steps else None


def with_seconds(rows: Rows, batch_size: int | None) -> list[dict[str, Any]]:
  """The rows, each with 'seconds' of training so far, estimated where a run recorded none."""
  result: list[dict[str, Any]] = []
  at: dict[int, float] = {}
  passed, last = 0.0, 0
  for row in rows:
    if row['split'] == 'train':
      if row.get('img_sec') and batch_size:
        passed += (row['step'] - last) * batch_size / row['img_sec']
      last = row['step']
      at[row['step']] = row.get('seconds', passed)
    # Validation and test come after the training row of their step, if it has one.
    result.append({**row, 'seconds': row.get('seconds', at.get(row['step']))})
  return result
