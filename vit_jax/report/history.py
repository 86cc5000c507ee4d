"""What metrics.jsonl tells about the training itself."""

import dataclasses
from collections.abc import Sequence


@dataclasses.dataclass(frozen=True)
class Training:
  """How long a run trained.

  Attributes:
    steps: updates.
    seconds: None where nothing was measured.
    estimated: whether `seconds` was added up from the rates, which leave out compilation,
      validation and saving.
    img_sec: training pictures a second, the median over reports.
    memory_bytes: peak on a device, where a run wrote it down.
  """

  steps: int
  seconds: float | None
  estimated: bool
  img_sec: float | None
  memory_bytes: int | None


def training(rows: Sequence[dict], batch_size: int | None) -> Training | None:
  """Sums up the training rows of metrics.jsonl; None where there are none.

  Args:
    rows: in order of steps.
    batch_size: pictures a step.
  """
  trained = [row for row in rows if row['split'] == 'train']
  if not trained:
    return None
  steps = max(row['step'] for row in trained)
  rates = sorted(row['img_sec'] for row in trained if row.get('img_sec'))
  timed = [row['seconds'] for row in trained if row.get('seconds') is not None]
  memory = [int(row['memory_bytes']) for row in trained if row.get('memory_bytes')]
  estimated = not timed
  seconds = max(timed) if timed else _added_up(trained, batch_size)
  return Training(
    steps, seconds, estimated, rates[len(rates) // 2] if rates else None, max(memory, default=None)
  )


def _added_up(rows: Sequence[dict], batch_size: int | None) -> float | None:
  """Seconds from pictures and rates; a stretch without a rate counts like the others."""
  seconds, timed_steps, last = 0.0, 0, 0
  for row in rows:
    if row.get('img_sec') and batch_size:
      seconds += (row['step'] - last) * batch_size / row['img_sec']
      timed_steps += row['step'] - last
    last = row['step']
  return seconds * last / timed_steps if timed_steps else None


def with_seconds(rows: Sequence[dict], batch_size: int | None) -> list[dict]:
  """The rows, each with 'seconds' of training so far, estimated where a run wrote none."""
  result, at, passed, last = [], {}, 0.0, 0
  for row in rows:
    if row['split'] == 'train':
      if row.get('img_sec') and batch_size:
        passed += (row['step'] - last) * batch_size / row['img_sec']
      last = row['step']
      at[row['step']] = row.get('seconds', passed)
    # Validation and test come after the training row of their step, if it has one.
    result.append({**row, 'seconds': row.get('seconds', at.get(row['step']))})
  return result


def duration(seconds: float | None) -> str:
  """'3.2 s', '4 min 05 s' or '2 h 03 min'; a dash for None."""
  if seconds is None:
    return '–'
  if seconds < 60:
    return f'{seconds:.1f} s' if seconds >= 1 else f'{1000 * seconds:.0f} ms'
  if round(seconds) < 3600:
    return f'{round(seconds) // 60} min {round(seconds) % 60:02} s'
  return f'{round(seconds / 60) // 60:,} h {round(seconds / 60) % 60:02} min'


def size(n: int | float | None) -> str:
  """Bytes as '1.23 GiB' or '345 MiB'; a dash for None."""
  if n is None:
    return '–'
  return f'{n / 2**30:.2f} GiB' if n >= 2**30 else f'{n / 2**20:.0f} MiB'


def number(value: float | int | None, digits: int = 3) -> str:
  """'5,717,416', '83.1' or '0.0123': significant digits, no exponent; a dash for None."""
  if value is None or value != value:
    return '–'
  if isinstance(value, int) or abs(value) >= 10 ** (digits - 1):
    return f'{value:,.0f}'
  if value == 0:
    return '0'
  text = f'{value:.{digits}g}'
  return text if 'e' not in text else f'{value:.2e}'
