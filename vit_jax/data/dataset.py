"""Datasets under one interface: open one by name, take splits, read examples."""

import copy
import logging
import unicodedata
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np

from vit_jax.data import splits as splits_lib
from vit_jax.data.records import Place, PooledRecords, Records, Source, has_box_of, place_of
from vit_jax.data.sources import find_source
from vit_jax.errors import ConfigError, DatasetError, did_you_mean

log = logging.getLogger(__name__)

Rows = tuple[Records, np.ndarray]


class Examples:
  """Labelled images in a fixed order, read at random; safe in threads and worker processes.

  Args:
    parts: stored images and which of their rows to take, one after another.
    new_label: int32, the label by stored label.
  """

  def __init__(self, parts: Sequence[Rows], new_label: np.ndarray):
    self._records = [records for records, _ in parts]
    sizes = [len(rows) for _, rows in parts]
    self._part = np.repeat(np.arange(len(parts)), sizes)
    self._row = np.concatenate([rows for _, rows in parts])
    self._new_label = new_label

  def __len__(self) -> int:
    return len(self._row)

  def __getitem__(self, index: int) -> dict[str, Any]:
    if not 0 <= index < len(self._row):
      raise IndexError(f'example {index} of {len(self._row)}')
    records, row = self._records[self._part[index]], int(self._row[index])
    example = records.read(row)
    stored = example['label']
    label = int(self._new_label[stored]) if stored >= 0 else -1
    all_labels = example.pop('all_labels', None)
    if all_labels is not None:
      example['labels'] = self._multi_hot(all_labels)
    return {**example, 'label': label, 'id': records.id(row)}

  def _multi_hot(self, all_labels: np.ndarray) -> np.ndarray:
    """uint8 `[k]`, 1 for each class among stored labels."""
    found = np.zeros(int(self._new_label.max()) + 1, np.uint8)
    new = relabel(all_labels, self._new_label)
    found[new[new >= 0]] = 1
    return found

  def id(self, index: int) -> str:
    """The image's name, without reading it."""
    return self._records[self._part[index]].id(int(self._row[index]))

  def place(self, index: int) -> Place | None:
    """Where the image lies in which file; None where images are no bytes of files."""
    return place_of(self._records[self._part[index]], int(self._row[index]))

  def path(self, index: int) -> str | None:
    """The file that is the image; None where images are not files of their own."""
    place = self.place(index)
    return place.path if place and place.size is None else None

  def take(self, rows: np.ndarray) -> 'Examples':
    """The examples at these indices, in their order."""
    taken = copy.copy(self)
    taken._part, taken._row = self._part[rows], self._row[rows]
    return taken

  def overlap(self, other: 'Examples') -> int:
    """How many of these examples are also among the others."""
    count = 0
    for i, records in enumerate(self._records):
      for j, others in enumerate(other._records):
        if records is others:
          count += int(np.isin(self._row[self._part == i], other._row[other._part == j]).sum())
    return count

  @property
  def has_box(self) -> np.ndarray:
    """bool `[n]`: of which images a box is known."""
    known = np.zeros(len(self), bool)
    for i, records in enumerate(self._records):
      here = self._part == i
      known[here] = has_box_of(records)[self._row[here]]
    return known

  @property
  def labels(self) -> np.ndarray:
    """int32 `[n]` class of every example. Reads all the data where labels are stored within it."""
    labels = np.zeros(len(self), np.int32)
    for i, records in enumerate(self._records):
      here = self._part == i
      labels[here] = relabel(records.labels[self._row[here]], self._new_label)
    return labels


class Dataset:
  """Named splits of labelled images with one list of classes.

  Args:
    name: as the user wrote it.
    kind: 'folder', 'tar', 'tfds', 'digits', or with boxes 'shapes', 'yolo', 'coco' or 'voc'.
    classes: class names in label order.
    base: stored images and rows by split name.
    new_label: int32, the label by stored label.
    made_split: whether the split was made here, by seed, and should be saved with the run.
    labels_per_image, found: as in `Source`.
  """

  def __init__(
    self,
    name: str,
    kind: str,
    classes: tuple[str, ...],
    base: dict[str, list[Rows]],
    new_label: np.ndarray,
    made_split: bool,
    labels_per_image: str = 'one',
    found: Mapping[str, str] = MappingProxyType({}),
  ):
    self.name = name
    self.kind = kind
    self.classes = classes
    self.made_split = made_split
    self.labels_per_image = labels_per_image
    self.found = found
    self._base = base
    self._new_label = new_label

  @property
  def splits(self) -> dict[str, int]:
    """Examples by split; 'valid' and 'validation' are called 'val'."""
    return {name: sum(len(rows) for _, rows in parts) for name, parts in self._base.items()}

  @property
  def has_boxes(self) -> bool:
    """Whether examples have 'box' and 'has_box'."""
    return self.kind in ('shapes', 'yolo', 'coco', 'voc')

  def has_split(self, name: str) -> bool:
    """Whether there is such a split, under any of its names."""
    return name in self._base or splits_lib.canonical(name) in self._base

  def split(self, spec: str) -> Examples:
    """The examples of a split string, for example 'train[:90%]' or 'train+val'.

    Raises:
      DatasetError: unreadable, unknown, out of range or empty.
    """
    taken: list[Rows] = []
    try:
      wanted = splits_lib.parse_split(spec, self.splits)
    except DatasetError as e:
      raise DatasetError([f'dataset {self.name}: {p}' for p in e.problems]) from None
    bare = [name for name, _, _ in wanted if all(r.unlabelled for r, _ in self._base[name])]
    if bare:
      raise DatasetError(
        f'dataset {self.name}: the images of split {bare[0]!r} have no labels (they are -1): it '
        f"can be neither trained on nor scored; choose another split, or '' for none"
      )
    for name, first, end in wanted:
      for records, rows in self._base[name]:
        part = rows[min(first, len(rows)) : min(end, len(rows))]
        first, end = max(first - len(rows), 0), max(end - len(rows), 0)
        if len(part):
          taken.append((records, part))
    return Examples(taken, self._new_label)

  def manifest(self) -> dict[str, list[str]]:
    """The ids of every split's images, as JSON values."""
    return {
      name: [records.id(int(row)) for records, rows in parts for row in rows]
      for name, parts in self._base.items()
    }

  def __repr__(self) -> str:
    return f'Dataset({self.name!r}, {self.kind}, {len(self.classes)} classes, {self.splits})'


def open_dataset(
  name: str,
  *,
  data_dir: str = '',
  seed: int = 0,
  classes: Sequence[str] = (),
  per_class: int = 0,
  split_fractions: Sequence[float] = (0.8, 0.1, 0.1),
  resplit: bool = False,
  image_key: str | None = None,
  label_key: str | None = None,
  on_error: str = 'raise',
) -> Dataset:
  """Opens a dataset of any kind.

  Which images are chosen and how they are split depends on the names in the dataset and on the
  seed alone; a class's choice does not depend on which other classes are used.

  Args:
    name: a folder of images or tar files, a tar file or a pattern of some ('train-{000..146}.tar'),
      a TFDS name ('stanford_dogs', 'tfds:cifar10'), 'digits' or 'shapes'.
    data_dir: folder that contains `name`, or TFDS's data folder.
    seed: of the selection, the split and the order.
    classes: names to keep, in label order; all, in the dataset's order, when empty.
    per_class: keep at most so many images a class, in each of the dataset's own splits, or of the
      whole before it is split here. 0 keeps all.
    split_fractions: fractions of train, val and test where the dataset has no splits of its own.
    resplit: pool the dataset's own splits and split anew.
    image_key: TFDS feature with the image, where the dataset names none; in tar files the ending of
      the images, where a sample has several ('left.jpg').
    label_key: likewise of the class; in tar files an ending ('txt') or a value ('json/breed').
    on_error: 'skip' passes over class folders without images, and over what is damaged or has no
      label in tar files, with a warning.

  Raises:
    ConfigError: an argument out of its range.
    DatasetError: missing, empty, unreadable, or without such classes.
  """
  problems = []
  if not isinstance(seed, int) or not 0 <= seed < 1 << 32:
    problems.append(f'dataset seed must be an integer from 0 to 2**32 - 1, got {seed!r}')
  if per_class < 0:
    problems.append(f'per_class must be 0 (all) or more, got {per_class}')
  try:
    fractions = splits_lib.check_fractions(split_fractions)
  except ConfigError as e:
    problems += e.problems
  if problems:
    raise ConfigError(problems)
  source = find_source(name, data_dir, image_key, label_key, on_error)
  chosen, new_label = _choose_classes(name, source.classes, tuple(classes))
  own_splits = '' not in source.records
  if own_splits and not resplit:
    base = {
      split: [(records, _select(source, records, chosen, new_label, seed, per_class))]
      for split, records in source.records.items()
    }
  else:
    base = _split_anew(source, chosen, new_label, seed, per_class, fractions)
  base = {split: parts for split, parts in base.items() if sum(len(r) for _, r in parts)}
  if not base:
    raise DatasetError(f'dataset {name}: no images of the classes {", ".join(chosen)}')
  made_split = not own_splits or resplit
  return Dataset(
    name, source.kind, chosen, base, new_label, made_split, source.labels_per_image, source.found
  )


def _choose_classes(
  name: str, have: tuple[str, ...], wanted: tuple[str, ...]
) -> tuple[tuple[str, ...], np.ndarray]:
  """The classes to keep and, by stored label, the new label or -1."""
  if isinstance(wanted, str):
    wanted = (wanted,)
  composed = {unicodedata.normalize('NFC', c): c for c in have}
  wanted = tuple(
    c if c in have else composed.get(unicodedata.normalize('NFC', c), c) for c in wanted
  )
  problems = [
    f'dataset {name} has no class {c!r}: {did_you_mean(c, have)}' for c in wanted if c not in have
  ]
  if len(set(wanted)) != len(wanted):
    problems.append(f'classes named twice: {sorted({c for c in wanted if wanted.count(c) > 1})}')
  if problems:
    raise DatasetError(problems)
  chosen = wanted or have
  new_label = np.full(len(have), -1, np.int32)
  for label, c in enumerate(chosen):
    new_label[have.index(c)] = label
  return chosen, new_label


def _select(
  source: Source,
  records: Records,
  chosen: tuple[str, ...],
  new_label: np.ndarray,
  seed: int,
  per_class: int,
) -> np.ndarray:
  """Rows of one stored split, in the order in which the split is sliced."""
  if source.shuffled and not per_class and len(chosen) == len(source.classes):
    return np.arange(len(records))  # no need to read the labels
  labels = relabel(_stored_labels(records), new_label)
  return splits_lib.interleave(labels, chosen, seed, per_class)


def _split_anew(
  source: Source,
  chosen: tuple[str, ...],
  new_label: np.ndarray,
  seed: int,
  per_class: int,
  fractions: tuple[float, float, float],
) -> dict[str, list[Rows]]:
  """Pools all images and splits them by class."""
  pool = list(source.records.values())
  records = pool[0] if len(pool) == 1 else PooledRecords(pool)
  labels = relabel(_stored_labels(records), new_label)
  order = splits_lib.interleave(labels, chosen, seed, per_class)
  made = splits_lib.stratified(labels, order, fractions)
  return {split: [(records, rows)] for split, rows in made.items()}


def _stored_labels(records: Records) -> np.ndarray:
  """The stored labels; warns of images that have none, which are not chosen."""
  labels = records.labels
  bare = np.flatnonzero(labels < 0)
  if len(bare):
    log.warning(
      '%d of %d images have no label and are left out, such as %s',
      len(bare), len(labels), records.id(int(bare[0])),
    )  # fmt: skip
  return labels


def relabel(labels: np.ndarray, new_label: np.ndarray) -> np.ndarray:
  """New labels; images without one (-1, as in some test splits) keep none."""
  return np.where(labels >= 0, new_label[labels], -1)
