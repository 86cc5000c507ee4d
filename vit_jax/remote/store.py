"""A folder or a file of a store, by its URL: listed, fetched, sent and removed through fsspec."""

import contextlib
import pathlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

from vit_jax.errors import ConfigError, DependencyError, StorageError, UserError
from vit_jax.files import is_remote

_PACKAGES = {'gs': 'gcsfs', 'gcs': 'gcsfs', 's3': 's3fs', 's3a': 's3fs'}  # of the extra [remote]
_ENDING = '/'
# What stores call that of a file which changes with its content, the most reliable first.
_TAGS = (
  'etag', 'ETag', 'md5Hash', 'checksum', 'mtime', 'LastModified', 'last_modified', 'updated',
  'created',
)  # fmt: skip


class Entry(NamedTuple):
  """A file of a store: its bytes, and a tag that is another when its content is."""

  size: int
  tag: str


class Store:
  """What lies at a URL.

  Names of files are relative to it, with forward slashes; '' is the URL itself.

  Args:
    url: of a folder or a file.

  Raises:
    DependencyError: the package for this kind of store is not installed.
    ConfigError: fsspec knows no such kind.
    StorageError: the store refuses, in its own words. So do all methods.
  """

  def __init__(self, url: str):
    self.url = url.rstrip(_ENDING)
    try:
      from fsspec import core  # only where there is a URL

      with _reaching(self.url):
        self._fs, root = core.url_to_fs(self.url, use_listings_cache=False)
    except ImportError as e:
      package = _PACKAGES.get(url.partition('://')[0].lower())
      needed = f'pip install {package}' if package else str(e)
      raise DependencyError(f'{url} needs a package that is not installed: {needed}') from e
    self._root = str(root).rstrip(_ENDING)

  def kind(self) -> str:
    """What lies at the URL: 'file', 'directory', or '' for nothing."""
    with _reaching(self.url):
      self._fs.invalidate_cache()
      try:
        return str(self._fs.info(self._root)['type'])
      except FileNotFoundError:
        return ''

  def listing(self) -> dict[str, Entry]:
    """All files below the URL.

    Raises:
      StorageError: a name leads out of the folder.
    """
    with _reaching(self.url):
      self._fs.invalidate_cache()
      found = self._fs.find(self._root, detail=True)
    return self._entries(found.values())

  def beside(self) -> dict[str, Entry]:
    """The files in the folder of the URL."""
    with _reaching(self.url):
      self._fs.invalidate_cache()
      return self._entries(self._fs.ls(self._root, detail=True))

  def _entries(self, found: Iterable[Any]) -> dict[str, Entry]:
    entries = {}
    for info in found:
      name = str(info['name']).removeprefix(self._root).lstrip(_ENDING)
      if info['type'] != 'file' or not name or name.endswith(_ENDING):
        continue  # some stores keep empty objects for folders
      if '..' in name.split(_ENDING) or '\\' in name or '\0' in name:
        raise StorageError(f'{self.url} holds a file {name!r}, which has no place in a folder')
      tag = next((str(info[key]) for key in _TAGS if info.get(key) is not None), '')
      entries[name] = Entry(int(info['size'] or 0), tag)
    return entries

  def get(self, name: str, target: pathlib.Path, count: Callable[[int], Any]) -> None:
    """Fetches a file.

    Args:
      name: of the file.
      target: where it goes.
      count: is called with the bytes that came.
    """
    with _reaching(self._url_of(name)):
      from fsspec.callbacks import Callback

      class Counting(Callback):
        def relative_update(self, inc: int = 1) -> None:
          count(inc)

      self._fs.get_file(self._path(name), str(target), callback=Counting())

  def put(self, source: pathlib.Path, name: str) -> None:
    """Sends a file, over one that is there."""
    with _reaching(self._url_of(name)):
      self._make_parent(name)
      self._fs.put_file(str(source), self._path(name))

  def read(self, name: str) -> bytes | None:
    """The content of a small file; None where there is none."""
    with _reaching(self._url_of(name)):
      self._fs.invalidate_cache()
      try:
        return bytes(self._fs.cat_file(self._path(name)))
      except FileNotFoundError:
        return None

  def write(self, name: str, content: bytes) -> None:
    """Writes a small file."""
    with _reaching(self._url_of(name)):
      self._fs.pipe_file(self._path(name), content)

  def create(self, name: str, content: bytes) -> bool:
    """Writes a small file that is not there yet.

    Returns:
      False where it is there; of two that write it at the same moment one hears so, as far as the
      store has exclusive writes.
    """
    if self.read(name) is not None:
      return False
    with _reaching(self._url_of(name)):
      self._make_parent(name)
      try:
        with self._fs.open(self._path(name), 'xb') as file:
          file.write(content)
      except Exception:  # stores have errors of their own for a file that is there
        if self.read(name) is None:
          raise
        return False
    return True

  def remove(self, names: Iterable[str]) -> None:
    """Removes files, in their order; those that are not there are passed over."""
    for name in names:
      with _reaching(self._url_of(name)), contextlib.suppress(FileNotFoundError):
        self._fs.rm_file(self._path(name))

  def _make_parent(self, name: str) -> None:
    """Makes a file's folder; in stores of objects, which are asynchronous, this makes buckets."""
    if not self._fs.async_impl:
      self._fs.makedirs(self._path(name).rpartition(_ENDING)[0], exist_ok=True)

  def _path(self, name: str) -> str:
    return f'{self._root}/{name}' if name else self._root

  def _url_of(self, name: str) -> str:
    return f'{self.url}/{name}' if name else self.url


@contextlib.contextmanager
def _reaching(what: str) -> Iterator[None]:
  """Turns whatever a store raises, whose libraries have errors of their own, into one line."""
  try:
    yield
  except (UserError, ImportError):
    raise
  except ValueError as e:
    raise ConfigError(f'{what}: {_reason(e)}') from e
  except Exception as e:
    raise StorageError(f'{what}: {_reason(e)}') from e


def _reason(error: Exception) -> str:
  kinds = {FileNotFoundError: 'not found', PermissionError: 'permission denied'}
  kind = next((f'{words}: ' for kind, words in kinds.items() if isinstance(error, kind)), '')
  return kind + (' '.join(str(error).split())[:200] or type(error).__name__)


def check(text: str) -> None:
  """Raises what `Store` does where a URL can never be reached from here; for a path nothing."""
  if is_remote(text):
    Store(text)


def join(text: str, name: str) -> str:
  """A folder in a folder, each a path or a URL."""
  return f'{text.rstrip(_ENDING)}/{name}' if is_remote(text) else str(pathlib.Path(text) / name)


def inside(text: str, folder: str) -> bool:
  """Whether a URL lies in the folder of another one, or is it."""
  both = is_remote(text) and is_remote(folder)
  return both and f'{text.rstrip(_ENDING)}/'.startswith(f'{folder.rstrip(_ENDING)}/')
