"""The table of a run's epochs: its columns are fixed before the first row."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from vit_jax.console import format_seconds
from vit_jax.tasks import metric_text
from vit_jax.training.events import Course

_GAP = 2
_HEADER_EVERY = 25  # rows, on a terminal
_DASH = '-'


@dataclasses.dataclass(frozen=True)
class _Column:
  """A column.

  Attributes:
    title: in the header.
    key: of a row's values.
    width: in characters.
    rank: those of the highest go first where the terminal is narrow.
    starred: whether its value is followed by '*' where it is the best so far.
  """

  title: str
  key: str
  width: int
  rank: int
  starred: bool = False


class Table:
  """Formats rows in aligned columns.

  Args:
    course: steps and metrics of the run.
    width: characters that a line may have; columns that do not fit are left out.
    repeats: whether the header comes again every 25 rows.
  """

  def __init__(self, course: Course, width: int, repeats: bool):
    self._course, self._repeats = course, repeats
    self._columns = _fitting(_columns(course), width)
    self._known = {column.key for column in _columns(course)}
    self._rows = 0

  def lines(
    self, step: int, seconds: float, train: Mapping[str, Any], val: Mapping[str, Any], best: bool
  ) -> list[str]:
    """A row, after the header where it is due.

    Args:
      step: updates made.
      seconds: since training began.
      train: metrics of training since the row before; may be empty.
      val: metrics of validation.
      best: whether it is the best so far.
    """
    found = [*([''] if not self._rows else []), self._header()] if self._header_is_due() else []
    self._rows += 1
    values = {f'train {name}': value for name, value in train.items()}
    values |= {f'val {name}': value for name, value in val.items()}
    values |= {'step': step, 'epoch': self._course.epoch(step), 'seconds': seconds}
    cells = []
    for column in self._columns:
      star = ('*' if best else ' ') if column.starred else ''
      cells.append(f'{_text(column.key, values.get(column.key)) + star:>{column.width}}')
    return [*found, (' ' * _GAP).join(cells)]

  def others(self, val: Mapping[str, Any]) -> dict[str, float]:
    """The metrics that have no column."""
    about = {'examples', 'img_sec'}
    return {k: v for k, v in val.items() if f'val {k}' not in self._known and k not in about}

  def _header_is_due(self) -> bool:
    return self._rows == 0 or (self._repeats and self._rows % _HEADER_EVERY == 0)

  def _header(self) -> str:
    titles = [f'{column.title:>{column.width}}' for column in self._columns]
    return (' ' * _GAP).join(titles)


def _columns(course: Course) -> list[_Column]:
  """Every column, as there is room for."""
  steps, epochs = f'{course.total:,}', f'{course.epoch(course.total):.1f}'
  found = [
    _Column('epoch', 'epoch', max(5, len(epochs)), 3),
    _Column('step', 'step', max(4, len(steps)), 0),
    _Column('train loss', 'train loss', 10, 4),
  ]
  if course.validates:
    first = [name for name in ('loss', course.best) if name in course.metrics]
    names = list(dict.fromkeys([*first, *course.metrics]))
    for i, name in enumerate(names):
      title, starred = f'val {name}', name == course.best
      rank = 0 if starred else 1 if name == 'loss' else 10 + i
      width = max(len(title), 7) + starred
      found.append(_Column(title + ' ' * starred, title, width, rank, starred))
  else:
    title = f'train {course.best}'
    found.append(_Column(title, title, len(title), 5))
  return [
    *found,
    _Column('images/s', 'train img_sec', 8, 6),
    _Column('time', 'seconds', 8, 2),
  ]


def _fitting(columns: list[_Column], width: int) -> list[_Column]:
  while len(columns) > 1 and sum(c.width + _GAP for c in columns) - _GAP > width:
    last = max(columns, key=lambda column: column.rank)
    columns = [column for column in columns if column is not last]
  return columns


def _text(key: str, value: Any) -> str:
  if value is None:
    return _DASH
  if key == 'step':
    return f'{value:,}'
  if key == 'epoch':
    return f'{value:.1f}'
  if key == 'seconds':
    return format_seconds(value)
  if key == 'train img_sec':
    return rate_text(value)
  return metric_text(key.partition(' ')[2], value)


def rate_text(value: float) -> str:
  """Images/s: '12,345' or '3.21'."""
  return f'{value:,.0f}' if value >= 100 else f'{value:.3g}'
