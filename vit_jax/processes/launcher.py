"""Several processes of one command on this machine."""

import collections
import contextlib
import dataclasses
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from types import FrameType

from vit_jax import console, machine, runtime
from vit_jax.errors import ConfigError
from vit_jax.processes.cluster import LAUNCHED, Place

_TURN_SECONDS = 0.1
_GRACE_SECONDS = 10.0  # for the others to end by themselves, after one has
_KEPT_LINES = 40
_SIGNALS = ('SIGTERM', 'SIGINT', 'SIGHUP', 'SIGUSR1')
_DEVICE_COUNT = re.compile(r'--xla_force_host_platform_device_count=(\d+)')


@dataclasses.dataclass
class _Child:
  """A started process.

  Attributes:
    index: its number.
    process: itself.
    lines: the last that it wrote to standard error; of process 0 none, whose lines are shown.
    ended: when.
    killed: by this launcher.
  """

  index: int
  process: subprocess.Popen
  lines: collections.deque[str]
  ended: float | None = None
  killed: bool = False

  @property
  def status(self) -> int:
    return self.process.returncode


def launch(command: str, argv: Sequence[str] | None, count: int) -> int:
  """Runs a command in several processes on this machine; ends all when one fails.

  Of process 0 all is shown, of the others their errors. Each has its share of the cores and of the
  simulated devices, or a GPU of its own.

  Args:
    command: as in `python -m vit_jax.NAME`.
    argv: the arguments of the command; None for those of this process.
    count: of processes.

  Returns:
    The exit status: of the first process that failed, else 0; 128 and the signal's number where a
    signal ended all.

  Raises:
    ConfigError: there are not so many devices.
  """
  shares, words = _shares(count), _words(command, argv)
  read, write = os.pipe()  # which the children see closed when this process ends
  received: list[int] = []
  children: list[_Child] = []

  def pass_on(number: int, _: FrameType | None) -> None:
    received.append(number)
    for child in children:
      with contextlib.suppress(OSError):
        child.process.send_signal(number)

  coordinator = f'127.0.0.1:{_free_port()}'
  before = {n: signal.signal(n, pass_on) for n in _numbers()}
  try:
    for index in range(count):
      seconds = machine.process_seconds()
      place = Place(coordinator, index, count, '--processes', None, tuple(words), read, seconds)
      children.append(_start(place, shares[index]))
    _wait(children)
  finally:
    for child in children:
      if child.process.poll() is None:
        child.process.kill()
    for number, handler in before.items():
      signal.signal(number, handler)
    os.close(read)
    os.close(write)
  return _outcome(children, received)


def _numbers() -> list[int]:
  return [getattr(signal, name) for name in _SIGNALS if hasattr(signal, name)]


def _words(command: str, argv: Sequence[str] | None) -> list[str]:
  """The words of this command, as they were typed where it was."""
  given = list(sys.argv[1:] if argv is None else argv)
  words = list(sys.orig_argv)
  if words[len(words) - len(given) :] != given:  # called by another program
    words = ['python', '-m', f'vit_jax.{command}', *given]
  return words


def _start(place: Place, environment: dict[str, str]) -> _Child:
  values = {**os.environ, **environment, LAUNCHED: json.dumps(dataclasses.asdict(place))}
  first = place.index == 0
  with _on_cores(place.index, place.count):
    process = subprocess.Popen(
      [sys.executable, *place.words[1:]],
      env=values,
      stdin=None if first else subprocess.DEVNULL,
      stdout=None if first else subprocess.DEVNULL,
      stderr=None if first else subprocess.PIPE,
      pass_fds=(place.lifeline,),
      start_new_session=True,  # a Ctrl-C reaches them through this process alone
    )
  child = _Child(place.index, process, collections.deque(maxlen=_KEPT_LINES))
  if not first:
    threading.Thread(target=_keep_lines, args=(child,), daemon=True).start()
  return child


@contextlib.contextmanager
def _on_cores(index: int, count: int) -> Iterator[None]:
  """Has what is started in the block use its share of the cores, where the system has a word."""
  if not hasattr(os, 'sched_setaffinity'):
    yield
    return
  cores = sorted(os.sched_getaffinity(0))
  share = set(cores[index * len(cores) // count : (index + 1) * len(cores) // count])
  os.sched_setaffinity(0, share or {cores[index % len(cores)]})
  try:
    yield
  finally:
    os.sched_setaffinity(0, cores)


def _keep_lines(child: _Child) -> None:
  """Reads what a process writes to standard error, and shows what is meant for people."""
  assert child.process.stderr is not None
  for data in child.process.stderr:
    line = data.decode('utf-8', 'replace').rstrip()
    if line.startswith(f'process {child.index}: '):
      console.show(line, error=True)
    else:
      child.lines.append(line)


def _wait(children: Sequence[_Child]) -> None:
  """Returns when all have ended; some time after one that failed the rest are killed."""
  failed = float('inf')
  while any(child.ended is None for child in children):
    now = time.monotonic()
    for child in children:
      if child.ended is None and child.process.poll() is not None:
        child.ended = now
        failed = min(failed, now if child.status else failed)
      elif child.ended is None and now - failed > _GRACE_SECONDS and not child.killed:
        child.killed = True
        child.process.kill()
    time.sleep(_TURN_SECONDS)


def _outcome(children: Sequence[_Child], received: Sequence[int]) -> int:
  """The exit status, and what nobody else has said of it."""
  failed = [child for child in children if child.status and not child.killed]
  if not failed:
    return 0
  # Who was killed is the cause: the others, which hear of it at once, may end as soon, some in an
  # abort of JAX's runtime that lost its peer.
  first = min(failed, key=lambda c: (c.status > 0, c.status == -signal.SIGABRT, c.ended or 0.0))
  if received and any(c.status in (-received[0], 128 + received[0]) for c in failed):
    if children[0].status < 128:  # it could not say so, or was ended by the end of another
      console.show('interrupted: the same command resumes', error=True)
    return 128 + received[0]
  if first.status > 0:
    if first.index and any('Traceback' in line for line in first.lines):
      console.show('\n'.join(f'process {first.index}: {line}' for line in first.lines), error=True)
    return first.status
  name = signal.Signals(-first.status).name
  asked = name in _SIGNALS  # of a process that had not started to work, or for the second time
  console.show(
    f'{"interrupted" if asked else "error"}: process {first.index} of {len(children)} (pid '
    f'{first.process.pid}) was ended by {name}, and the others with it; the same command '
    'resumes from the last checkpoint, where it trains',
    error=True,
  )
  return 128 - first.status if asked else 1


def _free_port() -> int:
  with socket.socket() as free:
    free.bind(('127.0.0.1', 0))
    return free.getsockname()[1]


def _shares(count: int) -> list[dict[str, str]]:
  """Variables of the environment of each process: its devices."""
  if runtime.has_accelerator():
    gpus = machine.gpus()
    if len(gpus) < count:
      raise ConfigError(
        f'--processes={count} needs {count} GPUs, one for each process, and there are {len(gpus)}: '
        'JAX_PLATFORMS=cpu runs on the processor; one process drives all TPU chips of a machine'
      )
    return [{'CUDA_VISIBLE_DEVICES': gpu} for gpu in gpus[:count]]
  shares: dict[str, str] = {}
  flags = os.environ.get('XLA_FLAGS', '')
  if found := _DEVICE_COUNT.search(flags):
    share = f'--xla_force_host_platform_device_count={_share(int(found[1]), count)}'
    shares['XLA_FLAGS'] = _DEVICE_COUNT.sub(share, flags)
  if (given := os.environ.get('JAX_NUM_CPU_DEVICES', '')).isdecimal():
    shares['JAX_NUM_CPU_DEVICES'] = str(_share(int(given), count))
  return [shares] * count


def _share(devices: int, count: int) -> int:
  if devices % count and devices != 1:
    raise ConfigError(f'--processes={count} cannot share {devices} simulated devices equally')
  return max(1, devices // count)
