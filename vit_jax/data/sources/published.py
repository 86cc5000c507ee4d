"""Datasets of TFDS that prepare themselves: what each one is, and where its archives are.

Why not by TFDS's own builders: without TensorFlow the `download_and_prepare` of all of these but
food101 ends with "No module named 'tensorflow'", as they read files by tf.io.gfile (tried with TFDS
4.9.10); and its downloader begins a broken download anew. What TFDS knows is read from the
installed package: addresses, sizes, checksums, versions and class names. The archives are read here
by the rules of the builders, so that splits, labels and the order of images are theirs.
"""

import dataclasses
import pathlib
import urllib.parse
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from vit_jax.errors import DatasetError
from vit_jax.registry import Registry


@dataclasses.dataclass(frozen=True)
class Image:
  """One image of a published dataset.

  Args:
    split: TFDS's name of it.
    key: by which TFDS identifies and orders the examples of a split.
    image: file relative to the unpacked folder, or pixels uint8 `[h, w, c]`.
    labels: class index by feature.
  """

  split: str
  key: str | int
  image: str | np.ndarray
  labels: Mapping[str, int]


@dataclasses.dataclass(frozen=True)
class Unpacked:
  """What a reader is given.

  Args:
    folder: with the members of the archives.
    archives: by file name, for those that are no archives, such as setid.mat.
    classes: class names by feature, as TFDS lists them; a reader puts in those that the archives
      alone list.
    builder: TFDS's builder.
  """

  folder: pathlib.Path
  archives: Mapping[str, pathlib.Path]
  classes: dict[str, tuple[str, ...]]
  builder: Any

  def files(self, pattern: str) -> Iterator[str]:
    """Sorted paths of files, relative to the folder, with forward slashes."""
    found = (path.relative_to(self.folder).as_posix() for path in self.folder.glob(pattern))
    return iter(sorted(found))

  def label(self, name: str, feature: str = 'label') -> int:
    """The index of a class.

    Raises:
      DatasetError: TFDS lists no such class.
    """
    try:
      return self.classes[feature].index(name)
    except ValueError:
      raise DatasetError(f'its class {name!r} is not among those that TFDS lists') from None


Read = Callable[[Unpacked], Iterator[Image]]


@dataclasses.dataclass(frozen=True)
class PublishedDataset:
  """How a dataset is prepared.

  Args:
    name: TFDS's, with the configuration if it has any: 'eurosat/rgb'.
    archives: file names, as the installed TFDS lists them.
    counts: images by split, as TFDS's catalogue has them.
    drawn: whether the splits are drawn, so that only the sum of the counts is certain.
    read: gives the images, given the unpacked archives.
    wanted: matches the members of the archives that are unpacked.
    register_at: where one has to register to get the archives; '' where they are free.
  """

  name: str
  archives: tuple[str, ...]
  counts: Mapping[str, int]
  read: Read
  wanted: str = '.*'
  register_at: str = ''
  drawn: bool = False


DATASETS: Registry[PublishedDataset] = Registry('dataset', 'vit_jax.data.sources.datasets')


def published(
  name: str, archives: tuple[str, ...], counts: Mapping[str, int], **options: Any
) -> Callable[[Read], Read]:
  """Registers a dataset by its reader; arguments as of `PublishedDataset`."""

  def decorate(read: Read) -> Read:
    DATASETS.add(name, PublishedDataset(name, archives, counts, read, **options))
    return read

  return decorate


@dataclasses.dataclass(frozen=True)
class Archive:
  """A row of TFDS's checksums.

  Args:
    file: its name.
    url: where its owner has it.
    size: bytes.
    sha256: in hex digits.
  """

  file: str
  url: str
  size: int
  sha256: str


def listed_archives(dataset: PublishedDataset) -> list[Archive]:
  """The archives of a dataset, as the installed TFDS lists them.

  Raises:
    DatasetError: it lists them no more.
  """
  import tensorflow_datasets as tfds

  name = dataset.name.split('/')[0]
  root = pathlib.Path(tfds.core.tfds_path())
  tables = (root / 'datasets' / name / 'checksums.tsv', root / 'url_checksums' / f'{name}.txt')
  found = {}
  texts = [path.read_text('utf-8') for path in tables if path.is_file()]
  for line in '\n'.join(texts).splitlines():
    if words := line.split():
      file = pathlib.PurePosixPath(urllib.parse.urlsplit(words[0]).path).name
      found[file] = Archive(file, words[0], int(words[1]), words[2])
  if missing := [file for file in dataset.archives if file not in found]:
    raise DatasetError(
      f'the installed tensorflow-datasets {tfds.__version__} lists no {", ".join(missing)} for '
      f'{name}: use another version'
    )
  return [found[file] for file in dataset.archives]
