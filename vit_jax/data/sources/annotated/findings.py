"""What is wrong or doubtful in a dataset's annotations, gathered by cause."""

import collections
import dataclasses
import itertools
import logging
import os

from vit_jax.errors import DatasetError

log = logging.getLogger(__name__)

_CAUSES = 5  # of errors shown at once
_EXAMPLES = 3  # shown of each cause


@dataclasses.dataclass
class _Cause:
  """Where something was found, in order, each place once; and what the first had instead."""

  places: dict[str, None] = dataclasses.field(default_factory=dict)
  got: str = ''


class Findings:
  """Collects what the readers find; many of one cause become one line.

  Args:
    root: the dataset's folder, left out of all places but the first.
  """

  def __init__(self, root: str):
    self._root = root
    self._wrong: dict[str, _Cause] = collections.defaultdict(_Cause)
    self._doubtful: dict[str, _Cause] = collections.defaultdict(_Cause)
    self._counted: dict[str, _Cause] = collections.defaultdict(_Cause)

  def refuse(self, place: str, cause: str, got: str = '') -> None:
    """Something for which no right answer is known; `close` will raise it.

    Args:
      place: the file, and where in it.
      cause: what was expected and what to do; the same text for the same cause.
      got: what was found instead, shown for the first of a cause.
    """
    self._add(self._wrong[cause], place, got)

  def warn(self, place: str, cause: str) -> None:
    """Something to which a rule is applied that may not be what was meant."""
    self._add(self._doubtful[cause], place)

  def inform(self, place: str, cause: str) -> None:
    """Something usual that changes what is learned."""
    self._add(self._counted[cause], place)

  @staticmethod
  def _add(found: _Cause, place: str, got: str = '') -> None:
    if not found.places:
      found.got = got
    found.places[place] = None

  def close(self) -> None:
    """Reports everything.

    Raises:
      DatasetError: of what was refused, one sentence a cause.
    """
    wrong = [self._sentence(cause, found) for cause, found in self._wrong.items()]
    if wrong:
      more = len(wrong) - _CAUSES
      raise DatasetError(wrong[:_CAUSES] + ([f'and {more} other causes'] if more > 0 else []))
    for cause, found in self._doubtful.items():
      log.warning('%s', self._sentence(cause, found))
    for cause, found in self._counted.items():
      log.info('note: %s', self._sentence(cause, found))

  def _sentence(self, cause: str, found: _Cause) -> str:
    first, *others = itertools.islice(found.places, _EXAMPLES)
    got = found.got.replace(self._root.rstrip('/' + os.sep) + os.sep, '')
    sentence = f'{first}: {cause}' + (f'; got {_short(got)}' if got else '')
    if others:
      named = ', '.join(place.removeprefix(self._root).lstrip('/' + os.sep) for place in others)
      unnamed = len(found.places) - 1 - len(others)
      sentence += f' (and {named}{f" and {unnamed} more" if unnamed else ""})'
    return sentence


def _short(text: str, length: int = 160) -> str:
  return text if len(text) <= length else text[: length - 3] + '...'
