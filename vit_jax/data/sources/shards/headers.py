"""The members of one tar file: their headers, read as quickly as Python can."""

import logging
import os
import posixpath
import tarfile
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

from vit_jax.errors import DatasetError, one_line

log = logging.getLogger(__name__)

# Kinds of members, apart from folders.
FILE, LINKS, SPARSE, SPECIAL = 'file', 'links', 'sparse files', 'special members'
_LONGEST_EXTENDED = 1 << 16  # bytes of an extended header that is looked through here
_BLOCK = 512
_LONGEST_END = 1 << 20  # bytes of zeros after the last member; tar writes 10,240
# How files begin that are no tar, and what to do about them.
_NO_TAR = (
  (b'\x1f\x8b', 'is compressed by gzip, and cannot be read at random: gunzip it'),
  (b'BZh', 'is compressed by bzip2, and cannot be read at random: bunzip2 it'),
  (b'\xfd7zXZ', 'is compressed by xz, and cannot be read at random: unxz it'),
  (b'\x28\xb5\x2f\xfd', 'is compressed by zstd, and cannot be read at random: unzstd it'),
  (b'PK\x03\x04', 'is a zip file, not a tar: unzip it into a folder'),
  (b'version https://git-lfs', 'stands for a file of Git LFS: git lfs pull fetches it'),
  (b'<', 'is a page of HTML or XML, not a tar: download it again'),
)


class DamageError(Exception):
  """Where and how a tar file is damaged."""


class Member(NamedTuple):
  """One member of a tar file.

  Attributes:
    name: its path.
    kind: '' for a folder, LINKS, SPARSE, SPECIAL or FILE.
    start, size: of its content in bytes.
    target: of a link, from the top of the tar file.
  """

  name: str
  kind: str
  start: int
  size: int
  target: str = ''


def walk(file: BinaryIO, path: str) -> Iterator[Member]:
  """The members of an open tar file.

  Headers that are plain, as all of most shards are, are read here, in a fifth of the time that
  `tarfile` takes; it reads all others.

  Raises:
    DatasetError: it is none.
    DamageError: the rest of it cannot be read.
  """
  size = os.fstat(file.fileno()).st_size
  head = file.read(_BLOCK)
  file.seek(0)
  try:
    archive = tarfile.open(fileobj=file, mode='r:', encoding='utf-8')  # noqa: SIM115  not ours
  except (tarfile.TarError, ValueError, OverflowError, EOFError):
    reasons = [reason for start, reason in _NO_TAR if head.lstrip()[: len(start)] == start]
    what = reasons[0] if reasons else 'is empty' if not size else 'is no tar file, or damaged'
    raise DatasetError(f'{path} {what}') from None
  archive.firstmember = None  # type: ignore[attr-defined]  # read below
  offset = 0
  while True:
    file.seek(offset)
    member = None
    if not archive.pax_headers:  # global ones, which tarfile keeps, hold for all that follow
      block, start = file.read(_BLOCK), offset
      if extended := _harmless(block, file):
        start += extended
        file.seek(start)
        block = file.read(_BLOCK)
      member = _plain(block, start)
    if member:
      offset = member.start + -(-member.size // _BLOCK) * _BLOCK
    else:
      file.seek(offset)
      archive.offset = offset
      try:
        found = archive.next()
      except (tarfile.TarError, ValueError, OverflowError, EOFError) as e:
        raise _damaged(path, size, archive.offset, str(e)) from None
      if found is None:
        break
      archive.members = []  # type: ignore[attr-defined]  # which it would keep for ever
      offset = archive.offset
      kind = _kind(found)
      size_here = found.size if kind == FILE else 0
      member = Member(found.name, kind, found.offset_data, size_here, _target(found))
    if member.start + member.size > size:
      raise _damaged(path, size, size, f'within {member.name}')
    yield member
  file.seek(offset)
  rest = file.read(_LONGEST_END)
  if rest.strip(b'\0') or offset > size:
    raise _damaged(path, size, offset, 'no header follows')
  if not rest:
    log.warning('%s has no end mark, as if it were cut short: compare its size', path)


def _plain(block: bytes, offset: int) -> Member | None:
  """The regular file that a header is of, where nothing about it is special; else None."""
  if block[156:157] not in (b'0', b'\0') or block[345:346] != b'\0':
    return None
  size = _size(block)
  try:
    name = block[:100].partition(b'\0')[0].decode()
  except ValueError:
    return None
  return None if size < 0 or name.endswith('/') else Member(name, FILE, offset + _BLOCK, size)


# What an extended header may change of the member after it, apart from its times and owners.
_CHANGES = (b' path=', b' linkpath=', b' size=', b' hdrcharset=', b' GNU.', b' SCHILY.realsize=')


def _harmless(block: bytes, file: BinaryIO) -> int:
  """Bytes of an extended header without which the member after it is the same; 0 for others."""
  size = _size(block) if block[156:157] == b'x' else -1
  if not 0 < size <= _LONGEST_EXTENDED:
    return 0
  content = file.read(size)
  if len(content) < size or any(change in content for change in _CHANGES):
    return 0
  return _BLOCK + -(-size // _BLOCK) * _BLOCK


def _size(block: bytes) -> int:
  """The size in a header where it is whole and in plain octal digits; else -1."""
  try:
    size, checksum = int(block[124:136].strip(b' \0'), 8), int(block[148:156].strip(b' \0'), 8)
  except ValueError:
    return -1
  added = sum(block) - sum(block[148:156]) + 8 * ord(' ')
  return size if checksum == added and block[257:262] == b'ustar' else -1


def _kind(found: tarfile.TarInfo) -> str:
  if found.isdir():
    return ''
  if found.islnk() or found.issym():
    return LINKS
  if found.issparse():
    return SPARSE
  return FILE if found.isreg() else SPECIAL


def _target(found: tarfile.TarInfo) -> str:
  if found.issym():  # from where the link is
    return posixpath.join(posixpath.dirname(found.name), found.linkname)
  return found.linkname if found.islnk() else ''


def _damaged(path: str, size: int, offset: int, reason: str) -> DamageError:
  where = f'{min(offset, size):,} of {size:,} bytes'
  return DamageError(f'{path} is cut short or damaged after {where} ({one_line(reason)})')
