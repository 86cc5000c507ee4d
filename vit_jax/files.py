"""Files that appear whole or not at all."""

import contextlib
import csv
import errno
import itertools
import json
import math
import numbers
import os
import pathlib
import re
import shutil
import socket
import sys
import time
from collections.abc import Iterator, Sequence
from typing import Any

from vit_jax.errors import ConfigError, StorageError, shown

# How a formula begins in a spreadsheet, also in the wide letters of East Asia.
_FORMULA = re.compile(r"'*[=+@\t\r\n\uff1d\uff0b\uff0d\uff20-]")
_URL = re.compile(r'[A-Za-z][A-Za-z0-9+.-]+://')
_TEMPORARY = re.compile(r'\..+\.\d+\.tmp')  # of `replacing` and `new_folder`
_LONGEST_NAME = 100  # bytes of a file name's start; file systems take 255 in all
_ATTEMPTS, _WAIT_SECONDS = 10, 0.1


@contextlib.contextmanager
def writing(path: str | pathlib.Path) -> Iterator[None]:
  """Turns a failure of the system in the block into a `StorageError` that names the file."""
  try:
    yield
  except OSError as e:
    raise StorageError(f'cannot write {path}: {e.strerror or e}') from e


@contextlib.contextmanager
def replacing(path: str | pathlib.Path) -> Iterator[pathlib.Path]:
  """A temporary path beside a file, which becomes that file when the block ends.

  An error or a kill in the block leaves the old file as it was.

  Raises:
    StorageError: naming the file and the system's reason.
  """
  path = pathlib.Path(path)
  temporary = path.with_name(f'.{path.name}.{os.getpid()}.tmp')
  try:
    with writing(path):
      yield temporary
      _replace(temporary, path)
  finally:
    with contextlib.suppress(OSError):
      temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def new_folder(path: str | pathlib.Path) -> Iterator[pathlib.Path]:
  """A temporary folder beside one that is not there, or empty, which becomes that one at the end.

  An error or a kill in the block leaves nothing by that name.

  Raises:
    StorageError: something is there; or naming the folder and the system's reason.
  """
  path = pathlib.Path(os.path.abspath(path))
  try:
    check_no_folder(str(path))
  except ConfigError as e:
    raise StorageError(str(e)) from None
  temporary = path.with_name(f'.{path.name}.{os.getpid()}.tmp')
  try:
    with writing(path):
      temporary.mkdir(parents=True)
      yield temporary
      if path.is_dir():
        path.rmdir()  # Windows has no folder take the place of one
      _replace(temporary, path)
  finally:
    shutil.rmtree(temporary, ignore_errors=True)


def remove_temporaries(folder: pathlib.Path) -> None:
  """Removes the files that kills left half written in a folder where nobody writes meanwhile."""
  for path in folder.glob('.*.tmp'):
    if _TEMPORARY.fullmatch(path.name) and path.is_file():
      with contextlib.suppress(OSError):
        path.unlink()


def _replace(source: pathlib.Path, target: pathlib.Path) -> None:
  """os.replace; waits a little for readers, whose open files Windows does not replace."""
  for attempt in range(_ATTEMPTS):
    try:
      os.replace(source, target)
      break
    except PermissionError:
      if attempt == _ATTEMPTS - 1:
        raise
      time.sleep(_WAIT_SECONDS)


def write_text(path: str | pathlib.Path, text: str) -> None:
  """Writes a file whole or not at all: a kill leaves the old one.

  What is not Unicode, in file names of other systems, is escaped as JSON and Python escape it.
  """
  with replacing(path) as temporary:
    temporary.write_text(text, encoding='utf-8', errors='backslashreplace')


def write_json(path: str | pathlib.Path, value: Any, ascii_only: bool = False) -> None:
  """Writes a value as indented JSON, whole or not at all.

  Args:
    path: where.
    value: of JSON's types.
    ascii_only: writes other characters as escapes, for readers that guess the encoding.
  """
  write_text(path, json.dumps(value, indent=2, ensure_ascii=ascii_only) + '\n')


def read_json(path: str | pathlib.Path) -> Any:
  """The value of a JSON file; None where the file is missing or no JSON."""
  try:
    return json.loads(pathlib.Path(path).read_text('utf-8'))
  except (OSError, ValueError, RecursionError):
    return None


def make_folder(path: str | pathlib.Path) -> pathlib.Path:
  """Makes a folder and its parents where they are not there yet.

  Raises:
    StorageError: naming the folder and the system's reason.
  """
  path = pathlib.Path(path)
  try:
    path.mkdir(parents=True, exist_ok=True)
  except OSError as e:
    raise StorageError(f'cannot make the folder {path}: {e.strerror or e}') from e
  return path


def cache_folder(given: str | pathlib.Path = '') -> pathlib.Path:
  """Where downloads, features and compiled programs are kept; it may not exist yet.

  Args:
    given: a folder that goes before $VIT_JAX_CACHE and the user's cache folder.

  Raises:
    StorageError: the user has no home folder, or no folder here can have the name.
  """
  if named := str(given or os.environ.get('VIT_JAX_CACHE', '')):
    try:
      return pathlib.Path(path_of('the cache', named))
    except ConfigError as e:
      raise StorageError(e.problems) from None
  base = os.environ.get('XDG_CACHE_HOME') or os.environ.get('LOCALAPPDATA')
  try:
    return (pathlib.Path(base) if base else pathlib.Path.home() / '.cache') / 'vit_jax'
  except RuntimeError as e:
    raise StorageError('this user has no home folder: set VIT_JAX_CACHE to a folder') from e


def try_lock(descriptor: int) -> bool:
  """Locks an open file until it is closed or this process ends, however it does.

  Returns:
    False where another has the lock; True where the file system has no locks.
  """
  if sys.platform == 'win32':
    import msvcrt

    try:
      os.lseek(descriptor, 1 << 20, os.SEEK_SET)  # beyond the text, which others may then read
      msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
    except OSError:
      return False
    return True
  try:
    import fcntl

    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
  except BlockingIOError:
    return False
  except (ImportError, OSError):
    return True
  return True


def still_named(descriptor: int, path: pathlib.Path) -> bool:
  """Whether a lock's open file is the one that others find; `release_lock` may have removed it."""
  try:
    return os.path.samestat(os.fstat(descriptor), os.stat(path))
  except OSError:
    return False


def release_lock(descriptor: int, path: pathlib.Path) -> None:
  """Removes a lock's file, then unlocks it: others that have opened it see that it is gone."""
  with contextlib.suppress(OSError):
    path.unlink()
  os.close(descriptor)
  if sys.platform == 'win32':  # where nothing that is open can be removed
    with contextlib.suppress(OSError):
      path.unlink()


def short_name(name: str) -> str:
  """The start of a name that leaves a file system room for an ending, whatever its letters are."""
  data = name.encode('utf-8', 'surrogateescape')
  return name if len(data) <= _LONGEST_NAME else data[:_LONGEST_NAME].decode('utf-8', 'ignore')


def unique_stem(stem: str, used: set[str]) -> str:
  """The start of a file name that no other has, where 'A' and 'a' are one file too.

  Args:
    stem: as wished; cut where it is long, with '_' for what a file name of some system lacks.
    used: names that are taken; receives this one.
  """
  stem = short_name(re.sub(r'[\x00-\x1f\x7f<>:"/\\|?*]', '_', stem))
  names = itertools.chain([stem], (f'{stem}_{count}' for count in itertools.count(2)))
  name = next(name for name in names if name.casefold() not in used)
  used.add(name.casefold())
  return name


def is_remote(text: str) -> bool:
  """Whether a text is the URL of something in a store (`gs://bucket/run`), not a path here."""
  return bool(_URL.match(text)) and not text.lower().startswith(('http://', 'https://'))


def path_of(name: str, text: str, remote: bool = False) -> str:
  """A path as the user typed it, with the home folder in the place of a leading '~'.

  Args:
    name: how the option is called in the message.
    text: '' stays as it is.
    remote: whether it may be the URL of something in a store, which stays as it is.

  Raises:
    ConfigError: it is blank or lies elsewhere (`gs://`), no file can have this name, or the user's
      home folder is unknown.
  """
  if text and not text.strip():
    raise ConfigError(f'{name} is blank')
  if remote and is_remote(text):
    return text
  if _URL.match(text):
    raise ConfigError(
      f'{name}={shown(text)} is not on this machine: mount it as a folder (gcsfuse, mount-s3, '
      'rclone mount) or copy it here, and name that'
    )
  try:
    path = str(pathlib.Path(text).expanduser()) if text[:1] == '~' else text
    os.lstat(path)
    return path
  except RuntimeError as e:
    raise ConfigError(f'{name}={shown(text)}: {e}') from None
  except ValueError:
    raise ConfigError(f'{name}={shown(text)}: a path cannot hold this character') from None
  except OSError as e:
    if e.errno in (errno.ENAMETOOLONG, errno.ELOOP):
      raise ConfigError(f'{name}={shown(text)}: {e.strerror}') from None
    return path  # not there, or not to be seen: whoever opens it says so


def check_new_file(path: str, ending: str = '') -> None:
  """Raises a `ConfigError` unless a file can be written here, which is known before long work.

  Args:
    path: of the file; '' for none.
    ending: that its name must have.
  """
  if not path:
    return
  folder = os.path.dirname(path) or '.'
  if not path.endswith(ending):
    raise ConfigError(f'must end in {ending}, got {path}')
  if os.path.isdir(path):
    raise ConfigError(f'{path} is a folder: name a file')
  if not os.path.isdir(folder):
    raise ConfigError(f'there is no folder {folder}')
  if not os.access(path if os.path.exists(path) else folder, os.W_OK):
    raise ConfigError(f'cannot write {path}: permission denied')


def check_new_folder(path: str) -> None:
  """Raises a `ConfigError` unless a folder can be made or written here; '' is none."""
  if not path:
    return
  found = pathlib.Path(path).absolute()
  there = next(p for p in (found, *found.parents) if os.path.lexists(p))
  if not there.is_dir():
    raise ConfigError(f'{there} is a file: name a folder')
  if not os.access(there, os.W_OK):
    raise ConfigError(f'cannot write to {there}: permission denied')


def check_no_folder(path: str) -> None:
  """Raises a `ConfigError` unless a folder can be made here that is not there, or empty."""
  check_new_folder(path)
  if path and os.path.isdir(path) and os.listdir(path):
    raise ConfigError(f'{path} is there already and not empty: name a new folder')


def refuse_system_folder(path: str) -> None:
  """Raises a `ConfigError` for the system's own folders, which nobody means to search."""
  real = pathlib.Path(os.path.realpath(path))
  parts = real.parts[1:2] if os.name == 'posix' else ()
  if real == pathlib.Path(real.anchor) or parts in (('proc',), ('sys',)) or str(real) == '/dev':
    raise ConfigError(f'{path} is a folder of the operating system: name a folder of images')


def workdir_of(text: str) -> str:
  """A run's folder or its URL as the user typed it, with the home folder in the place of '~'.

  Raises:
    ConfigError: it is empty, or no folder can have this name.
  """
  if not text.strip():
    raise ConfigError('--workdir is empty: name a folder for the run')
  return path_of('--workdir', text, remote=True)


def make_workdir(path: pathlib.Path) -> list[pathlib.Path]:
  """Makes a folder and proves that it can be written.

  Returns:
    The folders that were not there before, innermost first.

  Raises:
    StorageError: naming the folder and the system's reason.
  """
  made = []
  try:
    made = [folder for folder in (path, *path.parents) if not os.path.lexists(folder)]
    path.mkdir(parents=True, exist_ok=True)
    probe = path / f'.probe.{socket.gethostname()}.{os.getpid()}'  # many machines may do so at once
    probe.touch()
    probe.unlink()
  except OSError as e:
    remove_empty(made)
    raise StorageError(f'cannot write to --workdir={path}: {e.strerror or e}') from e
  return made


@contextlib.contextmanager
def workdir_unless_it_fails(path: pathlib.Path) -> Iterator[None]:
  """`make_workdir`; where the block fails, what was made is removed again if it is still empty."""
  made = make_workdir(path)
  try:
    yield
  except BaseException:
    remove_empty(made)
    raise


def remove_empty(folders: Sequence[pathlib.Path]) -> None:
  """Removes folders, innermost first, as far as nothing is in them."""
  for folder in folders:
    with contextlib.suppress(OSError):
      folder.rmdir()


def write_csv(path: pathlib.Path, header: Sequence[str], rows: Any) -> None:
  """Writes a table, whole or not at all; a number that is not finite stays empty.

  A text that a spreadsheet would run as a formula has an apostrophe in front. So has one that looks
  as if it had been given one: whoever reads such a cell takes one off, and has the text as it was.
  """
  with (
    replacing(path) as temporary,
    open(temporary, 'w', newline='', encoding='utf-8', errors='backslashreplace') as f,
  ):
    table = csv.writer(f)
    table.writerow([_cell(name) for name in header])
    table.writerows([_cell(value) for value in row] for row in rows)


def _cell(value: Any) -> Any:
  if isinstance(value, numbers.Real) and not isinstance(value, numbers.Integral):
    return '' if not math.isfinite(value) else f'{value:.6g}'
  return f"'{value}" if isinstance(value, str) and _FORMULA.match(value) else value
