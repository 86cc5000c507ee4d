"""The process that all processes of a job are connected to: it hears first when one of them ends.

Process 0 starts it (`python -m vit_jax.processes.hub`) and it outlives process 0 for some seconds:
where JAX's coordination service ends with process 0, the others end in a C++ stack trace before
they can say why. Beside that service it has one connection to each process, over which all say
once a second that they are there and how far they are, and hear of the first that ended.

Never imports jax, whose import takes longer than all the rest.
"""

import contextlib
import dataclasses
import json
import selectors
import signal
import socket
import sys
import time
from typing import Any

BEAT_SECONDS = 1.0
_LINGER_SECONDS = 20.0  # after process 0
_COMING_SECONDS = 120.0  # between the first connection and the last: JAX has connected all before
_LOST_TIME_SECONDS = 5.0  # between two turns of the loop: the machine was asleep, or this process


@dataclasses.dataclass
class _Peer:
  """A connected process.

  Attributes:
    link: its socket.
    index: its number; -1 before it has said it.
    who: 'pid 12 on HOST'.
    heard: when it last said anything.
    ticks: how far it is, see `member.Member.tick`.
    busy: it does what the others need not do, or not at the same time: it is not waited for.
    behind: since when others are further, None where none is.
    left: it has said why it ends.
    unread: the beginning of a line.
  """

  link: socket.socket
  index: int = -1
  who: str = ''
  heard: float = 0.0
  ticks: int = 0
  busy: bool = False
  behind: float | None = None
  left: bool = False
  unread: bytes = b''

  def send(self, message: dict[str, Any]) -> None:
    with contextlib.suppress(OSError):
      self.link.sendall(json.dumps(message).encode() + b'\n')


class Hub:
  """Watches the processes of a job, and tells all others of the first that ends.

  Args:
    listener: a bound socket.
    count: how many processes there are.
    timeout: seconds after which one that is silent, or stands still, counts as ended.
    token: that a connection has to know.
    launched: another process sees how each ends, and says it.
  """

  def __init__(
    self, listener: socket.socket, count: int, timeout: float, token: str, launched: bool
  ):
    self._listener, self._count, self._timeout = listener, count, timeout
    self._token, self._launched = token, launched
    self._selector = selectors.DefaultSelector()
    self._peers: list[_Peer] = []
    self._seen: set[int] = set()
    self._cause: dict[str, Any] | None = None
    self._turned = self._beaten = time.monotonic()
    self._complete_by = float('inf')

  def serve(self, lifeline: int) -> None:
    """Returns some seconds after the end of process 0, or then when all have come and gone.

    Args:
      lifeline: a file that ends with process 0.
    """
    with self._selector:
      self._serve(lifeline)
    for peer in self._peers:
      peer.link.close()

  def _serve(self, lifeline: int) -> None:
    until = float('inf')
    self._selector.register(self._listener, selectors.EVENT_READ)
    self._selector.register(lifeline, selectors.EVENT_READ)
    while time.monotonic() < until:
      for key, _ in self._selector.select(BEAT_SECONDS / 2):
        if key.fileobj is self._listener:
          self._accept()
        elif key.fileobj == lifeline:
          self._selector.unregister(lifeline)
          until = time.monotonic() + _LINGER_SECONDS
        else:
          self._read(key.data)
      self._look()
      # Who comes after the end of process 0 has to hear of it too.
      if until < float('inf') and not self._peers and len(self._seen) == self._count:
        return

  def _accept(self) -> None:
    with contextlib.suppress(OSError):
      link, _ = self._listener.accept()
      link.settimeout(BEAT_SECONDS)
      peer = _Peer(link, heard=time.monotonic())
      self._peers.append(peer)
      self._selector.register(link, selectors.EVENT_READ, peer)

  def _read(self, peer: _Peer) -> None:
    try:
      data = peer.link.recv(1 << 16)
    except OSError:
      data = b''
    if not data:
      self._lose(peer)
      return
    peer.heard = time.monotonic()
    *lines, peer.unread = (peer.unread + data).split(b'\n')
    for line in lines:
      try:
        self._take(peer, json.loads(line))
      except (ValueError, TypeError, KeyError, AttributeError):
        self._lose(peer)  # whoever it is, it is none of ours
        return

  def _take(self, peer: _Peer, message: dict[str, Any]) -> None:
    if peer.index < 0:
      if message['token'] != self._token:
        raise ValueError('token')
      peer.index, peer.who = int(message['index']), str(message['who'])
      self._seen.add(peer.index)
      self._complete_by = min(self._complete_by, peer.heard + _COMING_SECONDS)
      if self._cause is not None:
        peer.send(self._cause)
    elif 'ticks' in message:
      if peer.ticks != message['ticks']:
        peer.behind = None
      peer.ticks, peer.busy = int(message['ticks']), bool(message['busy'])
    elif 'ended' in message:
      peer.left = True
      self._tell(peer, message['ended'], int(message['status']), died=False)
    elif 'bye' in message:
      peer.left = True

  def _lose(self, peer: _Peer) -> None:
    self._peers.remove(peer)
    self._selector.unregister(peer.link)
    peer.link.close()
    if peer.index >= 0 and not peer.left:
      self._tell(peer, 'has ended without a word: it was killed, or has crashed', 1, died=True)

  def _look(self) -> None:
    """Finds who is silent and who stands still; beats."""
    now = time.monotonic()
    if now - self._turned > _LOST_TIME_SECONDS:  # what the others said meanwhile is not read yet
      for peer in self._peers:
        peer.heard, peer.behind = now, None
    self._turned = now
    if now - self._beaten >= BEAT_SECONDS:
      self._beaten = now
      for peer in self._peers:
        peer.send({'beat': 1})
    joined = [p for p in self._peers if p.index >= 0 and not p.left]
    for peer in joined:
      if now - peer.heard > self._timeout:
        self._tell(peer, f'has not been heard of for {self._timeout:.0f} s', 1, died=False)
      if peer.busy or peer.ticks >= max(p.ticks for p in joined):
        peer.behind = None
      elif peer.behind is None:
        peer.behind = now
      elif now - peer.behind > self._timeout:
        why = f'has stood still for {self._timeout:.0f} s, while the others wait for it'
        self._tell(peer, why, 1, died=False)
    missing = set(range(self._count)) - self._seen
    if missing and now > self._complete_by:
      self._tell(_Peer(self._listener, min(missing)), 'has not come', 1, died=False)

  def _tell(self, peer: _Peer, text: str, status: int, died: bool) -> None:
    """Tells all of the first end; of those after it nothing is told."""
    if self._cause is not None:
      return
    there = {p.index for p in self._peers if p is not peer or p.left}
    there |= set(range(self._count)) - self._seen - {peer.index}  # who comes later hears it then
    self._cause = {
      'index': peer.index,
      'who': peer.who,
      'text': text,
      'status': status,
      'own': peer.left,
      'speaker': -1 if died and self._launched else min(there - {-1}, default=-1),
    }
    for other in self._peers:
      other.send(self._cause)


def _main() -> None:
  for name in ('SIGINT', 'SIGTERM', 'SIGHUP', 'SIGUSR1'):  # which are for the others
    if hasattr(signal, name):
      signal.signal(getattr(signal, name), signal.SIG_IGN)
  with open(sys.stdin.fileno(), 'rb', buffering=0, closefd=False) as file:
    given = json.loads(file.readline())  # what comes then is the end of process 0
  loopback = given['host'] in ('127.0.0.1', 'localhost')
  try:
    socket.create_server(('127.0.0.1' if loopback else '', given['coordinator_port'])).close()
    service = _coordination_service(given, '127.0.0.1' if loopback else '[::]')
    listener = _listener('127.0.0.1' if loopback else '')
  except Exception as e:  # an OSError of a port that is taken, or what the C++ side raises
    sys.stdout.write(json.dumps({'error': ' '.join(str(e).split())}) + '\n')
    return
  sys.stdout.write(json.dumps({'port': listener.getsockname()[1]}) + '\n')
  sys.stdout.flush()
  hub = Hub(listener, given['count'], given['timeout'], given['token'], given['launched'])
  hub.serve(sys.stdin.fileno())
  service.shutdown()


def _listener(host: str) -> socket.socket:
  """A socket at a free port, of both kinds of addresses where there are two."""
  if not host and socket.has_dualstack_ipv6():
    with contextlib.suppress(OSError):
      family = socket.AF_INET6
      return socket.create_server((host, 0), family=family, backlog=512, dualstack_ipv6=True)
  return socket.create_server((host, 0), backlog=512)


def _coordination_service(given: dict[str, Any], host: str) -> Any:
  from jaxlib import _jax

  return _jax.get_distributed_runtime_service(
    f'{host}:{given["coordinator_port"]}',
    given['count'],
    heartbeat_timeout=given['heartbeat_timeout'],
    shutdown_timeout=given['shutdown_timeout'],
  )


if __name__ == '__main__':
  _main()
