"""Classes of tar files without labels: the folders in them, by the rules of folders, or the files.

The tar files that make up one split, or all of them, are read as if they were unpacked into one
folder; where that has no classes, as if each were unpacked into a folder of its own name.
"""

import collections
import os
import re
import unicodedata
from collections.abc import Sequence
from typing import Any

import numpy as np

from vit_jax.data.class_names import unusable
from vit_jax.data.sources.folder import misspelt, warn_of_splits_within, with_known_classes
from vit_jax.data.sources.layout import SPLITS, Look, find_layout, no_classes
from vit_jax.data.sources.shards.finding import TAR
from vit_jax.data.sources.shards.index import Index
from vit_jax.data.splits import canonical
from vit_jax.errors import DatasetError

EXPECTED = (
  'expected samples (KEY.jpg with KEY.cls, or KEY.json with "label"), class folders in the tar '
  'files (CLASS/image.jpg), or a tar file for each class (CLASS.tar)'
)

_Parts = list[str]


class _Tree:
  """As `layout.Tree`, of folders in memory.

  Args:
    root: the dataset's folder.
    folders: the folders that hold images, as parts of their paths.
    counts: how many images lie right in each.
  """

  def __init__(self, root: str, folders: Sequence[_Parts], counts: Sequence[int]):
    self._root = root
    self._images: collections.Counter[str] = collections.Counter()
    self._below: collections.Counter[str] = collections.Counter()
    self._folders: dict[str, set[str]] = collections.defaultdict(set)
    for parts, count in zip(folders, counts, strict=True):
      self._images['/'.join(parts)] += count
      for depth in range(len(parts) + 1):
        path = '/'.join(parts[:depth])
        self._below[path] += count
        self._folders[path].update(parts[depth : depth + 1])

  def look(self, path: str) -> Look:
    """As of `Tree`."""
    key = self._key(path)
    return Look(path, sorted(self._folders[key]), self._images[key], [], [])

  def images_below(self, path: str) -> int:
    """As of `Tree`."""
    return self._below[self._key(path)]

  def is_output(self, path: str) -> bool:
    """As of `Tree`: tar files are none."""
    return False

  def _key(self, path: str) -> str:
    return path[len(self._root) :].replace(os.sep, '/').strip('/')


def classes_by_folder(
  root: str, index: Index, split_of_file: Sequence[str]
) -> tuple[np.ndarray, tuple[str, ...], dict[str, np.ndarray]]:
  """Finds classes and splits.

  Args:
    root: the dataset's folder.
    index: of images without labels.
    split_of_file: the split that each tar file is of by its name; '' for none, of all or none.

  Returns:
    The class of each image int32 [n]; the classes' names; the images' rows by split, without those
    that are left out.

  Raises:
    DatasetError: no classes, or splits that are not clear.
  """
  known = (*SPLITS, '')
  of_shard = np.asarray([known.index(split) for split in split_of_file])
  numbers, folders, of_image, counts = _grouped(index, of_shard)
  splits = [known[k] for k in numbers]
  inner = _without_split([_parts(index.folders[k]) for k in folders], splits)
  flat = [not parts for parts in inner]
  if any(flat) and not all(flat):
    bare = index.id(int(np.argmax(of_image == flat.index(True))))
    raise DatasetError(f'dataset {root}: {bare} lies in no class folder, and others do; {EXPECTED}')
  stems = [os.path.basename(file)[: -len(TAR)] for file in index.files]
  by_file = not _has_classes(inner)
  problem = _why_no_classes([stems[k] for k in np.unique(index.shard)]) if by_file else ''
  if problem and all(flat):
    raise DatasetError(f'dataset {root}: {index.id(0)} has no label{problem}; {EXPECTED}')
  by_file = by_file and not problem
  if by_file:
    below = {(split, k): parts for split, k, parts in zip(splits, folders, inner, strict=True)}
    shards, folders, of_image, counts = _grouped(index, np.arange(len(stems)))
    splits = [split_of_file[k] for k in shards]
    inner = [
      [stems[shard], *below[split, k]]
      for shard, split, k in zip(shards, splits, folders, strict=True)
    ]
  paths = [[split, *parts] if split else parts for split, parts in zip(splits, inner, strict=True)]
  found = _classes(root, paths, counts, 'tar file' if by_file else 'class folder')
  names = sorted({name for name, _ in found if name})
  number = {name: label for label, name in enumerate(names)}
  labels = np.asarray([number.get(name, -1) for name, _ in found], np.int32)[of_image]
  rows = {}
  for split in (*SPLITS, ''):
    of_pair = [bool(name) and split == its for name, its in found]
    rows[split] = np.flatnonzero(np.asarray(of_pair)[of_image])
  return labels, tuple(names), {split: r for split, r in rows.items() if len(r)}


def _grouped(index: Index, of_shard: np.ndarray) -> tuple[list[int], list[int], np.ndarray, Any]:
  """The groups that images make by a number of their tar file and by their folder in it.

  Returns:
    The number and the folder of each group; the group of each image; how many are in each group.
  """
  size = len(index.folders)
  group = of_shard[index.shard].astype(np.int64) * size + index.folder
  groups, of_image, counts = np.unique(group, return_inverse=True, return_counts=True)
  return (groups // size).tolist(), (groups % size).tolist(), of_image, counts


def _parts(folder: str) -> _Parts:
  return folder.split('/') if folder else []


def _without_split(inner: list[_Parts], splits: Sequence[str]) -> list[_Parts]:
  """The folders without what leads to the classes in tar files of one split: 'train/' and above."""
  inner = list(inner)
  for split in set(splits) - {''}:
    where = [k for k, of in enumerate(splits) if of == split]
    depth = 0
    while len({tuple(inner[k][: depth + 1]) for k in where}) == 1 and all(
      len(inner[k]) > depth for k in where
    ):
      depth += 1
      if canonical(inner[where[0]][depth - 1]) == split:
        for k in where:
          inner[k] = inner[k][depth:]
        depth = 0
  return inner


def _has_classes(inner: Sequence[_Parts]) -> bool:
  """Whether the folders in tar files tell images apart, by more than splits without classes."""
  rest = list(inner)
  while all(rest) and len({parts[0] for parts in rest}) == 1:
    rest = [parts[1:] for parts in rest]
  return any(rest) and not all(len(p) == 1 and canonical(p[0]) in SPLITS for p in rest)


def _why_no_classes(stems: Sequence[str]) -> str:
  """Why names of tar files cannot be classes; '' where they can."""
  used = sorted(set(stems))
  if len(used) < 2:
    return ', and one tar file is no classes'
  if all(re.fullmatch(r'n\d{8}', stem) for stem in used):  # WordNet's
    return ''
  alike = collections.Counter(re.sub(r'\d+', '#', stem) for stem in used)
  most = next((stem for stem in used if alike[re.sub(r'\d+', '#', stem)] > 1), '')
  if most:
    return f', and {most}{TAR} and others that differ in numbers alone look like parts of one set'
  named = [stem for stem in used if canonical(stem) in SPLITS]
  return f', and {named[0]}{TAR} is a split and no class' if named else ''


def _classes(
  root: str, paths: Sequence[_Parts], counts: np.ndarray, kind: str
) -> list[tuple[str, str]]:
  """The class and the split of each folder; '' for the class of what is left out."""
  tree = _Tree(root, paths, counts.tolist())
  layout = find_layout(root, tree)
  spelling: dict[str, str] = {}  # by its composed form, which macOS and Linux write differently
  problems: list[str] = []
  splits: dict[str, dict[str, None]] = {}
  found = [('', '')] * len(paths)
  for split, top in layout.tops.items():
    start = _parts(top.replace(os.sep, '/'))
    splits[split] = {}
    for k, path in sorted(enumerate(paths), key=lambda numbered: numbered[1]):
      if len(path) > len(start) and path[: len(start)] == start:
        folder = path[len(start)]
        name = spelling.setdefault(unicodedata.normalize('NFC', folder), folder)
        splits[split][name] = None
        found[k] = (name, split)
    if not splits[split]:
      problems.append(no_classes(os.path.join(root, top), tree))
    problems += [
      f'{kind} {os.path.join(root, top)}/{name!r} {problem}'
      for name in splits[split]
      if (problem := unusable(name))
    ]
  problems = problems or misspelt(root, layout, splits)
  if problems:
    raise DatasetError(problems)
  depth = {split: len(_parts(top.replace(os.sep, '/'))) + 1 for split, top in layout.tops.items()}
  within = [
    path[depth[split]]
    for path, (name, split) in zip(paths, found, strict=True)
    if name and len(path) > depth[split]
  ]
  warn_of_splits_within(root, within)
  kept = with_known_classes(root, layout, splits)
  return [(name if split in kept else '', split) for name, split in found]
