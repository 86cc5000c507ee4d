"""Text, numbers and names as they stand in annotation files that strangers wrote."""

import codecs
import math
import os
import posixpath
import re
import reprlib
import unicodedata
from collections.abc import Iterable, Sequence
from typing import Any

from vit_jax.data.image_files import list_images
from vit_jax.data.sources.annotated.findings import Findings

_BOMS = (  # UTF-32's begins like UTF-16's
  (codecs.BOM_UTF8, 'utf-8-sig'),
  (codecs.BOM_UTF32_LE, 'utf-32'),
  (codecs.BOM_UTF32_BE, 'utf-32'),
  (codecs.BOM_UTF16_LE, 'utf-16'),
  (codecs.BOM_UTF16_BE, 'utf-16'),
)
_ENDS = 1 << 16  # bytes
_NUMBER = re.compile(r'[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?', re.ASCII)


def read_bytes(path: str, findings: Findings) -> bytes | None:
  """A file's bytes; None where it cannot be read, which is refused."""
  try:
    with open(path, 'rb') as f:
      return f.read()
  except OSError as e:
    findings.refuse(path, f'cannot be read: {e.strerror}')
    return None


def read_text(path: str, findings: Findings) -> str | None:
  """A file's text, UTF-8 or with a byte order mark; None where it is neither, which is refused."""
  data = read_bytes(path, findings)
  if data is None:
    return None
  encoding = next((name for bom, name in _BOMS if data.startswith(bom)), 'utf-8')
  try:
    text = data.decode(encoding)
  except UnicodeDecodeError as e:
    findings.refuse(path, 'is not UTF-8 text; save it as UTF-8', f'{e.reason} at byte {e.start}')
    return None
  if '\0' in text:
    findings.refuse(path, 'has zero bytes and is no UTF-8 text; save it as UTF-8')
    return None
  return text


def holds(path: str | os.PathLike[str], words: Iterable[bytes], least: int) -> bool:
  """Whether at least so many of these words stand in a file's first or last 64 KiB."""
  try:
    with open(path, 'rb') as f:
      head = f.read(_ENDS)
      f.seek(max(os.fstat(f.fileno()).st_size - _ENDS, 0))
      ends = head + f.read(_ENDS)
  except OSError:
    return False
  return sum(word in ends for word in words) >= least


def number(value: Any) -> float | None:
  """A finite number, also of a string; None for anything else."""
  if isinstance(value, str):
    if not _NUMBER.fullmatch(value.strip()):
      return None
  elif isinstance(value, bool) or not isinstance(value, int | float):
    return None
  try:
    found = float(value)
  except OverflowError:
    return None
  return found if math.isfinite(found) else None


def whole(value: Any) -> int | None:
  """A whole number, also written as '3', 3.0 or '3.0'; None for anything else."""
  found = number(value)
  return int(found) if found is not None and found.is_integer() and abs(found) < 1 << 53 else None


def image_size(height: Any, width: Any) -> tuple[int, int] | None:
  """Height and width in pixels where both are positive whole numbers."""
  h, w = whole(height), whole(width)
  return (h, w) if h is not None and w is not None and min(h, w) > 0 else None


def class_name(value: Any, place: str, findings: Findings) -> str | None:
  """A class's name without spaces around it; None where there is none, which is refused."""
  if isinstance(value, bool) or not isinstance(value, str | int | float):
    findings.refuse(place, 'the name of a class must be text', reprlib.repr(value))
    return None
  name = str(value).strip()
  if not name or any(unicodedata.category(c) in ('Cc', 'Cs') for c in name):
    findings.refuse(place, 'a class has an empty or unprintable name', reprlib.repr(value))
    return None
  return name


def warn_of_alike(classes: Iterable[str], place: str, findings: Findings) -> None:
  """Tells of classes whose names differ in case and spaces alone."""
  seen: dict[str, str] = {}
  for name in classes:
    key = ' '.join(name.casefold().replace('_', ' ').split())
    if key in seen:
      findings.warn(
        place, f'classes {seen[key]!r} and {name!r} differ in case or spaces alone; both are kept'
      )
    seen.setdefault(key, name)


def stem(path: str) -> str:
  """A path without its ending."""
  return posixpath.splitext(path)[0]


def slashed(name: str) -> str:
  """A path of any system as parts with '/' between, without drive, root and leading '..'."""
  parts = posixpath.normpath(name.strip().replace('\\', '/')).split('/')
  while parts and (parts[0] in ('', '.', '..') or re.fullmatch('[A-Za-z]:', parts[0])):
    parts.pop(0)
  return '/'.join(parts)


def below(path: str, folder: str) -> str:
  """A path below a folder without the folder."""
  return path.removeprefix(folder + '/')


class ImageIndex:
  """Finds the images that annotations name, although folder, ending and case may have changed.

  Args:
    root: the dataset's folder.
    findings: collects images found under another ending or case.

  Attributes:
    names: paths of all images below the root.
  """

  def __init__(self, root: str, findings: Findings):
    self._root = root
    self._findings = findings
    self.names = set(list_images(root, ''))
    self._loose: dict[str, list[str]] = {}
    for name in sorted(self.names):
      self._loose.setdefault(stem(name).casefold(), []).append(name)

  def find(self, name: str, folders: Sequence[str], place: str) -> str | None:
    """The path of an image below the root; None where there is none.

    Args:
      name: as the annotation has it: a path of this or another system or machine.
      folders: where it may be, below the root; '' is the root.
      place: that names it.
    """
    parts = slashed(name).split('/')
    tails = [name, *('/'.join(parts[i:]) for i in range(len(parts)))]
    paths = []
    for path in (posixpath.join(folder, tail) for tail in tails for folder in folders):
      if path in self.names:
        return path
      paths.append(posixpath.normpath(path))
    for path in paths:
      if path in self.names:
        return path
    for path in paths:
      alike = self._loose.get(stem(path).casefold(), [])
      if len(alike) == 1:
        self._findings.warn(
          place, 'names its image with another ending or case than the file has; it is taken'
        )
        return alike[0]
    return next((path for path in paths if self._is_file(path)), None)

  def _is_file(self, path: str) -> bool:
    """Whether it is a file below the root, of whatever ending."""
    within = not path.startswith(('/', '..'))
    return within and os.path.isfile(os.path.join(self._root, path))
