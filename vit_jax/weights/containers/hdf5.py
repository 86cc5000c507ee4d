"""HDF5: every dataset of a file under its path; formats/keras.py gives them their names."""

import pathlib
from typing import TYPE_CHECKING, Any

import numpy as np

from vit_jax.errors import DependencyError
from vit_jax.weights.containers.base import CONTAINERS, Container
from vit_jax.weights.containers.checks import damaged
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
    raise DependencyError("Keras weights need h5py: pip install 'vit_jax[keras]'") from e
  return h5py


class Hdf5(Tensors):
  """An HDF5 file; a tensor's name is its path from the root, such as 'conv1/conv1/kernel:0'.

  Args:
    path: the file.
  """

  def __init__(self, path: str | pathlib.Path):
    path = pathlib.Path(path)
    h5py = import_h5py()
    specs: dict[str, Spec] = {}

    def visit(name: str, item: Any) -> None:
      if isinstance(item, h5py.Dataset):
        specs[name] = Spec(tuple(item.shape), str(item.dtype))

    with damaged(path), h5py.File(path, 'r') as f:
      f.visititems(visit)
    super().__init__(path, specs)

  def _read(self, name: str) -> np.ndarray:
    with import_h5py().File(self.path, 'r') as f:
      return f[name][()]


CONTAINERS.add(
  'hdf5',
  Container(
    recognises=lambda path, start: start.startswith(_MAGIC), open=Hdf5, endings=('.h5', '.hdf5')
  ),
)
