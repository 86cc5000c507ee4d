"""Random access to stored images, before anything is selected, split or shuffled."""

import contextlib
import dataclasses
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np

from vit_jax.errors import ImageError

# What to type to leave out what is wrong with a dataset, for messages.
SKIPPING = '--config.dataset.on_error=skip (evaluate and probe: --on_error=skip)'


class Place(NamedTuple):
  """Where the bytes of an image lie.

  Attributes:
    path: of a file.
    start: where they begin in it.
    size: how many there are; None for all of the file.
    state: the file's size and time of change, in ns, when they were found; None for any.
  """

  path: str
  start: int = 0
  size: int | None = None
  state: tuple[int, int] | None = None


def read_place(place: Place, name: str) -> bytes:
  """The bytes of an image.

  Args:
    place: where they lie.
    name: of the image, for errors.

  Raises:
    ImageError: they cannot be read, or the file is another by now.
  """
  try:
    with open(place.path, 'rb') as f:
      found = os.fstat(f.fileno()) if place.state else None
      f.seek(place.start)
      data = f.read() if place.size is None else f.read(place.size)
  except OSError as e:
    raise ImageError(f'image {name} cannot be read: {e.strerror}') from None
  changed = found and (found.st_size, found.st_mtime_ns) != place.state
  if changed or (place.size is not None and len(data) < place.size):
    raise ImageError(
      f'image {name} cannot be read: {place.path} has changed since the dataset was opened'
    )
  return data


def announce(places: Iterable[Place]) -> None:
  """Has the system read what will soon be asked for, while others are decoded.

  Where it takes no such advice (macOS, Windows) nothing is done. What cannot be read is found
  later.
  """
  if not hasattr(os, 'posix_fadvise'):
    return
  for place in places:
    with contextlib.suppress(OSError):
      descriptor = os.open(place.path, os.O_RDONLY | os.O_NONBLOCK)  # it may be a pipe by now
      try:
        os.posix_fadvise(descriptor, place.start, place.size or 0, os.POSIX_FADV_WILLNEED)
      finally:
        os.close(descriptor)


class Records(Protocol):
  """The images of one split as they are stored. Safe to read from several threads; picklable."""

  def __len__(self) -> int: ...

  @property
  def labels(self) -> np.ndarray:
    """int32 `[n]` class of each image; may have to read them all."""

  @property
  def unlabelled(self) -> bool:
    """Whether no image has a label, as in the test splits of contests; judged by a few."""

  def id(self, row: int) -> str:
    """A name of the image that is the same on every machine."""

  def read(self, row: int) -> dict[str, Any]:
    """One example as it is stored.

    Returns:
      'image' as a file's bytes or as pixels; 'label'; 'path' where the image is a file;
      'all_labels' int32 `[m]`, -1 for none, where there may be several classes; 'box' and 'has_box'
      where the source has boxes.
    """


@dataclasses.dataclass(frozen=True)
class Source:
  """What a kind of storage gives to `open_dataset`.

  Args:
    kind: 'folder', 'tar', 'tfds', 'digits', ...
    classes: class names in label order.
    records: images by split; one entry named '' where the storage has no splits.
    shuffled: whether the stored order is random already and should be kept.
    labels_per_image: 'one', its 'label'; 'several', its 'all_labels', of any number; or 'both',
      where 'label' is the class of the largest object and 'all_labels' are those of all.
    found: what is used and what is left out, in words: rows of a run's plan by their titles.
  """

  kind: str
  classes: tuple[str, ...]
  records: Mapping[str, Records]
  shuffled: bool = False
  labels_per_image: str = 'one'
  found: Mapping[str, str] = dataclasses.field(default_factory=dict)


class FileRecords:
  """Images that are files.

  Args:
    root: folder that the ids are relative to.
    names: path of each file below it, with forward slashes.
    labels: class of each file.
    extra: arrays `[n, ...]` that belong to the images, such as 'box'.
  """

  unlabelled = False

  def __init__(
    self,
    root: str,
    names: Sequence[str],
    labels: Sequence[int],
    extra: Mapping[str, np.ndarray] | None = None,
  ):
    self.root = root
    self.names = list(names)
    self.labels = np.asarray(labels, np.int32)
    self.extra = dict(extra or {})

  def __len__(self) -> int:
    return len(self.names)

  def id(self, row: int) -> str:
    return self.names[row]

  def place(self, row: int) -> Place:
    return Place(os.path.join(self.root, self.names[row]))

  def read(self, row: int) -> dict[str, Any]:
    place = self.place(row)
    extra = {key: values[row] for key, values in self.extra.items()}
    image = read_place(place, place.path)
    return {'image': image, 'label': self.labels[row], 'path': place.path, **extra}


class ArrayRecords:
  """Images in memory.

  Args:
    images: uint8 `[n, h, w, c]`.
    labels: class of each.
    prefix: what the ids begin with.
    extra: arrays `[n, ...]` that belong to the images, such as 'box'.
  """

  unlabelled = False

  def __init__(
    self,
    images: np.ndarray,
    labels: Sequence[int],
    prefix: str,
    extra: Mapping[str, np.ndarray] | None = None,
  ):
    self.images = images
    self.labels = np.asarray(labels, np.int32)
    self.prefix = prefix
    self.extra = dict(extra or {})

  def __len__(self) -> int:
    return len(self.images)

  def id(self, row: int) -> str:
    return f'{self.prefix}/{row}'

  def read(self, row: int) -> dict[str, Any]:
    extra = {key: values[row] for key, values in self.extra.items()}
    return {'image': self.images[row], 'label': self.labels[row], **extra}


class ArrayFileRecords(ArrayRecords):
  """Images in a .npy file, which is mapped into memory and not read.

  Args:
    file: uint8 `[n, h, w, c]`.
    labels: class of each.
    prefix: what the ids begin with.
  """

  def __init__(self, file: str, labels: Sequence[int], prefix: str):
    self._file = file
    super().__init__(np.load(file, mmap_mode='r'), labels, prefix)

  def read(self, row: int) -> dict[str, Any]:
    return {'image': np.array(self.images[row]), 'label': self.labels[row]}

  def __reduce__(self):  # worker processes map the file, and are not sent it
    return type(self), (self._file, self.labels, self.prefix)


class PooledRecords:
  """Several stored splits as one.

  Args:
    pool: the splits, in order.
  """

  def __init__(self, pool: Sequence[Records]):
    self.pool = list(pool)
    self.starts = np.cumsum([0] + [len(records) for records in self.pool])

  def __len__(self) -> int:
    return int(self.starts[-1])

  @property
  def unlabelled(self) -> bool:
    return all(records.unlabelled for records in self.pool)

  def _find(self, row: int) -> tuple[Records, int]:
    part = int(np.searchsorted(self.starts, row, side='right')) - 1
    return self.pool[part], row - int(self.starts[part])

  @property
  def labels(self) -> np.ndarray:
    return np.concatenate([records.labels for records in self.pool])

  def id(self, row: int) -> str:
    records, row = self._find(row)
    return records.id(row)

  def place(self, row: int) -> Place | None:
    return place_of(*self._find(row))

  def read(self, row: int) -> dict[str, Any]:
    records, row = self._find(row)
    return records.read(row)


def place_of(records: Records, row: int) -> Place | None:
  """Where an image lies; None of records whose images are no bytes of files, which need not say."""
  place = getattr(records, 'place', None)
  return place(row) if place else None


def has_box_of(records: Records) -> np.ndarray:
  """bool `[n]`: of which images a box is known."""
  if isinstance(records, PooledRecords):
    return np.concatenate([has_box_of(part) for part in records.pool])
  known = getattr(records, 'extra', {}).get('has_box')
  return np.zeros(len(records), bool) if known is None else known
