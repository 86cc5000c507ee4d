"""The console of a command: log records as lines, what takes a while, and one live line.

Library code reports through `logging` and `phase`; a command or a run attaches a `Console`, which
prints information to standard output and warnings to standard error, and keeps the warnings. What
moves, the live line, is for terminals alone: a file or a pipe receives whole lines of plain text.
"""

import contextlib
import dataclasses
import logging
import os
import shutil
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any

from vit_jax.errors import InterruptedRunError, StorageError, UserError, one_line, visible

if TYPE_CHECKING:
  import tqdm

log = logging.getLogger(__name__)

_PACKAGE = 'vit_jax'
_LONG_BYTES = 50e6  # of a download that takes a while
_SOON = 1.0  # seconds
_TICK = 1.0  # seconds between two looks of the live line
_told: set[str] = set()  # texts of `warn_once`
_silent_as: str | None = None  # 'process 3: ' in a process that leaves the talking to another


class Console(logging.Handler):
  """Prints the package's log records while it is attached.

  While one is attached within another, the inner one alone prints.

  Args:
    active: False in all processes but the first, which print nothing.
    information: False prints warnings alone, for a command whose output is data.
    live: False has no live line, on a terminal neither.

  Attributes:
    warnings: that were printed, each once.
    live: whether there is a live line: standard error is a terminal.
  """

  def __init__(self, active: bool = True, information: bool = True, live: bool = True):
    super().__init__(logging.INFO if information else logging.WARNING)
    self.active = active and _silent_as is None
    self.live = self.active and live and is_terminal(sys.stderr)
    self.warnings: list[str] = []
    self._bar: tqdm.tqdm | None = None
    self._status = ''
    self._phases: list[_Phase] = []
    self._soon = False
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
    self._phases.clear()
    self.show_status('')
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
    """Prints lines without breaking the live line."""
    if not self.active:
      return
    with self._locked():
      try:
        with contextlib.nullcontext() if self._bar is None else self._bar.external_write_mode():
          _print(text, error)
      except OSError as e:
        self._lose(error, e)

  def _lose(self, error: bool, reason: OSError) -> None:
    """Goes on without a stream: a file on a full disk, a pipe or terminal that is gone."""
    silence(sys.stderr if error else sys.stdout)
    if error:
      self.live, self._bar = False, None
    else:
      log.warning(
        'standard output cannot be written (%s): what follows is not shown there',
        reason.strerror or reason,
      )

  def repeat_warnings(self) -> None:
    """Prints the warnings of the run again, for those who read its end alone."""
    if self.warnings:
      count = f'{len(self.warnings)} warning' + ('s' if len(self.warnings) > 1 else '')
      self.say('\n'.join([f'{count} in all:', *(f'  {w}' for w in self.warnings)]))

  def show_status(self, text: str) -> None:
    """Sets the text of the live line; '' removes it. In a file nothing is shown."""
    self._status = text
    self._draw()

  @contextlib.contextmanager
  def phase(self, text: str, hint: str = '', told_after: float | None = 5.0) -> Iterator[None]:
    """As the function `phase`."""
    if self._soon:
      told_after = min(_SOON, _SOON if told_after is None else told_after)
    current = _Phase(text, hint, time.monotonic())
    prints = self.active and self.level <= logging.INFO and told_after is not None
    done = threading.Event()
    with self._locked():
      self._phases.append(current)
      if prints and not told_after and not self.live:
        self._tell(current)
    self._draw()
    ticker = threading.Thread(
      target=self._tick, args=(current, done, told_after if prints else None), daemon=True
    )
    if self.live or prints:
      ticker.start()
    try:
      yield
    finally:
      done.set()
      with self._locked():
        if current in self._phases:
          self._phases.remove(current)
      self._draw()
    seconds = time.monotonic() - current.began
    if prints and (current.told or self.live and seconds >= max(1.0, told_after or 0.0)):
      self.say(f'{text}: {seconds:.1f} s')

  def _tell(self, current: '_Phase') -> None:
    current.told = True
    self.say(f'{current.text}{current.hint and f" ({current.hint})"} ...')

  def _tick(self, current: '_Phase', done: threading.Event, told_after: float | None) -> None:
    """Shows that a phase goes on: every second on a terminal, once in a file."""
    if not self.live:
      if told_after and not done.wait(told_after):
        with self._locked():
          if current in self._phases:
            self._tell(current)
      return
    while not done.wait(_TICK):
      self._draw()

  def _draw(self) -> None:
    if not self.live:
      return
    with self._locked(), contextlib.suppress(OSError):  # a terminal that is gone
      words = []
      if self._phases:
        current = self._phases[-1]
        seconds = round(time.monotonic() - current.began)
        hint = current.hint and f' ({current.hint})'
        words.append(f'{current.text}{hint} ...' + (f' {seconds} s' if seconds else ''))
      text = '  '.join(filter(None, [*words, self._status]))
      if text:
        self._live_line().set_description_str(one_line(text)[: columns() - 1])
      elif self._bar is not None:
        self._bar.close()
        self._bar = None

  def _live_line(self) -> 'tqdm.tqdm':
    if self._bar is None:
      import tqdm  # a tenth of a quick command's start

      self._bar = tqdm.tqdm(bar_format='{desc}', leave=False, file=sys.stderr)
    return self._bar

  def _locked(self) -> contextlib.AbstractContextManager:
    return self.lock or contextlib.nullcontext()


@dataclasses.dataclass(eq=False)
class _Phase:
  """What is going on: its words, when it began, and whether a file was told."""

  text: str
  hint: str
  began: float
  told: bool = False


@contextlib.contextmanager
def phase(text: str, hint: str = '', told_after: float | None = 5.0) -> Iterator[None]:
  """Says what the block does, for those who wait for it, and how long it took.

  A terminal shows it at once, with the seconds that it has taken so far.

  Args:
    text: such as 'compiling the training step'.
    hint: how long to expect.
    told_after: seconds after which a file receives a line of it; None for never. What is over
      sooner leaves no line.
  """
  with contextlib.ExitStack() as stack:
    for console in _attached():
      stack.enter_context(console.phase(text, hint, told_after))
    yield


def tell_soon() -> None:
  """Has every phase from now on be told that takes a second: somebody waits for the end."""
  for console in _attached():
    console._soon = True


def current_phase() -> str:
  """The text of the current phase; '' where there is none."""
  return next((c._phases[-1].text for c in _attached() if c._phases), '')


def is_terminal(stream: Any) -> bool:
  """Whether a stream is a terminal that can write a line anew."""
  try:
    return stream.isatty() and os.environ.get('TERM') != 'dumb'
  except (AttributeError, ValueError):  # none, or closed
    return False


def columns() -> int:
  """Width of the terminal in characters."""
  return max(20, shutil.get_terminal_size().columns)


def show(text: object, error: bool = False) -> None:
  """Prints what a command answers; control characters of names that others gave are escaped.

  A name that stands in a line of several goes through `errors.one_line` first.

  Raises:
    StorageError: standard output is a file on a full disk, or a terminal that is gone.
    BrokenPipeError: nobody reads it any more.
  """
  if _silent_as is not None:
    return
  try:
    _print(text, error)
  except OSError as e:
    silence(sys.stderr if error else sys.stdout)
    if error:
      return
    if isinstance(e, BrokenPipeError):
      raise
    raise StorageError(f'cannot write to standard output: {e.strerror or e}') from e


def _print(text: object, error: bool) -> None:
  print(visible(text), file=sys.stderr if error else sys.stdout, flush=True)


def show_problems(error: UserError) -> None:
  """Prints a user's mistake as one line on standard error."""
  prefix = '' if isinstance(error, InterruptedRunError) else 'error: '
  show(prefix + one_line(' | '.join(error.problems)), error=True)


def stay_silent(name: str) -> None:
  """Has this process print nothing from now on but what `show_at_once` is given.

  Args:
    name: how those lines begin.
  """
  global _silent_as
  _silent_as = name
  for console in _attached():
    console.show_status('')
    console.active = console.live = False


def show_at_once(text: str) -> None:
  """Prints a line on standard error from a thread, whatever the others are doing."""
  for console in _attached():
    console.show_status('')
  with contextlib.suppress(OSError):
    _print(f'{_silent_as or ""}{one_line(text)}', error=True)


def keep_to_ourselves() -> None:
  """Has libraries that write to file 1 of this process, as gloo does, write nowhere."""
  with contextlib.suppress(AttributeError, OSError, ValueError):  # no stream of the system
    old = sys.stdout
    old.flush()
    kept = os.dup(old.fileno())
    sys.stdout = open(  # noqa: SIM115
      kept, 'w', buffering=1, encoding=old.encoding, errors=old.errors
    )
    silence(old)


def silence(stream: Any) -> None:
  """Has what is written to a stream of this process from now on go nowhere.

  So does what it holds already, which Python writes at its end, and complains where it cannot.
  """
  with contextlib.suppress(AttributeError, OSError, ValueError):  # not a stream of the system
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def exit_now(status: int) -> None:
  """Ends the process without what Python does at its end, but for what was printed."""
  for stream in (sys.stdout, sys.stderr):
    with contextlib.suppress(OSError, ValueError):
      stream.flush()
  os._exit(status)


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


def format_seconds(seconds: float) -> str:
  """Hours, minutes and seconds as '1:02:03' or '2:03'."""
  minutes, seconds = divmod(round(seconds), 60)
  hours, minutes = divmod(minutes, 60)
  return f'{hours}:{minutes:02}:{seconds:02}' if hours else f'{minutes}:{seconds:02}'


class _ByteLines:
  """Progress where nobody watches: a line of information for each tenth of a long download.

  Args:
    name: of the file.
    size: of the whole, None where unknown.
    have: bytes that are here.
  """

  def __init__(self, name: str, size: int | None, have: int):
    self._name, self._size, self._have = name, size or 0, have

  def __enter__(self) -> '_ByteLines':
    return self

  def __exit__(self, *_: object) -> None:
    pass

  def update(self, count: int) -> None:
    """Counts bytes that came."""
    before, self._have = self._have, self._have + count
    if self._size >= _LONG_BYTES and 10 * before // self._size < 10 * self._have // self._size:
      log.info('%s: %d%% of %d MB', self._name, 100 * self._have / self._size, self._size / 1e6)


def byte_bar(
  name: str, size: int | None, have: int = 0, live: bool = True
) -> 'tqdm.tqdm | _ByteLines':
  """What counts the bytes of a download before those who wait for it.

  Args:
    name: what is downloaded.
    size: of the whole in bytes, None where unknown.
    have: bytes that are here.
    live: whether a terminal has a moving bar; else, and in a file, there are lines.
  """
  if not (live and sys.stderr.isatty()):
    return _ByteLines(name, size, have)
  from tqdm import tqdm

  return tqdm(desc=name[:40], total=size, initial=have, unit='B', unit_scale=True)
