"""A loopback server that misbehaves: the right bytes or one clear line, never a partial file."""

import hashlib
import http.server
import json
import socket
import threading

import numpy as np
import pytest

from tests.weights import oracle
from vit_jax import convert
from vit_jax.errors import UserError
from vit_jax.weights import download, hub
from vit_jax.weights.download import Patience, Source

BODY = bytes(np.random.default_rng(0).integers(0, 256, 3_000_017, dtype=np.uint8))
QUICK = Patience(timeout=0.3, attempts=3, wait=0.01, progress=False)


class Handler(http.server.BaseHTTPRequestHandler):
  """Paths say what goes wrong; `server.log` notes (path, Range)."""

  def do_GET(self):  # noqa: N802  the name that http.server calls
    self.server.log.append((self.path, self.headers.get('Range')))
    word = self.path.strip('/').split('/')[0]
    visits = sum(path == self.path for path, _ in self.server.log)
    if word.isdigit():
      self.send_error(int(word))
    elif word == 'once500' and visits == 1:
      self.send_error(500)
    elif word == 'silent':
      self.server.stop.wait(5)
    elif word == 'page':
      self._send(b'<html>log in</html>', kind='text/html')
    elif word == 'half':
      self._send(BODY, part=len(BODY) // 2)
    elif word == 'breaks':  # half, then the rest on request
      self._send(BODY, part=len(BODY) // 2 if visits == 1 else None, ranges=True)
    elif word in self.server.files:
      self._send(self.server.files[word])
    else:
      self._send(BODY)

  def _send(self, body, part=None, kind='application/octet-stream', ranges=False):
    begin = 0
    wanted = self.headers.get('Range') if ranges else None
    if wanted:
      begin = int(wanted.removeprefix('bytes=').rstrip('-'))
    self.send_response(206 if begin else 200)
    self.send_header('Content-Type', kind)
    self.send_header('Content-Length', str(len(body) - begin))
    self.send_header('ETag', '"one"')
    self.end_headers()
    self.wfile.write(body[begin:part])

  def log_message(self, *args):
    pass


class Server(http.server.ThreadingHTTPServer):
  daemon_threads = True

  def handle_error(self, request, address):
    pass  # clients that leave early are part of these tests


@pytest.fixture
def server():
  made = Server(('127.0.0.1', 0), Handler)
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


def test_a_good_file_lands_with_a_record(server, tmp_path):
  path = download.fetch([Source(server.url + '/ok')], tmp_path / 'w.npz', QUICK)
  assert path.read_bytes() == BODY
  assert files(tmp_path) == ['w.npz', 'w.npz.download.json']
  record = json.loads((tmp_path / 'w.npz.download.json').read_text())
  assert record['sha256'] == hashlib.sha256(BODY).hexdigest() and record['size'] == len(BODY)
  assert download.is_whole(path)
  path.write_bytes(BODY[:100])
  assert not download.is_whole(path)


@pytest.mark.parametrize(
  'path,word,visits',
  [
    ('/403', '403', 1),
    ('/404', '404', 1),
    ('/500', '500', 3),
    ('/half', 'broke after', 3),
    ('/silent', 'did not answer', 2),
    ('/page', 'web page', 1),
  ],
)
def test_what_goes_wrong_is_told_in_a_line_and_leaves_nothing(server, tmp_path, path, word, visits):
  with pytest.raises(UserError) as e:
    download.fetch([Source(server.url + path)], tmp_path / 'w.npz', QUICK)
  assert word in str(e.value) and '\n' not in str(e.value)
  assert files(tmp_path) == []
  assert len(server.log) == visits


def test_a_wrong_checksum_is_refused(server, tmp_path):
  with pytest.raises(UserError, match='wrong checksum'):
    download.fetch([Source(server.url + '/ok', 'abcdef12')], tmp_path / 'w.npz', QUICK)
  assert files(tmp_path) == []
  good = Source(server.url + '/ok', hashlib.sha256(BODY).hexdigest()[:8])
  download.fetch([good], tmp_path / 'w.npz', QUICK)


@pytest.mark.parametrize('bad', ['/403', '/404', '/500', '/half', '/silent', '/page'])
def test_the_next_source_is_tried(server, tmp_path, bad):
  sources = [Source(server.url + bad), Source(server.url + '/ok')]
  assert download.fetch(sources, tmp_path / 'w.npz', QUICK).read_bytes() == BODY
  assert files(tmp_path) == ['w.npz', 'w.npz.download.json']


def test_nobody_there(tmp_path):
  with socket.socket() as s:
    s.bind(('127.0.0.1', 0))
    port = s.getsockname()[1]
  with pytest.raises(UserError, match='refused'):
    download.fetch([Source(f'http://127.0.0.1:{port}/x')], tmp_path / 'w.npz', QUICK)
  assert files(tmp_path) == []


def test_a_server_error_that_passes_is_retried(server, tmp_path):
  download.fetch([Source(server.url + '/once500')], tmp_path / 'w.npz', QUICK)
  assert len(server.log) == 2


def test_a_broken_connection_goes_on_where_it_stopped(server, tmp_path):
  path = download.fetch([Source(server.url + '/breaks')], tmp_path / 'w.npz', QUICK)
  assert path.read_bytes() == BODY
  assert [r for _, r in server.log] == [None, f'bytes={len(BODY) // 2}-']


def test_an_interrupted_program_goes_on_where_it_stopped(server, tmp_path, monkeypatch):
  def interrupt(*args):
    raise KeyboardInterrupt

  with monkeypatch.context() as m:
    m.setattr(download.time, 'sleep', interrupt)
    with pytest.raises(KeyboardInterrupt):
      download.fetch([Source(server.url + '/breaks')], tmp_path / 'w.npz', QUICK)
  assert not (tmp_path / 'w.npz').exists()
  download.fetch([Source(server.url + '/breaks')], tmp_path / 'w.npz', QUICK)
  assert server.log[1][1] == f'bytes={len(BODY) // 2}-'
  assert files(tmp_path) == ['w.npz', 'w.npz.download.json']


def test_an_unwritable_cache_is_told(tmp_path):
  (tmp_path / 'file').write_text('')
  with pytest.raises(UserError, match='VIT_JAX_CACHE'):
    download.fetch([Source('http://127.0.0.1:1/x')], tmp_path / 'file' / 'w.npz', QUICK)


@pytest.fixture
def named(server, tmp_path, monkeypatch):
  """A zoo of one entry whose first source is gone and whose second is this server's."""
  np.savez(tmp_path / 'made.npz', **oracle.official()[0])
  server.files['good.npz'] = (tmp_path / 'made.npz').read_bytes()
  entry = hub.Entry('small.test', 'vit_ti16', 0.1, 5, 24, 1, '', 'none', ('a:x.npz', 'b:good.npz'))
  monkeypatch.setattr(hub, '_PLACES', {'a': server.url + '/404/', 'b': server.url + '/'})
  monkeypatch.setattr(hub.ZOO, '_entries', {'small.test': entry})
  monkeypatch.setenv('VIT_JAX_CACHE', str(tmp_path / 'cache'))
  return server


def test_a_name_is_loaded_from_the_next_source_and_then_offline(named, tmp_path):
  first = convert.load('small.test', oracle.ours(), (24, 24))
  visits = len(named.log)
  again = convert.load('small.test', oracle.ours(), (24, 24))
  assert len(named.log) == visits  # from the cache
  np.testing.assert_array_equal(
    first['params']['head']['kernel'], again['params']['head']['kernel']
  )
  assert files(tmp_path / 'cache') == ['small.test.npz', 'small.test.npz.download.json']


def test_a_local_folder_comes_before_any_download(named, tmp_path):
  (tmp_path / 'mine').mkdir()
  (tmp_path / 'mine' / 'x.npz').write_bytes((tmp_path / 'made.npz').read_bytes())
  convert.load('small.test', oracle.ours(), (24, 24), pretrained_dir=tmp_path / 'mine')
  assert named.log == []


def test_when_no_source_answers_the_error_says_what_to_do(named, monkeypatch):
  monkeypatch.setattr(hub, '_PLACES', {'a': named.url + '/404/', 'b': named.url + '/403/'})
  with pytest.raises(UserError) as e:
    hub.fetch('small.test', patience=QUICK)
  for word in ('404', '403', 'pretrained_dir', 'good.npz'):
    assert word in str(e.value)


def test_a_repository_lands_whole_or_not_at_all(server, tmp_path, monkeypatch):
  entry = hub.Entry('small.hub', 'vit_ti16', 0.1, 5, 24, 1, '', 'none', ('hf:who/what',))
  monkeypatch.setattr(hub.ZOO, '_entries', {'small.hub': entry})
  monkeypatch.setattr(hub, '_HUB', server.url + '/{file}')
  server.files['config.json'] = b'{}'
  server.files['preprocessor_config.json'] = b'{}'
  path = hub.fetch('small.hub', cache_dir=tmp_path, patience=QUICK)
  assert (path / 'model.safetensors').read_bytes() == BODY
  monkeypatch.setattr(hub, '_HUB', server.url + '/half/{file}')
  with pytest.raises(UserError):
    hub.fetch('small.hub', cache_dir=tmp_path / 'other', patience=QUICK)
  assert files(tmp_path / 'other') == []


def test_every_name_of_the_zoo_has_a_model_and_known_places():
  from vit_jax import models

  assert len(hub.ZOO) > 100
  for entry in hub.ZOO.values():
    assert entry.model in models.names(), entry.name
    assert entry.sources, entry.name
    for source in entry.sources:
      assert source.split(':')[0] in {*hub._PLACES, *hub._REPOSITORY_FILES}, source
      assert hub._local_name(entry, source)
  text = hub.table()
  assert 'vit_b16.augreg_i21k_i1k_384' in text and '85.49%' in text
  with pytest.raises(UserError, match='did you mean'):
    convert.read('vit_b16.i21')
