"""The console of a command: log records as lines, and one progress line.

Library code reports through `logging`; a command or a run attaches a `Console`, which prints
information to standard output and warnings to standard error, and keeps the warnings.
"""

import contextlib
import logging
import sys
import time
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any

import tqdm

from vit_jax.errors import InterruptedRunError, UserError, one_line, visible

_PACKAGE = 'vit_jax'
_told: set[str] = set()  # texts of `warn_once`


class Console(logging.Handler):
  """Prints the package's log records while it is attached.

  While one is attached within another, the inner one alone prints.

  Args:
    active: False in all processes but the first, which print nothing.
    information: False prints warnings alone, for a command whose output is data.

  Attributes:
    warnings: that were printed, each once.
  """

  def __init__(self, active: bool = True, information: bool = True):
    super().__init__(logging.INFO if information else logging.WARNING)
    self.active = active
    self.warnings: list[str] = []
    self._bar: tqdm.tqdm | None = None
    self._total, self._start, self._began = 0, 0, 0.0
    self._restore: list[tuple[logging.Logger, int, bool]] = []
    self._outer: list[Console] = []

  def __enter__(self) -> 'Console':
    own, absl = logging.getLogger(_PACKAGE), logging.getLogger('absl')
    self._restore = [(logger, logger.level, logger.propagate) for logger in (own, absl)]
    for stream in (sys.stdout, sys.stderr):
      print_anything(stream)
    self._outer = _attached()
    for console in self._outer:
      own.removeHandler(console)
    own.addHandler(self)
    own.setLevel(logging.INFO)
    own.propagate = False
    # Orbax reports every step of every save, and with a traceback what it then raises.
    absl.setLevel(logging.CRITICAL)
    return self

  def __exit__(
    self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
  ) -> None:
    self.close_progress()
    own = logging.getLogger(_PACKAGE)
    own.removeHandler(self)
    for console in self._outer:
      own.addHandler(console)
    for logger, level, propagate in self._restore:
      logger.setLevel(level)
      logger.propagate = propagate

  def emit(self, record: logging.LogRecord) -> None:
    text = record.getMessage()
    if record.levelno < logging.WARNING:
      self.say(text)
      return
    text = one_line(text)
    if text not in self.warnings:
      self.warnings.append(text)
      self.say(f'warning: {text}', error=True)

  def say(self, text: str, error: bool = False) -> None:
    """Prints a line without breaking the progress line."""
    if not self.active:
      return
    if self._bar is not None:
      self._bar.write(visible(text), file=sys.stderr if error else sys.stdout)
    else:
      show(text, error)

  def repeat_warnings(self) -> None:
    """Prints the warnings of the run again, for those who read its end alone."""
    if self.warnings:
      count = f'{len(self.warnings)} warning' + ('s' if len(self.warnings) > 1 else '')
      self.say('\n'.join([f'{count} in all:', *(f'  {w}' for w in self.warnings)]))

  def start_progress(self, total: int, start: int = 0) -> None:
    """Begins a progress line on a terminal, or a line for each report in a log.

    Args:
      total: steps in all.
      start: steps made before.
    """
    self._total, self._start, self._began = total, start, time.monotonic()
    if self.active and sys.stderr.isatty():
      self._bar = tqdm.tqdm(total=total, initial=start, unit='step', dynamic_ncols=True)

  def step(self, step: int) -> None:
    """Moves the progress line."""
    if self._bar is not None:
      self._bar.update(step - self._bar.n)

  def report(self, step: int, metrics: Mapping[str, float]) -> None:
    """Shows metrics with the time left."""
    if self._bar is not None:
      self._bar.set_postfix_str(format_metrics(metrics, ('loss', 'accuracy', 'img_sec')))
      return
    seconds = time.monotonic() - self._began
    left = seconds / max(1, step - self._start) * (self._total - step)
    self.say(f'step {step}/{self._total}  left {format_seconds(left)}  {format_metrics(metrics)}')

  def close_progress(self) -> None:
    """Ends the progress line."""
    if self._bar is not None:
      self._bar.close()
      self._bar = None


def show(text: object, error: bool = False) -> None:
  """Prints what a command answers; control characters of names that others gave are escaped.

  A name that stands in a line of several goes through `errors.one_line` first.
  """
  print(visible(text), file=sys.stderr if error else sys.stdout, flush=True)


def show_problems(error: UserError) -> None:
  """Prints a user's mistake as one line on standard error."""
  prefix = '' if isinstance(error, InterruptedRunError) else 'error: '
  show(prefix + one_line(' | '.join(error.problems)), error=True)


def print_anything(stream: Any) -> None:
  """Has a stream print what its encoding lacks as an escape, where it would raise an error."""
  if getattr(stream, 'errors', '') in ('strict', 'surrogateescape'):
    with contextlib.suppress(AttributeError, ValueError):  # not a stream of Python's own, or closed
      stream.reconfigure(errors='backslashreplace')


def warnings_so_far() -> tuple[str, ...]:
  """What the attached console warned of, in order; a report repeats it."""
  return tuple(text for console in _attached() for text in console.warnings)


def warn_once(log: logging.Logger, text: str) -> None:
  """Warns of what many images share: once a run, or once a process where no Console prints."""
  if _attached() or text not in _told:
    _told.add(text)
    log.warning('%s', text)


def _attached() -> list[Console]:
  return [h for h in logging.getLogger(_PACKAGE).handlers if isinstance(h, Console)]


def align(rows: Sequence[Sequence[str]]) -> str:
  """Rows of cells as lines with aligned columns."""
  widths = [max(map(len, column)) for column in zip(*rows)]
  return '\n'.join(
    '  '.join(f'{cell:{width}}' for cell, width in zip(row, widths)).rstrip() for row in rows
  )


def format_metrics(metrics: Mapping[str, float], names: Sequence[str] = ()) -> str:
  """'loss 0.1234  accuracy 0.98', of the names given or of all."""
  return '  '.join(f'{k} {metrics[k]:.4g}' for k in names or metrics if k in metrics)


def format_seconds(seconds: float) -> str:
  """Hours, minutes and seconds as '1:02:03' or '2:03'."""
  minutes, seconds = divmod(round(seconds), 60)
  hours, minutes = divmod(minutes, 60)
  return f'{hours}:{minutes:02}:{seconds:02}' if hours else f'{minutes}:{seconds:02}'
