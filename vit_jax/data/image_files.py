"""Which files are images, by their names."""

import glob
import os
import pathlib

from vit_jax.errors import DatasetError
from vit_jax.files import refuse_system_folder

# Endings, in any case, of the raster formats that `decode_image` reads in every installation.
SUFFIXES = (
  *('.jpg', '.jpeg', '.jpe', '.jfif', '.png', '.webp', '.bmp', '.gif', '.tif', '.tiff'),
  *('.ppm', '.pgm', '.pbm', '.pnm'),
)


def list_images(root: str, folder: str) -> list[str]:
  """Sorted paths of all images in and below a folder, without hidden files and folders.

  Args:
    root: what the paths are relative to.
    folder: relative to `root`.

  Returns:
    Paths with '/' between.
  """
  found = []
  for path, folders, files in os.walk(os.path.join(root, folder), followlinks=True):
    folders[:] = [f for f in folders if f[0] != '.']
    for name in files:
      if name[0] != '.' and name.lower().endswith(SUFFIXES):
        found.append(os.path.relpath(os.path.join(path, name), root).replace(os.sep, '/'))
  return sorted(found)


def find_images(patterns: list[str]) -> list[str]:
  """Paths of the images that files, folders and globs name, in order, each once.

  Raises:
    DatasetError: a folder or glob without images. A missing file is kept: it is reported as an
      image that cannot be read.
  """
  found: list[str] = []
  empty = []
  for pattern in patterns:
    path = pathlib.Path(pattern)
    if path.is_dir():
      refuse_system_folder(pattern)
      matches = [str(path / name) for name in list_images(pattern, '')]
    elif path.exists() or not glob.has_magic(pattern):
      matches = [pattern]
    else:
      matches = sorted(p for p in glob.glob(pattern, recursive=True) if pathlib.Path(p).is_file())
    if not matches:
      empty.append(f'no images in {pattern} (endings {", ".join(SUFFIXES)})')
    found += matches
  if empty:
    raise DatasetError(empty)
  return list(dict.fromkeys(found))
