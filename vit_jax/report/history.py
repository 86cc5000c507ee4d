"""What metrics.jsonl records of the training itself."""

import bisect
import dataclasses
import statistics
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
  """Sums up training in metrics.jsonl; None where there are no rows of it.

  Args:
    rows: in order of steps.
    batch_size: images per step.
  """
  trained = [row for row in rows if row['split'] == 'train']
  if not trained:
    return None
  steps = max(row['step'] for row in trained)
  rates = [row['img_sec'] for row in trained if row.get('img_sec')]
  timed = [row['seconds'] for row in rows if row.get('seconds') is not None]
  memory = [int(row['memory_bytes']) for row in trained if row.get('memory_bytes')]
  return Training(
    steps=steps,
    seconds=max(timed) if timed else _added_up(trained, batch_size),
    seconds_estimated=not timed,
    img_sec=statistics.median(rates) if rates else None,
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
  """The rows, each with 'seconds' of training so far, estimated where a run recorded none.

  A validation between two training rows came in proportion between them.
  """
  steps, seconds = [0], [0.0]
  passed = 0.0
  for row in rows:
    if row['split'] == 'train':
      if row.get('img_sec') and batch_size:
        passed += (row['step'] - steps[-1]) * batch_size / row['img_sec']
      steps.append(row['step'])
      seconds.append(row.get('seconds', passed))
  return [{**row, 'seconds': row.get('seconds', _at(row['step'], steps, seconds))} for row in rows]


def _at(step: int, steps: Sequence[int], seconds: Sequence[float]) -> float | None:
  """Seconds at a step, linear between known ones; None before the first and after the last."""
  i = bisect.bisect_left(steps, step)
  if i == len(steps) or len(steps) == 1:
    return None
  if steps[i] == step or i == 0:
    return seconds[i]
  share = (step - steps[i - 1]) / (steps[i] - steps[i - 1])
  return seconds[i - 1] + share * (seconds[i] - seconds[i - 1])
