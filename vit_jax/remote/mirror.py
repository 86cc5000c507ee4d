"""A run's folder in a store: the run works in a local copy, which is sent as it goes."""

import contextlib
import logging
import os
import pathlib
import re
import shutil
import threading
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping

from vit_jax import processes
from vit_jax.console import phase
from vit_jax.errors import ConfigError, StorageError
from vit_jax.files import is_remote, make_folder, read_json, write_text
from vit_jax.remote.copying import Place, Record, each, fetch
from vit_jax.remote.lease import Lease
from vit_jax.remote.store import Entry, Store

log = logging.getLogger(__name__)

_POLL_SECONDS = 2.0  # between two looks for a new checkpoint
_RETRY_SECONDS, _LONGEST_RETRY = 5.0, 120.0  # after a checkpoint that could not be sent
_LAST_TRIES = (2.0, 8.0, 20.0)  # seconds between the attempts at the end

# A checkpoint of a run, or of a member of a sweep; it is sent, fetched and removed as a whole.
_UNIT = re.compile(r'((?:[^/]+/)?)checkpoints/(\d+)/')
# Its last files, in the order in which they are sent: one without the first was never whole, one
# without the second is damaged to whoever reads it.
_META, _CHECKSUMS = 'meta/metadata', 'checksums.json'
_RUN = '.run_id'  # tells a run from the next one at the same URL
# What orbax is writing, and what was set aside.
_LOCAL_ALONE = re.compile(r'(^|/)\.|(^|/)checkpoints/(?!\d+/)[^/]+/')


@contextlib.contextmanager
def workdir(text: str) -> Iterator[pathlib.Path]:
  """The folder in which a run works: a path as it is; for a URL a local copy for the block.

  At the start what the store has is fetched, unless the local copy is of the same run, which could
  not send everything, and is as far. Each checkpoint is sent when it is complete, with all other
  files that have changed; at the end, whichever it is, the rest. Of several processes the first
  does this, and all work in its copy.

  Args:
    text: a path or a URL.

  Raises:
    StorageError: another run works there, the store cannot be reached, or at the end something
      could not be sent.
  """
  if not is_remote(text):
    yield pathlib.Path(text)
    return
  mirror = Mirror(text)
  with contextlib.ExitStack() as stack:
    token = processes.agreed(lambda: stack.enter_context(mirror.opened()))
    mirror.check_shared(token)
    yield mirror.folder


class Mirror:
  """Keeps a URL the same as a local folder.

  Args:
    url: of the run's folder.

  Attributes:
    folder: the local copy.
  """

  def __init__(self, url: str):
    self._place = Place(url, 'workdirs')
    self.folder = self._place.folder
    self._url = self._place.url
    self._token, self._unsent = self._place.base / 'token', self._place.base / 'unsent'
    self._id = self._place.base / 'run'
    self._record = Record(self._place.base / 'files.jsonl', self.folder)
    self._closing = threading.Event()
    self._there: set[str] = set()  # files that the store has
    self._sent: dict[str, tuple[int, int]] = {}  # files that are the same there: their state here
    self._failed = ''

  @contextlib.contextmanager
  def opened(self) -> Iterator[str]:
    """Fetches the run, and sends what it does in the block.

    Returns:
      A word that stands in the local copy, by which other processes know it.
    """
    with contextlib.ExitStack() as stack:
      with processes.busy():
        token = self._open(stack)
      thread = threading.Thread(target=self._work, daemon=True)
      thread.start()
      failed = True
      try:
        yield token
        failed = False
      finally:
        with phase(f'sending the rest to {self._url}'), processes.busy():
          self._closing.set()
          thread.join()
        if not self._failed:
          log.info('%s has everything', self._url)
        elif failed:
          log.warning('%s', self._failed)
      if self._failed:
        raise StorageError(self._failed)

  def check_shared(self, token: str) -> None:
    """Raises a `ConfigError` in a process that does not see the copy of process 0."""
    with contextlib.suppress(OSError):
      if self._token.read_text('utf-8') == token:
        return
    raise ConfigError(
      f'process {processes.index()} does not see {self._place.base}, where process 0 keeps its '
      f'copy of {self._url}: set VIT_JAX_CACHE to a folder that all machines share'
    )

  # The start

  def _open(self, stack: contextlib.ExitStack) -> str:
    self._store = Store(self._url)
    if not stack.enter_context(self._place.locked(wait=False)):
      raise StorageError(
        f'another run on this machine works in {self._url}: wait for it, stop it, or use another '
        '--workdir'
      )
    shutil.rmtree(self._place.base / 'sending', ignore_errors=True)  # of a run that was killed
    if not self._token.exists():
      write_text(self._token, uuid.uuid4().hex)
    token = self._token.read_text('utf-8')
    self._lease = stack.enter_context(Lease(self._store, token).held())
    self._fetch()
    self._unsent.touch()
    log.info('%s: the run works in the local copy %s', self._url, self.folder)
    return token

  def _fetch(self) -> None:
    with phase(f'looking at {self._url}'):
      entries = {n: e for n, e in self._store.listing().items() if not _LOCAL_ALONE.search(n)}
    self._there = set(entries)
    broken = _units(entries) - _units(n for n in entries if n.endswith(f'/{_META}'))
    for unit in sorted(broken):
      log.warning('%s/%s was not sent whole and is left out', self._url, unit.rstrip('/'))
    wanted = {n: e for n, e in entries.items() if _unit_of(n) not in broken}
    there = self._store.read(_RUN) or b''
    same = self._id.exists() and self._id.read_bytes() == there
    if not (same and self._is_ahead(wanted)):
      if not same:
        self._set_aside()
      # Killed while it is fetched, this is no copy that is ahead of anything.
      self._unsent.unlink(missing_ok=True)
      there = there or uuid.uuid4().hex.encode()
      self._store.write(_RUN, there)
      write_text(self._id, there.decode())
      fetch(self._store, self._place, wanted, self._record, lambda n: bool(_LOCAL_ALONE.search(n)))
    holds = self._record.holds
    self._sent = {n: self._record.state(n) for n, e in entries.items() if holds(n, e)}

  def _is_ahead(self, entries: Mapping[str, Entry]) -> bool:
    """Whether the local copy was not all sent, and is as far as the store's in all its runs."""
    here, there = _newest(self._files()), _newest(entries)
    ahead = self._unsent.exists() and all(here.get(run, -1) >= step for run, step in there.items())
    if not here or not ahead:
      return False
    log.warning(
      '%s holds step %d, which was not all sent to %s: the run resumes from there',
      self.folder, max(here.values()), self._url,
    )  # fmt: skip
    return True

  def _set_aside(self) -> None:
    """Keeps what was never sent of a run that is not the store's any more."""
    copy = self._place.base / 'copy'
    if not self._unsent.exists() or not self._complete():
      return
    aside = copy.with_name(time.strftime('aside-%Y%m%d-%H%M%S'))
    copy.rename(aside)
    log.warning(
      '%s holds another run than before, of which not all was sent: it was moved to %s',
      self._url, aside,
    )  # fmt: skip

  # The thread that sends

  def _work(self) -> None:
    retry = 0.0
    while not self._closing.wait(retry or _POLL_SECONDS):
      if self._try(last=False):
        retry = 0.0
        continue
      retry = min(max(_RETRY_SECONDS, 2 * retry), _LONGEST_RETRY)
      log.warning(
        '%s: it is tried again; until then %s alone holds everything', self._failed, self.folder
      )
    for seconds in (0.0, *_LAST_TRIES):
      time.sleep(seconds)
      if self._try(last=True):
        return
      if self._lease.lost:
        break
    left = sorted(n for n in self._files() if not self._is_sent(n))
    units = sorted(_units(left))
    others = [n for n in left if _unit_of(n) is None]
    some = ', '.join([*(u.rstrip('/') for u in units), *others][:4])
    more = f' and {len(units) + len(others) - 4} more' if len(units) + len(others) > 4 else ''
    self._failed = (
      f'not sent to {self._url}: {some or "what was removed"}{more} ({self._failed}); '
      f'{self.folder} holds everything, and the same command sends it'
    )

  def _try(self, last: bool) -> bool:
    """Sends what there is, where a checkpoint is new or it is the last time."""
    try:
      if last or self._pending():
        self._send()
      if last:
        self._unsent.unlink(missing_ok=True)
    except Exception as e:  # the thread's end, whatever it is
      self._failed = ' '.join(str(e).split()) or type(e).__name__
      return False
    self._failed = ''
    return True

  def _send(self) -> None:
    """Sends what has changed: files, then checkpoints, then files that are later than these."""
    self._lease.check()
    pending = self._pending()
    last = max((p.stat().st_mtime_ns for p in pending.values() if p.exists()), default=None)
    changed = [n for n in self._files() if _unit_of(n) is None and not self._is_sent(n)]
    late = [n for n in changed if last and n not in self._there and self._time_of(n) > last]
    self._send_files([n for n in changed if n not in late])
    for unit in pending:
      self._send_unit(unit)
    self._send_files(late)
    self._remove_dropped()
    for name, entry in self._store.listing().items():
      if self._is_sent(name) and not self._record.holds(name, entry):
        self._record.note(name, entry)

  def _send_files(self, names: list[str]) -> None:
    """Sends files as they are now: the run may write to them meanwhile."""

    def send(name: str) -> None:
      state = self._record.state(name)
      with self._staged() as copy, contextlib.suppress(FileNotFoundError):
        shutil.copyfile(self.folder / name, copy)
        self._put(copy, name)
        self._sent[name] = state

    each(names, send)

  def _send_unit(self, unit: str) -> None:
    """Sends a checkpoint, its list of checksums last."""
    with self._staged() as copy:
      with contextlib.suppress(FileNotFoundError, shutil.Error):
        shutil.copytree(self.folder / unit, copy, copy_function=_link)
      listed = read_json(copy / _CHECKSUMS)
      if not isinstance(listed, dict) or not all((copy / name).exists() for name in listed):
        return  # the run has just dropped it
      names = {f'{unit}{p.relative_to(copy).as_posix()}': p for p in _files_in(copy)}
      self._remove(n for n in self._there if n.startswith(unit))  # of an attempt before
      last = [f'{unit}{_META}', f'{unit}{_CHECKSUMS}']
      each([n for n in names if n not in last], lambda name: self._put(names[name], name))
      for name in last:
        self._put(names[name], name)
      self._sent.update({n: (p.stat().st_size, p.stat().st_mtime_ns) for n, p in names.items()})

  @contextlib.contextmanager
  def _staged(self) -> Iterator[pathlib.Path]:
    """A path beside the local copy, for what is being sent."""
    path = make_folder(self._place.base / 'sending') / uuid.uuid4().hex
    try:
      yield path
    finally:
      if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
      else:
        path.unlink(missing_ok=True)

  def _put(self, path: pathlib.Path, name: str) -> None:
    if self._lease.lost:
      raise StorageError(f'another run has taken over {self._url}')
    self._there.add(name)  # whole or not
    self._store.put(path, name)

  def _remove_dropped(self) -> None:
    """Removes what the run has removed, once the checkpoints that it has kept are sent."""
    if not self._complete() or self._pending():
      return  # without any, the local copy is lost rather than dropped
    self._remove(n for n in self._there if not os.path.lexists(self.folder / n))

  def _remove(self, names: Iterable[str]) -> None:
    """Removes files; of a checkpoint those first without which it is none."""
    last = (_CHECKSUMS, _META)
    for name in sorted(names, key=lambda n: (not n.endswith(last), n)):
      if self._lease.lost:
        raise StorageError(f'another run has taken over {self._url}')
      self._store.remove([name])
      self._there.discard(name)
      self._sent.pop(name, None)

  # The local copy

  def _complete(self) -> dict[str, pathlib.Path]:
    """The complete checkpoints, as {'checkpoints/5/': its list of checksums}, the oldest first."""
    found = {}
    for pattern in ('checkpoints/*', '*/checkpoints/*'):
      for path in self.folder.glob(f'{pattern}/{_CHECKSUMS}'):
        unit = f'{path.parent.relative_to(self.folder).as_posix()}/'
        if _UNIT.fullmatch(unit):
          found[unit] = path
    return dict(sorted(found.items(), key=lambda item: _step_of(item[0])))

  def _pending(self) -> dict[str, pathlib.Path]:
    """Those that were not sent."""
    complete = self._complete().items()
    return {unit: path for unit, path in complete if not self._is_sent(f'{unit}{_CHECKSUMS}')}

  def _files(self) -> list[str]:
    if not self.folder.is_dir():
      return []
    names = (p.relative_to(self.folder).as_posix() for p in _files_in(self.folder))
    return sorted(n for n in names if not _LOCAL_ALONE.search(n))

  def _is_sent(self, name: str) -> bool:
    return self._sent.get(name) == self._record.state(name)

  def _time_of(self, name: str) -> int:
    return self._record.state(name)[1]


def _files_in(folder: pathlib.Path) -> list[pathlib.Path]:
  return [pathlib.Path(parent, n) for parent, _, names in os.walk(folder) for n in names]


def _link(source: str, target: str) -> None:
  """Another name for a file that nobody writes to any more, or a copy where there is no such."""
  try:
    os.link(source, target)
  except FileNotFoundError:
    raise
  except OSError:
    shutil.copy2(source, target)


def _unit_of(name: str) -> str | None:
  found = _UNIT.match(name)
  return found[0] if found else None


def _units(names: Iterable[str]) -> set[str]:
  return {unit for unit in map(_unit_of, names) if unit is not None}


def _step_of(unit: str) -> int:
  found = _UNIT.match(unit)
  return int(found[2]) if found else -1


def _newest(names: Iterable[str]) -> dict[str, int]:
  """The newest step of each run, '' or 'MEMBER/', among the names of files."""
  found: dict[str, int] = {}
  for name in names:
    match = _UNIT.match(name)
    if match and name.endswith(f'/{_CHECKSUMS}'):
      found[match[1]] = max(int(match[2]), found.get(match[1], -1))
  return found
