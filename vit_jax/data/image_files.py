"""Which files are images, by their names."""

import glob
import os
import pathlib

from vit_jax.errors import UserError

# Formats that are read, by the endings people give them.
SUFFIXES = ('.jpg', '.jpeg', '.png', '.webp', '.bmp')
_MORE_SUFFIXES = (*SUFFIXES, '.gif', '.tif', '.tiff')


def list_images(root: str, folder: str) -> list[str]:
  """Sorted paths of all images in and below `folder`, relative to `root`, with '/' between."""
  found = []
  for path, folders, files in os.walk(os.path.join(root, folder), followlinks=True):
    folders[:] = [f for f in folders if f[0] != '.']
    for name in files:
      if name[0] != '.' and name.lower().endswith(SUFFIXES):
        found.append(os.path.relpath(os.path.join(path, name), root).replace(os.sep, '/'))
  return sorted(found)


def find_images(patterns: list[str]) -> list[str]:
  """Paths of the images that files, folders and globs stand for, in order, each once.

  Raises:
    UserError: a folder or glob without images. A missing file is kept: it is reported as an image
      that cannot be read.
  """
  found: list[str] = []
  empty = []
  for pattern in patterns:
    path = pathlib.Path(pattern)
    if path.is_dir():
      matches = sorted(
        str(p) for p in path.rglob('*') if p.suffix.lower() in _MORE_SUFFIXES and p.is_file()
      )
    elif path.exists() or not glob.has_magic(pattern):
      matches = [pattern]
    else:
      matches = sorted(p for p in glob.glob(pattern, recursive=True) if pathlib.Path(p).is_file())
    if not matches:
      empty.append(f'no images in {pattern} (endings {", ".join(_MORE_SUFFIXES)})')
    found += matches
  if empty:
    raise UserError(empty)
  return list(dict.fromkeys(found))
