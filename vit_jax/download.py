"""Downloads that end with the right bytes in place, or with one clear line and nothing in place.

Neither pooch nor huggingface_hub does this: resume a partial file across programs when the source
still has the same bytes (If-Range), go on to the next of several sources when one fails, and verify
checksums of which only the first digits are published.
"""

import base64
import contextlib
import dataclasses
import errno
import hashlib
import http.client
import logging
import os
import pathlib
import re
import shutil
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Sequence
from typing import Any

from vit_jax.console import byte_bar
from vit_jax.errors import DownloadError, StorageError
from vit_jax.files import read_json, release_lock, still_named, try_lock, write_json

log = logging.getLogger(__name__)

_BLOCK = 1 << 20
_MOST_BYTES = 1 << 36  # of a source that does not say how long it is
_LOOPBACK = ('localhost', '127.0.0.1', '::1')


@dataclasses.dataclass(frozen=True)
class RetryPolicy:
  """How long a download tries.

  Args:
    timeout: seconds without a byte after which a connection counts as broken.
    attempts: connections to one source, without anything gained, before the next source is tried.
    wait: seconds before the second attempt; doubled before every further one, and longer where the
      source asks for it.
    longest_wait: seconds beyond which a source that asks for them has failed.
    progress: shows a bar where standard error is a terminal.
    keep: keeps what has come where the connection fails for good, for the next call to resume.
  """

  timeout: float = 30.0
  attempts: int = 5
  wait: float = 1.0
  longest_wait: float = 120.0
  progress: bool = True
  keep: bool = False


@dataclasses.dataclass(frozen=True)
class Source:
  """Where a file is.

  Args:
    url: https; http of this machine alone, or of any where the whole checksum is known.
    sha256: the whole checksum, or its first digits, or '' where none is published.
    size: bytes, 0 where unknown.
  """

  url: str
  sha256: str = ''
  size: int = 0

  @property
  def verified(self) -> bool:
    """Whether no other file can be taken for this one, whoever answers."""
    return len(self.sha256) == 64


class _SourceFailed(Exception):
  """This source does not give the file: the next one is tried."""


class _BrokeOff(_SourceFailed):
  """The source gave a part, which may be resumed."""


def fetch(
  sources: Sequence[Source], target: pathlib.Path, retry: RetryPolicy = RetryPolicy()
) -> pathlib.Path:
  """Downloads a file from the first source that gives it whole.

  An interrupted download resumes where it stopped, in this program or the next. The file appears
  under its name when it is complete and verified; beside it, NAME.download.json records url, size,
  checksum and, where the source states it, the revision. Checksums that a source announces in its
  answer are verified, and there is a warning of a file that differs from the one that was recorded.

  Args:
    sources: tried in order.
    target: where the file goes.
    retry: how long to try.

  Returns:
    The target.

  Raises:
    DownloadError: with the failure of every source.
    StorageError: the target cannot be written.
  """
  failures = []
  try:
    target.parent.mkdir(parents=True, exist_ok=True)
  except OSError as e:
    raise StorageError(
      f'cannot make the folder {target.parent}: {e.strerror or e}; set VIT_JAX_CACHE'
    ) from e
  for source in sources:
    try:
      return _from_source(source, target, retry)
    except _SourceFailed as e:
      failures.append(f'{source.url} {e}')
    except OSError as e:
      raise StorageError(f'cannot write {target}: {e.strerror or e}; set VIT_JAX_CACHE') from e
  raise DownloadError(f'cannot download {target.name}: {"; ".join(failures)}')


def is_whole(path: pathlib.Path) -> bool:
  """Whether a file is there with the bytes that were recorded when it was downloaded.

  The checksum is computed where size or time of change are others than at the last check.
  """
  if not path.is_file():
    return False
  record = _read_json(_record_path(path))
  if not record:
    return True  # put there by hand
  now = path.stat()
  if record.get('size') != now.st_size:
    return False
  if record.get('checked') == now.st_mtime_ns:
    return True
  if record.get('sha256') != sha256(path):
    log.warning('%s has changed since it was downloaded: it is fetched again', path)
    return False
  with contextlib.suppress(StorageError):  # a cache that is only read is checked each time
    write_json(_record_path(path), {**record, 'checked': now.st_mtime_ns})
  return True


def matches(path: pathlib.Path, source: Source) -> bool:
  """Whether a file, downloaded or put there by hand, has the size and checksum of a source.

  The checksum is computed once, and again where size or time of change are others than then.
  """
  now, record = path.stat(), recorded(path)
  if source.size and now.st_size != source.size:
    return False
  if (record.get('size'), record.get('checked')) != (now.st_size, now.st_mtime_ns):
    record |= {'sha256': sha256(path), 'size': now.st_size, 'checked': now.st_mtime_ns}
    with contextlib.suppress(StorageError):  # a folder that is only read is checked each time
      write_json(_record_path(path), record)
  return record['sha256'].startswith(source.sha256.lower())


def recorded(path: pathlib.Path) -> dict[str, Any]:
  """What was recorded when a file was downloaded: url, sha256, size, and the revision if known."""
  return _read_json(_record_path(path))


def _record_path(path: pathlib.Path) -> pathlib.Path:
  return path.with_name(path.name + '.download.json')


def _from_source(source: Source, target: pathlib.Path, retry: RetryPolicy) -> pathlib.Path:
  key = hashlib.sha256(source.url.encode()).hexdigest()[:12]
  with _partial_file(target.with_name(f'.{target.name}.{key}.partial'), retry.keep) as partial:
    _receive_with_retries(source, partial, target, retry)
    checksum = sha256(partial)
    if source.sha256 and not checksum.startswith(source.sha256.lower()):
      raise _SourceFailed(
        f'has the wrong checksum (sha256 {checksum[:12]}, not {source.sha256[:12]})'
      )
    about = _read_json(_state_path(partial))
    for kind, published in (about.get('checksums') or {}).items():
      found = checksum if kind == 'sha256' else _digest(partial, kind)
      if found != published:
        raise _SourceFailed(f'gave other bytes than it announced ({kind} {found[:12]})')
    before = recorded(target)
    if before.get('url') == source.url and before.get('sha256') not in (None, checksum):
      log.warning(
        '%s has changed upstream: sha256 was %s and is %s now',
        source.url, before['sha256'][:12], checksum[:12],
      )  # fmt: skip
    record = {'url': source.url, 'sha256': checksum, 'size': partial.stat().st_size}
    if about.get('revision'):
      record['revision'] = about['revision']
    os.replace(partial, target)
    write_json(_record_path(target), {**record, 'checked': target.stat().st_mtime_ns})
  return target


def _receive_with_retries(
  source: Source, partial: pathlib.Path, target: pathlib.Path, retry: RetryPolicy
) -> None:
  """Connects until the partial file is complete.

  Raises:
    _SourceFailed: it is not, with the last reason.
  """
  attempt, problem, asked = 0, '', 0.0
  while attempt < retry.attempts:
    if attempt:
      wait = max(retry.wait * 2 ** (attempt - 1), asked)
      log.warning(
        '%s: %s %s: attempt %d of %d in %.0f s',
        target.name, urllib.parse.urlsplit(source.url).hostname, problem, attempt + 1,
        retry.attempts, wait,
      )  # fmt: skip
      time.sleep(wait)
    before = _size(partial)
    try:
      _receive(source, partial, target.name, retry)
      break
    except urllib.error.HTTPError as e:
      problem = f'answered {e.code} {e.reason}'
      asked = _asked_to_wait(e.headers)
      e.close()
      if asked > retry.longest_wait:
        raise _BrokeOff(f'{problem}, and asks to come back in {asked:,.0f} seconds') from e
      if e.code == 416:  # the partial file is longer than the source: begin anew
        partial.unlink(missing_ok=True)
      elif e.code < 500 and e.code not in (408, 429):
        raise _SourceFailed(problem) from e
    except OSError as e:
      _raise_for_disk(e, target)
      problem = _reason(e, retry)
      if isinstance(e, TimeoutError) and attempt > 0:
        break
    except (http.client.HTTPException, ValueError) as e:
      problem = f'gave a broken response ({str(e) or type(e).__name__})'
    attempt = 1 if 0 < before < _size(partial) else attempt + 1
  else:
    raise _BrokeOff(f'{problem}, {retry.attempts} times')
  if not _is_complete(partial):
    raise _BrokeOff(problem or 'ended early')


@contextlib.contextmanager
def _partial_file(path: pathlib.Path, keep: bool) -> Iterator[pathlib.Path]:
  """A partial file that outlives an interruption of the program, and nothing else.

  Args:
    path: of the file.
    keep: has it outlive a connection that fails, too.
  """
  path, lock = _lock(path)
  try:
    yield path
  except KeyboardInterrupt:
    raise
  except BaseException as e:
    if not (keep and isinstance(e, _BrokeOff)):
      _discard(path)
    raise
  else:
    _discard(path)
  finally:
    if lock is not None:
      release_lock(lock, path.with_suffix('.lock'))


def _discard(path: pathlib.Path) -> None:
  path.unlink(missing_ok=True)
  _state_path(path).unlink(missing_ok=True)


def _lock(path: pathlib.Path) -> tuple[pathlib.Path, int | None]:
  """Of programs that fetch the same file at once, one may resume the common partial file."""
  file = path.with_suffix('.lock')
  descriptor = os.open(file, os.O_CREAT | os.O_RDWR)
  if try_lock(descriptor) and still_named(descriptor, file):
    return path, descriptor
  os.close(descriptor)
  return path.with_name(f'{path.stem}.{os.getpid()}.partial'), None


def _state_path(partial: pathlib.Path) -> pathlib.Path:
  """Beside a partial file: the size and the tag of the whole, by which it may be resumed."""
  return partial.with_suffix('.about')


def _receive(source: Source, partial: pathlib.Path, name: str, retry: RetryPolicy) -> None:
  """One connection: appends what is missing."""
  known = _read_json(_state_path(partial))
  have = _size(partial) if known.get('tag') else 0
  if have and known.get('size') == have:
    return
  headers = {'User-Agent': 'vit_jax', 'Accept-Encoding': 'identity'}
  if have:
    headers |= {'Range': f'bytes={have}-', 'If-Range': known['tag']}
  _check_url(source.url, source.verified)
  request = urllib.request.Request(source.url, headers=headers)
  stated = _Announced(source.verified)
  opener = urllib.request.build_opener(stated)
  with opener.open(request, timeout=retry.timeout) as response:
    stated.note(response.headers)
    encoding = response.headers.get('Content-Encoding', 'identity')
    if encoding != 'identity' and not source.verified:  # else the checksum tells
      raise _SourceFailed(f'answered with other bytes than the file has (encoded by {encoding})')
    if 'text/html' in response.headers.get('Content-Type', ''):
      raise _SourceFailed('answered with a web page')
    if response.status == 206:
      _check_range(response.headers.get('Content-Range', ''), have, known.get('size'))
    elif response.status != 200:
      raise _SourceFailed(f'answered {response.status} {response.reason}')
    else:
      have = 0
    length = response.headers.get('Content-Length')
    if length is not None and not re.fullmatch('[0-9]{1,15}', length):
      raise ValueError(f'Content-Length {length[:40]!r}')
    size = have + int(length) if length is not None else source.size or None
    if source.size and size not in (None, source.size):
      raise _SourceFailed(f'has {size:,} bytes, not {source.size:,}')
    date = response.headers.get('Last-Modified') or ''
    tag = response.headers.get('ETag') or date
    if tag.startswith('W/'):  # a weak tag does not promise the same bytes; a checksum does
      tag = date if source.verified else ''
    if size is not None and shutil.disk_usage(partial.parent).free < size - have:
      raise StorageError(
        f'{partial.parent} has no room for {size - have:,} bytes: set VIT_JAX_CACHE'
      )
    about = {'size': size, 'tag': tag, 'revision': stated.revision, 'checksums': stated.checksums}
    if not have:  # or, killed here, the next call would append to bytes of another file
      partial.unlink(missing_ok=True)
    write_json(_state_path(partial), about)
    progress = byte_bar(name, size, have, retry.progress)
    with open(partial, 'r+b' if have else 'wb') as f, progress:
      f.seek(have)
      f.truncate()
      while block := response.read1(_BLOCK):  # what is there: a slow source's bytes count too
        if have + len(block) > (size or source.size or _MOST_BYTES):
          raise _SourceFailed(f'gives more than {have:,} bytes')
        f.write(block)
        progress.update(len(block))
        have += len(block)
  if size is not None and have != size:
    raise ConnectionError(errno.EPIPE, f'the connection broke after {have:,} of {size:,} bytes')


class _Redirects(urllib.request.HTTPRedirectHandler):
  """Follows a source to where its files are, but not to a place that anybody may speak for.

  Args:
    verified: whether the file is known by its checksum, wherever it comes from.
  """

  def __init__(self, verified: bool):
    self._verified = verified

  def redirect_request(
    self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str
  ) -> urllib.request.Request | None:
    _check_url(newurl, self._verified, local=req.type == 'http')
    return super().redirect_request(req, fp, code, msg, headers, newurl)


def _check_url(url: str, verified: bool, local: bool = True) -> None:
  """Allows https, http of this machine where `local`, and http of any where `verified`.

  Raises:
    _SourceFailed: for another address.
  """
  parts = urllib.parse.urlsplit(url)
  plain = parts.scheme == 'http' and (verified or (local and parts.hostname in _LOOPBACK))
  if parts.scheme != 'https' and not plain:
    raise _SourceFailed(f'leads to {parts.scheme}://{parts.hostname or ""}, which is not https')


def _asked_to_wait(headers: Any) -> float:
  """Seconds that a source which has no time now states; 0 where it states none, or a date."""
  stated = (headers.get('Retry-After') or '').strip()
  return float(stated) if re.fullmatch('[0-9]{1,9}', stated) else 0.0


def _check_range(stated: str, have: int, size: int | None) -> None:
  """Refuses a part of a file that is not the rest of it.

  Raises:
    ValueError: with what the answer states.
  """
  match = re.fullmatch(r'bytes (\d{1,15})-(\d{1,15})/(\d{1,15}|\*)', stated)
  if not have or match is None or int(match[1]) != have:
    raise ValueError(
      f'a part of the file ({stated[:60] or "which is not stated"}) nobody asked for'
    )
  whole = int(match[2]) + 1 if match[3] == '*' else int(match[3])
  if int(match[2]) + 1 != whole or (size is not None and whole != size):
    raise ValueError(f'a part of another file ({stated[:60]})')


class _Announced(_Redirects):
  """What a host states of a file in its answer, or in the one that leads to another host.

  Attributes:
    revision: commit of the repository, '' where none is stated.
    checksums: hex digits by algorithm.
  """

  def __init__(self, verified: bool) -> None:
    super().__init__(verified)
    self.revision = ''
    self.checksums: dict[str, str] = {}

  def note(self, headers: Any) -> None:
    """Keeps what headers of Hugging Face and of Google Cloud Storage state."""
    self.revision = headers.get('X-Repo-Commit') or self.revision
    linked = (headers.get('X-Linked-Etag') or '').strip('"')
    if re.fullmatch('[0-9a-f]{64}', linked):
      self.checksums['sha256'] = linked
    for line in headers.get_all('x-goog-hash') or []:
      if match := re.search(r'md5=([A-Za-z0-9+/]{22}==)', line):
        self.checksums['md5'] = base64.b64decode(match[1]).hex()

  def redirect_request(
    self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str
  ) -> urllib.request.Request | None:
    self.note(headers)
    return super().redirect_request(req, fp, code, msg, headers, newurl)


def _is_complete(partial: pathlib.Path) -> bool:
  size = _read_json(_state_path(partial)).get('size')
  return partial.exists() and (size is None or partial.stat().st_size == size)


def _reason(error: OSError, retry: RetryPolicy) -> str:
  reason = getattr(error, 'reason', error)
  if isinstance(error, TimeoutError) or isinstance(reason, TimeoutError):
    return f'did not answer within {retry.timeout:g} seconds'
  text = getattr(reason, 'strerror', None) or str(reason) or type(reason).__name__
  return f'failed: {text}'


def _raise_for_disk(error: OSError, target: pathlib.Path) -> None:
  """Raises a StorageError for what the disk refuses; other sources would not help."""
  full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
  if full or (error.errno == errno.EACCES and error.filename):  # a socket's has no file
    raise StorageError(
      f'cannot write {target}: {error.strerror}; set VIT_JAX_CACHE to another folder'
    ) from error


def sha256(path: pathlib.Path) -> str:
  """The checksum of a file, in hex digits."""
  return _digest(path, 'sha256')


def _size(path: pathlib.Path) -> int:
  return path.stat().st_size if path.exists() else 0


def _digest(path: pathlib.Path, kind: str) -> str:
  with open(path, 'rb') as f:
    return hashlib.file_digest(f, kind).hexdigest()


def _read_json(path: pathlib.Path) -> dict[str, Any]:
  content = read_json(path)
  return content if isinstance(content, dict) else {}
