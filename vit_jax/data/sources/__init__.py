"""Kinds of storage. `find_source` tells from a dataset's name which one it is."""

import contextlib
import os
import re

from vit_jax import remote
from vit_jax.data.records import Source
from vit_jax.data.sources.annotated import annotated_kind, annotated_source
from vit_jax.data.sources.digits import digits_source
from vit_jax.data.sources.folder import folder_source
from vit_jax.data.sources.shapes import shapes_source
from vit_jax.data.sources.tfds import (
  UnknownNameError,
  holds_tfds_versions,
  is_tfds_folder,
  known_names,
  names_that_prepare_themselves,
  tfds_source,
)
from vit_jax.data.sources.tfds import needs_download as tfds_needs_download
from vit_jax.errors import ConfigError, DatasetError, did_you_mean
from vit_jax.files import is_remote, refuse_system_folder

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
  name = remote.local(name)
  if name.startswith('tfds:'):
    try:
      return tfds_source(name.removeprefix('tfds:'), data_dir, image_key, label_key)
    except UnknownNameError as e:
      raise DatasetError(e.problems) from None
  for path in _paths(name, data_dir):
    if os.path.isfile(path):
      raise DatasetError(f'dataset {path} is a file; expected a folder with one folder per class')
    if os.path.isdir(path):
      refuse_system_folder(path)
      if is_tfds_folder(path):
        return tfds_source(path, '', image_key, label_key)
      if holds_tfds_versions(path):
        parent, base = os.path.split(os.path.abspath(path))
        return tfds_source(base, parent, image_key, label_key)
      kind = annotated_kind(path)
      return annotated_source(path, kind) if kind else folder_source(path, on_error)
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
  text = f'folder {" or ".join(places)} does not exist'
  folders: list[str] = []
  for parent in map(os.path.dirname, places):
    with contextlib.suppress(OSError):
      folders += [entry.name for entry in os.scandir(parent) if entry.is_dir()]
  start, base = os.path.split(os.path.normpath(name))
  near = {os.path.join(start, folder) for folder in folders if not folder.startswith('.')}
  if not _TFDS_NAME.fullmatch(name) or (start and os.path.isdir(start)):  # it is a path alone
    ending = f': {did_you_mean(os.path.join(start, base), near)}' if near else ''
    return f'dataset {name!r}: {text}{ending}'
  short = name.split('/')[0].split(':')[0]
  every = near | set(EMBEDDED) | known_names()
  own = [*EMBEDDED, *names_that_prepare_themselves()]
  ending = did_you_mean(short, every, every_up_to=len(own), listed=own)
  return f'dataset {name!r}: {text}, and TFDS has no dataset of that name; {ending}'
