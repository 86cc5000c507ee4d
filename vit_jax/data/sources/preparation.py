"""Published datasets, downloaded and prepared where they are not here yet.

Below the cache folder: `datasets/downloads/NAME/` has the archives, downloaded or put there by
hand; `datasets/NAME[/CONFIG]/VERSION/` has index.json and the images, and appears when it is whole.
"""

import contextlib
import hashlib
import logging
import os
import pathlib
import shutil
import time
from collections.abc import Iterator
from typing import Any

import numpy as np

from vit_jax import download
from vit_jax.data.records import ArrayFileRecords, FileRecords, Records, Source
from vit_jax.data.sources.published import (
  Archive,
  Image,
  PublishedDataset,
  Unpacked,
  listed_archives,
)
from vit_jax.data.sources.unpacking import Unpacker
from vit_jax.data.splits import canonical
from vit_jax.errors import (
  DatasetError,
  DownloadError,
  StorageError,
  counted,
  did_you_mean,
  one_line,
)
from vit_jax.files import (
  cache_folder,
  make_folder,
  read_json,
  release_lock,
  still_named,
  try_lock,
  write_json,
  writing,
)

log = logging.getLogger(__name__)

_FORMAT = 1  # of index.json
_RETRY = download.RetryPolicy(keep=True)
_LOOK_AGAIN_SECONDS = 0.5
_MIRROR = 'VIT_JAX_DATASETS_MIRROR'


def published_source(
  dataset: PublishedDataset, builder: Any, image_key: str | None, label_key: str | None
) -> Source:
  """Opens a published dataset; downloads and prepares it first where that is not done.

  Images are in the order of a dataset that TFDS prepared, so that 'train[:90%]' is the same.

  Args:
    dataset: which.
    builder: TFDS's, for its version and class names.
    image_key: 'image' or None.
    label_key: a class feature; None for 'label'.

  Raises:
    DatasetError: an archive is not what is expected, or there is no such feature.
    DownloadError: an archive is missing and no source gives it.
    StorageError: no room, or a folder that cannot be written.
  """
  folder = _folder(dataset, builder)
  index = _index(folder)
  if index is None:
    with _alone(folder.with_name(f'.{folder.name}.lock'), dataset.name):
      index = _index(folder) or _prepare(dataset, builder, folder)
  label_key = label_key or 'label'
  problems = [
    f'dataset {dataset.name!r} has no feature {key!r} for {option}: {did_you_mean(key, valid)}'
    for option, key, valid in (
      ('image_key', image_key or 'image', ['image']),
      ('label_key', label_key, index['classes']),
    )
    if key not in valid
  ]
  if problems:
    raise DatasetError(problems)
  records: dict[str, Records] = {}
  for split, stored in index['splits'].items():
    labels = stored['labels'][label_key]
    if 'files' in stored:
      records[canonical(split)] = FileRecords(str(folder / 'files'), stored['files'], labels)
    else:
      records[canonical(split)] = ArrayFileRecords(str(folder / stored['array']), labels, split)
  found = {'read': f'{", ".join(records)} as published, from {folder}'}
  classes = tuple(index['classes'][label_key])
  return Source('tfds', classes, records, shuffled=True, found=found)


def is_prepared(dataset: PublishedDataset, builder: Any) -> bool:
  """Whether opening the dataset takes no download."""
  return _index(_folder(dataset, builder)) is not None


def _folder(dataset: PublishedDataset, builder: Any) -> pathlib.Path:
  return cache_folder() / 'datasets' / dataset.name / str(builder.version)


def _index(folder: pathlib.Path) -> dict[str, Any] | None:
  index = read_json(folder / 'index.json')
  if not isinstance(index, dict) or index.get('format') != _FORMAT:
    return None
  try:
    for split in index['splits'].values():
      size = len(split['files']) if 'files' in split else len(_mapped(folder / split['array']))
      if any(len(split['labels'][key]) != size for key in index['classes']):
        raise ValueError('labels that are not those of the images')
    return index
  except (OSError, ValueError, EOFError, KeyError, TypeError, AttributeError) as e:
    log.warning('%s is damaged (%s): the dataset is prepared again', folder, one_line(e))
    return None


def _mapped(file: pathlib.Path) -> np.ndarray:
  return np.load(file, mmap_mode='r')


@contextlib.contextmanager
def _alone(path: pathlib.Path, name: str) -> Iterator[None]:
  """Waits for another process that prepares the same dataset, which happens once."""
  try:
    make_folder(path.parent)
  except StorageError as e:
    raise StorageError(f'{e}; set VIT_JAX_CACHE to a folder that can be written') from None
  told = False
  while (descriptor := _locked(path)) is None:
    if not told:
      log.info('dataset %s: waiting for another process that prepares it', name)
    told = True
    time.sleep(_LOOK_AGAIN_SECONDS)
  try:
    yield
  finally:
    release_lock(descriptor, path)


def _locked(path: pathlib.Path) -> int | None:
  with writing(path):
    descriptor = os.open(path, os.O_CREAT | os.O_RDWR)
  if try_lock(descriptor) and still_named(descriptor, path):
    return descriptor
  os.close(descriptor)
  return None


def _prepare(dataset: PublishedDataset, builder: Any, folder: pathlib.Path) -> dict[str, Any]:
  """Makes the folder of a dataset, whole or not at all; returns its index."""
  downloads = make_folder(cache_folder() / 'datasets' / 'downloads' / dataset.name.split('/')[0])
  archives = _archives(dataset, downloads)
  partial = folder.with_name(f'.{folder.name}.preparing')
  shutil.rmtree(partial, ignore_errors=True)  # of a process that was killed
  _check_room(folder.parent, sum(path.stat().st_size for path in archives.values()))
  log.info('dataset %s: unpacking into %s', dataset.name, folder)
  try:
    index = _write(dataset, builder, archives, make_folder(partial))
    with writing(folder):
      shutil.rmtree(folder, ignore_errors=True)  # of another format
      os.replace(partial, folder)
  finally:
    shutil.rmtree(partial, ignore_errors=True)
  sizes = {split: len(stored['labels']['label']) for split, stored in index['splits'].items()}
  counts = ', '.join(f'{split} {size:,}' for split, size in sizes.items())
  log.info('dataset %s: prepared (%s); its archives stay in %s', dataset.name, counts, downloads)
  return index


def _write(
  dataset: PublishedDataset,
  builder: Any,
  archives: dict[str, pathlib.Path],
  folder: pathlib.Path,
) -> dict[str, Any]:
  """Unpacks archives, reads them, and writes the index that makes a folder a prepared one."""
  files = make_folder(folder / 'files')
  unpacker = Unpacker(files, dataset.wanted)
  for name, path in archives.items():
    if not name.endswith('.mat'):
      unpacker.unpack(path)
  features = builder.info.features
  classes = {key: tuple(features[key].names or ()) for key in features if _is_class(features[key])}
  try:
    images = list(dataset.read(Unpacked(files, archives, classes, builder)))
  except (OSError, ValueError, KeyError, IndexError) as e:
    raise DatasetError(f'dataset {dataset.name}: its archives are not as expected: {e!r}') from e
  except DatasetError as e:
    raise DatasetError([f'dataset {dataset.name}: {p}' for p in e.problems]) from None
  splits = {split: [i for i in images if i.split == split] for split in dataset.counts}
  _check(dataset, builder, splits, classes, files)
  index: dict[str, Any] = {
    'format': _FORMAT,
    'name': dataset.name,
    'version': str(builder.version),
    'classes': {key: list(names) for key, names in classes.items()},
    'splits': {},
  }
  for split, members in splits.items():
    members.sort(key=lambda image: _place(image))
    labels = {key: [image.labels[key] for image in members] for key in classes}
    if isinstance(members[0].image, str):
      index['splits'][split] = {'files': [image.image for image in members], 'labels': labels}
    else:
      with writing(folder / f'{split}.npy'):
        np.save(folder / f'{split}.npy', np.stack([image.image for image in members]))
      index['splits'][split] = {'array': f'{split}.npy', 'labels': labels}
  if not any(isinstance(image.image, str) for image in images):
    shutil.rmtree(files)
  write_json(folder / 'index.json', index)
  return index


def _is_class(feature: Any) -> bool:
  return hasattr(feature, 'names')


def _place(image: Image) -> bytes:
  """By which TFDS orders the examples of a split: a hash of split and key."""
  return hashlib.md5(f'{image.split}{image.key}'.encode(), usedforsecurity=False).digest()


def _check(
  dataset: PublishedDataset,
  builder: Any,
  splits: dict[str, list[Image]],
  classes: dict[str, tuple[str, ...]],
  files: pathlib.Path,
) -> None:
  """Raises a `DatasetError` where the result is not the published dataset."""
  problems = []
  total = sum(map(len, splits.values()))
  exact = not dataset.drawn or total != sum(dataset.counts.values())
  for split, members in splits.items():
    if exact and len(members) != dataset.counts[split]:
      problems.append(f'{counted(len(members), "image")} in {split}, not {dataset.counts[split]:,}')
    paths = [image.image for image in members if isinstance(image.image, str)]
    missing = [path for path in paths if not (files / path).is_file()]
    if missing:
      problems.append(f'{split} lacks {counted(len(missing), "image")}, such as {missing[0]}')
  for key, names in classes.items():
    count = builder.info.features[key].num_classes
    if len(names) != count:
      problems.append(f'{counted(len(names), "class", "classes")} of {key}, not {count}')
  if problems:
    raise DatasetError(f'dataset {dataset.name} is not as published: {"; ".join(problems)}')


def _archives(dataset: PublishedDataset, downloads: pathlib.Path) -> dict[str, pathlib.Path]:
  """The archives by file name, downloaded where they are not here."""
  found, missing = {}, []
  for archive in listed_archives(dataset):
    path = _here(archive, downloads)
    if path is None:
      missing.append(archive)
    else:
      found[archive.file] = path
  if not missing:
    return found
  sources = {archive.file: _sources(dataset, archive) for archive in missing}
  if not all(sources.values()):
    raise DownloadError(
      f'dataset {dataset.name} cannot be downloaded without registration: get '
      f'{_listing(missing)} from {dataset.register_at} and put them into {downloads}; or name as '
      'dataset a folder with train/CLASS/image.jpg and val/CLASS/image.jpg'
    )
  size = sum(archive.size for archive in missing)
  _check_room(downloads, 2 * size)
  log.info('dataset %s: downloading %s into %s', dataset.name, _listing(missing), downloads)
  while missing:
    archive = missing[0]
    try:
      found[archive.file] = download.fetch(sources[archive.file], downloads / archive.file, _RETRY)
    except DownloadError as e:
      urls = ', '.join(f'{m.file} ({_bytes(m.size)}) from {m.url}' for m in missing)
      raise DownloadError(
        f'dataset {dataset.name} is not here: {e}; missing: {urls}; what you have of them '
        f'may be put into {downloads}, and ${_MIRROR} may name a mirror'
      ) from e
    missing = missing[1:]
  return found


def _here(archive: Archive, downloads: pathlib.Path) -> pathlib.Path | None:
  """An archive that lies in the dataset's folder of downloads, or in the one above.

  Raises:
    DatasetError: somebody put another file there, which no download shall replace.
  """
  for path in (downloads / archive.file, downloads.parent / archive.file):
    if not path.is_file():
      continue
    if path.stat().st_size == archive.size and not download.recorded(path):
      log.info('checking the checksum of %s', path)
    try:
      if download.matches(path, download.Source(archive.url, archive.sha256, archive.size)):
        return path
    except OSError as e:
      raise DatasetError(f'archive {path} cannot be read: {e.strerror or e}') from e
    if path.parent == downloads and 'url' not in download.recorded(path):
      raise DatasetError(
        f'{path} is not the published archive, which has {archive.size:,} bytes and the sha256 '
        f'{archive.sha256[:12]}...: remove it, or put the right file there'
      )
  return None


def _sources(dataset: PublishedDataset, archive: Archive) -> list[download.Source]:
  """Where to get an archive: the mirror of the user's choice, then its owner."""
  name = dataset.name.split('/')[0]
  mirror = os.environ.get(_MIRROR, '').rstrip('/')
  urls = [f'{mirror}/{name}/{archive.file}'] if mirror else []
  urls += [] if dataset.register_at else [archive.url]
  return [download.Source(url, archive.sha256, archive.size) for url in urls]


def _check_room(folder: pathlib.Path, size: int) -> None:
  """Raises a `StorageError` where a disk is too full for so many bytes."""
  free = shutil.disk_usage(folder).free
  if free < size:
    raise StorageError(
      f'{folder} has room for {_bytes(free)}, and {_bytes(size)} are needed: make room, or set '
      'VIT_JAX_CACHE to a folder on another disk'
    )


def _listing(archives: list[Archive]) -> str:
  return ', '.join(f'{archive.file} ({_bytes(archive.size)})' for archive in archives)


def _bytes(size: int) -> str:
  units = ((1e9, 'GB'), (1e6, 'MB'), (1e3, 'kB'), (1, 'bytes'))
  scale, unit = next((s, u) for s, u in units if size >= s)
  return f'{size / scale:.1f} {unit}' if scale > 1 else f'{size} bytes'
