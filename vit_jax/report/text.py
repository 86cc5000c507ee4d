"""Numbers and names as people read them."""

import collections
import re
import textwrap
from collections.abc import Sequence

_WORDNET = re.compile(r'^n\d{8}[-_ ]+')
# What HTML, XML and fonts have no sign for: control characters but for tab and line ends, halves of
# surrogate pairs (bytes of a file name that are no UTF-8), characters that are never assigned, and
# those that turn the order of the letters after them.
_UNPRINTABLE = re.compile(
  '[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]'
)


def printable(text: str) -> str:
  """The text with a replacement character in the place of each that cannot be shown."""
  return _UNPRINTABLE.sub('\ufffd', text)


def encodable(text: str) -> str:
  """The text with bytes that are no UTF-8, as file names may have them, written as '\\udce9'."""
  return text.encode('utf-8', 'backslashreplace').decode('utf-8')


def readable(classes: Sequence[str]) -> tuple[str, ...]:
  """Class names without WordNet ids, underscores and unprintable characters.

  Two classes whose names would become the same keep theirs.
  """
  short = [_WORDNET.sub('', name).replace('_', ' ').strip() or name for name in classes]
  count = collections.Counter(short)
  return tuple(printable(s if count[s] == 1 else name) for s, name in zip(short, classes))


def shorten(name: str, most: int = 22) -> str:
  """A name cut in its middle where it is long: ends of names tell them apart as beginnings do."""
  if len(name) <= most:
    return name
  head = (most - 1) * 3 // 5
  return name[:head] + '…' + name[len(name) - (most - 1 - head) :]


def shorten_all(names: Sequence[str], most: int) -> list[str]:
  """Names cut as `shorten` does, at a greater length where else some would look alike."""
  for length in range(most, max(map(len, names), default=0)):
    short = [shorten(name, length) for name in names]
    if len(set(short)) == len(set(names)):
      return short
  return list(names)


def wrap(text: str, width: int) -> str:
  """The text in lines of at most `width` characters."""
  return '\n'.join(textwrap.wrap(text, width)) or text


def percent(share: float) -> str:
  """'85.0 %' with a space that does not break, and no '100 %' or '0 %' that is not one."""
  if 0.9995 <= share < 1:
    return '>\u00a099.9\u00a0%'
  if 0 < share < 0.0005:
    return '<\u00a00.1\u00a0%'
  return f'{100 * share:.1f}\u00a0%'


def interval(low: float, high: float) -> str:
  """'80.5 to 88.6 %', of shares."""
  return f'{100 * low:.1f} to {100 * high:.1f}\u00a0%'


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
  """Bytes as '1.23 GiB', '345 MiB' or '12 KiB'; a dash for None."""
  if n is None:
    return '–'
  if n >= 2**30:
    return f'{n / 2**30:.2f} GiB'
  return f'{n / 2**10:.0f} KiB' if 0 < n < 2**20 else f'{n / 2**20:.0f} MiB'


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
