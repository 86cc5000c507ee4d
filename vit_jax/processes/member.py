"""This process among the others of its job: joining them, hearing of their end, and leaving."""

import contextlib
import itertools
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any, TypeVar

from vit_jax import console, errors, machine
from vit_jax.errors import ConfigError, InterruptedRunError, LostProcessError, UserError, one_line
from vit_jax.processes.cluster import Place
from vit_jax.processes.hub import BEAT_SECONDS

T = TypeVar('T')

_CONNECT_SECONDS = 300  # for all processes of a job to start
_GRACE_SECONDS = 5.0  # in which a process ends by itself once it has heard of the end of another
_NEWS_SECONDS = 0.3  # until the death of a process is known everywhere on this machine
_PRINTING_SECONDS = 2.0
_TURN_MS = 1000

_MEMBER: 'Member | None' = None
_TURNS = itertools.count()  # of what all processes ask each other, in the same order


class Member:
  """The connection of this process to the hub, and the thread that listens to it.

  Args:
    place: of this process.
    hub: its socket's address.
    token: that it asks for.
    timeout: seconds without a word of the hub after which it counts as gone.
    started: process 0's own hub; None elsewhere.
  """

  def __init__(
    self,
    place: Place,
    hub: tuple[str, int],
    token: str,
    timeout: float,
    started: subprocess.Popen | None,
  ):
    self.place, self._timeout, self._started = place, timeout, started
    self.ticks = 0
    self.busy, self.finished = 0, False
    self.cause: dict[str, Any] | None = None
    self._knows, self._leaving = threading.Event(), threading.Event()
    self._link = socket.create_connection(hub, timeout=_CONNECT_SECONDS)
    self._link.settimeout(BEAT_SECONDS / 2)
    who = f'pid {os.getpid()} on {socket.gethostname()}'
    self._sending = threading.Lock()
    self.send({'token': token, 'index': place.index, 'who': who})
    threading.Thread(target=self._listen, daemon=True).start()

  def send(self, message: dict[str, Any]) -> None:
    with self._sending, contextlib.suppress(OSError):
      self._link.sendall(json.dumps(message).encode() + b'\n')

  def _listen(self) -> None:
    unread, heard, turned = b'', time.monotonic(), time.monotonic()
    while not self._leaving.is_set() or not self._knows.is_set():
      self.send({'ticks': self.ticks, 'busy': bool(self.busy)})
      with contextlib.suppress(TimeoutError):
        try:
          data = self._link.recv(1 << 16)
        except TimeoutError:
          raise
        except OSError:
          data = b''
        if not data:
          if self._leaving.is_set():
            return
          self._hear(_gone('has ended, or cannot be reached any more'))
          return
        heard = time.monotonic()
        *lines, unread = (unread + data).split(b'\n')
        for found in map(json.loads, lines):
          if 'index' in found:
            self._hear(found)
      now = time.monotonic()
      if now - turned > self._timeout / 4:  # this machine was asleep, or this process
        heard = now
      turned = now
      if now - heard > self._timeout + 2 * BEAT_SECONDS:  # the hub would have said what it knows
        self._hear(_gone(f'has not been heard of for {self._timeout:.0f} s'))
        return

  def _hear(self, cause: dict[str, Any]) -> None:
    """Ends this process as another one has ended, unless it ends by itself."""
    self.cause = self.cause or cause
    self._knows.set()
    if self._leaving.is_set() and cause['own'] and cause['index'] == self.place.index:
      return
    if cause['own'] and self._leaving.wait(_GRACE_SECONDS):
      return
    if cause['speaker'] == self.place.index:
      _say_within(_PRINTING_SECONDS, str(self.loss()), cause['status'])
    os._exit(cause['status'])

  def loss(self) -> UserError:
    """What is said of the first process that ended."""
    assert self.cause is not None
    who, text = f'process {self.cause["index"]} ({self.cause["who"]})', self.cause['text']
    if self.cause['status'] > 128:
      return InterruptedRunError(f'{who}: {text}', self.cause['status'] - 128)
    if self.cause['own']:
      return LostProcessError(f'{who}: {text}')
    return LostProcessError(
      f'{who} {text}. The others end too; the same command resumes from the last checkpoint, '
      'where it trains'
    )

  def fail(self, error: UserError) -> UserError:
    """Says why this process ends; the error to print, which may be that of another process."""
    time.sleep(_NEWS_SECONDS)
    text = one_line(' | '.join(error.problems))
    self.send({'ended': text, 'status': error.status})
    self._knows.wait(_PRINTING_SECONDS)
    cause = self.cause
    if cause is None or cause['text'] == text or cause['index'] == self.place.index:
      self._leaving.set()
      return error
    if not cause['own']:  # it ended first, and this error may have come of it
      time.sleep(2 * _PRINTING_SECONDS)  # `_hear` ends this process
    self._leaving.set()
    return self.loss()

  def crash(self, error: BaseException) -> None:
    """What was raised may have come of another process's end: if so, this one ends here."""
    until = time.monotonic() + (self._timeout + 5 if _of_xla(error) else _NEWS_SECONDS)
    while time.monotonic() < until and not self._knows.is_set():
      time.sleep(_NEWS_SECONDS)
    if self.cause is not None:
      time.sleep(_GRACE_SECONDS + _PRINTING_SECONDS)  # `_hear` ends this process
      os._exit(1)
    said = f'{type(error).__name__}: {" ".join(str(error).split())[:200]}'
    self.send({'ended': said, 'status': 1})
    self._leaving.set()

  def interrupt(self, number: int) -> None:
    """Ends all for a signal that nothing else has dealt with."""
    self.send({'ended': 'interrupted', 'status': 128 + number})
    time.sleep(_NEWS_SECONDS)
    if not self.place.index:
      _say_within(_PRINTING_SECONDS, 'interrupted', 128 + number)
    os._exit(128 + number)

  def finish(self) -> None:
    """Waits for the others at the end of all work, and leaves."""
    import jax

    agreed(lambda: None)  # process 0 may be writing what the others are done with
    jax.distributed.shutdown()
    self.finished = True
    self._leaving.set()
    self._knows.set()
    self.send({'bye': True})
    with contextlib.suppress(OSError):
      self._link.close()
    if self._started is not None and self._started.stdin is not None:
      self._started.stdin.close()


def _gone(text: str) -> dict[str, Any]:
  """The end of process 0's machine, of which no hub tells."""
  cause = {'index': 0, 'who': 'and what watches over all', 'text': text, 'status': 1}
  return {**cause, 'own': False, 'speaker': index()}


def _of_xla(error: BaseException) -> bool:
  """Whether an error, or what it was made of, was raised by a computation, a collective one say."""
  found: BaseException | None = error
  while found is not None:
    if type(found).__name__ in ('JaxRuntimeError', 'XlaRuntimeError'):
      return True
    found = found.__cause__ or found.__context__
  return False


def _say_within(seconds: float, text: str, status: int) -> None:
  """Prints an error and ends this process, even where nobody reads what it prints."""
  end = threading.Timer(seconds, os._exit, (status,))
  end.daemon = True
  end.start()
  console.show_at_once(text if status > 128 else f'error: {text}')
  os._exit(status)


def join(place: Place, timeout: float) -> None:
  """Makes this process one of several, before JAX starts its devices.

  Args:
    place: of this process.
    timeout: seconds after which a process that is silent or stands still ends the others.

  Raises:
    LostProcessError: the others could not be reached.
    ConfigError: process 0 was told of another number of processes.
  """
  global _MEMBER
  if place.index:
    console.stay_silent(f'process {place.index}: ')
  console.keep_to_ourselves()
  if place.lifeline >= 0:
    threading.Thread(target=_end_with_launcher, args=(place.lifeline,), daemon=True).start()
  token, port = secrets.token_hex(16), 0
  started = None if place.index else _start_hub(place, timeout, token)  # beside the next import
  import jax
  from jax._src import distributed, xla_bridge
  from jax._src.lib import _jax

  if xla_bridge.backends_are_initialized():
    raise LostProcessError('JAX has started its devices before the processes were connected')
  jax.config.update('jax_enable_preemption_service', False)  # signals are ours
  jax.config.update('jax_check_proxy_envs', False)  # its warning is of many lines
  make_service = _jax.get_distributed_runtime_service
  if started is not None:
    port = _port_of(started, place)
    _jax.get_distributed_runtime_service = lambda *_, **__: _InHub()
  missed = (
    f'process {place.index} of {place.count} could not join the others at {place.coordinator} '
    f'({place.source})'
  )
  # JAX's own end of the wait is that of the process, in a stack trace.
  late = f'{missed} within {_CONNECT_SECONDS} s: some of them did not start, or cannot be reached'
  late += '' if place.launched else '; --processes=1 runs alone'
  deadline = threading.Timer(_CONNECT_SECONDS, _say_within, (_PRINTING_SECONDS, late, 1))
  deadline.daemon = True
  deadline.start()
  try:
    jax.distributed.initialize(
      place.coordinator,
      place.count,
      place.index,
      local_device_ids=place.devices,
      cluster_detection_method='deactivate',
      initialization_timeout=_CONNECT_SECONDS + 60,
      heartbeat_timeout_seconds=_later_than(timeout),
      shutdown_timeout_seconds=_later_than(timeout),
    )
  except (RuntimeError, ValueError) as e:
    raise LostProcessError(f'{missed}: {" ".join(str(e).split())[:200]}') from e
  finally:
    deadline.cancel()
    _jax.get_distributed_runtime_service = make_service
  client: Any = distributed.global_state.client
  count = place.count
  if not place.index:
    client.key_value_set('vit_jax/hub', json.dumps([port, token, count]))
  else:
    told = client.blocking_key_value_get('vit_jax/hub', _CONNECT_SECONDS * 1000)
    port, token, count = json.loads(told)
  host = place.coordinator.rpartition(':')[0].strip('[]')
  _MEMBER = Member(place, (host, port), token, timeout, started)
  if count != place.count:
    raise ConfigError(
      f'process {place.index} was started with --process_count={place.count} and process 0 with '
      f'{count}: all processes need the same number'
    )
  if threading.current_thread() is threading.main_thread():
    for name in ('SIGTERM', 'SIGHUP', 'SIGUSR1'):
      number = getattr(signal, name, None)
      if number is not None and signal.getsignal(number) == signal.SIG_DFL:
        signal.signal(number, _interrupted)


def _interrupted(number: int, frame: FrameType | None) -> None:
  # In a thread: what the signal has interrupted may hold the lock of the connection.
  if _MEMBER:
    threading.Thread(target=_MEMBER.interrupt, args=(number,), daemon=True).start()


class _InHub:
  """JAX's coordination service, which is in the hub's process."""

  def shutdown(self) -> None:
    """It ends with the hub."""


def _later_than(timeout: float) -> int:
  """Seconds after which JAX, which ends a process with a stack trace, does what the hub does."""
  return int(2 * timeout) + 60


def _start_hub(place: Place, timeout: float, token: str) -> subprocess.Popen:
  host, _, port = place.coordinator.rpartition(':')
  process = subprocess.Popen(
    [sys.executable, '-m', 'vit_jax.processes.hub'],
    stdin=subprocess.PIPE,
    stdout=subprocess.PIPE,
    stderr=subprocess.DEVNULL,
    start_new_session=True,
  )
  assert process.stdin is not None
  given = {
    'host': host,
    'coordinator_port': int(port),
    'count': place.count,
    'timeout': timeout,
    'token': token,
    'launched': place.launched,
    'heartbeat_timeout': _later_than(timeout),
    'shutdown_timeout': _later_than(timeout),
  }
  process.stdin.write(json.dumps(given).encode() + b'\n')
  process.stdin.flush()
  return process


def _port_of(process: subprocess.Popen, place: Place) -> int:
  assert process.stdout is not None
  found = json.loads(process.stdout.readline() or '{"error": "its process ended"}')
  if 'error' in found:
    raise LostProcessError(f'nothing can listen at {place.coordinator}: {found["error"][:200]}')
  return found['port']


def _end_with_launcher(lifeline: int) -> None:
  """Ends this process when its launcher does, even where that is killed."""
  with contextlib.suppress(OSError):
    os.read(lifeline, 1)
  os._exit(1)


def _job() -> Any:
  """JAX's own state of several processes, whoever has connected them; None of one alone."""
  if 'jax' not in sys.modules:
    return None
  from jax._src import distributed

  state = distributed.global_state
  return None if state.client is None else state


def index() -> int:
  """The number of this process; 0 where it is alone."""
  if _MEMBER:
    return _MEMBER.place.index  # also after the others have left
  job = _job()
  return job.process_id if job else 0


def count() -> int:
  """How many processes there are."""
  if _MEMBER:
    return _MEMBER.place.count
  job = _job()
  return job.num_processes if job else 1


def tick() -> None:
  """Counts what all processes do in the same order: who is behind for long stands still."""
  if _MEMBER:
    _MEMBER.ticks += 1


@contextlib.contextmanager
def busy() -> Iterator[None]:
  """Around what takes one process longer than others, and is no standstill: compiling, say."""
  if _MEMBER:
    _MEMBER.busy += 1
  try:
    yield
  finally:
    if _MEMBER:
      _MEMBER.busy -= 1


def command_seconds() -> float:
  """Wall time since the command was started, by its launcher where there is one."""
  before = _MEMBER.place.seconds if _MEMBER is not None else 0.0
  return before + machine.process_seconds()


def agreed(function: Callable[[], T]) -> T:
  """What process 0 finds, in every process; all have to call it, in the same order.

  Args:
    function: called in process 0 alone; of its result JSON has to have the type.

  Raises:
    UserError: that `function` raised in process 0, in every process.
  """
  job = _job()
  if job is None:
    return function()
  client, key = job.client, f'vit_jax/agreed/{next(_TURNS)}'
  if index():
    found = json.loads(_get(client, key))
    if 'error' in found:
      raise errors.of_json(found['error'])
    return found['result']
  try:
    result = function()
  except UserError as e:
    client.key_value_set(key, json.dumps({'error': errors.to_json(e)}))
    raise
  client.key_value_set(key, json.dumps({'result': result}))
  return result


def chosen(find: Callable[[], T], key: Callable[[T], Any], read: Callable[[Any], T]) -> T:
  """What process 0 finds, and the others read; all have to call it, in the same order.

  Args:
    find: called in process 0 alone.
    key: what of it the others need to read the same, of JSON's types.
    read: called with that, in the others.

  Raises:
    UserError: that `find` raised in process 0, in every process.
  """
  mine: list[T] = []

  def find_key() -> Any:
    mine.append(find())
    return key(mine[0])

  name = agreed(find_key)
  return mine[0] if mine else read(name)


def _get(client: Any, key: str) -> str:
  """Waits for a value; a signal is handled meanwhile, and the end of process 0 ends this one."""
  while True:
    try:
      return client.blocking_key_value_get(key, _TURN_MS)
    except RuntimeError as e:  # JAX's own kind of it
      if 'DEADLINE_EXCEEDED' not in str(e):
        raise


def collected(value: T) -> list[T]:
  """The values of all processes, by their number; all have to call it, in the same order.

  Args:
    value: small, of JSON's types.
  """
  job = _job()
  if job is None:
    return [value]
  client, key = job.client, f'vit_jax/collected/{next(_TURNS)}'
  client.key_value_set(f'{key}/{index()}', json.dumps(value))
  return [json.loads(_get(client, f'{key}/{i}')) for i in range(count())]


@contextlib.contextmanager
def ending() -> Iterator[None]:
  """Around a command: tells the others how this process ends, and waits for them.

  Raises:
    UserError: of the block, or of the process that ended first.
  """
  try:
    yield
  except UserError as e:
    if _MEMBER is None:
      raise
    error = _MEMBER.fail(e)
    if error is e:
      raise
    raise error from e
  except (KeyboardInterrupt, BrokenPipeError) as e:
    if _MEMBER:
      text = 'standard output was closed' if isinstance(e, BrokenPipeError) else 'interrupted'
      _MEMBER.fail(InterruptedRunError(text, 2))
    raise
  except BaseException as e:
    if _MEMBER:
      _MEMBER.crash(e)
      sys.excepthook(type(e), e, e.__traceback__)
      leave(1)
    raise
  else:
    if _MEMBER:
      _MEMBER.finish()


def leave(status: int) -> None:
  """Ends this process where it must not wait for the others, as JAX's own end of it would."""
  if _MEMBER and not _MEMBER.finished:
    console.exit_now(status)
