"""Downloads that end with the right bytes in place, or with one clear line and nothing in place."""

import contextlib
import dataclasses
import errno
import hashlib
import http.client
import json
import os
import pathlib
import shutil
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence

from vit_jax.errors import UserError

_BLOCK = 1 << 20


@dataclasses.dataclass(frozen=True)
class Patience:
  """How long a download tries.

  Args:
    timeout: seconds without a byte after which a connection counts as broken.
    attempts: connections to one source before the next source is tried.
    wait: seconds before the second attempt; doubled before every further one.
    progress: shows a bar where standard error is a terminal.
  """

  timeout: float = 30.0
  attempts: int = 5
  wait: float = 1.0
  progress: bool = True


@dataclasses.dataclass(frozen=True)
class Source:
  """Where a file lies.

  Args:
    url: http or https.
    sha256: the whole checksum, or its first digits, or '' where nobody publishes it.
  """

  url: str
  sha256: str = ''


class _Next(Exception):
  """This source does not give the file: try the next one."""


def cache_dir(given: str | pathlib.Path = '') -> pathlib.Path:
  """Where downloads are kept: as given, or VIT_JAX_CACHE, or the user's cache directory."""
  if given or os.environ.get('VIT_JAX_CACHE'):
    return pathlib.Path(given or os.environ['VIT_JAX_CACHE']).expanduser()
  root = os.environ.get('XDG_CACHE_HOME') or pathlib.Path.home() / '.cache'
  return pathlib.Path(root) / 'vit_jax'


def fetch(
  sources: Sequence[Source], target: pathlib.Path, patience: Patience = Patience()
) -> pathlib.Path:
  """Brings a file into place from the first source that gives it whole.

  An interrupted download goes on where it stopped, in this program or the next. The file appears
  under its name when it is complete and verified; beside it, NAME.json records url, size and
  checksum.

  Args:
    sources: tried in order.
    target: where the file goes.
    patience: how long to try.

  Returns:
    The target.

  Raises:
    UserError: with what every source answered.
  """
  answers = []
  try:
    target.parent.mkdir(parents=True, exist_ok=True)
  except OSError as e:
    raise UserError(f'cannot make {target.parent}: {e.strerror or e}; set VIT_JAX_CACHE') from e
  for source in sources:
    try:
      return _from_source(source, target, patience)
    except _Next as e:
      answers.append(f'{source.url} {e}')
  raise UserError(f'cannot download {target.name}: {"; ".join(answers)}')


def is_whole(path: pathlib.Path) -> bool:
  """Whether a file is there with the size that was recorded when it was downloaded."""
  record = _record_path(path)
  if not path.is_file():
    return False
  try:
    return json.loads(record.read_text())['size'] == path.stat().st_size
  except (OSError, ValueError, KeyError, TypeError):
    return True  # put there by hand


def _record_path(path: pathlib.Path) -> pathlib.Path:
  return path.with_name(path.name + '.download.json')


def _from_source(source: Source, target: pathlib.Path, patience: Patience) -> pathlib.Path:
  key = hashlib.sha256(source.url.encode()).hexdigest()[:12]
  with _partial(target.with_name(f'.{target.name}.{key}.partial')) as partial:
    problem = ''
    for attempt in range(patience.attempts):
      if attempt:
        time.sleep(patience.wait * 2 ** (attempt - 1))
      try:
        _receive(source.url, partial, patience)
        break
      except urllib.error.HTTPError as e:
        problem = f'answered {e.code} {e.reason}'
        if e.code == 416:  # the partial file is longer than the source: begin anew
          partial.unlink(missing_ok=True)
        elif e.code < 500 and e.code not in (408, 429):
          raise _Next(problem) from e
      except OSError as e:
        _check_disk(e, target)
        problem = _words(e, patience)
        if isinstance(e, TimeoutError) and attempt > 0:
          break
      except (http.client.HTTPException, ValueError) as e:
        problem = f'gave a broken answer ({str(e) or type(e).__name__})'
    else:
      raise _Next(f'{problem}, {patience.attempts} times')
    if problem and not partial.exists():
      raise _Next(problem)
    if not _complete(partial):
      raise _Next(problem or 'ended early')
    checksum = _sha256(partial)
    if source.sha256 and not checksum.startswith(source.sha256.lower()):
      raise _Next(f'has the wrong checksum (sha256 {checksum[:12]}, not {source.sha256[:12]})')
    record = {'url': source.url, 'sha256': checksum, 'size': partial.stat().st_size}
    _write_whole(_record_path(target), json.dumps(record, indent=2) + '\n')
    os.replace(partial, target)
  return target


@contextlib.contextmanager
def _partial(path: pathlib.Path) -> Iterator[pathlib.Path]:
  """A partial file that outlives an interruption of the program, and nothing else."""
  path, lock = _lock(path)
  try:
    yield path
  except KeyboardInterrupt:
    raise
  except BaseException:
    _discard(path)
    raise
  else:
    _discard(path)
  finally:
    if lock is not None:
      os.close(lock)
      path.with_suffix('.lock').unlink(missing_ok=True)


def _discard(path: pathlib.Path) -> None:
  path.unlink(missing_ok=True)
  path.with_suffix('.about').unlink(missing_ok=True)


def _lock(path: pathlib.Path) -> tuple[pathlib.Path, int | None]:
  """Of programs that fetch the same file at once, one may continue the common partial file."""
  try:
    import fcntl

    descriptor = os.open(path.with_suffix('.lock'), os.O_CREAT | os.O_RDWR)
    try:
      fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
      return path, descriptor
    except OSError:
      os.close(descriptor)
  except (ImportError, OSError):
    pass
  return path.with_name(f'{path.stem}.{os.getpid()}.partial'), None


def _receive(url: str, partial: pathlib.Path, patience: Patience) -> None:
  """One connection: appends what is missing."""
  about = partial.with_suffix('.about')
  known = _read_json(about)
  have = partial.stat().st_size if partial.exists() and known.get('tag') else 0
  if have and known.get('size') == have:
    return
  headers = {'User-Agent': 'vit_jax', 'Accept-Encoding': 'identity'}
  if have:
    headers |= {'Range': f'bytes={have}-', 'If-Range': known['tag']}
  request = urllib.request.Request(url, headers=headers)
  if request.type not in ('http', 'https'):
    raise _Next(f'is not http or https: {request.type}')
  with urllib.request.urlopen(request, timeout=patience.timeout) as answer:
    if 'text/html' in answer.headers.get('Content-Type', ''):
      raise _Next('answered with a web page')
    have = have if answer.status == 206 else 0
    length = answer.headers.get('Content-Length')
    size = have + int(length) if length is not None else None
    tag = answer.headers.get('ETag') or answer.headers.get('Last-Modified') or ''
    if tag.startswith('W/'):
      tag = ''  # a weak tag does not promise the same bytes
    if size is not None and shutil.disk_usage(partial.parent).free < size - have:
      raise UserError(f'{partial.parent} has no room for {size - have:,} bytes: set VIT_JAX_CACHE')
    _write_whole(about, json.dumps({'size': size, 'tag': tag}))
    with open(partial, 'r+b' if have else 'wb') as f, _bar(url, size, have, patience) as bar:
      f.seek(have)
      f.truncate()
      while block := answer.read(_BLOCK):
        f.write(block)
        bar.update(len(block))
        have += len(block)
  if size is not None and have != size:
    raise ConnectionError(errno.EPIPE, f'the connection broke after {have:,} of {size:,} bytes')


def _complete(partial: pathlib.Path) -> bool:
  size = _read_json(partial.with_suffix('.about')).get('size')
  return partial.exists() and (size is None or partial.stat().st_size == size)


def _words(error: OSError, patience: Patience) -> str:
  reason = getattr(error, 'reason', error)
  if isinstance(error, TimeoutError) or isinstance(reason, TimeoutError):
    return f'did not answer within {patience.timeout:g} seconds'
  text = getattr(reason, 'strerror', None) or str(reason) or type(reason).__name__
  return f'failed: {text}'


def _check_disk(error: OSError, target: pathlib.Path) -> None:
  if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES) and error.filename:
    raise UserError(
      f'cannot write {target}: {error.strerror}; set VIT_JAX_CACHE to another folder'
    ) from error


def _sha256(path: pathlib.Path) -> str:
  with open(path, 'rb') as f:
    return hashlib.file_digest(f, 'sha256').hexdigest()


def _read_json(path: pathlib.Path) -> dict:
  try:
    content = json.loads(path.read_text())
    return content if isinstance(content, dict) else {}
  except (OSError, ValueError):
    return {}


def _write_whole(path: pathlib.Path, text: str) -> None:
  temporary = path.with_name(f'{path.name}.{os.getpid()}.tmp')
  temporary.write_text(text)
  os.replace(temporary, path)


def _bar(url: str, size: int | None, have: int, patience: Patience):
  from tqdm import tqdm

  return tqdm(
    desc=url.rsplit('/', 1)[-1][:40],
    total=size,
    initial=have,
    unit='B',
    unit_scale=True,
    disable=not (patience.progress and sys.stderr.isatty()),
  )
