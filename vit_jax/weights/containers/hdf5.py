"""HDF5: every dataset of a file under its path; formats/keras.py gives them their names."""

import contextlib
import io
import json
import pathlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from vit_jax.errors import DependencyError, WeightsError
from vit_jax.weights.containers.base import CONTAINERS, Container
from vit_jax.weights.containers.checks import (
  check_count,
  damaged,
  open_member,
  parse_json,
  zip_has,
  zip_members,
)
from vit_jax.weights.containers.tensors import Spec, Tensors

if TYPE_CHECKING:
  import types

_MAGIC = b'\x89HDF\r\n\x1a\n'


def import_h5py() -> 'types.ModuleType':
  """The optional package h5py.

  Raises:
    DependencyError: it is not installed.
  """
  try:
    import h5py
  except ImportError as e:
    raise DependencyError('Keras weights need h5py: pip install h5py') from e
  return h5py


class Hdf5(Tensors):
  """An HDF5 file; a tensor's name is its path from the root, such as 'conv1/conv1/kernel:0'.

  Texts at the root, such as Keras' 'model_config', are its metadata.

  Args:
    path: the file.
  """

  def __init__(self, path: str | pathlib.Path):
    self.path = pathlib.Path(path)
    h5py = import_h5py()
    specs: dict[str, Spec] = {}
    metadata: dict[str, str] = {}

    def visit(name: str, item: Any) -> None:
      if not isinstance(item, h5py.Dataset):
        return
      if item.external or item.is_virtual:
        raise WeightsError(f'{path}: {name!r} lies in another file, which is not read')
      check_count(len(specs))
      specs[name] = Spec(tuple(item.shape or ()), item.dtype.name)

    with damaged(path), self._opened() as f:
      f.visititems(visit)
      for name, value in f.attrs.items():
        if isinstance(value, str | bytes):
          metadata[name] = value if isinstance(value, str) else value.decode()
    super().__init__(path, specs, metadata | self._texts())

  @contextlib.contextmanager
  def _opened(self) -> Iterator[Any]:
    with import_h5py().File(self.path, 'r') as f:
      yield f

  def _texts(self) -> dict[str, str]:
    """What is kept beside the HDF5 file."""
    return {}

  def _read(self, name: str) -> np.ndarray:
    with self._opened() as f:
      return f[name][()]


class KerasArchive(Hdf5):
  """A `.keras` file: a zip of the model's config and its weights in HDF5."""

  def __init__(self, path: str | pathlib.Path):
    path = pathlib.Path(path)
    with damaged(path):
      members = zip_members(path)
      with open_member(path, members[_ARCHIVED]) as f:
        self._weights = f.read()
      with open_member(path, members['config.json']) as f:
        self._config = f.read().decode()
    super().__init__(path)

  @contextlib.contextmanager
  def _opened(self) -> Iterator[Any]:
    with import_h5py().File(io.BytesIO(self._weights), 'r') as f:
      yield f

  def _texts(self) -> dict[str, str]:
    with damaged(self.path, 'config.json'):
      training = parse_json(self._config).get('compile_config') or {}
    return {'model_config': self._config, 'training_config': json.dumps(training)}


_ARCHIVED = 'model.weights.h5'

CONTAINERS.add(
  'hdf5',
  Container(
    recognises=lambda path, start: start.startswith(_MAGIC),
    open=Hdf5,
    endings=('.h5', '.hdf5'),
    folder_file='tf_model.h5',
    folder_rank=2,
  ),
)
CONTAINERS.add(
  'keras',
  Container(
    recognises=lambda path, start: start[:2] == b'PK' and zip_has(path, _ARCHIVED),
    open=KerasArchive,
    endings=('.keras',),
  ),
)
