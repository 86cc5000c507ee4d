"""NumPy archives: read member by member without unpickling, written with the same bytes each time.

`numpy.load` allocates what a header claims before it compares that with the file; `numpy.savez`
writes in the order of its arguments, over the old file.
"""

import math
import pathlib
import warnings
import zipfile
from collections.abc import Mapping
from typing import IO

import numpy as np

from vit_jax.errors import WeightsError
from vit_jax.files import replacing
from vit_jax.weights.containers.base import CONTAINERS, Container
from vit_jax.weights.containers.checks import (
  damaged,
  open_member,
  what_is_it,
  zip_has,
  zip_members,
)
from vit_jax.weights.containers.tensors import Spec, Tensors

_MAX_HEADER = 10_000
_BLOCK = 16 << 20
_OTHER_ARCHIVES = ('data.pkl', 'model.weights.h5')  # PyTorch's and Keras' zips have these
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)


class Npz(Tensors):
  """A `.npz` file. Nothing in it is unpickled; object arrays are refused.

  Args:
    path: the file.
  """

  def __init__(self, path: str | pathlib.Path):
    path = pathlib.Path(path)
    if not zipfile.is_zipfile(path):
      raise WeightsError(f'{path} is not a .npz file: {what_is_it(path)}')
    with damaged(path):
      self._members = {n.removesuffix('.npy'): m for n, m in zip_members(path).items()}
      specs = {name: _spec(path, member, name) for name, member in self._members.items()}
    super().__init__(path, specs)

  def _read(self, name: str) -> np.ndarray:
    with open_member(self.path, self._members[name]) as f:
      shape, fortran, dtype = _read_header(f)
      if Spec(shape, '').size != self.specs[name].size or dtype.hasobject:
        raise WeightsError(f'{self.path} changed while it was read')
      array = np.empty(math.prod(shape), dtype)
      content = array.view(np.uint8).data if array.size else memoryview(b'')
      done = 0
      while done < len(content):
        block = f.read(min(_BLOCK, len(content) - done))
        if not block:
          raise EOFError(f'{done} of {len(content)} bytes')
        content[done : done + len(block)] = block
        done += len(block)
      f.read(1)  # the end of the member is where zipfile compares its checksum
    return array.reshape(shape, order='F' if fortran else 'C')


def _spec(path: pathlib.Path, member: zipfile.ZipInfo, name: str) -> Spec:
  """Shape and type of a member, checked against its size."""
  if not member.filename.endswith('.npy') or member.compress_type not in _METHODS:
    raise WeightsError(f'{path} holds {member.filename!r}: not a .npz of arrays')
  with open_member(path, member) as f:
    shape, _, dtype = _read_header(f)
    length = f.tell()
  if dtype.hasobject:
    raise WeightsError(
      f'{path}: {name!r} is an array of Python objects, which could run code; expected numbers'
    )
  if length + math.prod(shape) * dtype.itemsize != member.file_size:
    raise WeightsError(
      f'{path}: {name!r} is {shape} {dtype} by its header and holds {member.file_size} bytes'
    )
  return Spec(shape, 'bfloat16' if dtype.str == '|V2' else dtype.name)


def _read_header(f: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype]:
  version = np.lib.format.read_magic(f)
  read = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
  }.get(version)
  if read is None:
    raise ValueError(f'array format {version}')
  with warnings.catch_warnings():
    warnings.simplefilter('ignore')  # files of Python 2 write long integers
    shape, fortran, dtype = read(f, max_header_size=_MAX_HEADER)
  if any(n < 0 for n in shape):
    raise ValueError(f'shape {shape}')
  return tuple(int(n) for n in shape), fortran, dtype


def write(path: str | pathlib.Path, arrays: Mapping[str, np.ndarray]) -> None:
  """Writes a `.npz` that appears whole or not at all; the same arrays give the same bytes.

  Raises:
    StorageError: naming the file and the system's reason.
  """
  with (
    replacing(path) as temporary,
    zipfile.ZipFile(temporary, 'w', zipfile.ZIP_STORED, allowZip64=True) as archive,
  ):
    for name in sorted(arrays):
      # Named, as a newer zipfile may write the time of day.
      member = zipfile.ZipInfo(name + '.npy', date_time=(1980, 1, 1, 0, 0, 0))
      with archive.open(member, 'w', force_zip64=True) as f:
        np.lib.format.write_array(f, np.asarray(arrays[name], order='C'), allow_pickle=False)


CONTAINERS.add(
  'npz',
  Container(
    recognises=lambda path, start: (
      start[:2] == b'PK' and not any(zip_has(path, name) for name in _OTHER_ARCHIVES)
    ),
    open=Npz,
    endings=('.npz',),
    write=lambda path, arrays, metadata: write(path, arrays),
  ),
)
