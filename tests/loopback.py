"""A loopback server that misbehaves, for tests of downloads."""

import contextlib
import http.server
import threading

import numpy as np

from vit_jax.download import RetryPolicy

BODY = bytes(np.random.default_rng(0).integers(0, 256, 3_000_017, dtype=np.uint8))
QUICK = RetryPolicy(timeout=1.0, attempts=3, wait=0.01, progress=False)


class Handler(http.server.BaseHTTPRequestHandler):
  """A path names what goes wrong; `server.log` notes (path, Range)."""

  def do_GET(self):  # noqa: N802  the name that http.server calls
    self.server.log.append((self.path, self.headers.get('Range')))
    word = self.path.strip('/').split('/')[0]
    word = self.server.behaves.get(word, word)
    visits = sum(path == self.path for path, _ in self.server.log)
    body = self.server.files.get(self.path.strip('/').partition('/')[2], BODY)
    if word.isdigit():
      self.send_response(int(word))
      self._send_extra()
      self.send_header('Content-Length', '0')
      self.end_headers()
    elif word == 'once500' and visits == 1:
      self.send_error(500)
    elif word == 'silent':
      self.server.stop.wait(5)
    elif word == 'page':
      self._send(b'<html>log in</html>', kind='text/html')
    elif word == 'half':
      self._send(body, part=len(body) // 2)
    elif word == 'breaks':  # half, then the rest on request
      self._send(body, part=len(body) // 2 if visits == 1 else None, ranges=True)
    elif word == 'crumbs':  # a little of what is asked for
      self._send(body, ranges=True, most=500_000)
    elif word == 'stalls':  # half, and then nothing; the rest on request
      self._send(body, part=len(body) // 2 if visits == 1 else None, ranges=True)
      self.server.stop.wait(60 if visits == 1 else 0)
    elif word == 'moved':  # to what the path says: /moved/http:/elsewhere/x
      self.send_response(302)
      to = self.path.removeprefix('/moved/')
      self.send_header('Location', to if ':' in to else '/' + to)
      self._send_extra()
      self.end_headers()
    elif word == 'part':  # of a file, whatever was asked for
      self._send(BODY, status=206)
    elif word == 'longer':
      self._send(BODY + b'more', stated=len(BODY))
    elif word == 'endless':
      self._send(BODY * 2, stated='')
    elif word == 'odd':
      self._send(BODY, stated='-1')
    elif word == 'otherpart':  # breaks off, then gives a part from elsewhere
      self._send(BODY, part=len(BODY) // 2 if visits == 1 else None, ranges=True, shift=5)
    elif word in self.server.files:
      self._send(self.server.files[word])
    else:
      self._send(body, ranges=True)

  def _send(
    self, body, part=None, kind='application/octet-stream', ranges=False, status=200, stated=None,
    shift=0, most=None,
  ):  # fmt: skip
    begin = 0
    wanted = self.headers.get('Range') if ranges else None
    if wanted:
      begin = int(wanted.removeprefix('bytes=').rstrip('-'))
    self.send_response(206 if begin else status)
    if begin:
      first = begin + shift
      self.send_header('Content-Range', f'bytes {first}-{len(body) - 1}/{len(body)}')
    self.send_header('Content-Type', kind)
    if stated != '':
      self.send_header('Content-Length', str(len(body) - begin if stated is None else stated))
    self.send_header('ETag', self.server.etag)
    self._send_extra()
    self.end_headers()
    self.wfile.write(body[begin:part][:most])

  def _send_extra(self):
    for name, value in self.server.extra_headers.items():
      self.send_header(name, value)

  def log_message(self, *args):
    pass


class Server(http.server.ThreadingHTTPServer):
  daemon_threads = True

  def handle_error(self, request, address):
    pass  # clients that leave early are part of these tests


@contextlib.contextmanager
def running_server():
  """A server with `url`, `log` of requests, `files` that it serves by name, `extra_headers`,
  and `behaves`, which gives a path's word another meaning."""
  made = Server(('127.0.0.1', 0), Handler)
  made.extra_headers, made.behaves, made.etag = {}, {}, '"one"'
  made.log, made.files, made.stop = [], {}, threading.Event()
  thread = threading.Thread(target=made.serve_forever, args=(0.02,), daemon=True)
  thread.start()
  made.url = f'http://127.0.0.1:{made.server_port}'
  yield made
  made.stop.set()
  made.shutdown()
  made.server_close()
  thread.join()


def files(folder):
  return sorted(p.name for p in folder.rglob('*') if p.is_file())
