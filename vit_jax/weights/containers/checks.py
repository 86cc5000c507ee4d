"""Errors for files that came from elsewhere: damaged, cut off, or something else altogether."""

import contextlib
import functools
import json
import pathlib
import struct
import zipfile
from collections.abc import Iterator
from typing import IO, Any, cast

from vit_jax.errors import UserError, WeightsError, shown

# Weights hardly compress. A file that claims to unpack to far more than this is not weights.
_MAX_EXPANSION = 100
_FREE_BYTES = 64 << 20
_MAX_JSON = 32 << 20
_MAX_NAMES = 50_000  # of arrays: a large model with its optimizer has a tenth of that
_LONGEST_NAME = 300
_ZIP_END = 22  # bytes of the record that a zip ends with
_LONGEST_PROBLEM = 1200


@contextlib.contextmanager
def damaged(path: str | pathlib.Path, what: str = '') -> Iterator[None]:
  """Turns whatever a parser makes of a broken file into one line that names it.

  Args:
    path: the file.
    what: the part of it that is being read.
  """
  try:
    yield
  except UserError:
    raise
  except OSError as e:
    raise WeightsError(f'cannot read {path}: {e.strerror or e}') from e
  except Exception as e:
    where = f' at {what!r}' if what else ''
    why = str(e).splitlines()[0][:160] if str(e) else type(e).__name__
    raise WeightsError(
      f'{path} is damaged or not a weights file{where} ({why}); fetch or copy it again'
    ) from e


@contextlib.contextmanager
def names_file(path: str | pathlib.Path) -> Iterator[None]:
  """Puts the file in front of user errors that do not name it, and cuts what is too long."""
  try:
    yield
  except UserError as e:
    named = str(path) in str(e)
    problems = [p if named else f'{path}: {p}' for p in e.problems]
    if problems == e.problems and max(map(len, problems)) <= _LONGEST_PROBLEM:
      raise
    cut = (p if len(p) <= _LONGEST_PROBLEM else f'{p[:_LONGEST_PROBLEM]}...' for p in problems)
    raise type(e)(list(cut)) from e


def check_expansion(path: pathlib.Path, claimed: int) -> None:
  """Refuses a compressed file that claims far more bytes than weights of its size can hold."""
  held = path.stat().st_size
  if claimed > _FREE_BYTES + _MAX_EXPANSION * held:
    raise WeightsError(
      f'{path} holds {held:,} bytes and claims to unpack to {claimed:,}: not a weights file'
    )


def check_file(path: pathlib.Path) -> None:
  """Refuses what is no plain file: reading a pipe waits for a writer, a device may never end."""
  with damaged(path):  # a name may be too long
    special = path.exists() and not path.is_file()
  if special:
    what = 'a folder' if path.is_dir() else 'a pipe, a socket or a device'
    raise WeightsError(f'{path} is {what}, expected a file')


def check_name(name: Any) -> None:
  """Refuses a name of an array that is no text of a line.

  Raises:
    ValueError: with the name.
  """
  if not isinstance(name, str) or not name.isprintable():  # nor are surrogates printable
    raise ValueError(f'{shown(name)} as the name of an array')
  if len(name) > _LONGEST_NAME:
    raise ValueError(f'a name of {len(name):,} characters, {name[:40]}...')


def check_count(count: int) -> None:
  """Refuses so many names that to compare them with a model's would take minutes.

  Raises:
    ValueError: with the number.
  """
  if count > _MAX_NAMES:
    raise ValueError(f'{count:,} names of arrays, more than {_MAX_NAMES:,}')


def zip_members(path: pathlib.Path) -> dict[str, zipfile.ZipInfo]:
  """The members of a zip by name, none of which overlaps another.

  Raises:
    WeightsError: damaged, or made to unpack to more than it holds.
  """
  with damaged(path):
    check_file(path)
    found = path.stat()
    return _zip_members(path, found.st_size, found.st_mtime_ns)


@functools.lru_cache(4)
def _zip_members(path: pathlib.Path, size: int, changed: int) -> dict[str, zipfile.ZipInfo]:
  with zipfile.ZipFile(path) as archive:
    members, start = archive.infolist(), archive.start_dir
  check_count(len(members))
  with open(path, 'rb') as f:
    f.seek(size - _ZIP_END)
    if f.read(4) != b'PK\5\6':
      raise ValueError('bytes behind the end of the zip')
  check_expansion(path, sum(m.file_size for m in members))
  by_name: dict[str, zipfile.ZipInfo] = {}
  end = 0
  for member in sorted(members, key=lambda m: m.header_offset):
    check_name(member.filename)
    if member.filename in by_name:
      raise ValueError(f'it holds {member.filename!r} twice')
    if member.header_offset < end:
      raise ValueError(f'{member.filename!r} overlaps what is before it')
    # A local header has 30 bytes and the name at least.
    end = member.header_offset + 30 + len(member.orig_filename) + member.compress_size
    if end > start:
      raise ValueError(f'{member.filename!r} ends behind the end of the file')
    by_name[member.filename] = member
  return by_name


def open_member(path: pathlib.Path, member: zipfile.ZipInfo) -> IO[bytes]:
  """The content of a member, read without reading the directory again."""
  f = open(path, 'rb')  # noqa: SIM115  closed with the member
  f.seek(member.header_offset)
  header = f.read(30)
  if header[:4] != b'PK\x03\x04' or member.flag_bits & 1:
    f.close()
    raise ValueError(f'{member.filename!r} is encrypted or not where it should be')
  name, extra = struct.unpack('<HH', header[26:])
  f.seek(name + extra, 1)
  return cast(IO[bytes], zipfile.ZipExtFile(f, 'r', member, close_fileobj=True))


def zip_has(path: pathlib.Path, file: str) -> bool:
  """Whether a file is a whole zip with a file of that name, in whatever folder of it."""
  with damaged(path):
    if not zipfile.is_zipfile(path):
      return False
    return any(name.split('/')[-1] == file for name in zip_members(path))


def what_is_it(path: pathlib.Path) -> str:
  """A guess for the error message of a file that is no weights file."""
  with damaged(path), open(path, 'rb') as f:
    start = f.read(200)
  if not start:
    return 'it is empty'
  if start.startswith(b'version https://git-lfs'):
    return 'it is a Git LFS pointer: fetch the file itself (git lfs pull)'
  if start.lstrip()[:5].lower() in (b'<html', b'<!doc', b'<?xml'):
    return 'it is a web page: the download got an error page'
  return 'it may have been cut off: fetch or copy it again'


def read_json(path: pathlib.Path) -> dict[str, Any]:
  """The JSON object in a file; {} where there is no such file.

  Raises:
    WeightsError: naming the file, where it is damaged or holds something else.
  """
  check_file(path)
  if not path.is_file():
    return {}
  with damaged(path):
    if path.stat().st_size > _MAX_JSON:
      raise WeightsError(f'{path} is too large to be a config')
    return parse_json(path.read_bytes())


def parse_json(text: str | bytes) -> dict[str, Any]:
  """A JSON object, in which no name occurs twice.

  Raises:
    ValueError: damaged, nested deeply, or something else than an object.
  """
  try:
    text = text if isinstance(text, str) else text.decode('utf-8')
    content = json.loads(text, object_pairs_hook=_each_once)
  except RecursionError as e:
    raise ValueError('JSON that is nested too deeply') from e
  if not isinstance(content, dict):
    raise ValueError('a JSON object is expected')
  return content


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
  found = dict(pairs)
  if len(found) < len(pairs):
    names = [name for name, _ in pairs]
    twice = next(name for name in found if names.count(name) > 1)
    raise ValueError(f'{shown(twice)} stands twice in it')
  for name, value in found.items():
    if isinstance(value, str):
      value.encode()  # half a surrogate pair is no text
    name.encode()
  return found


def fields_of(content: Any, field: str, kind: type = dict) -> Any:
  """A part of a JSON object, an empty one where it is not stated or null.

  Raises:
    ValueError: it is of another type.
  """
  value = content.get(field)
  if value is None:
    return kind()
  if not isinstance(value, kind):
    raise ValueError(f'{field} is {shown(value)}, expected {_JSON_WORDS[kind]}')
  return value


_JSON_WORDS: dict[type, str] = {dict: 'an object {...}', list: 'a list', str: 'text'}
