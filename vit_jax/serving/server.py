"""Requests and their answers."""

import http
import http.server
import io
import json
import logging
import urllib.parse
from collections.abc import Mapping, Sequence
from typing import Any

from vit_jax.errors import UserError, did_you_mean, one_line
from vit_jax.inference.answers import to_json
from vit_jax.options import Rule, checked, from_text
from vit_jax.serving import page
from vit_jax.serving.batching import Service
from vit_jax.serving.bodies import images_of
from vit_jax.serving.connections import ANSWER_SECONDS, REQUEST_SECONDS, Incoming, Listener, drain

log = logging.getLogger(__name__)

TOP_K = Rule(low=1, high=1 << 20)
_PATHS = {'/': 'GET', '/health': 'GET', '/model': 'GET', '/predict': 'POST'}


class _Refused(Exception):
  """A request that is answered by an error.

  Args:
    status: of HTTP.
    message: what is wrong, in one line.
  """

  def __init__(self, status: int, message: str):
    super().__init__(message)
    self.status = status


class Server(Listener):
  """Answers requests for predictions.

  Args:
    host: name or address.
    port: 0 for a free one.
    top_k: classes for each image where a request names no number.
    max_bytes: of a request's body.

  Attributes:
    images: how many were answered.

  Raises:
    ConfigError: the address is unknown or taken.
  """

  def __init__(self, host: str, port: int, top_k: int, max_bytes: int):
    super().__init__(host, port, _Handler)
    self.services: dict[str, Service] = {}
    self.top_k = top_k
    self.max_bytes = max_bytes
    self.images = 0

  def serve(self, services: Sequence[Service]) -> None:
    """Compiles the models, and accepts requests from then on.

    Raises:
      ConfigError: another process has come to the port first.
    """
    for service in services:
      service.start()
    self.services = {service.name: service for service in services}
    self.start()

  def stop(self) -> None:
    super().stop()
    for service in self.services.values():
      service.stop()


class _Handler(http.server.BaseHTTPRequestHandler):
  """One request a connection, so that none is idle when the server ends."""

  server: Server
  protocol_version = 'HTTP/1.1'
  server_version, sys_version = 'vit_jax', ''

  def setup(self) -> None:
    super().setup()
    self.rfile = io.BufferedReader(Incoming(self.connection, REQUEST_SECONDS))
    self.server.idle.add(self.connection)

  def parse_request(self) -> bool:
    self.server.idle.discard(self.connection)
    return super().parse_request()

  def finish(self) -> None:
    self.server.idle.discard(self.connection)
    super().finish()

  def do_GET(self) -> None:  # noqa: N802  the name that http.server calls
    self._answer_by({'/': self._page, '/health': self._health, '/model': self._model})

  do_HEAD = do_GET  # noqa: N815

  def do_POST(self) -> None:  # noqa: N802
    self._answer_by({'/predict': self._predict})

  def _answer_by(self, answers: Mapping[str, Any]) -> None:
    address = urllib.parse.urlsplit(self.path)
    try:
      if address.path not in _PATHS:
        raise _Refused(404, f'no {one_line(address.path)} here: {", ".join(_PATHS)}')
      if address.path not in answers:
        raise _Refused(405, f'{address.path} takes {_PATHS[address.path]}')
      answers[address.path](dict(urllib.parse.parse_qsl(address.query, keep_blank_values=True)))
    except _Refused as e:
      self._send_json({'error': str(e)}, e.status)
      if self.command == 'POST':
        drain(self.connection)
    except UserError as e:
      self._send_json(_error(e), 400)
    except TimeoutError:
      self._send_json({'error': 'the request did not come in time'}, 408)
    except OSError:  # the client has left
      self.close_connection = True
    except Exception as e:  # of the device: the server keeps running
      log.warning('a request failed: %s: %s', type(e).__name__, one_line(e))
      self._send_json({'error': f'{type(e).__name__}: {one_line(e)}'}, 500)

  def _page(self, query: Mapping[str, str]) -> None:
    self._send(page.of(list(self.server.services.values())), 'text/html; charset=utf-8')

  def _health(self, query: Mapping[str, str]) -> None:
    self._send_json({'status': 'ok'})

  def _model(self, query: Mapping[str, str]) -> None:
    service = self._service(query)
    loaded = service.loaded
    self._send_json(
      {
        'model': service.name,
        'architecture': loaded.config['model']['name'],
        'models': list(self.server.services),
        'classes': list(loaded.classes),
        'num_classes': loaded.module.num_classes,
        'image_size': list(loaded.preprocess.image_size),
        'activation': loaded.activation,
        'batch_size': loaded.batch_size,
        'max_bytes': self.server.max_bytes,
      }
    )

  def _predict(self, query: Mapping[str, str]) -> None:
    service = self._service(query)
    top_k = self._top_k(query)
    kind = self.headers.get('Content-Type', '')
    given = images_of(kind, self._body())
    # What curl says of any body; with -d it drops line ends on the way.
    hint = '; with curl, --data-binary sends a file as it is' * kind.endswith('form-urlencoded')
    answers: list[dict[str, Any]] = []
    read = 0
    for (name, _), found in zip(given.images, service.predict(given.images, top_k)):
      if isinstance(found, UserError):
        answers.append({'image': name, 'error': _error(found)['error'] + hint})
      else:
        answers.append(to_json(name, found))
        read += 1
    self.server.images += read
    self._send_json(answers if given.several else answers[0], 200 if read else 400)

  def _top_k(self, query: Mapping[str, str]) -> int:
    if 'top_k' not in query:
      return self.server.top_k
    try:
      return checked('top_k', from_text(query['top_k'], int), int, TOP_K)
    except UserError as e:
      raise _Refused(400, one_line(e)) from None

  def _service(self, query: Mapping[str, str]) -> Service:
    unknown = [name for name in query if name not in ('model', 'top_k')]
    if unknown:
      raise _Refused(400, f'unknown parameter {unknown[0]!r}: valid are model and top_k')
    services = self.server.services
    name = query.get('model', '' if len(services) > 1 else next(iter(services)))
    if not name:
      raise _Refused(400, f'several models are served: add ?model= with one of {list(services)}')
    if name not in services:
      raise _Refused(404, f'no model {name!r} here: {did_you_mean(name, services)}')
    return services[name]

  def _length(self) -> int:
    """Bytes of the body, as the request states them."""
    stated = self.headers.get('Content-Length', '')
    if not stated.isdecimal() or not stated.isascii() or 'Transfer-Encoding' in self.headers:
      raise _Refused(411, 'the request must state its Content-Length, and come in one piece')
    length = int(stated[:20])
    if length > self.server.max_bytes:
      raise _Refused(
        413, f'the request has {length:,} bytes, more than the limit of {self.server.max_bytes:,}'
      )
    if not length:
      raise _Refused(400, 'the request is empty: its body must be an image')
    return length

  def _body(self) -> bytes:
    length = self._length()
    body = self.rfile.read(length)
    if len(body) < length:
      raise ConnectionError
    return body

  def handle_expect_100(self) -> bool:
    try:
      self._length()
    except _Refused as e:
      self._send_json({'error': str(e)}, e.status)
      return False
    return super().handle_expect_100()

  def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
    """What http.server itself finds wrong with a request, as JSON."""
    self._send_json({'error': one_line(message or http.HTTPStatus(code).phrase)}, code)

  def _send_json(self, value: Any, status: int = 200) -> None:
    self._send(json.dumps(value) + '\n', 'application/json', status)

  def _send(self, text: str, kind: str, status: int = 200) -> None:
    data = text.encode('utf-8', 'backslashreplace')
    self.connection.settimeout(ANSWER_SECONDS)
    try:
      self.send_response(status)
      self.send_header('Content-Type', kind)
      self.send_header('Content-Length', str(len(data)))
      self.send_header('X-Content-Type-Options', 'nosniff')
      self.send_header('Connection', 'close')
      self.end_headers()
      if self.command != 'HEAD':
        self.wfile.write(data)
    except OSError:  # the client has left
      self.close_connection = True

  def log_message(self, format: str, *args: Any) -> None:
    """Nothing is printed of a request."""


def _error(error: UserError) -> dict[str, str]:
  return {'error': one_line(' | '.join(error.problems))}
