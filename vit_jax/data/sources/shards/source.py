"""A dataset of tar files: its splits and classes."""

import collections
import logging
import os
import re
from collections.abc import Mapping, Sequence

import numpy as np

from vit_jax.data import class_names
from vit_jax.data.class_names import unusable
from vit_jax.data.image_files import Scan, is_image, no_images
from vit_jax.data.records import SKIPPING, Source
from vit_jax.data.sources.layout import SPLITS
from vit_jax.data.sources.shards.finding import TAR, split_of, tar_files, warn_of_missing
from vit_jax.data.sources.shards.index import Index, TarRecords, open_index
from vit_jax.data.sources.shards.members import Keys
from vit_jax.data.splits import canonical
from vit_jax.errors import ConfigError, DatasetError, counted, some

log = logging.getLogger(__name__)

# Files beside the tar files that name the classes, in the order of their numbers.
_CLASS_NAMES = ('classnames.txt', 'classes.txt', 'class_names.txt', 'labels.txt', 'classes.json')
_SPLITS = (*SPLITS, '')
_EXCLUDED = -2  # in place of a label: the image is left out
_NUMBER = re.compile(r'-?\d+', re.ASCII)

_EXPECTED = (
  'expected samples (KEY.jpg with KEY.cls, or KEY.json with "label"), class folders in the tar '
  'files (CLASS/image.jpg), or a tar file for each class (CLASS.tar)'
)


def tar_source(
  root: str,
  files: Sequence[str] = (),
  image_key: str | None = None,
  label_key: str | None = None,
  on_error: str = 'raise',
) -> Source:
  """Reads where the images of tar files lie, and their labels.

  The splits are those of the tar files' folders or names, or of the folders within. The class of an
  image is the label beside it, else its folder, else its tar file.

  Args:
    root: the dataset's folder.
    files: names of tar files in it; all, when empty.
    image_key: ending of the images, where a sample has several ('left.jpg').
    label_key: ending of the labels, or 'json/KEY'.
    on_error: 'skip' leaves out, with a warning, what is damaged and images without a label.

  Raises:
    DatasetError: damaged or compressed files, images without labels, splits that are not clear.
  """
  beside = Scan()
  if not files:
    beside = tar_files(root)
    files = beside.images
  index = open_index(root, files, Keys(image_key, label_key), on_error)
  if not len(index):
    what = f'{counted(len(files), "tar file")} of dataset {root} without images'
    raise DatasetError(no_images(what, index.left_out.left_out))
  index.left_out.warn(f'dataset {root}')
  if beside.images and (any(index.folders) or (index.code >= 0).any()):  # they are no classes
    warn_of_missing(root, files)
  _warn_of_loose(root, beside)
  labels, classes, splits = _labels(root, index, on_error)
  records = {}
  for k, split in enumerate(_SPLITS):
    rows = np.flatnonzero((splits == k) & (labels != _EXCLUDED))
    if len(rows):
      records[split] = TarRecords(index, rows, labels[rows])
  _warn_of_new(root, records, classes)
  return Source('tar', classes, records, found=_found(index, records))


def _warn_of_loose(root: str, beside: Scan) -> None:
  loose = [found for ending, found in beside.left_out.items() if is_image(ending)]
  if loose:
    log.warning(
      'dataset %s: left out %s beside the tar files, such as %s',
      root, counted(sum(found.count for found in loose), 'image'), loose[0].example,
    )  # fmt: skip


_Found = tuple[np.ndarray, tuple[str, ...], np.ndarray]


def _labels(root: str, index: Index, on_error: str) -> _Found:
  """The class of each image, the classes' names, and the position in `_SPLITS` of its split."""
  if (index.code >= 0).any():
    labels, classes = _of_texts(root, index, on_error)
    return labels, classes, _splits(root, index)
  parts = [folder.split('/') if folder else [] for folder in index.folders]
  splits: list[str] = []
  while all(len(part) > 1 for part in parts):
    first = {part[0] for part in parts}
    if not splits and all(canonical(name) in SPLITS for name in first):
      splits = [canonical(part[0]) for part in parts]
    elif len(first) > 1:
      break
    parts = [part[1:] for part in parts]
  if not any(parts):
    names, of_image = _stems(root, index), index.shard
    of_split = _splits(root, index, by_folder_alone=True)
  elif all(parts):
    names, of_image = [part[0] for part in parts], index.folder
    of_split = _numbers(splits)[index.folder] if splits else _splits(root, index)
  else:
    bare = index.id(int(np.argmin([bool(parts[k]) for k in index.folder])))
    raise DatasetError(
      f'dataset {root}: {bare} lies in no class folder, and others do; {_EXPECTED}'
    )
  used = [names[k] for k in np.unique(of_image)]
  classes = tuple(sorted(set(used)))
  problems = [f'dataset {root}: class {c!r} {why}' for c in classes if (why := unusable(c))]
  if problems:
    raise DatasetError(problems)
  number = {name: label for label, name in enumerate(classes)}
  return np.asarray([number.get(name, -1) for name in names], np.int32)[of_image], classes, of_split


def _stems(root: str, index: Index) -> list[str]:
  """The tar files' names, which are classes.

  Raises:
    DatasetError: they are numbers, or name splits.
  """
  stems = [os.path.basename(file)[: -len(TAR)] for file in index.files]
  used = {stems[k] for k in np.unique(index.shard)}
  alike = len({re.sub(r'\d+', '', stem) for stem in used}) < len(used)
  numbered = alike and not all(re.fullmatch(r'n\d{8}', stem) for stem in used)  # WordNet's
  if len(used) < 2 or numbered or any(split_of(stem + TAR) for stem in used):
    raise DatasetError(f'dataset {root}: {index.id(0)} has no label; {_EXPECTED}')
  return stems


def _of_texts(root: str, index: Index, on_error: str) -> tuple[np.ndarray, tuple[str, ...]]:
  """Labels and classes from what lies beside the images."""
  bare = np.flatnonzero(index.code < 0)
  if len(bare):
    problem = (
      f'dataset {root}: {len(bare):,} of {counted(len(index), "image")} have no label, such as '
      f'{index.id(int(bare[0]))}'
    )
    if on_error != 'skip':
      raise DatasetError(f'{problem}; {_EXPECTED}; {SKIPPING} leaves them out')
    log.warning('%s; left out, as on_error=skip', problem)
  names = _names_beside(root)
  if all(map(_NUMBER.fullmatch, index.texts)):
    of_text, classes = _of_numbers(root, index, [int(text) for text in index.texts], names)
  else:
    of_text, classes = _of_words(root, index.texts, names)
  return np.asarray([*of_text, _EXCLUDED], np.int32)[index.code], classes


def _names_beside(root: str) -> tuple[str, ...]:
  """The class names that a file beside the tar files lists, each once; () where there is none."""
  path = next((p for p in (os.path.join(root, f) for f in _CLASS_NAMES) if os.path.isfile(p)), '')
  try:
    names = class_names.read_file(path) if path else ()
  except ConfigError as e:
    raise DatasetError(e.problems) from None
  count = collections.Counter(names)
  return tuple(f'{name} ({i})' if count[name] > 1 else name for i, name in enumerate(names))


def _of_numbers(
  root: str, index: Index, numbers: Sequence[int], names: Sequence[str]
) -> tuple[list[int], tuple[str, ...]]:
  """Classes that are numbers; below 0 is no class, as in the test splits of contests."""
  used = sorted({number for number in numbers if number >= 0})
  if not names and _is_imagenet(root, index, used):
    names = class_names.wordnet_ids()
  if not names:
    place = {number: label for label, number in enumerate(used)}
    return [place.get(number, -1) for number in numbers], tuple(map(str, used))
  if used and used[-1] >= len(names):
    first = int(np.argmax(index.code == numbers.index(used[-1])))
    raise DatasetError(
      f'dataset {root}: the label {used[-1]} of {index.id(first)} is none of the {len(names)} '
      'classes that are named beside the tar files, which count from 0'
    )
  return [max(number, -1) for number in numbers], tuple(names)


def _is_imagenet(root: str, index: Index, numbers: Sequence[int]) -> bool:
  """Whether numbers are those of ImageNet-1k: all thousand, in a folder or files of its name."""
  names = [os.path.basename(os.path.abspath(root)), index.files[0]]
  says_so = any('imagenet' in re.sub('[^a-z]', '', name.lower()) for name in names)
  return says_so and list(numbers) == list(range(1000))


def _of_words(
  root: str, texts: Sequence[str], names: Sequence[str]
) -> tuple[list[int], tuple[str, ...]]:
  """Classes that are names, in the order of those that are listed, else of the alphabet."""
  classes = tuple(names) or tuple(sorted(texts))
  place = {name: label for label, name in enumerate(classes)}
  unknown = [text for text in texts if text not in place]
  if unknown:
    raise DatasetError(
      f'dataset {root}: the labels {some(map(repr, unknown), 3)} are none of the {len(names)} '
      'classes that are named beside its tar files'
    )
  return [place[text] for text in texts], classes


def _splits(root: str, index: Index, by_folder_alone: bool = False) -> np.ndarray:
  """The position in `_SPLITS` of each image's split, which its tar file names.

  Raises:
    DatasetError: some tar files name a split and others do not.
  """
  of_file = [split_of(file, by_folder_alone) for file in index.files]
  used = np.unique(index.shard)
  without = [index.files[k] for k in used if not of_file[k]]
  if without and len(without) < len(used):
    named = next(index.files[k] for k in used if of_file[k])
    raise DatasetError(
      f'dataset {root}: {named} names its split and {some(without, 3)} '
      f'{"does" if len(without) == 1 else "do"} not; expected names such as train-0000.tar and '
      'val-0000.tar, or the folders train/ and val/'
    )
  return _numbers(of_file)[index.shard]


def _numbers(splits: Sequence[str]) -> np.ndarray:
  return np.asarray([_SPLITS.index(split) for split in splits], np.int8)


def _warn_of_new(root: str, records: Mapping[str, TarRecords], classes: Sequence[str]) -> None:
  """Warns of classes of held-out splits that training lacks."""
  if 'train' not in records:
    return
  trained = np.unique(records['train'].labels)
  for split in ('val', 'test'):
    labels = np.unique(records[split].labels) if split in records else np.zeros(0, np.int32)
    new = np.setdiff1d(labels[labels >= 0], trained)
    if len(new):
      log.warning(
        'dataset %s: the classes %s of %s are not in train: they cannot be learned, and every '
        'image of them counts as wrong',
        root, some((repr(classes[label]) for label in new), 3), split,
      )  # fmt: skip


def _found(index: Index, records: Mapping[str, TarRecords]) -> dict[str, str]:
  """Rows of a run's plan: what is used, and what is left out."""
  files = {split: len(np.unique(index.shard[part.rows])) for split, part in records.items()}
  places = [f'{split} ({counted(n, "tar file")})' for split, n in files.items() if split]
  where = f'splits {", ".join(places)}' if places else counted(len(index.files), 'tar file')
  counts = [f'{count:,} {ending}' for ending, count in index.endings.items()]
  rows = {'read': f'{where}; {", ".join(counts)}'}
  if index.left_out.left_out:
    rows['left out'] = str(index.left_out)
  return rows
