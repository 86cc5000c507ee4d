"""A list of a folder's files with their checksums, by which damage to them is found."""

import json
import pathlib
import zlib

from vit_jax.files import write_json

FILE = 'checksums.json'


def write(folder: pathlib.Path) -> None:
  """Lists size and CRC-32 of every file in a folder: {path within it: [bytes, checksum]}.

  Raises:
    StorageError: the list cannot be written.
  """
  paths = sorted(p for p in folder.rglob('*') if p.is_file() and p.name != FILE)
  found = {p.relative_to(folder).as_posix(): [p.stat().st_size, _crc(p)] for p in paths}
  write_json(folder / FILE, found)


def find_damage(folder: pathlib.Path, prefix: str = '') -> str:
  """What is wrong with the files whose listed path begins with a prefix.

  Returns:
    A clause that names the file; '' where all are as listed, or where there is no list.
  """
  path = folder / FILE
  if not path.exists():
    return ''
  try:
    for name, (size, checksum) in json.loads(path.read_text('utf-8')).items():
      file = folder / name
      if name.startswith(prefix) and (file.stat().st_size, _crc(file)) != (size, checksum):
        return f'{name} does not match its checksum'
  except OSError as e:
    return f'{e.filename}: {e.strerror}'
  except (ValueError, TypeError, AttributeError, RecursionError):
    return f'{FILE} is unreadable'
  return ''


def _crc(path: pathlib.Path) -> int:
  checksum = 0
  with open(path, 'rb') as f:
    while block := f.read(1 << 22):
      checksum = zlib.crc32(block, checksum)
  return checksum
