"""Folders of images: CLASS/* or {train,val,test}/CLASS/*."""

import collections
import dataclasses
import logging
import os
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from typing import TypeVar

from vit_jax.data.class_names import normalize, unusable
from vit_jax.data.image_files import OUTPUTS, Scan, ending_of, no_images, scan
from vit_jax.data.records import SKIPPING, FileRecords, Source
from vit_jax.data.sources.layout import SPLITS, Layout, find_layout, no_classes, subfolders
from vit_jax.data.splits import canonical
from vit_jax.errors import DatasetError, some

log = logging.getLogger(__name__)

_Classes = dict[str, Scan]  # by the class's name
_T = TypeVar('_T')


@dataclasses.dataclass
class _Read:
  """What was read, and what is wrong with it."""

  splits: dict[str, _Classes] = dataclasses.field(default_factory=dict)
  problems: list[str] = dataclasses.field(default_factory=list)
  all: Scan = dataclasses.field(default_factory=Scan)


def folder_source(root: str, on_error: str = 'raise') -> Source:
  """Reads the names of a folder's images; classes are the sorted folder names of all splits.

  A class folder is searched recursively. What is an image, and what is passed over, is said at
  `scan`; where splits and classes are, at `find_layout`.

  Args:
    root: the dataset's folder.
    on_error: 'skip' passes over class folders without images, with a warning.

  Raises:
    DatasetError: no class folders, an empty one, or two folders for one split or class.
  """
  layout = find_layout(root)
  read = _read(root, layout, on_error)
  if not read.problems:
    read.problems += misspelt(root, layout, read.splits)
  if read.problems:
    raise DatasetError(read.problems)
  read.all.warn(f'dataset {root}')
  warn_of_splits_within(root, read.all.folders)
  splits = with_known_classes(root, layout, read.splits)
  names = sorted({name for classes in splits.values() for name in classes})
  records = {}
  for split, classes in splits.items():
    files = [file for name in names if name in classes for file in classes[name].images]
    labels = [
      label for label, name in enumerate(names) if name in classes for _ in classes[name].images
    ]
    records[split] = FileRecords(root, files, labels)
  return Source('folder', tuple(names), records, found=_found(layout, splits, read.all))


def _read(root: str, layout: Layout, on_error: str) -> _Read:
  """Scans all class folders."""
  read = _Read()
  spelling: dict[str, str] = {}  # by its composed form, which macOS and Linux write differently
  empty: list[str] = []
  for split, top in layout.tops.items():
    folders = subfolders(os.path.join(root, top))
    if not folders:
      read.problems.append(no_classes(os.path.join(root, top)))
    read.splits[split] = classes = _Classes()
    for folder in folders:
      where = os.path.join(top, folder)
      found = scan(root, where)
      if not found.images and (OUTPUTS in found.left_out or layout.is_output):
        read.all.leave_out(OUTPUTS, where, where)
        continue
      read.all.add(found)
      if problem := unusable(folder):
        read.problems.append(f'class folder {os.path.join(root, top)}/{folder!r} {problem}')
      elif not found.images:
        problem = f'class folder {os.path.join(root, where)} has no images'
        empty.append(no_images(problem, found.left_out))
      else:
        name = spelling.setdefault(unicodedata.normalize('NFC', folder), folder)
        classes.setdefault(name, Scan()).add(found)
  if on_error != 'skip':
    read.problems += [f'{e}; fill or remove it; {SKIPPING} leaves it out' for e in empty]
  elif empty:
    more = f' (and {len(empty) - 1} more)' if len(empty) > 1 else ''
    log.warning('%s%s; left out, as on_error=skip', empty[0], more)
    if not any(read.splits.values()):
      read.problems.append(f'dataset {root} has no images in its class folders')
  return read


def misspelt(root: str, layout: Layout, splits: Mapping[str, Mapping[str, object]]) -> list[str]:
  """Classes of a held-out split that training lacks and has in another case or spelling."""
  problems = []
  trained = splits.get('train', {})
  spelt = {normalize(name): name for name in trained}
  for split in ('val', 'test'):
    for name in splits.get(split, {}):
      other = spelt.get(normalize(name))
      if name not in trained and other and other not in splits[split]:
        folders = [os.path.join(layout.tops[s], n) for s, n in (('train', other), (split, name))]
        problems.append(
          f'dataset {root}: the class folders {folders[0]} and {folders[1]} differ in case or '
          'spelling alone, and would be two classes; rename one of them'
        )
  return problems


def with_known_classes(
  root: str, layout: Layout, splits: dict[str, dict[str, _T]]
) -> dict[str, dict[str, _T]]:
  """The splits, without held-out ones that share no class with training; warns of new classes."""
  trained = splits.get('train')
  if not trained:
    return splits
  kept = {'train': trained}
  for split in (s for s in ('val', 'test') if s in splits):
    new = [name for name in splits[split] if name not in trained]
    where = os.path.join(root, layout.tops[split])
    words = some(map(repr, new), 3)
    if len(new) == len(splits[split]) and new:
      log.warning(
        '%s: left out, as none of its folders (%s) is a class of %s; sort its images into '
        'CLASS/image.jpg', where, words, layout.tops['train'],
      )  # fmt: skip
      continue
    if new:
      log.warning(
        '%s: its classes %s are not in %s: they cannot be learned, and every image of them counts '
        'as wrong', where, words, layout.tops['train'],
      )  # fmt: skip
    kept[split] = splits[split]
  return kept


def warn_of_splits_within(root: str, folders: Iterable[str]) -> None:
  """Warns of CLASS/train and CLASS/test, which are pooled."""
  within = sorted({canonical(f) for f in folders} & set(SPLITS))
  if len(within) > 1 and 'train' in within:
    log.warning(
      'dataset %s: the folders %s within class folders are not read as splits: their images are '
      'pooled; for splits, lay them out as train/CLASS/image.jpg', root, ', '.join(within),
    )  # fmt: skip


def _found(layout: Layout, splits: Mapping[str, _Classes], all_found: Scan) -> dict[str, str]:
  """Rows of a run's plan: what is used, and what is left out."""
  scans = [found for classes in splits.values() for found in classes.values()]
  endings = collections.Counter(ending_of(file) for found in scans for file in found.images)
  tops = [split if split == top else f'{split} ({top!r})' for split, top in layout.tops.items()]
  places = [f'splits {", ".join(tops)}'] if any(splits) else []
  places += [f'class folders in {top!r}' for split, top in layout.tops.items() if top and not split]
  counts = [f'{count:,} {ending}' for ending, count in endings.most_common()]
  rows = {'read': '; '.join([*places, ', '.join(counts)])}
  if len(splits) > 1 and 'train' in splits:
    for split in splits:
      lacking = [name for name in splits['train'] if name not in splits[split]]
      if lacking:
        rows['read'] += f'; {split} lacks {_some(lacking)}'
  if all_found.left_out:
    rows['left out'] = str(all_found)
  return rows


def _some(names: Sequence[str]) -> str:
  return f'{len(names)} classes such as {names[0]!r}' if len(names) > 1 else repr(names[0])
