"""A dataset of tar files: its splits and classes."""

import collections
import dataclasses
import logging
import os
import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from vit_jax.data import class_names
from vit_jax.data.image_files import Scan, is_image, no_images
from vit_jax.data.records import SKIPPING, Source
from vit_jax.data.sources.layout import SPLITS
from vit_jax.data.sources.shards.finding import TAR, splits_of, tar_files, warn_of_missing
from vit_jax.data.sources.shards.folders import EXPECTED, classes_by_folder
from vit_jax.data.sources.shards.headers import LINKS, SPARSE
from vit_jax.data.sources.shards.index import Index, TarRecords, open_index
from vit_jax.data.sources.shards.members import Keys
from vit_jax.errors import ConfigError, DatasetError, counted, some

log = logging.getLogger(__name__)

# Files beside the tar files that name the classes, in the order of their numbers.
_CLASS_NAMES = ('classnames.txt', 'classes.txt', 'class_names.txt', 'labels.txt', 'classes.json')
_EXCLUDED = -2  # in place of a label: the image is left out
_NUMBER = re.compile(r'-?\d+', re.ASCII)


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
  image_key, label_key = (key and key.removeprefix('.') for key in (image_key, label_key))
  index = open_index(root, files, Keys(image_key or None, label_key or None), on_error)
  if not len(index):
    what = f'{counted(len(files), "tar file")} of dataset {root} without images'
    inner = '; unpack the tar files in them once' if TAR in index.left_out.left_out else ''
    raise DatasetError(no_images(what, index.left_out.left_out) + inner)
  index.left_out.warn(f'dataset {root}')
  _warn_of_unread(root, index.left_out, beside)
  if beside.images and (any(index.folders) or (index.code >= 0).any()):  # they are no classes
    warn_of_missing(root, files)
  if (index.code >= 0).any():
    labels, classes, rows = _by_texts(root, index, on_error)
  else:
    labels, classes, rows = classes_by_folder(root, index, _splits(root, index))
  records = {split: TarRecords(index, kept, labels[kept]) for split, kept in rows.items()}
  return Source('tar', classes, records, found=_found(index, records))


# Endings of what may be tar files of the same dataset.
_UNREAD = ('.gz', '.tgz', '.bz2', '.xz', '.zst', '.zip', '.part', '.incomplete', '.crdownload')


def _warn_of_unread(root: str, left_out: Scan, beside: Scan) -> None:
  """Warns of images that are there and not read, and of tar files that are no more or not yet."""
  kinds = {LINKS: 'tar -h follows them', SPARSE: 'write the tar file without -S'}
  for kind, advice in kinds.items():
    if found := left_out.left_out.get(kind):
      log.warning(
        'dataset %s: left out %s %s, such as %s: %s',
        root, f'{found.count:,}', kind, found.example, advice,
      )  # fmt: skip
  _warn_of_beside(root, beside, _UNREAD.__contains__, 'archive', ': unpack or download it again')
  _warn_of_beside(root, beside, is_image, 'image', '')


def _warn_of_beside(
  root: str, beside: Scan, wanted: Callable[[str], bool], noun: str, advice: str
) -> None:
  found = [left_out for ending, left_out in beside.left_out.items() if wanted(ending)]
  if found:
    log.warning(
      'dataset %s: left out %s beside the tar files, such as %s%s',
      root, counted(sum(f.count for f in found), noun), min(f.example for f in found), advice,
    )  # fmt: skip


_Found = tuple[np.ndarray, tuple[str, ...], dict[str, np.ndarray]]


def _by_texts(root: str, index: Index, on_error: str) -> _Found:
  """As `classes_by_folder`, by labels beside the images."""
  labels, classes = _of_texts(root, index, on_error)
  of_file = _splits(root, index)
  rows = {}
  for split in (*SPLITS, ''):
    of_shard = np.asarray([its == split for its in of_file])
    rows[split] = np.flatnonzero(of_shard[index.shard] & (labels != _EXCLUDED))
  rows = {split: found for split, found in rows.items() if len(found)}
  _warn_of_new(root, {split: labels[found] for split, found in rows.items()}, classes)
  return labels, classes, rows


def _splits(root: str, index: Index) -> list[str]:
  """The split of each tar file; '' for those without images."""
  used = np.unique(index.shard).tolist()
  splits = splits_of(root, [index.files[k] for k in used])
  return [dict(zip(used, splits, strict=True)).get(k, '') for k in range(len(index.files))]


def _of_texts(root: str, index: Index, on_error: str) -> tuple[np.ndarray, tuple[str, ...]]:
  """Labels and classes from what lies beside the images."""
  bare = np.flatnonzero(index.code < 0)
  if len(bare):
    problem = (
      f'dataset {root}: {len(bare):,} of {counted(len(index), "image")} have no label, such as '
      f'{index.id(int(bare[0]))}'
    )
    if on_error != 'skip':
      raise DatasetError(f'{problem}; {EXPECTED}; {SKIPPING} leaves them out')
    log.warning('%s; left out, as on_error=skip', problem)
  index = dataclasses.replace(index, texts=_composed(index.texts))
  names = _composed(_names_beside(root))
  if all(map(_NUMBER.fullmatch, index.texts)):
    of_text, classes = _of_numbers(root, index, [int(text) for text in index.texts], names)
  else:
    of_text, classes = _of_words(root, index.texts, names)
  return np.asarray([*of_text, _EXCLUDED], np.int32)[index.code], classes


def _composed(texts: Sequence[str]) -> tuple[str, ...]:
  """In the form that is one for macOS and Linux."""
  return tuple(unicodedata.normalize('NFC', text) for text in texts)


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
  if not used:
    raise DatasetError(f'dataset {root}: all labels are below 0, which is none; {EXPECTED}')
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
  classes = tuple(names) or tuple(sorted(set(texts)))
  place = {name: label for label, name in enumerate(classes)}
  unknown = [text for text in texts if text not in place]
  if unknown:
    raise DatasetError(
      f'dataset {root}: the labels {some(map(repr, unknown), 3)} are none of the {len(names)} '
      'classes that are named beside its tar files'
    )
  return [place[text] for text in texts], classes


def _warn_of_new(root: str, labels_of: Mapping[str, np.ndarray], classes: Sequence[str]) -> None:
  """Warns of classes of held-out splits that training lacks."""
  if 'train' not in labels_of:
    return
  trained = np.unique(labels_of['train'])
  for split in ('val', 'test'):
    labels = np.unique(labels_of.get(split, trained))
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
