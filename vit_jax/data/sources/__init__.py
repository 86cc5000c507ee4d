"""Kinds of storage. `find_source` tells from a dataset's name which one it is."""

import os

from vit_jax import remote
from vit_jax.data.records import Source
from vit_jax.data.sources.annotated import annotated_kind, annotated_source
from vit_jax.data.sources.digits import digits_source
from vit_jax.data.sources.folder import folder_source
from vit_jax.data.sources.shapes import shapes_source
from vit_jax.data.sources.tfds import holds_tfds_versions, is_tfds_folder, tfds_source
from vit_jax.data.sources.tfds import needs_download as tfds_needs_download
from vit_jax.errors import ConfigError, DatasetError
from vit_jax.files import is_remote, refuse_system_folder

EMBEDDED = {'digits': digits_source, 'shapes': shapes_source}


def find_source(
  name: str,
  data_dir: str = '',
  image_key: str | None = None,
  label_key: str | None = None,
  on_error: str = 'raise',
) -> Source:
  """Opens the storage that a dataset's name refers to.

  'digits' and 'shapes' are embedded; 'tfds:NAME' is TFDS; what a URL names is copied to the cache
  folder; a folder that exists is read as one; a name that looks like a path but is none is an
  error; every other name is TFDS's, which may be downloaded.

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
    return tfds_source(name.removeprefix('tfds:'), data_dir, image_key, label_key)
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
  if _looks_like_path(name):
    raise DatasetError(f'dataset folder {name} does not exist; check the path')
  return tfds_source(name, data_dir, image_key, label_key)


def needs_download(name: str, data_dir: str = '') -> bool:
  """Whether `find_source` would download the dataset first."""
  if name.startswith('tfds:'):
    return tfds_needs_download(name.removeprefix('tfds:'), data_dir)
  if is_remote(name):
    return True
  if name in ('', *EMBEDDED) or any(map(os.path.exists, _paths(name, data_dir))):
    return False
  return not _looks_like_path(name) and tfds_needs_download(name, data_dir)


def _paths(name: str, data_dir: str) -> tuple[str, str]:
  return os.path.expanduser(name), os.path.join(os.path.expanduser(data_dir), name)


def _looks_like_path(name: str) -> bool:
  return name[0] in '.~/' or name.endswith('/') or (os.sep in name and name.count('/') != 1)
