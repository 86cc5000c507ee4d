"""Local copies of what lies in stores: where they are, and which of their files are still right."""

import concurrent.futures
import contextlib
import hashlib
import json
import logging
import os
import pathlib
import shutil
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from vit_jax.console import byte_bar, phase
from vit_jax.errors import StorageError
from vit_jax.files import cache_folder, make_folder, try_lock, unique_stem, writing
from vit_jax.remote.store import Entry, Store

log = logging.getLogger(__name__)

THREADS = 16  # that fetch or send small files at once: each waits for the store most of the time
_ATTEMPTS, _WAIT_SECONDS = 3, 1.0
_POLL_SECONDS = 0.2
_ROOM = 64 << 20  # bytes that are left free
_URL = 'url.txt'


class Place:
  """Where the copy of a URL lies: a folder of the cache, named by the URL's hash.

  Args:
    url: of the store.
    kind: 'read' or 'workdirs', whose copies know nothing of each other.

  Attributes:
    url: without a slash at its end.
    base: the folder, with what is noted about the copy.
    folder: the copy in it, by the URL's last names, which some readers look at.
  """

  def __init__(self, url: str, kind: str):
    self.url = url.rstrip('/')
    name = hashlib.sha256(self.url.encode()).hexdigest()[:16]
    self.base = _root() / kind / name
    last = self.url.partition('://')[2].split('/')[-2:]
    self.folder = self.base.joinpath('copy', *(unique_stem(n, set()) or '_' for n in last))

  @classmethod
  def around(cls, path: pathlib.Path) -> 'Place | None':
    """That of the copy in which a path lies; None for any other path."""
    try:
      kind, name, *_ = path.absolute().relative_to(_root()).parts
      place = cls((_root() / kind / name / _URL).read_text('utf-8').strip(), kind)
    except (OSError, ValueError):
      return None
    return place if path.absolute().is_relative_to(place.folder) else None

  @contextlib.contextmanager
  def locked(self, wait: bool = True) -> Iterator[bool]:
    """Keeps other processes of this machine from the copy.

    Args:
      wait: until it is free.

    Returns:
      False where another has it, and this one was not to wait.
    """
    make_folder(self.base)
    with contextlib.suppress(OSError):
      (self.base / _URL).write_text(f'{self.url}\n', 'utf-8')
    with contextlib.ExitStack() as stack:
      with writing(self.base / 'lock'):
        file = stack.enter_context(open(self.base / 'lock', 'ab'))
      taken = try_lock(file.fileno())
      if not taken and wait:
        with phase(f'waiting for another process, which copies {self.url}'):
          while not taken:
            time.sleep(_POLL_SECONDS)
            taken = try_lock(file.fileno())
      yield taken


def _root() -> pathlib.Path:
  """The folder of all copies."""
  return cache_folder().absolute() / 'remote'


class Record:
  """Which files of a copy are those of the store: kept in a file, a line for each.

  Args:
    path: of that file.
    folder: the copy.
  """

  def __init__(self, path: pathlib.Path, folder: pathlib.Path):
    self._path, self._folder, self._lock = path, folder, threading.Lock()
    self._known: dict[str, list] = {}
    with contextlib.suppress(OSError):
      for line in path.read_bytes().splitlines():
        with contextlib.suppress(ValueError, TypeError):  # a line that a kill has spoiled
          name, *known = json.loads(line)
          self._known[name] = known

  def note(self, name: str, entry: Entry) -> None:
    """The file here was just made the same as the store's."""
    known = [*entry, *self.state(name)]
    with self._lock, writing(self._path), open(self._path, 'a', encoding='utf-8') as f:
      self._known[name] = known
      f.write(json.dumps([name, *known]) + '\n')

  def holds(self, name: str, entry: Entry) -> bool:
    """Whether neither the file here nor the store's has changed since they were the same."""
    return self._known.get(name) == [*entry, *self.state(name)]

  def state(self, name: str) -> tuple[int, int]:
    """Size and time of the file here; (-1, -1) where there is none."""
    try:
      found = os.stat(self._folder / name)
      return found.st_size, found.st_mtime_ns
    except OSError:
      return -1, -1


def fetch(
  store: Store,
  place: Place,
  entries: Mapping[str, Entry],
  record: Record,
  spared: Callable[[str], bool] = lambda name: False,
) -> None:
  """Makes a copy the same as the store: what is new or has changed there is fetched.

  A file has its name once it is whole, so that an interrupted copy continues with the next file.

  Args:
    store: that is copied.
    place: where to.
    entries: the files that the copy is to have; others are removed.
    record: of the copy.
    spared: whether a file that is not among them stays.

  Raises:
    StorageError: no room, or a file that did not come after several attempts.
  """
  folder = place.folder
  _remove_others(folder, lambda name: name in entries or spared(name))
  missing = {name: entry for name, entry in entries.items() if not record.holds(name, entry)}
  if not missing:
    return
  size = sum(entry.size for entry in missing.values())
  make_folder(folder)
  free = shutil.disk_usage(folder).free
  what = f'{store.url}: {len(missing):,} files of {size / 1e6:,.1f} MB'
  if free < size + _ROOM:
    raise StorageError(
      f'{what} do not fit into {place.base}, which has {free / 1e6:,.1f} MB free: VIT_JAX_CACHE '
      'names another folder'
    )
  log.info('downloading %s into %s (%.1f GB free)', what, folder, free / 1e9)
  partial = make_folder(place.base / 'partial')
  with byte_bar(store.url.rpartition('/')[2], size) as bar:
    lock, stopped = threading.Lock(), threading.Event()

    def count(read: int) -> None:
      if stopped.is_set():
        raise StorageError('another file failed, or the program was interrupted')
      with lock:
        bar.update(read)

    def one(name: str) -> None:
      for attempt in range(1, _ATTEMPTS + 1):
        try:
          _fetch_file(store, name, missing[name], folder, partial, count)
          break
        except StorageError:
          if attempt == _ATTEMPTS or stopped.wait(_WAIT_SECONDS * 2**attempt):
            raise
      record.note(name, missing[name])

    try:
      each(missing, one, stopped)
    finally:
      shutil.rmtree(partial, ignore_errors=True)


def each(
  names: Iterable[str], act: Callable[[str], None], stopped: threading.Event | None = None
) -> None:
  """Does something for each of several files at once.

  Args:
    names: of the files.
    act: is called with each.
    stopped: set at the end, whichever it is, for those that are still at work.

  Raises:
    Exception: the first that was raised; files that are not begun are left out then.
  """
  with concurrent.futures.ThreadPoolExecutor(THREADS, 'vit_jax_remote') as pool:
    try:
      for done in concurrent.futures.as_completed([pool.submit(act, name) for name in names]):
        done.result()
    finally:
      if stopped is not None:
        stopped.set()
      pool.shutdown(cancel_futures=True)


def _fetch_file(
  store: Store,
  name: str,
  entry: Entry,
  folder: pathlib.Path,
  partial: pathlib.Path,
  count: Callable[[int], Any],
) -> None:
  target, temporary = folder / name, partial / uuid.uuid4().hex
  make_folder(target.parent)
  store.get(name, temporary, count)
  came = temporary.stat().st_size
  if came != entry.size:
    raise StorageError(f'{store.url}/{name} gave {came:,} bytes of {entry.size:,}')
  with writing(target):
    os.replace(temporary, target)


def _remove_others(folder: pathlib.Path, stays: Callable[[str], bool]) -> None:
  for parent, folders, names in os.walk(folder, topdown=False):
    for name in names:
      path = pathlib.Path(parent, name)
      if not stays(path.relative_to(folder).as_posix()):
        path.unlink(missing_ok=True)
    for name in folders:  # those that are empty now; a dataset has no class without images
      with contextlib.suppress(OSError):
        pathlib.Path(parent, name).rmdir()
