"""Archives into a folder: regular files alone, none outside of it, no more than is reasonable."""

import contextlib
import pathlib
import re
import sys
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from typing import IO, TYPE_CHECKING

from vit_jax.errors import DatasetError
from vit_jax.files import writing

if TYPE_CHECKING:
  import tqdm

_BLOCK = 1 << 20
# Of images, which compress little, to their archive; and what a small archive may always hold.
_MOST_GROWTH, _ALWAYS_BYTES = 20, 64 << 20
_NESTED = ('.tar', '.tar.gz', '.tgz')


class Unpacker:
  """Unpacks archives into one folder.

  Tar files, compressed or not, and zip files are told apart by their first bytes, as names lie. An
  archive within an archive is unpacked on the way into a folder of its name, and never stored.
  Links and devices are passed over.

  Args:
    folder: where files go.
    wanted: matches the names, with forward slashes, of the members to unpack.
  """

  def __init__(self, folder: pathlib.Path, wanted: str):
    self._folder = folder
    self._wanted = re.compile(wanted)

  def unpack(self, archive: pathlib.Path) -> None:
    """Unpacks a file.

    Raises:
      DatasetError: it is no archive, damaged, or holds what it should not.
      StorageError: a file cannot be written.
    """
    size = archive.stat().st_size
    self._left = max(_ALWAYS_BYTES, _MOST_GROWTH * size)
    try:
      with open(archive, 'rb') as file, _bar(archive.name, size) as bar:
        for name, member in _members(file, bar):
          self._one(pathlib.PurePosixPath(), name, member, archive)
    except (tarfile.TarError, zipfile.BadZipFile, zlib.error, EOFError, RuntimeError) as e:
      raise DatasetError(f'archive {archive} is damaged: {e}') from e
    except OSError as e:  # gzip's own are OSErrors too
      raise DatasetError(f'archive {archive} cannot be unpacked: {e.strerror or e}') from e

  def _one(
    self, below: pathlib.PurePosixPath, name: str, member: IO[bytes], archive: pathlib.Path
  ) -> None:
    path = below / _inside(name, archive)
    if not self._wanted.fullmatch(str(path)):
      return
    if path.name.endswith(_NESTED) and len(below.parts) < 1:
      folder = path.with_name(path.name.split('.')[0])
      with tarfile.open(fileobj=member, mode='r|*') as tar:
        for inner, content in _tar_members(tar):
          self._one(folder, inner, content, archive)
      return
    target = self._folder / path
    with writing(target):
      target.parent.mkdir(parents=True, exist_ok=True)
      out = open(target, 'wb')  # noqa: SIM115
    try:
      while block := member.read(_BLOCK):
        self._left -= len(block)
        if self._left < 0:
          raise DatasetError(f'archive {archive} holds far more than its size allows: not unpacked')
        with writing(target):
          out.write(block)
      with writing(target):
        out.close()
    finally:
      with contextlib.suppress(OSError):
        out.close()


def _members(file: IO[bytes], bar: 'tqdm.tqdm') -> Iterator[tuple[str, IO[bytes]]]:
  """Names and contents of an archive's files, in its order."""
  magic = file.read(4)
  file.seek(0)
  if magic == b'PK\x03\x04':
    with zipfile.ZipFile(file) as packed:
      for info in packed.infolist():
        if not info.is_dir() and (info.external_attr >> 16) & 0o170000 in (0, 0o100000):
          with packed.open(info) as content:
            yield info.filename, content
          bar.update(info.compress_size)
    return
  with tarfile.open(fileobj=file, mode='r|*') as tar:
    for name, content in _tar_members(tar):
      yield name, content
      bar.update(file.tell() - bar.n)


def _tar_members(tar: tarfile.TarFile) -> Iterator[tuple[str, IO[bytes]]]:
  for info in tar:
    content = tar.extractfile(info) if info.isreg() else None
    if content is not None:
      yield info.name, content
    tar.members = []  # type: ignore[attr-defined]  # grows with millions of files otherwise


def _inside(name: str, archive: pathlib.Path) -> pathlib.PurePosixPath:
  """A member's path below the folder.

  Raises:
    DatasetError: it leads out of it.
  """
  path = pathlib.PurePosixPath(name)
  if path.is_absolute() or '..' in path.parts or '\\' in name or ':' in name or not path.parts:
    raise DatasetError(f'archive {archive} holds {name!r}, which leads out of its folder')
  return path


def _bar(name: str, size: int) -> 'tqdm.tqdm':
  from tqdm import tqdm

  return tqdm(
    desc=f'unpacking {name}',
    total=size,
    unit='B',
    unit_scale=True,
    disable=not sys.stderr.isatty(),
  )
