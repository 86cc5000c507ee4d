"""Where the images of many tar files lie, found once and kept in the cache folder."""

import collections
import concurrent.futures
import dataclasses
import hashlib
import itertools
import json
import logging
import os
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import numpy as np

from vit_jax.console import byte_bar
from vit_jax.data.image_files import Scan, ending_of, is_image
from vit_jax.data.records import SKIPPING, Place, read_place
from vit_jax.data.sources.shards.members import Keys, Members, read_members
from vit_jax.errors import DatasetError, StorageError
from vit_jax.files import cache_folder, make_folder, replacing

log = logging.getLogger(__name__)

_VERSION = 1  # of what is kept
_MOST_THREADS = 16  # that read headers, where they wait for a disk or a network
_NAMED = 3
_T = TypeVar('_T')


@dataclasses.dataclass(frozen=True)
class Index:
  """Images of several tar files, in the order of the files and in each as they lie there.

  Attributes:
    root: folder that the files are relative to.
    files: the tar files.
    state: size and time of change of each, in ns, when it was read.
    shard: int32 [n], which of them an image is in.
    start, size: int64 [n], its bytes there.
    names: the names of all, one after another.
    end: int64 [n], where each name ends.
    code: int32 [n], the label's position in `texts`; -1 for none.
    texts: the labels that there are, each once, as they are written.
    folder: int32 [n], the position in `folders` of the image's folder in its tar file.
    folders: their paths; '' for none.
    endings: how many images there are of each ending, such as '.jpg'.
    left_out: what is passed over.
  """

  root: str
  files: tuple[str, ...]
  state: tuple[tuple[int, int], ...]
  shard: np.ndarray
  start: np.ndarray
  size: np.ndarray
  names: bytes
  end: np.ndarray
  code: np.ndarray
  texts: tuple[str, ...]
  folder: np.ndarray
  folders: tuple[str, ...]
  endings: dict[str, int]
  left_out: Scan

  def __len__(self) -> int:
    return len(self.shard)

  def name(self, row: int) -> str:
    """The image's path in its tar file."""
    start = int(self.end[row - 1]) if row else 0
    return self.names[start : int(self.end[row])].decode('utf-8', 'surrogateescape')

  def id(self, row: int) -> str:
    """The path of the tar file and that of the image in it."""
    return f'{self.files[self.shard[row]]}/{self.name(row)}'

  def place(self, row: int) -> Place:
    """Where the image's bytes lie."""
    shard = self.shard[row]
    path = os.path.join(self.root, self.files[shard])
    return Place(path, int(self.start[row]), int(self.size[row]), self.state[shard])


class TarRecords:
  """Some of the images of an index.

  Args:
    index: of all.
    rows: int64 [n], which of them.
    labels: int32 [n], their classes; -1 for none.
  """

  def __init__(self, index: Index, rows: np.ndarray, labels: np.ndarray):
    self.index, self.rows, self.labels = index, rows, labels

  def __len__(self) -> int:
    return len(self.rows)

  @property
  def unlabelled(self) -> bool:
    return not (self.labels >= 0).any()

  def id(self, row: int) -> str:
    return self.index.id(int(self.rows[row]))

  def place(self, row: int) -> Place:
    return self.index.place(int(self.rows[row]))

  def read(self, row: int) -> dict[str, Any]:
    return {'image': read_place(self.place(row), self.id(row)), 'label': self.labels[row]}


def open_index(root: str, files: Sequence[str], keys: Keys, on_error: str) -> Index:
  """The index of tar files: as it is kept, where none of them has changed, or made anew.

  Args:
    root: folder that the files are relative to.
    files: of the dataset, in order.
    keys: which of their members are images and labels.
    on_error: 'skip' takes what can be read of a damaged file, with a warning.

  Raises:
    DatasetError: a file that is no tar, is damaged, or has labels that cannot be read.
  """
  depends = [_VERSION, os.path.abspath(root), list(files), dataclasses.astuple(keys)]
  digest = hashlib.sha256(json.dumps(depends).encode()).hexdigest()[:16]
  kept = cache_folder() / 'shards' / f'{digest}.npz'
  state = _state(root, files)
  index = _read_kept(kept, state, root, files, keys)
  if index is None:
    index, whole = _made(root, files, state, keys, on_error)
    if whole:
      _keep(kept, index)
  return index


def _state(root: str, files: Sequence[str]) -> tuple[tuple[int, int], ...]:
  """Size and time of change of each file."""
  found, problems = [], []
  for file in files:
    path = os.path.join(root, file)
    try:
      stat = os.stat(path)
      found.append((stat.st_size, stat.st_mtime_ns))
    except OSError as e:
      problems.append(f'{path} cannot be read: {e.strerror or e}')
  _refuse(problems)
  return tuple(found)


def _refuse(problems: list[str]) -> None:
  if len(problems) > _NAMED:
    problems = [*problems[:_NAMED], f'and {len(problems) - _NAMED} more problems of that kind']
  if problems:
    raise DatasetError(problems)


def _made(
  root: str, files: Sequence[str], state: tuple[tuple[int, int], ...], keys: Keys, on_error: str
) -> tuple[Index, bool]:
  """Reads the headers of all files; also whether each could be read to its end."""
  members: list[Members] = []
  problems: list[str] = []
  what = f'index of {len(files):,} tar files'

  def read(file: str) -> Members | list[str]:
    path = os.path.join(root, file)
    try:
      return read_members(path, file, keys)
    except DatasetError as e:
      return list(e.problems)
    except OSError as e:
      return [f'{path} cannot be read: {e.strerror or e}']

  with byte_bar(what, sum(size for size, _ in state)) as bar:
    for found, (size, _) in zip(_each(read, files), state, strict=True):
      bar.update(size)
      members.append(Members() if isinstance(found, list) else found)
      problems += found if isinstance(found, list) else []
  damaged = [found.damage for found in members if found.damage]
  if on_error != 'skip':
    problems += [
      f'{damage}: copy it again; {SKIPPING} takes what comes before' for damage in damaged
    ]
  elif damaged:
    more = f' (and {len(damaged) - 1} more)' if len(damaged) > 1 else ''
    log.warning('%s%s; the rest is left out, as on_error=skip', damaged[0], more)
  _refuse(problems)
  return _joined(root, files, state, members), not damaged


def _each(read: Callable[[str], _T], files: Sequence[str]) -> Iterator[_T]:
  """What is read of each file, in order, by as many threads as the first makes worth while.

  Threads whose files come from memory only take Python's lock from each other: three million
  headers took eight of them four times as long as one.
  """
  start, used = time.perf_counter(), time.thread_time()
  yield read(files[0])
  waits = (time.perf_counter() - start) / max(time.thread_time() - used, 1e-6)
  threads = min(_MOST_THREADS, max(1, round(waits)))
  if threads == 1:
    yield from map(read, files[1:])
    return
  with concurrent.futures.ThreadPoolExecutor(threads, 'vit_jax_shards') as pool:
    try:
      yield from pool.map(read, files[1:])
    finally:
      pool.shutdown(cancel_futures=True)


def _joined(
  root: str,
  files: Sequence[str],
  state: tuple[tuple[int, int], ...],
  members: Sequence[Members],
) -> Index:
  counts = [len(found.names) for found in members]
  names = [name for found in members for name in found.names]
  texts: dict[str, int] = {}
  code = [
    -1 if text is None else texts.setdefault(text, len(texts))
    for found in members
    for text in found.labels
  ]
  folders: dict[str, int] = {}
  folder = [folders.setdefault(name.rpartition('/')[0], len(folders)) for name in names]
  encoded = [name.encode('utf-8', 'surrogateescape') for name in names]
  left_out = Scan()
  for found in members:
    left_out.add(found.left_out)

  def numbers(lists: list[list[int]]) -> np.ndarray:
    return np.fromiter(itertools.chain.from_iterable(lists), np.int64, len(names))

  return Index(
    root=root,
    files=tuple(files),
    state=state,
    shard=np.repeat(np.arange(len(files), dtype=np.int32), counts),
    start=numbers([found.starts for found in members]),
    size=numbers([found.sizes for found in members]),
    names=b''.join(encoded),
    end=np.cumsum([len(name) for name in encoded], dtype=np.int64),
    code=np.asarray(code, np.int32),
    texts=tuple(texts),
    folder=np.asarray(folder, np.int32),
    folders=tuple(map(_plain_path, folders)),
    endings=dict(collections.Counter(map(ending_of, names)).most_common()),
    left_out=left_out,
  )


def _plain_path(path: str) -> str:
  return '/'.join(part for part in path.split('/') if part not in ('', '.'))


_ARRAYS = ('shard', 'start', 'size', 'end', 'code', 'folder')
_VALUES = ('texts', 'folders', 'endings')


def _keep(path: Any, index: Index) -> None:
  """Writes the index where the next opening finds it; that it cannot be written stops nothing."""
  left_out = [
    [kind, found.count, sorted(found.folders), found.example]
    for kind, found in index.left_out.left_out.items()
  ]
  values = {name: getattr(index, name) for name in _VALUES}
  about = json.dumps({**values, 'state': index.state, 'left_out': left_out}).encode()
  arrays = {name: getattr(index, name) for name in _ARRAYS}
  arrays |= {'names': np.frombuffer(index.names, np.uint8), 'about': np.frombuffer(about, np.uint8)}
  try:
    make_folder(path.parent)
    with replacing(path) as temporary, open(temporary, 'wb') as file:
      np.savez(file, **arrays)
  except StorageError as e:
    log.info('the index of the tar files is not kept: %s', e)


def _read_kept(
  path: Any, state: tuple[tuple[int, int], ...], root: str, files: Sequence[str], keys: Keys
) -> Index | None:
  """The index that was kept of files in this state; None where there is none, or it is damaged."""
  try:
    with open(path, 'rb') as file, np.load(file, allow_pickle=False) as kept:
      about = json.loads(kept['about'].tobytes())
      if tuple(map(tuple, about['state'])) != state or not _is_of(about, keys):
        return None
      arrays = {name: kept[name] for name in _ARRAYS}
      names = kept['names'].tobytes()
    texts, folders = tuple(about['texts']), tuple(about['folders'])
    left_out = Scan()
    for kind, count, where, example in about['left_out']:
      for folder in where:
        left_out.leave_out(kind, example, folder, 0)
      left_out.left_out[kind].count = count
  except Exception:  # absent, cut short, or of bytes that nobody has seen
    return None
  return Index(
    root, tuple(files), state, **arrays, names=names, texts=texts, folders=folders,
    endings=about['endings'], left_out=left_out,
  )  # fmt: skip


def _is_of(about: dict[str, Any], keys: Keys) -> bool:
  """Whether the same endings are read as images now; a plugin of Pillow's may have come or gone."""
  passed_over = {kind for kind, *_ in about['left_out']}
  return keys.image is not None or (
    all(map(is_image, about['endings'])) and not any(map(is_image, passed_over))
  )
