"""One run at a URL at a time, as far as a store can tell."""

import contextlib
import json
import logging
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from typing import Any

from vit_jax.console import phase
from vit_jax.errors import StorageError, UserError
from vit_jax.remote.store import Store

log = logging.getLogger(__name__)

FILE = '.run_lock'
# A run writes its lock anew every so often; where it has stood still for longer, the run is gone.
BEAT_SECONDS, GONE_SECONDS = 20.0, 90.0
POLL_SECONDS, _JOIN_SECONDS = 1.0, 20.0


class Lease:
  """A lock in a store, which its holder writes anew as long as it lives.

  A store lets go of nothing when a process dies. So whoever finds a lock watches it: one that
  changes is held; one that does not is that of a run that was killed, and is taken over. No
  machine's clock is compared with another's. A run that has lost its lock, since it could not reach
  the store for a while, sees that and writes no more.

  Args:
    store: of the run's folder.
    here: names the local copy, of which this process has the lock: whoever else had it is dead.

  Attributes:
    lost: whether another run has taken the lock.
  """

  def __init__(self, store: Store, here: str):
    self._store, self._here = store, here
    self._id, self._beats = uuid.uuid4().hex, 0
    self._done = threading.Event()
    self.lost = False

  @contextlib.contextmanager
  def held(self) -> Iterator['Lease']:
    """Takes the lock for the block.

    Raises:
      StorageError: naming the run that has it, or the store refuses.
    """
    self._take()
    thread = threading.Thread(target=self._renew, daemon=True)
    thread.start()
    try:
      yield self
    finally:
      self._done.set()
      thread.join(_JOIN_SECONDS)  # or it could write the lock anew once it is removed
      with contextlib.suppress(UserError):
        self.check()
        if not self.lost:
          self._store.remove([FILE])

  def _take(self) -> None:
    while not self._store.create(FILE, self._content()):
      found = self._store.read(FILE)
      if found is not None and (_parsed(found).get('here') == self._here or self._is_gone(found)):
        self._store.write(FILE, self._content())
        self.check()
        if self.lost:  # another has taken it over at the same time
          self._refuse(self._store.read(FILE))
        return

  def _is_gone(self, found: bytes) -> bool:
    """Whether a lock stands still for long enough; False where it was removed meanwhile."""
    what = f'waiting for a sign of life of {_holder(found)}, which has locked {self._store.url}'
    began = time.monotonic()
    with phase(what, f'{GONE_SECONDS:g} s at most', told_after=0):
      while time.monotonic() - began < GONE_SECONDS:
        time.sleep(POLL_SECONDS)
        now = self._store.read(FILE)
        if now is None:
          return False
        if now != found:
          self._refuse(now)
    log.warning('the lock of %s in %s was taken over', _holder(found), self._store.url)
    return True

  def _refuse(self, found: bytes | None) -> None:
    raise StorageError(
      f'another run works in {self._store.url} ({_holder(found)}): wait for it, stop it, or use '
      'another --workdir'
    )

  def _renew(self) -> None:
    while not self._done.wait(BEAT_SECONDS):
      with contextlib.suppress(UserError):  # tried again at the next beat
        self.check()
        if self.lost:
          return
        self._beats += 1
        if not self._done.is_set():
          self._store.write(FILE, self._content())

  def check(self) -> None:
    """Looks whether the lock is still this run's; once lost it stays so."""
    self.lost = self.lost or _parsed(self._store.read(FILE)).get('id') != self._id

  def _content(self) -> bytes:
    about = {
      'host': socket.gethostname(),
      'pid': os.getpid(),
      'at': time.strftime('%Y-%m-%d %H:%M:%S'),
      'here': self._here,
      'id': self._id,
      'beat': self._beats,
    }
    return json.dumps(about).encode()


def _parsed(content: bytes | None) -> dict[str, Any]:
  try:
    found = json.loads(content or b'')
  except ValueError:
    return {}
  return found if isinstance(found, dict) else {}


def _holder(content: bytes | None) -> str:
  found = _parsed(content)
  if 'pid' not in found or 'host' not in found:
    return 'a run that has not said which'
  return f'process {found["pid"]} on {found["host"]}, seen at {found.get("at", "?")} there'
