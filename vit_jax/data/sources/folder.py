"""Folders of images: CLASS/* or {train,val,test}/CLASS/*."""

import os

from vit_jax.data.image_files import SUFFIXES, list_images
from vit_jax.data.records import FileRecords, Source
from vit_jax.data.splits import canonical
from vit_jax.errors import DatasetError

SPLITS = ('train', 'val', 'test')


def folder_source(root: str) -> Source:
  """Reads the names of a folder's images; classes are the sorted folder names of all splits.

  A class folder is searched recursively. Hidden files and files that are not images by their ending
  are ignored.

  Args:
    root: the dataset's folder.

  Raises:
    DatasetError: no class folders, an empty one, or two folders for one split.
  """
  split_folders = find_split_folders(root)
  tops = split_folders or {'': ''}
  names = sorted({c for top in tops.values() for c in subfolders(os.path.join(root, top))})
  problems, records = [], {}
  for split, top in tops.items():
    files, labels = [], []
    present = subfolders(os.path.join(root, top))
    if not present:
      problems.append(_no_classes(root, top))
    for label, name in enumerate(names):
      if name not in present:
        continue  # a class may be missing from a split; the label stays
      found = list_images(root, os.path.join(top, name))
      if not found:
        problems.append(
          f'class folder {os.path.join(root, top, name)} has no images '
          f'({", ".join(SUFFIXES)}); fill or remove it'
        )
      files += found
      labels += [label] * len(found)
    records[split] = FileRecords(root, files, labels)
  if problems:
    raise DatasetError(problems)
  return Source('folder', tuple(names), records)


def find_split_folders(root: str) -> dict[str, str]:
  """Folder name by split name, for {train,val,test}/CLASS; empty for CLASS/* directly.

  A folder 'train' is a split only with folders in it: it may be a class of trains.
  """
  found: dict[str, str] = {}
  for name in subfolders(root):
    split = canonical(name)
    if split in SPLITS and subfolders(os.path.join(root, name)):
      if split in found:
        raise DatasetError(
          f'dataset {root} has both {found[split]!r} and {name!r}; keep one of them'
        )
      found[split] = name
  return {split: found[split] for split in SPLITS if split in found}


def subfolders(path: str) -> list[str]:
  """Sorted names of the folders in a folder, without hidden ones."""
  with os.scandir(path) as entries:
    return sorted(e.name for e in entries if e.is_dir() and e.name[0] not in '._')


def _no_classes(root: str, top: str) -> str:
  path = os.path.join(root, top)
  if list_images(root, top):
    return f'dataset {path} has images but no class folders; expected {path}/CLASS/image.jpg'
  return f'dataset {path} has no class folders; expected {path}/CLASS/image.jpg'
