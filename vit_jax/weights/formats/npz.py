"""Numpy archives, the format of the official ViT, Mixer, BiT and big_vision weights."""

import math
import os
import pathlib
import warnings
import zipfile
from collections.abc import Mapping

import numpy as np

from vit_jax.errors import UserError
from vit_jax.weights.formats.tensors import Spec, Tensors, check_expansion, damaged, what_is_it

_MAX_HEADER = 10_000
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)


class Npz(Tensors):
  """A `.npz` file. Nothing in it is unpickled; object arrays are refused.

  Args:
    path: the file.
  """

  def __init__(self, path: str | pathlib.Path):
    path = pathlib.Path(path)
    if not zipfile.is_zipfile(path):
      raise UserError(f'{path} is not a .npz file: {what_is_it(path)}')
    specs: dict[str, Spec] = {}
    self._fortran: set[str] = set()
    with damaged(path), zipfile.ZipFile(path) as archive:
      members = archive.infolist()
      check_expansion(path, sum(m.file_size for m in members))
      for member in members:
        name = member.filename.removesuffix('.npy')
        if name in specs:
          raise UserError(f'{path} holds {name!r} twice: not a weights file')
        specs[name] = self._header(archive, member, name)
    super().__init__(path, specs)

  def _header(self, archive: zipfile.ZipFile, member: zipfile.ZipInfo, name: str) -> Spec:
    if not member.filename.endswith('.npy') or member.compress_type not in _METHODS:
      raise UserError(f'{archive.filename} holds {member.filename!r}: not a .npz of arrays')
    with archive.open(member) as f:
      shape, fortran, dtype = _read_header(f)
      length = f.tell()
    if dtype.hasobject:
      raise UserError(
        f'{archive.filename}: {name!r} is an array of Python objects, which could run code; '
        'expected numbers'
      )
    if length + math.prod(shape) * dtype.itemsize != member.file_size:
      raise UserError(
        f'{archive.filename}: {name!r} says {shape} {dtype} and holds {member.file_size} bytes'
      )
    if fortran:
      self._fortran.add(name)
    return Spec(tuple(int(n) for n in shape), 'bfloat16' if dtype.str == '|V2' else str(dtype))

  def _read(self, name: str) -> np.ndarray:
    with zipfile.ZipFile(self.path) as archive, archive.open(name + '.npy') as f:
      shape, fortran, dtype = _read_header(f)
      if Spec(shape, '').size != self.specs[name].size or dtype.hasobject:
        raise UserError(f'{self.path} changed while it was read')
      array = np.empty(math.prod(shape), dtype)
      view = memoryview(array.view(np.uint8)) if array.size else memoryview(b'')
      done = 0
      while done < len(view):
        count = f.readinto(view[done : done + (16 << 20)])
        if not count:
          raise EOFError(f'{done} of {len(view)} bytes')
        done += count
      f.read(1)  # the end of the member is where zipfile compares its checksum
    return array.reshape(shape, order='F' if fortran else 'C')


def _read_header(f) -> tuple[tuple[int, ...], bool, np.dtype]:
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
  return shape, fortran, dtype


def write(path: str | pathlib.Path, arrays: Mapping[str, np.ndarray]) -> None:
  """Writes a `.npz` that appears whole or not at all; the same arrays give the same bytes."""
  path = pathlib.Path(path)
  temporary = path.with_name(f'.{path.name}.{os.getpid()}.tmp')
  try:
    with zipfile.ZipFile(temporary, 'w', zipfile.ZIP_STORED, allowZip64=True) as archive:
      for name in sorted(arrays):
        # A fixed date: zipfile would write the clock into the file.
        member = zipfile.ZipInfo(name + '.npy', date_time=(1980, 1, 1, 0, 0, 0))
        with archive.open(member, 'w', force_zip64=True) as f:
          np.lib.format.write_array(f, np.asarray(arrays[name], order='C'), allow_pickle=False)
    os.replace(temporary, path)
  except OSError as e:
    raise UserError(f'cannot write {path}: {e.strerror or e}') from e
  finally:
    temporary.unlink(missing_ok=True)
