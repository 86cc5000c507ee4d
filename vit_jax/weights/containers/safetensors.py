"""Safetensors: a JSON header and raw arrays. Read tensor by tensor, written atomically.

The public package reads no bfloat16 into NumPy, says little of a damaged file, and writes texts in
an order that changes from run to run. So this reads and writes the format itself: eight bytes of
length, a header of names, dtypes, shapes and offsets, then the data. The tests compare it with the
package, both ways.
"""

import json
import pathlib
import struct
from collections.abc import Mapping
from typing import Any

import numpy as np

from vit_jax.errors import WeightsError, shown
from vit_jax.files import replacing
from vit_jax.weights.containers.base import CONTAINERS, Container
from vit_jax.weights.containers.checks import check_count, damaged, parse_json, what_is_it
from vit_jax.weights.containers.tensors import Spec, Tensors, from_bfloat16, storage_dtype

_MAX_HEADER = 32 << 20
_MAX_AXES = 32
_DTYPES = {
  'F64': 'float64',
  'F32': 'float32',
  'F16': 'float16',
  'BF16': 'bfloat16',
  'I64': 'int64',
  'I32': 'int32',
  'I16': 'int16',
  'I8': 'int8',
  'U64': 'uint64',
  'U32': 'uint32',
  'U16': 'uint16',
  'U8': 'uint8',
  'BOOL': 'bool',
}


def is_safetensors(start: bytes) -> bool:
  """Whether a file beginning with these nine bytes or more can be one."""
  return len(start) >= 9 and start[8:9] == b'{' and struct.unpack('<Q', start[:8])[0] <= _MAX_HEADER


class Safetensors(Tensors):
  """A `.safetensors` file.

  Args:
    path: the file.
  """

  def __init__(self, path: str | pathlib.Path):
    path = pathlib.Path(path)
    with damaged(path), open(path, 'rb') as f:
      start = f.read(9)
      if not is_safetensors(start):
        raise WeightsError(f'{path} is not a .safetensors file: {what_is_it(path)}')
      length = struct.unpack('<Q', start[:8])[0]
      size = path.stat().st_size
      if 8 + length > size:
        raise WeightsError(f'{path} is cut off: its header needs {8 + length:,} of {size:,} bytes')
      f.seek(8)
      text = f.read(length)
      check_count(text.count(b'data_offsets'))
      header = parse_json(text)
      metadata = header.pop('__metadata__', None) or {}
      if not all(isinstance(text, str) for text in metadata.values()):
        raise ValueError('__metadata__ of other things than texts')
      self._begin = 8 + length  # of the data, to which offsets are relative
      self._offsets: dict[str, int] = {}
      specs = {name: self._spec(name, entry, size - 8 - length) for name, entry in header.items()}
      _check_order(header, size - 8 - length)
    super().__init__(path, specs, metadata)

  def _spec(self, name: str, entry: dict[str, Any], available: int) -> Spec:
    dtype = _DTYPES.get(entry['dtype'], str(entry['dtype']))
    shape = tuple(entry['shape'])
    if len(shape) > _MAX_AXES:
      raise ValueError(f'{name[:40]!r}: {len(shape):,} axes')
    begin, end = entry['data_offsets']
    if not all(type(n) is int and 0 <= n < 1 << 63 for n in (*shape, begin, end)):
      raise ValueError(f'{name}: shape {shown(shape)} at {shown(begin)}..{shown(end)}')
    if end > available:
      raise ValueError(f'cut off: {name} ends at byte {end:,} of {available:,}')
    spec = Spec(shape, dtype)
    if dtype in _DTYPES.values() and end - begin != spec.size * storage_dtype(dtype).itemsize:
      raise ValueError(f'{name}: {shape} {dtype} in {end - begin:,} bytes')
    self._offsets[name] = begin
    return spec

  def _read(self, name: str) -> np.ndarray:
    spec = self.specs[name]
    with open(self.path, 'rb') as f:
      f.seek(self._begin + self._offsets[name])
      array = np.fromfile(f, storage_dtype(spec.dtype), spec.size)
    if array.size != spec.size:
      raise EOFError(f'{array.size} of {spec.size} numbers')
    if spec.dtype == 'bfloat16':
      array = from_bfloat16(array)
    return array.reshape(spec.shape)


def _check_order(header: Mapping[str, Any], available: int) -> None:
  """Refuses tensors that overlap, and bytes that are of none: the format has neither.

  Raises:
    ValueError: naming the tensor, or the number of bytes.
  """
  last = 0
  for (begin, end), name in sorted((entry['data_offsets'], name) for name, entry in header.items()):
    if begin != last:
      raise ValueError(f'{name} begins at byte {begin:,}, where {last:,} is expected')
    last = end
  if last != available:
    raise ValueError(f'{available - last:,} bytes behind the last tensor')


def write(
  path: str | pathlib.Path, arrays: Mapping[str, np.ndarray], metadata: Mapping[str, str]
) -> None:
  """Writes a file that appears whole or not at all; the same arrays give the same bytes.

  Args:
    path: where.
    arrays: by name.
    metadata: text by name; read back as `Tensors.metadata`.

  Raises:
    StorageError: naming the file and the system's reason.
  """
  codes = {v: k for k, v in _DTYPES.items()}
  header: dict[str, Any] = {'__metadata__': dict(sorted(metadata.items()))}
  end = 0
  for name in sorted(arrays):
    array = np.asarray(arrays[name])
    begin, end = end, end + array.nbytes
    header[name] = {
      'dtype': codes[str(array.dtype)],
      'shape': list(array.shape),
      'data_offsets': [begin, end],
    }
  text = json.dumps(header, separators=(',', ':')).encode()
  text += b' ' * (-len(text) % 8)
  with replacing(path) as temporary, open(temporary, 'wb') as f:
    f.write(struct.pack('<Q', len(text)) + text)
    for name in sorted(arrays):
      array = np.asarray(arrays[name])
      f.write(array.astype(array.dtype.newbyteorder('<'), order='C', copy=False).tobytes())


CONTAINERS.add(
  'safetensors',
  Container(
    recognises=lambda path, start: is_safetensors(start),
    open=Safetensors,
    endings=('.safetensors',),
    write=write,
    keeps_metadata=True,
    folder_file='model.safetensors',
  ),
)
