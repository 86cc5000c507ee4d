"""Where the splits and the class folders of a dataset folder are."""

import dataclasses
import logging
import os
import re
from collections.abc import Mapping
from typing import Protocol

from vit_jax.data.image_files import (
  ending_of,
  entries,
  is_folder,
  is_image,
  is_output,
  is_visible,
  is_within,
  link_target,
  scan,
)
from vit_jax.data.splits import canonical
from vit_jax.errors import DatasetError, counted

log = logging.getLogger(__name__)

SPLITS = ('train', 'val', 'test')
_ARCHIVES = ('.tar', '.zip', '.gz', '.tgz', '.bz2', '.xz', '.zst', '.7z', '.rar')
_TABLES = ('.csv', '.tsv', '.txt', '.xml', '.json', '.jsonl', '.mat', '.xlsx')


@dataclasses.dataclass(frozen=True)
class Layout:
  """Which folders hold the class folders.

  Attributes:
    tops: folder relative to the dataset's by split; {'': top} where there are no splits.
    is_output: whether the dataset's folder is a run's as well.
  """

  tops: dict[str, str]
  is_output: bool


@dataclasses.dataclass(frozen=True)
class Look:
  """What lies right in a folder: sorted names, and how many images."""

  path: str
  folders: list[str]
  images: int
  tables: list[str]
  archives: list[str]


class Tree(Protocol):
  """Folders on a disk, or of the members of tar files; paths begin with the dataset's own."""

  def look(self, path: str) -> Look:
    """What lies right in a folder."""

  def images_below(self, path: str) -> int:
    """How many images are in and below a folder."""

  def is_output(self, path: str) -> bool:
    """Whether a folder is a run's, or holds a page that this program wrote."""


class _Disk:
  """The folders of this machine."""

  def look(self, path: str) -> Look:
    """As of `Tree`."""
    return _look(path)

  def images_below(self, path: str) -> int:
    """As of `Tree`."""
    return len(scan(*os.path.split(path)).images)

  def is_output(self, path: str) -> bool:
    """As of `Tree`."""
    return is_output(path, entries(path))


_DISK = _Disk()


def find_layout(root: str, tree: Tree = _DISK) -> Layout:
  """Finds the splits of a folder, or the one folder that holds the class folders.

  Read are CLASS/* and {train,val,test}/CLASS/*, with the names that `canonical` knows or with these
  as parts of names (seg_train and seg_test, training_set and test_set), and both further down where
  each level is one folder alone (Kaggle's seg_train/seg_train/CLASS). What else holds images is
  warned of.

  Raises:
    DatasetError: two folders for one split; split folders with images but no class folders.
  """
  look, splits = _unwrapped(tree, tree.look(root))
  top = os.path.relpath(look.path, root) if look.path != root else ''
  _warn_of_tar_files(look)
  is_run = tree.is_output(root)
  if not splits:
    _warn_of_loose(look)
    _warn_of_one(tree, look)
    return Layout({'': top}, is_run)
  _warn_of_others(tree, look, splits)
  tops = {split: os.path.join(top, splits[split]) for split in SPLITS if split in splits}
  tops = _deeper(tree, root, tops)
  for folder in tops.values():
    _warn_of_loose(tree.look(os.path.join(root, folder)))
  return Layout(tops, is_run)


def subfolders(path: str) -> list[str]:
  """Sorted names of the folders in a folder, without hidden ones and links that lead up."""
  return _look(path).folders


def no_classes(path: str, tree: Tree = _DISK) -> str:
  """The problem of a folder that should hold class folders and has none."""
  look = tree.look(path)
  what = 'has images but no class folders' if look.images else 'has no class folders'
  example = os.path.join(path, 'CLASS', 'image.jpg')
  packed = ''.join(f'; {name} has to be unpacked first' for name in look.archives[:1])
  return f'dataset {path} {what}; expected {example}{packed or _of_tables(look)}'


def _look(path: str) -> Look:
  folders, tables, archives, images = [], [], [], 0
  for entry in entries(path):
    if not is_visible(entry.name):
      continue
    if is_folder(entry):
      target = link_target(entry)
      if target is None or not is_within(os.path.realpath(path), target):
        folders.append(entry.name)
    elif is_image(ending_of(entry.name)):
      images += 1
    elif ending_of(entry.name) in _TABLES:
      tables.append(entry.name)
    elif ending_of(entry.name) in _ARCHIVES:
      archives.append(entry.name)
  return Look(path, sorted(folders), images, sorted(tables), sorted(archives))


def _unwrapped(tree: Tree, look: Look) -> tuple[Look, dict[str, str]]:
  """The folder that holds splits or several classes, where each above holds one folder alone."""
  first = look
  while not (splits := _splits(tree, look)):
    if len(look.folders) != 1 or look.images:
      break
    look = tree.look(os.path.join(look.path, look.folders[0]))
  several = splits or (len(look.folders) > 1 and not look.images)
  return (look, splits) if several else (first, {})


def _splits(tree: Tree, look: Look) -> dict[str, str]:
  """Name of the folder by split; empty where the folders are classes.

  A folder 'train' is a split only with folders in it: it may be a class of trains.
  """
  named: dict[str, list[str]] = {}
  for name in look.folders:
    if canonical(name) in SPLITS:
      named.setdefault(canonical(name), []).append(name)
  named = named or _by_part(look)
  inner = {n: tree.look(os.path.join(look.path, n)) for names in named.values() for n in names}
  nested = {s: [n for n in names if inner[n].folders] for s, names in named.items()}
  flat = {n: s for s, ns in named.items() for n in ns if inner[n].images and not inner[n].folders}
  twice = [names for names in nested.values() if len(names) > 1]
  if twice:
    both = ' and '.join(map(repr, twice[0]))
    raise DatasetError(f'dataset {look.path} has both {both} for one split; keep one of them')
  found = {split: names[0] for split, names in nested.items() if names}
  is_flat = len(set(flat.values())) > 1 and ('train' in flat.values() or len(flat) == len(inner))
  if ('train' in flat.values() and 'train' not in found) if found else is_flat:
    first = next(name for name in flat if flat[name] == 'train' or 'train' not in flat.values())
    raise DatasetError(
      f'dataset {look.path}: {" and ".join(sorted(flat))} hold images but no class folders; '
      f'expected {first}/CLASS/image.jpg{_of_tables(look, inner[first])}'
    )
  return found


def _by_part(look: Look) -> dict[str, list[str]]:
  """Folders by split whose names are alike but for a part that names it, such as seg_train."""
  alike: dict[str, dict[str, list[str]]] = {}
  for name in look.folders:
    for part in re.findall('[A-Za-z]+', name):
      if canonical(part) in SPLITS:
        rest = name.replace(part, '*', 1).lower()
        alike.setdefault(rest, {}).setdefault(canonical(part), []).append(name)
  groups = [group for group in alike.values() if 'train' in group and len(group) > 1]
  if len(groups) > 1:
    names = sorted(name for group in groups for names in group.values() for name in names)
    raise DatasetError(
      f'dataset {look.path}: the folders {", ".join(names)} are named like splits, several for '
      'each; expected train/CLASS/image.jpg and test/CLASS/image.jpg'
    )
  return groups[0] if groups else {}


def _deeper(tree: Tree, root: str, tops: dict[str, str]) -> dict[str, str]:
  """The split folders, or those within that hold the classes where each holds one folder alone."""
  while True:
    looks = [tree.look(os.path.join(root, top)) for top in tops.values()]
    if any(look.images or len(look.folders) != 1 for look in looks):
      return tops
    names = [look.folders[0] for look in looks]
    doubled = all(n == os.path.basename(look.path) for n, look in zip(names, looks))
    inner = [tree.look(os.path.join(look.path, n)) for n, look in zip(names, looks)]
    if any(i.images or not i.folders for i in inner) or not (doubled or len(set(names)) == 1):
      return tops
    tops = {split: os.path.join(top, n) for (split, top), n in zip(tops.items(), names)}


def _warn_of_loose(look: Look) -> None:
  if look.images and look.folders:
    log.warning(
      'dataset %s: left out %s in no class folder; expected CLASS/image.jpg%s',
      look.path, counted(look.images, 'image that lies', 'images that lie'), _of_tables(look),
    )  # fmt: skip


def _warn_of_tar_files(look: Look) -> None:
  tars = [name for name in look.archives if ending_of(name) == '.tar']
  if tars:
    log.warning(
      'dataset %s: left out %s, such as %s, as its folders hold images; to read the tar files, '
      'name them: %s',
      look.path, counted(len(tars), 'tar file'), tars[0], os.path.join(look.path, '*.tar'),
    )  # fmt: skip


def _warn_of_one(tree: Tree, look: Look) -> None:
  """Warns where a table may say the classes of the images of one folder."""
  if len(look.folders) != 1:
    return
  only = tree.look(os.path.join(look.path, look.folders[0]))
  tables = _of_tables(look, only)
  if tables:
    log.warning(
      'dataset %s: its one folder %r is its one class%s; expected a folder for each class',
      look.path, look.folders[0], tables,
    )  # fmt: skip


def _warn_of_others(tree: Tree, look: Look, splits: Mapping[str, str]) -> None:
  """Warns of folders beside the splits that hold images, and of splits without any."""
  others = [name for name in look.folders if name not in splits.values()]
  counts = {name: tree.images_below(os.path.join(look.path, name)) for name in others}
  words = [f'{name!r} ({counted(n, "image")})' for name, n in counts.items() if n]
  words += [f'{n!r} (no images)' for n in others if canonical(n) in SPLITS and not counts[n]]
  if words:
    log.warning(
      'dataset %s: left out %s: the splits are the folders %s, and a split holds CLASS/image.jpg',
      look.path, ', '.join(words), ', '.join(map(repr, splits.values())),
    )  # fmt: skip


def _of_tables(*looks: Look) -> str:
  tables = [os.path.join(look.path, name) for look in looks for name in look.tables]
  return f' (a table such as {tables[0]} is not read)' if tables else ''
