"""A server that misbehaves: the right bytes or one clear line, never a partial file."""

import base64
import dataclasses
import errno
import hashlib
import json
import logging
import os
import socket

import pytest

from tests.loopback import BODY, QUICK, files
from tests.support import raises
from vit_jax import console, download
from vit_jax.download import Source
from vit_jax.errors import DownloadError, StorageError

SHA256, MD5 = hashlib.sha256(BODY).hexdigest(), hashlib.md5(BODY).digest()


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
def test_a_failure_is_reported_in_a_line_and_leaves_nothing(server, tmp_path, path, word, visits):
  with raises(DownloadError, word) as e:
    download.fetch([Source(server.url + path)], tmp_path / 'w.npz', QUICK)
  assert '\n' not in str(e.value)
  assert files(tmp_path) == []
  assert len(server.log) == visits


def test_a_wrong_checksum_is_refused(server, tmp_path):
  with raises(DownloadError, 'wrong checksum', 'abcdef12'):
    download.fetch([Source(server.url + '/ok', 'abcdef12')], tmp_path / 'w.npz', QUICK)
  assert files(tmp_path) == []
  good = Source(server.url + '/ok', hashlib.sha256(BODY).hexdigest()[:8])
  download.fetch([good], tmp_path / 'w.npz', QUICK)


@pytest.mark.parametrize('bad', ['/403', '/404', '/500', '/half', '/silent', '/page'])
def test_the_next_source_is_tried(server, tmp_path, bad):
  sources = [Source(server.url + bad), Source(server.url + '/ok')]
  assert download.fetch(sources, tmp_path / 'w.npz', QUICK).read_bytes() == BODY
  assert files(tmp_path) == ['w.npz', 'w.npz.download.json']


def test_a_port_without_a_server(tmp_path):
  with socket.socket() as s:
    s.bind(('127.0.0.1', 0))
    port = s.getsockname()[1]
  with raises(DownloadError, 'refused', port):
    download.fetch([Source(f'http://127.0.0.1:{port}/x')], tmp_path / 'w.npz', QUICK)
  assert files(tmp_path) == []


def test_a_server_error_that_passes_is_retried(server, tmp_path):
  download.fetch([Source(server.url + '/once500')], tmp_path / 'w.npz', QUICK)
  assert len(server.log) == 2


def test_each_further_attempt_is_a_warning(server, tmp_path, caplog):
  caplog.set_level(logging.INFO)
  with raises(DownloadError, '503', '3 times'):
    download.fetch([Source(server.url + '/503')], tmp_path / 'w.npz', QUICK)
  said = [(r.levelname, r.getMessage()) for r in caplog.records]
  assert [level for level, _ in said] == ['WARNING', 'WARNING']
  assert all(text.startswith('w.npz: 127.0.0.1 answered 503') for _, text in said)
  assert 'attempt 2 of 3' in said[0][1] and 'attempt 3 of 3' in said[1][1]


def test_a_broken_connection_is_resumed(server, tmp_path):
  path = download.fetch([Source(server.url + '/breaks')], tmp_path / 'w.npz', QUICK)
  assert path.read_bytes() == BODY
  assert [r for _, r in server.log] == [None, f'bytes={len(BODY) // 2}-']


def test_a_connection_may_break_often_as_long_as_something_comes(server, tmp_path):
  path = download.fetch([Source(server.url + '/crumbs')], tmp_path / 'w.npz', QUICK)
  assert path.read_bytes() == BODY and len(server.log) == 7 > QUICK.attempts


@pytest.mark.parametrize('known', ['', 'the checksum'])
def test_a_weak_tag_does_where_the_checksum_is_known(server, tmp_path, known):
  server.etag, server.extra_headers = 'W/"one"', {'Last-Modified': 'Mon, 01 Jan 2024 00:00:00 GMT'}
  source = Source(server.url + '/breaks', SHA256 if known else '')
  assert download.fetch([source], tmp_path / 'w.npz', QUICK).read_bytes() == BODY
  assert [r for _, r in server.log] == [None, f'bytes={len(BODY) // 2}-' if known else None]


def test_a_long_download_says_how_far_it_is(server, tmp_path, monkeypatch, caplog):
  monkeypatch.setattr(console, '_LONG_BYTES', 1e6)
  with caplog.at_level('INFO'):
    download.fetch([Source(server.url + '/crumbs')], tmp_path / 'w.npz', QUICK)
  lines = [r.getMessage() for r in caplog.records]
  told = [int(line.split()[1].rstrip('%')) for line in lines if '%' in line]
  assert 5 <= len(told) <= 10 and told == sorted(set(told)) and told[-1] == 100


def test_what_came_before_a_failure_is_kept_where_asked(server, tmp_path):
  keep = dataclasses.replace(QUICK, keep=True)
  for path, kept in (('/half', 2), ('/404', 0)):
    folder = tmp_path / path[1:]
    with raises(DownloadError):
      download.fetch([Source(server.url + path)], folder / 'w.npz', keep)
    assert len(files(folder)) == kept
    server.behaves = {'half': 'ok'}
    download.fetch([Source(server.url + '/half')], folder / 'w.npz', keep)
    assert files(folder) == ['w.npz', 'w.npz.download.json']
    server.behaves = {}
  assert f'bytes={len(BODY) // 2}-' in [wanted for _, wanted in server.log]


def test_a_size_that_differs_is_refused_before_anything_comes(server, tmp_path):
  with raises(DownloadError, f'{len(BODY):,}', '123'):
    download.fetch([Source(server.url + '/ok', size=123)], tmp_path / 'w.npz', QUICK)
  assert files(tmp_path) == []


def test_a_full_disk_is_not_the_sources_fault(server, tmp_path, monkeypatch):
  def full(*_):
    raise OSError(errno.ENOSPC, 'No space left on device')

  monkeypatch.setattr(console._ByteLines, 'update', full)
  with raises(StorageError, 'No space left', tmp_path):
    download.fetch([Source(server.url + '/ok')], tmp_path / 'w.npz', QUICK)
  assert files(tmp_path) == [] and len(server.log) == 1


def test_a_file_that_somebody_brought_is_known_by_its_checksum(tmp_path):
  path = tmp_path / 'w.npz'
  path.write_bytes(BODY)
  assert download.matches(path, Source('', SHA256, len(BODY)))
  assert not download.matches(path, Source('', SHA256[::-1], len(BODY)))
  path.write_bytes(BODY[:-1] + b'x')
  assert not download.matches(path, Source('', SHA256, len(BODY)))
  assert not download.matches(path, Source('', SHA256, 3))


def test_an_interrupted_download_is_resumed(server, tmp_path, monkeypatch):
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


@pytest.mark.parametrize(
  'path,word',
  [
    ('/moved/http://192.0.2.1/x', 'not https'),
    ('/moved/ftp://127.0.0.1/x', 'not https'),
    ('/moved/file:///etc/passwd', 'file:///etc/passwd'),
    ('/part', 'nobody asked'),
    ('/odd', 'Content-Length'),
    ('/204', '204'),
    ('/moved/moved/part', 'nobody asked'),
  ],
)
def test_an_answer_that_is_not_the_whole_file(server, tmp_path, path, word):
  with raises(DownloadError, word):
    download.fetch([Source(server.url + path)], tmp_path / 'w.npz', QUICK)
  assert files(tmp_path) == []


def test_a_redirect_on_this_machine_is_followed(server, tmp_path):
  path = download.fetch([Source(server.url + '/moved/ok')], tmp_path / 'w.npz', QUICK)
  assert path.read_bytes() == BODY


def test_http_elsewhere_is_asked_where_the_checksum_is_known():
  download._check_url('http://example.org/x', Source('', SHA256).verified)
  for known in ('', SHA256[:8]):
    with pytest.raises(download._SourceFailed):
      download._check_url('http://example.org/x', Source('', known).verified)


def test_http_elsewhere_is_not_asked(tmp_path):
  with raises(DownloadError, 'not https', 'example.org'):
    download.fetch([Source('http://example.org/x')], tmp_path / 'w.npz', QUICK)


def test_a_part_from_elsewhere_is_not_appended(server, tmp_path):
  with raises(DownloadError, 'nobody asked'):
    download.fetch([Source(server.url + '/otherpart')], tmp_path / 'w.npz', QUICK)
  assert files(tmp_path) == []


def test_answers_that_are_too_long_are_cut(server, tmp_path, monkeypatch):
  path = download.fetch([Source(server.url + '/longer')], tmp_path / 'w.npz', QUICK)
  assert path.read_bytes() == BODY  # what Content-Length says
  monkeypatch.setattr(download, '_MOST_BYTES', len(BODY))
  with raises(DownloadError, 'more than'):
    download.fetch([Source(server.url + '/endless')], tmp_path / 'v.npz', QUICK)
  assert files(tmp_path) == ['w.npz', 'w.npz.download.json']


def test_an_unwritable_cache_is_reported(tmp_path):
  (tmp_path / 'file').write_text('')
  with raises(StorageError, 'VIT_JAX_CACHE', tmp_path / 'file'):
    download.fetch([Source('http://127.0.0.1:1/x')], tmp_path / 'file' / 'w.npz', QUICK)


@pytest.mark.parametrize('good', [True, False])
@pytest.mark.parametrize('path', ['/ok', '/moved/ok'])
@pytest.mark.parametrize('host', ['Hugging Face', 'Google'])
def test_checksums_that_a_host_announces_are_verified(server, tmp_path, host, path, good):
  if host == 'Google':
    digits = base64.b64encode(MD5 if good else bytes(16)).decode()
    server.extra_headers = {'x-goog-hash': f'crc32c=AAAAAA==,md5={digits}'}
  else:
    server.extra_headers = {'X-Linked-Etag': f'"{SHA256 if good else "0" * 64}"'}
  server.extra_headers['X-Repo-Commit'] = 'c0ffee'
  fetch = [Source(server.url + path)], tmp_path / 'w.npz', QUICK
  if good:
    assert download.recorded(download.fetch(*fetch))['revision'] == 'c0ffee'
  else:
    with raises(DownloadError, 'announced'):
      download.fetch(*fetch)
    assert files(tmp_path) == []


def test_a_file_that_changed_on_the_disk_is_no_longer_whole(server, tmp_path, caplog):
  path = download.fetch([Source(server.url + '/ok')], tmp_path / 'w.npz', QUICK)
  path.write_bytes(BODY[:-1] + b'x')
  os.utime(path, ns=(1, 1))
  assert not download.is_whole(path) and 'w.npz has changed' in caplog.text
  path.write_bytes(BODY)  # the same bytes at another time
  os.utime(path, ns=(2, 2))
  assert download.is_whole(path)


def test_a_file_that_changed_upstream_is_told(server, tmp_path, caplog):
  server.files['w'] = BODY
  path = download.fetch([Source(server.url + '/w')], tmp_path / 'w.npz', QUICK)
  path.unlink()
  server.files['w'] = BODY[:-1] + b'x'
  download.fetch([Source(server.url + '/w')], path, QUICK)
  assert 'changed upstream' in caplog.text and SHA256[:12] in caplog.text


@pytest.mark.parametrize('code', ['429', '503'])
def test_a_source_that_asks_for_time_is_given_it(server, tmp_path, monkeypatch, code):
  waits = []
  monkeypatch.setattr(download.time, 'sleep', waits.append)
  server.extra_headers['Retry-After'] = '7'
  server.behaves['busy'] = code
  with raises(DownloadError, code, '3 times'):
    download.fetch([Source(server.url + '/busy')], tmp_path / 'w.npz', QUICK)
  assert waits == [7, 7] and files(tmp_path) == []
  server.extra_headers['Retry-After'] = '7000'
  with raises(DownloadError, code, '7,000 seconds'):
    download.fetch([Source(server.url + '/busy')], tmp_path / 'w.npz', QUICK)
  server.extra_headers['Retry-After'] = 'Wed, 21 Oct 2026 07:28:00 GMT'
  with raises(DownloadError, code, '3 times'):
    download.fetch([Source(server.url + '/busy')], tmp_path / 'w.npz', QUICK)
  assert len(server.log) == 3 + 1 + 3


def test_bytes_that_were_packed_on_the_way(server, tmp_path):
  server.extra_headers['Content-Encoding'] = 'gzip'
  with raises(DownloadError, 'gzip'):
    download.fetch([Source(server.url + '/ok')], tmp_path / 'w.npz', QUICK)
  known = Source(server.url + '/ok', SHA256)  # a server may say so of a .tgz, whose bytes these are
  assert download.fetch([known], tmp_path / 'w.npz', QUICK).read_bytes() == BODY


def test_a_part_whose_answer_names_no_length_is_no_file(server, tmp_path):
  server.behaves['short'] = 'endless'
  server.files['f'] = BODY
  with raises(DownloadError, 'broke after'):
    source = Source(server.url + '/short', SHA256, 2 * len(BODY) + 5)
    download.fetch([source], tmp_path / 'w.npz', QUICK)
  assert files(tmp_path) == []


def test_a_kill_between_two_files_of_one_name_mixes_none(server, tmp_path, monkeypatch):
  """The source has changed; the kill comes when its new tag is noted and nothing has come."""
  source, target = Source(server.url + '/breaks'), tmp_path / 'w.npz'
  with raises(DownloadError):
    keep = dataclasses.replace(QUICK, attempts=1, keep=True)
    download.fetch([source], target, keep)
  (partial,) = tmp_path.glob('.*.partial')
  partial.write_bytes(bytes(partial.stat().st_size))  # of the file as it was before
  (about,) = tmp_path.glob('.*.about')
  about.write_text(json.dumps({**json.loads(about.read_text()), 'tag': '"before"'}))
  write = download.write_json

  def killed(path, value):
    write(path, value)
    if path == about:
      raise KeyboardInterrupt

  answer = download.urllib.request.OpenerDirector.open

  def changed(opener, request, timeout):  # as If-Range has it: another tag, so the whole file
    if request.get_header('If-range') != server.etag:
      request.headers.pop('Range', None)
    return answer(opener, request, timeout=timeout)

  monkeypatch.setattr(download.urllib.request.OpenerDirector, 'open', changed)
  monkeypatch.setattr(download, 'write_json', killed)
  with pytest.raises(KeyboardInterrupt):
    download.fetch([source], target, QUICK)
  monkeypatch.setattr(download, 'write_json', write)
  assert download.fetch([source], target, QUICK).read_bytes() == BODY


def test_a_lock_whose_file_was_removed_is_none(tmp_path, monkeypatch):
  path = tmp_path / '.f.partial'
  lock = path.with_suffix('.lock')
  taken = download.try_lock

  def removed(descriptor):  # by the one who had it, just before
    lock.unlink()
    return taken(descriptor)

  monkeypatch.setattr(download, 'try_lock', removed)
  assert download._lock(path)[0] != path
