"""Kinds of storage. `find_source` tells from a dataset's name which one it is."""

import contextlib
import itertools
import os
import re
from collections.abc import Sequence

from vit_jax import remote
from vit_jax.data.image_files import ending_of, is_folder, is_image, is_output
from vit_jax.data.records import Source
from vit_jax.data.sources.annotated import annotated_kind, annotated_source
from vit_jax.data.sources.digits import digits_source
from vit_jax.data.sources.folder import folder_source
from vit_jax.data.sources.shapes import shapes_source
from vit_jax.data.sources.shards import expand, holds_tar_files, is_pattern, tar_source
from vit_jax.data.sources.tfds import (
  UnknownNameError,
  holds_tfds_versions,
  is_tfds_folder,
  known_names,
  names_that_prepare_themselves,
  tfds_source,
)
from vit_jax.data.sources.tfds import needs_download as tfds_needs_download
from vit_jax.errors import ConfigError, DatasetError, did_you_mean, nearest, some
from vit_jax.files import is_remote, refuse_system_folder

# How many neighbours of a missing dataset are looked at, how deep, and how much in each folder.
_LOOKED_AT, _DEPTH, _FOLDERS, _ENTRIES = 30, 3, 3, 100

EMBEDDED = {'digits': digits_source, 'shapes': shapes_source}

# NAME, NAME/CONFIG, NAME:VERSION or SPACE:NAME, as TFDS reads them.
_TFDS_NAME = re.compile(r'([\w-]+:)?[a-zA-Z]\w*(/[\w.-]+)?(:[\d*]+(\.[\d*]+){2})?', re.ASCII)


def find_source(
  name: str,
  data_dir: str = '',
  image_key: str | None = None,
  label_key: str | None = None,
  on_error: str = 'raise',
) -> Source:
  """Opens the storage that a dataset's name refers to.

  'digits' and 'shapes' are embedded; 'tfds:NAME' is TFDS; what a URL names is copied to the cache
  folder; a folder that exists is read as one; a name that TFDS knows may be downloaded. Every other
  name is an error, at once.

  Raises:
    ConfigError: no name.
    DatasetError: nothing is there, or not what is expected.
  """
  if not name:
    raise ConfigError('no dataset is named; set --config.dataset.name to a folder or a TFDS name')
  if name in EMBEDDED:
    return EMBEDDED[name]()
  if is_remote(name) and is_pattern(name):
    raise DatasetError(
      f'dataset {name}: patterns are of files on this machine; expected the address of a tar file, '
      'or of a folder of them'
    )
  name = remote.local(name)
  if name.startswith('tfds:'):
    try:
      return tfds_source(name.removeprefix('tfds:'), data_dir, image_key, label_key)
    except UnknownNameError as e:
      raise DatasetError(e.problems) from None
  missing: list[DatasetError] = []
  for path in _paths(name, data_dir):
    if os.path.isfile(path) and ending_of(path) == '.tar':
      folder, base = os.path.split(path)
      return tar_source(folder or '.', [base], image_key, label_key, on_error)
    if os.path.isfile(path):
      raise DatasetError(
        f'dataset {path} is a file; expected a folder with one folder per class, or a tar file: '
        'unpack a zip file, and decompress what ends in .gz or the like'
      )
    if os.path.isdir(path):
      refuse_system_folder(path)
      if is_tfds_folder(path):
        return tfds_source(path, '', image_key, label_key)
      if holds_tfds_versions(path):
        parent, base = os.path.split(os.path.abspath(path))
        return tfds_source(base, parent, image_key, label_key)
      if kind := annotated_kind(path):
        return annotated_source(path, kind)
      if holds_tar_files(path):
        return tar_source(path, (), image_key, label_key, on_error)
      return folder_source(path, on_error)
    try:
      named = expand(path)
    except DatasetError as e:
      missing.append(e)
      continue
    if named:
      return tar_source(*named, image_key, label_key, on_error)
  if missing:
    raise missing[0]
  if _TFDS_NAME.fullmatch(name):
    with contextlib.suppress(UnknownNameError):
      return tfds_source(name, data_dir, image_key, label_key)
  raise DatasetError(_nothing_there(name, data_dir))


def needs_download(name: str, data_dir: str = '') -> bool:
  """Whether `find_source` would download the dataset first."""
  if name.startswith('tfds:'):
    return tfds_needs_download(name.removeprefix('tfds:'), data_dir)
  if is_remote(name):
    return True
  if name in ('', *EMBEDDED) or any(map(os.path.exists, _paths(name, data_dir))):
    return False
  return _TFDS_NAME.fullmatch(name) is not None and tfds_needs_download(name, data_dir)


def _paths(name: str, data_dir: str) -> tuple[str, str]:
  return os.path.expanduser(name), os.path.join(os.path.expanduser(data_dir), name)


def _nothing_there(name: str, data_dir: str) -> str:
  """What is said of a name that is neither a folder nor a dataset's."""
  places = list(dict.fromkeys(os.path.abspath(path) for path in _paths(name, data_dir)))
  kind = 'file' if ending_of(name) == '.tar' else 'folder'
  text = f'{kind} {" or ".join(places)} does not exist'
  folders: list[str] = []
  for parent in map(os.path.dirname, places):
    with contextlib.suppress(OSError):
      folders += [e.name for e in os.scandir(parent) if e.is_dir() or ending_of(e.name) == '.tar']
  start, base = os.path.split(os.path.normpath(name))
  visible = sorted({folder for folder in folders if not folder.startswith('.')})
  # By their own names: what stands before these is the same.
  near = {os.path.join(start, folder) for folder in nearest(base, visible)}
  beside = '' if near else _datasets_beside(places, start)
  if not _TFDS_NAME.fullmatch(name) or (start and os.path.isdir(start)):  # it is a path alone
    ending = f': {did_you_mean(os.path.join(start, base), near)}' if near else beside
    return f'dataset {name!r}: {text}{ending}'
  short = name.split('/')[0].split(':')[0]
  every = {os.path.join(start, folder) for folder in visible} | set(EMBEDDED) | known_names()
  own = [*EMBEDDED, *names_that_prepare_themselves()]
  ending = did_you_mean(short, every, every_up_to=len(own), listed=own)
  return f'dataset {name!r}: {text}, and TFDS has no dataset of that name{beside}; {ending}'


def _datasets_beside(places: Sequence[str], start: str) -> str:
  """Names folders beside one that is missing which hold images in folders, as a dataset does."""
  found = []
  for parent in map(os.path.dirname, places):
    with contextlib.suppress(OSError):
      folders = sorted(entry.name for entry in os.scandir(parent) if entry.is_dir())
      shown = [folder for folder in folders if not folder.startswith('.')][:_LOOKED_AT]
      found += [f for f in shown if _looks_like_a_dataset(os.path.join(parent, f), _DEPTH)]
  names = [os.path.join(start, folder) for folder in dict.fromkeys(found)]
  return f'; there are images in {some(map(repr, names), 3)}' if names else ''


def _looks_like_a_dataset(path: str, depth: int) -> bool:
  """Whether there are images in folders of a folder; looks at a few of them."""
  try:
    with os.scandir(path) as found:
      here = list(itertools.islice(found, _ENTRIES))
  except OSError:
    return False
  if is_output(path, here):
    return False
  if depth < _DEPTH and any(is_image(ending_of(entry.name)) for entry in here):
    return True
  folders = sorted(e.name for e in here if is_folder(e) and not e.name.startswith('.'))
  below = [os.path.join(path, folder) for folder in folders[:_FOLDERS]]
  return depth > 0 and any(_looks_like_a_dataset(folder, depth - 1) for folder in below)
