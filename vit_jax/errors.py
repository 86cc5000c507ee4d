"""Errors of the user's input: what was expected, what came, and what to type next."""

import contextlib
import difflib
import importlib
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any


class UserError(Exception):
  """A mistake of the user's, not of the program: printed as text, never as a traceback.

  The type says of what kind it is, and `code` says the same as a word that does not change; the
  wording of a message may.

  Args:
    problems: one sentence, or all that were found at once.

  Attributes:
    code: the kind of mistake.
    status: with which a command ends.
  """

  code = 'error'
  status = 1

  def __init__(self, problems: str | Sequence[str]):
    self.problems = [problems] if isinstance(problems, str) else list(problems)
    super().__init__('; '.join(self.problems))

  def __reduce__(self):
    return _rebuilt, (type(self), self.__dict__)  # crosses process borders, whatever it was made of


def _rebuilt(kind: type[UserError], attributes: dict[str, Any]) -> UserError:
  error = kind.__new__(kind, '; '.join(attributes['problems']))
  error.__dict__.update(attributes)
  return error


def to_json(error: UserError) -> dict[str, Any]:
  """An error as JSON values, for another process."""
  return {'kind': type(error).__name__, **error.__dict__}


def of_json(values: dict[str, Any]) -> UserError:
  """The inverse of `to_json`; what is of no type of this file becomes a `UserError`."""
  kind = globals().get(values['kind'], UserError)
  return _rebuilt(kind, {name: value for name, value in values.items() if name != 'kind'})


class ConfigError(UserError):
  """An option, an argument or a config file: unknown, of the wrong type, out of its range."""

  code = 'config'


class DatasetError(UserError):
  """A dataset: missing, laid out in an unknown way, or with annotations that cannot be right."""

  code = 'dataset'


class ImageError(UserError):
  """An image that cannot be read or decoded."""

  code = 'image'


class ModelError(UserError):
  """A model's name, fields or input."""

  code = 'model'


class WeightsError(UserError):
  """A weights file: missing, damaged, or of another model."""

  code = 'weights'


class CheckpointError(UserError):
  """A run's workdir or checkpoint: missing, damaged, or of another run."""

  code = 'checkpoint'


class DownloadError(UserError):
  """Something that no source gave whole."""

  code = 'download'


class StorageError(UserError):
  """Something that could not be written."""

  code = 'storage'


class DivergenceError(UserError):
  """A loss, gradient or metric that is not finite."""

  code = 'diverged'


class InterruptedRunError(UserError):
  """A run that a signal or its time budget stopped; the same command resumes it.

  Args:
    problems: what was saved.
    number: of the signal; 0 for the time budget.

  Attributes:
    number: of the signal.
    status: 128 and that number, as shells have it: 143 for SIGTERM, 130 for Ctrl-C. For the time
      budget it is 75, which <sysexits.h> calls a failure that another try may mend.
  """

  code = 'interrupted'

  def __init__(self, problems: str | Sequence[str], number: int):
    super().__init__(problems)
    self.number = number
    self.status = 128 + number if number else 75


class LostProcessError(UserError):
  """A process of several that ended, hung, or was never there."""

  code = 'process'


class DependencyError(UserError):
  """An optional package that is not installed."""

  code = 'dependency'


class Problems:
  """Collects user errors of steps that do not depend on each other, to report all at once."""

  def __init__(self) -> None:
    self._errors: list[UserError] = []

  @contextlib.contextmanager
  def collect(self) -> Iterator[None]:
    """Keeps a `UserError` of the block for `raise_if_any`."""
    try:
      yield
    except UserError as e:
      self._errors.append(e)

  def add(self, sentences: Sequence[str]) -> None:
    """Keeps what was found to be wrong with options and arguments."""
    if sentences:
      self._errors.append(ConfigError(sentences))

  @property
  def sentences(self) -> list[str]:
    """All problems, each once, though another may say more of where it was found."""
    found = list(dict.fromkeys(p for e in self._errors for p in e.problems))
    return [p for p in found if not any(other.endswith(f': {p}') for other in found)]

  def raise_if_any(self) -> None:
    """Raises an error of the first one's type with all problems."""
    if self._errors:
      raise type(self._errors[0])(self.sentences) from self._errors[0]


# What moves a terminal's cursor, ends a line or turns the order of letters: control characters of
# ASCII and Latin-1, Unicode's line ends, and its bidirectional embeddings, overrides and isolates.
_CONTROLS = re.compile('[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]')


def one_line(text: object) -> str:
  """The text with control characters, line breaks too, as Python writes them: '\\x1b', '\\n'."""
  return _CONTROLS.sub(lambda found: found[0].encode('unicode_escape').decode(), str(text))


def visible(text: object) -> str:
  """Text of several lines for a terminal: as `one_line`, with its line breaks and tabs."""
  parts = re.split('([\n\t])', str(text))
  return ''.join(part if part in ('\n', '\t') else one_line(part) for part in parts)


def some(names: Iterable[str], most: int = 6) -> str:
  """The first few of a list in one line, and how many there are beyond."""
  names = list(names)
  first = ', '.join(map(one_line, names[:most]))
  return first + (f' and {len(names) - most} more' if len(names) > most else '')


def counted(n: float, one: str, several: str = '') -> str:
  """'1 image', '1,234 images', '2.5 epochs'.

  Args:
    n: how many.
    one: of one.
    several: of any other number; '' for `one` with an 's'.
  """
  number = f'{n:.4g}' if isinstance(n, float) else f'{n:,}'
  return f'{number} {one if number == "1" else several or one + "s"}'


def dimensions(hw: Sequence[int]) -> str:
  """'224 x 224 pixels', and of what is not square '640 x 480 pixels (w x h)'.

  Args:
    hw: height and width.
  """
  height, width = hw
  return f'{width} x {height} pixels' + ('' if height == width else ' (w x h)')


_LONGEST_SHOWN = 120  # characters of a value in a message


def shown(value: Any) -> str:
  """A value for a message, cut where it is long."""
  try:
    text = repr(value)
  except ValueError:  # an integer of thousands of digits
    return 'a number of thousands of digits'
  return text if len(text) <= _LONGEST_SHOWN else f'{text[:_LONGEST_SHOWN]}...'


def nearest(name: object, names: Iterable[str]) -> list[str]:
  """The few valid names that are most like one that is not; empty where none is like it."""
  names = sorted(names)
  near = difflib.get_close_matches(str(name), names, n=3, cutoff=0.6)
  return near or [n for n in names if n.casefold() == str(name).casefold()]


def did_you_mean(
  name: str, names: Iterable[str], every_up_to: int = 12, listed: Iterable[str] | None = None
) -> str:
  """Says the nearest valid names, or all of them when they are few.

  Args:
    name: that is not valid.
    names: that are.
    every_up_to: so many are listed where none is near.
    listed: those that are listed then; None for `names`.

  Returns:
    A clause to end an error with, such as "did you mean 'vit_b16'?".
  """
  names = sorted(str(n) for n in names)
  near = nearest(name, names)
  if near:
    return 'did you mean ' + ' or '.join(repr(n) for n in near) + '?'
  names = names if listed is None else sorted(listed)
  if len(names) <= every_up_to:
    return 'valid: ' + ', '.join(names)
  return f'valid: {", ".join(names[:every_up_to])} and {len(names) - every_up_to} more'


def __getattr__(name: str) -> Any:
  if name == 'run_cli':  # its address of version 0.1
    return importlib.import_module('vit_jax.command_line').run_cli
  raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
