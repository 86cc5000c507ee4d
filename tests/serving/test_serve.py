"""The server on the loopback: answers as `predict` gives them, limits, batches, a clean end."""

import base64
import concurrent.futures
import contextlib
import http.client
import io
import json
import os
import shlex
import signal
import socket
import threading
import time
import urllib.parse

import numpy as np
import pytest
from PIL import Image

from tests.data import bombs
from tests.inference import test_loaded
from tests.report.fakes import Checked
from tests.support import raises
from vit_jax import predict, serve
from vit_jax.errors import ConfigError
from vit_jax.serving import connections, page
from vit_jax.serving.batching import Service
from vit_jax.serving.server import Server


def _png(seed=0, h=31, w=37):
  data = io.BytesIO()
  Image.fromarray(test_loaded.pixels(h, w, seed)).save(data, 'PNG')
  return data.getvalue()


class Counted:
  """A service whose batches are counted, and can be made to wait or to fail."""

  def __init__(self, name, loaded):
    self.service = Service(name, loaded)
    self.sizes, self.go, self.error = [], threading.Event(), None
    self.go.set()
    compute = loaded.outputs

    def outputs(examples, size):
      self.go.wait(10)
      if self.error:
        raise self.error
      self.sizes.append((len(examples), size))
      return compute(examples, size)

    loaded.outputs = outputs


@contextlib.contextmanager
def _running(*counted, top_k=3, max_bytes=100_000):
  server = Server('127.0.0.1', 0, top_k, max_bytes)
  server.serve([each.service for each in counted])
  for each in counted:
    each.sizes.clear()
  try:
    yield server
  finally:
    server.stop()


@pytest.fixture(scope='module')
def counted():
  return Counted('tiny', test_loaded.make())


@pytest.fixture(scope='module')
def server(counted):
  with _running(counted) as running:
    yield running


def _ask(server, method='GET', path='/', body=None, **headers):
  """Status and the JSON or text of an answer."""
  connection = http.client.HTTPConnection('127.0.0.1', server.server_port, timeout=20)
  try:
    named = {name.replace('_', '-'): value for name, value in headers.items()}
    connection.request(method, path, body, named)
    answer = connection.getresponse()
    text = answer.read().decode()
    kind = answer.getheader('Content-Type')
    return answer.status, json.loads(text) if kind == 'application/json' else text
  finally:
    connection.close()


def test_one_image_is_answered_as_by_predict(server, counted, tmp_path, capsys):
  model = str(test_loaded.make(tmp_path))
  (tmp_path / 'a.png').write_bytes(_png())
  assert predict.main([model, str(tmp_path / 'a.png'), '--json', '--top_k=3']) == 0
  expected = json.loads(capsys.readouterr().out)
  status, raw = _ask(server, 'POST', '/predict', _png())
  assert status == 200 and set(raw) == {'image', 'predictions'}
  text = base64.b64encode(_png()).decode()
  body = json.dumps({'image': text})
  assert _ask(server, 'POST', '/predict', body, Content_Type='application/json') == (200, raw)
  for got, wanted in zip(raw['predictions'], expected['predictions'], strict=True):
    assert (got['index'], got['class']) == (wanted['index'], wanted['class'])
    assert abs(got['probability'] - wanted['probability']) < 1e-5
  _, more = _ask(server, 'POST', '/predict?top_k=4&model=tiny', _png())
  assert len(more['predictions']) == 4 and more['predictions'][:3] == raw['predictions']


def test_several_images_are_answered_each_on_its_own(server):
  texts = [base64.b64encode(data).decode() for data in (_png(1), b'no image', _png(2))]
  body = json.dumps({'images': texts})
  status, found = _ask(server, 'POST', '/predict', body, Content_Type='application/json')
  assert status == 200 and [a['image'] for a in found] == ['image 1', 'image 2', 'image 3']
  assert [sorted(a) for a in found] == [
    ['image', 'predictions'],
    ['error', 'image'],
    ['image', 'predictions'],
  ]
  alone = [_ask(server, 'POST', '/predict', _png(seed))[1] for seed in (1, 2)]
  for got, wanted in zip((found[0], found[2]), alone):
    assert [p['index'] for p in got['predictions']] == [p['index'] for p in wanted['predictions']]
  body = json.dumps({'images': texts[1:2]})
  assert _ask(server, 'POST', '/predict', body, Content_Type='application/json')[0] == 400


def test_what_waits_is_computed_together(server, counted):
  """While a batch of one is computed, 7 more come: a batch of 5, the largest, and one of 2."""
  counted.sizes.clear()
  counted.go.clear()
  with concurrent.futures.ThreadPoolExecutor(8) as pool:
    first = pool.submit(_ask, server, 'POST', '/predict', _png(0))
    _until(lambda: counted.service._jobs.empty() and not first.done())
    time.sleep(0.1)
    others = [pool.submit(_ask, server, 'POST', '/predict', _png(seed)) for seed in range(1, 8)]
    _until(lambda: counted.service._jobs.qsize() == 7)
    counted.go.set()
    found = [future.result() for future in (first, *others)]
  assert counted.sizes == [(1, 1), (5, 5), (2, 2)]
  expected = test_loaded.make().predict([_png(seed) for seed in range(8)], top_k=3)
  for (status, got), wanted in zip(found, expected, strict=True):
    assert status == 200
    assert [p['index'] for p in got['predictions']] == [p.index for p in wanted]
    np.testing.assert_allclose(
      [p['probability'] for p in got['predictions']], [p.probability for p in wanted], atol=1e-5
    )


def _until(condition):
  end = time.monotonic() + 60
  while not condition():
    assert time.monotonic() < end
    time.sleep(0.005)


@pytest.mark.parametrize(
  ('method', 'path', 'body', 'status', 'fact'),
  [
    ('POST', '/predict', b'\xff\xd8\xff broken', 400, 'upload'),
    ('POST', '/predict', b'', 400, 'empty'),
    ('POST', '/predict?top_k=0', _png(), 400, 'top_k'),
    ('POST', '/predict?top_k=', _png(), 400, 'top_k'),
    ('POST', '/predict?k=3', _png(), 400, "'k'"),
    ('POST', '/predict?model=tinny', _png(), 404, 'tiny'),
    ('POST', '/predict', bytes(100_001), 413, '100,000'),
    ('POST', '/predictions', _png(), 404, '/predict'),
    ('GET', '/../../etc/passwd', None, 404, '/predict'),
    ('GET', '/predict', None, 405, 'POST'),
    ('POST', '/health', _png(), 405, 'GET'),
    ('PUT', '/predict', _png(), 501, 'PUT'),
  ],
)
def test_mistakes_are_one_line_of_json(server, method, path, body, status, fact):
  got, answer = _ask(server, method, path, body)
  text = answer['error']
  assert got == status and fact in text and '\n' not in text


def test_a_large_file_is_refused_before_and_while_it_is_sent(server):
  """With Expect, as curl asks, nothing is sent; without, the answer is read all the same."""
  with socket.create_connection(('127.0.0.1', server.server_port)) as s:
    s.sendall(b'POST /predict HTTP/1.1\r\nContent-Length: 2000000\r\nExpect: 100-continue\r\n\r\n')
    assert s.recv(100).startswith(b'HTTP/1.1 413')
  assert _ask(server, 'POST', '/predict', bytes(3_000_000))[0] == 413
  with socket.create_connection(('127.0.0.1', server.server_port)) as s:
    s.sendall(b'POST /predict HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n')
    assert s.recv(100).startswith(b'HTTP/1.1 411')


def test_a_bomb_is_refused_by_its_header(server):
  data = bombs._png(30_000, 20_000)
  status, answer = _ask(server, 'POST', '/predict', data)
  assert status == 400 and 'too large' in answer['error']


def test_slow_clients_time_out_and_those_that_leave_stop_nothing(server, monkeypatch):
  from vit_jax.serving import server as module

  monkeypatch.setattr(module, 'REQUEST_SECONDS', 0.2)
  with socket.create_connection(('127.0.0.1', server.server_port)) as s:
    s.sendall(b'POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: 50\r\n\r\nab')
    assert s.recv(100).startswith(b'HTTP/1.1 408')
  with socket.create_connection(('127.0.0.1', server.server_port)) as s:
    s.sendall(b'GET /hea')
    assert s.recv(100) == b''
  with socket.create_connection(('127.0.0.1', server.server_port)) as s:
    s.sendall(b'POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: 50\r\n\r\nab')
  assert _ask(server, path='/health') == (200, {'status': 'ok'})


def test_a_device_that_fails_is_said_and_the_next_request_is_answered(server, counted, caplog):
  counted.error = RuntimeError('out of\nmemory')
  status, answer = _ask(server, 'POST', '/predict', _png())
  counted.error = None
  assert status == 500 and answer == {'error': 'RuntimeError: out of\\nmemory'}
  assert _ask(server, 'POST', '/predict', _png())[0] == 200


def test_what_is_served(server):
  status, found = _ask(server, path='/model')
  assert status == 200 and found['model'] == 'tiny' and found['architecture'] == 'vit_ti16'
  assert found['classes'] == ['ant', 'bee', 'cat', 'dog', 'eel']
  assert found['image_size'] == [24, 24] and found['activation'] == 'softmax'
  status, html = _ask(server)
  seen = Checked(html)
  assert status == 200 and "connect-src 'self'" in seen.policy and 'tiny' in html
  assert _ask(server, 'HEAD')[0] == 200


def test_names_of_models_are_text_on_the_page(counted):
  other = Service('<b>&', test_loaded.make())
  html = page.of([counted.service, other])
  assert '<b>&' not in html and html.count('&lt;b&gt;&amp;') >= 2


def test_several_models_are_chosen_by_name(tmp_path):
  both = [Counted(name, test_loaded.make(seed=seed)) for seed, name in enumerate(('a', 'b'))]
  for each in both:
    each.service._sizes = [1]  # one program each
  with _running(*both) as server:
    status, answer = _ask(server, 'POST', '/predict', _png())
    assert status == 400 and "['a', 'b']" in answer['error']
    a, b = (_ask(server, 'POST', f'/predict?model={name}', _png())[1] for name in 'ab')
    assert a['predictions'] != b['predictions']
    assert _ask(server, path='/model?model=b')[1]['models'] == ['a', 'b']


def test_the_printed_request_is_quoted_for_a_shell():
  url = 'http://127.0.0.1:8000/'
  assert serve._curl(url, ['dogs']) == f'curl --data-binary @IMAGE {url}predict'
  line = serve._curl(url, ["it's & me", 'cats'])
  *_, address = shlex.split(line)
  assert f"'{address}'" in line  # a bare ? is a pattern of file names
  query = urllib.parse.parse_qs(urllib.parse.urlsplit(address).query)
  assert query == {'model': ["it's & me"]}


def test_a_port_in_use_and_an_unknown_host_are_one_line(server):
  for port in (server.server_port, 0):
    host = '127.0.0.1' if port else 'no.such.host.invalid'
    with raises(ConfigError, host):
      Server(host, port, 5, 10).start()


def test_a_connection_without_a_request_delays_no_end():
  server = Server('127.0.0.1', 0, 5, 10)
  server.start()
  with socket.create_connection(('127.0.0.1', server.server_port)) as s:
    _until(lambda: server.idle)
    begin = time.monotonic()
    server.stop()
    assert s.recv(1) == b'' and time.monotonic() - begin < 10


def test_only_the_loopback_is_closed_to_the_network():
  for host, is_open in (('127.0.0.1', False), ('0.0.0.0', True)):
    server = Server(host, 0, 5, 10)
    assert server.is_open is is_open and server.url.startswith('http://')
    server.stop()


@pytest.mark.parametrize('number', [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_command_when_open_requests_are_answered(
  number, tmp_path, monkeypatch, capsys
):
  model = str(test_loaded.make(tmp_path))
  answers = []
  computing = threading.Event()
  compute = Service.predict

  def slow(self, images, top_k):
    computing.set()
    time.sleep(0.3)
    return compute(self, images, top_k)

  monkeypatch.setattr(Service, 'predict', slow)

  def client():
    try:
      _until(lambda: 'serving w at http://' in seen())
      port = int(seen().split('127.0.0.1:')[1].split('/')[0])
      asking = threading.Thread(
        target=lambda: answers.append(_ask(_At(port), 'POST', '/predict', _png()))
      )
      asking.start()
      computing.wait(60)
    finally:
      os.kill(os.getpid(), number)  # or the command would never end
    asking.join()

  text = []

  def seen():
    text.append(capsys.readouterr().out)
    return ''.join(text)

  before = signal.getsignal(number)
  thread = threading.Thread(target=client)
  thread.start()
  assert serve.main([model, '--port=0', '--batch_size=1']) == 0
  thread.join()
  assert answers[0][0] == 200 and '1 images' in seen()
  assert signal.getsignal(number) is before


class _At:
  def __init__(self, port):
    self.server_port = port


def test_an_exported_folder_is_served(tmp_path):
  from vit_jax.exporting.base import Settings
  from vit_jax.exporting.opened import Exported
  from vit_jax.exporting.write import export

  loaded = test_loaded.make()
  export(loaded, tmp_path / 'out', settings=Settings(('cpu',), batch_size=2))
  with _running(Counted('out', Exported(tmp_path / 'out'))) as server:
    _, answer = _ask(server, 'POST', '/predict', _png())
  expected = loaded.predict(_png(), 3)[0]
  assert [p['index'] for p in answer['predictions']] == [p.index for p in expected]


def test_time_limits_hold_however_slowly_bytes_come():
  ours, theirs = socket.socketpair()
  with ours, theirs:
    incoming = connections.Incoming(ours, 0.15)
    with pytest.raises(TimeoutError):
      for _ in range(100):
        theirs.send(b'a')
        incoming.read(1)
        time.sleep(0.02)
