"""Sockets that nobody can keep open: whole requests have a time, and there are so many at once."""

import contextlib
import http.server
import io
import ipaddress
import logging
import os
import socket
import socketserver
import sys
import threading
import time
from typing import Any

from vit_jax.errors import ConfigError, one_line

log = logging.getLogger(__name__)

REQUEST_SECONDS = 60.0  # for all of a request to come
ANSWER_SECONDS = 60.0  # for an answer to be taken
_MOST_OPEN = 128  # connections; others wait in the system's queue
_DRAIN_SECONDS, _DRAIN_BYTES = 5.0, 1 << 28


class Incoming(io.RawIOBase):
  """What a socket receives until a moment, however slowly it comes.

  Args:
    connection: the socket.
    seconds: from now on, after which reading raises a TimeoutError.
  """

  def __init__(self, connection: socket.socket, seconds: float):
    self._connection = connection
    self._end = time.monotonic() + seconds

  def readable(self) -> bool:
    return True

  def readinto(self, buffer: Any) -> int:
    left = self._end - time.monotonic()
    if left <= 0:
      raise TimeoutError('the request did not come in time')
    self._connection.settimeout(left)
    return self._connection.recv_into(buffer)


def drain(connection: socket.socket) -> None:
  """Takes what a client still sends, so that it reads the answer that was sent meanwhile."""
  incoming = Incoming(connection, _DRAIN_SECONDS)
  buffer, count = bytearray(1 << 16), 0
  with contextlib.suppress(OSError):
    connection.shutdown(socket.SHUT_WR)
    while count < _DRAIN_BYTES and (more := incoming.readinto(buffer)):
      count += more


class Listener(http.server.ThreadingHTTPServer):
  """A server that holds its port from the start, listens later, and ends with no request open.

  Args:
    host: name or address.
    port: 0 for a free one.
    handler: of requests, one a connection.

  Attributes:
    idle: connections of which no request has come, as browsers open some ahead.

  Raises:
    ConfigError: the address is unknown or taken.
  """

  daemon_threads = True  # `stop` waits for them, for a while
  request_queue_size = 128
  allow_reuse_address = os.name == 'posix'  # elsewhere it would take a port that is in use

  def __init__(self, host: str, port: int, handler: type[http.server.BaseHTTPRequestHandler]):
    self._host = host
    try:
      found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError) as e:
      raise ConfigError(f'--host={host}: {getattr(e, "strerror", None) or e}') from None
    self.address_family = found[0][0]
    super().__init__(found[0][4][:2], handler, bind_and_activate=False)  # type: ignore[arg-type]
    self.idle: set[socket.socket] = set()
    self._slots = threading.Semaphore(_MOST_OPEN)
    self._thread = threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True)
    with self._naming_the_port():
      self.server_bind()

  def server_bind(self) -> None:
    """As of any TCP server: HTTPServer's asks the network for this machine's name."""
    socketserver.TCPServer.server_bind(self)
    self.server_name, self.server_port = self._host, self.server_address[1]

  @contextlib.contextmanager
  def _naming_the_port(self):
    try:
      yield
    except (OSError, OverflowError) as e:
      self.server_close()
      reason = getattr(e, 'strerror', None) or e
      free = '; --port=0 takes a free one'
      where = f'--host={self._host} --port={self.server_address[1]}'
      raise ConfigError(f'cannot listen at {where}: {reason}{free}') from None

  @property
  def is_open(self) -> bool:
    """Whether other machines can reach it."""
    return not ipaddress.ip_address(str(self.server_address[0]).partition('%')[0]).is_loopback

  @property
  def url(self) -> str:
    """Where a browser of this machine finds it."""
    address = ipaddress.ip_address(str(self.server_address[0]).partition('%')[0])
    host = socket.gethostname() if address.is_unspecified else self._host
    return f'http://{f"[{host}]" if ":" in host else host}:{self.server_port}/'

  def start(self) -> None:
    """Accepts requests from now on.

    Raises:
      ConfigError: another process has come first.
    """
    with self._naming_the_port():
      self.server_activate()
    self._thread.start()

  def stop(self) -> None:
    """Accepts no more, waits for the requests that are open, and frees the port."""
    if self._thread.is_alive():
      self.shutdown()
      self._thread.join()
    end = time.monotonic() + REQUEST_SECONDS + ANSWER_SECONDS
    free = 0
    while free < _MOST_OPEN and time.monotonic() < end:
      if self._slots.acquire(timeout=0.1):
        free += 1
        continue
      for connection in list(self.idle):
        with contextlib.suppress(OSError):
          connection.shutdown(socket.SHUT_RD)
    self.server_close()

  def process_request(self, request: Any, client_address: Any) -> None:
    self._slots.acquire()
    try:
      super().process_request(request, client_address)
    except BaseException:  # no thread could be started
      self._slots.release()
      raise

  def process_request_thread(self, request: Any, client_address: Any) -> None:
    try:
      super().process_request_thread(request, client_address)
    finally:
      self._slots.release()

  def handle_error(self, request: Any, client_address: Any) -> None:
    """Says what failed in one line; clients that leave are no failure."""
    error = sys.exception()
    if not isinstance(error, OSError):
      log.warning('a request failed: %s: %s', type(error).__name__, one_line(error))
