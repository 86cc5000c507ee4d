"""PyTorch checkpoints (`.pth`, `.pt`, `.bin`) without PyTorch and without unpickling."""

import io
import pathlib
import re
import struct
import zipfile
from typing import Any

import numpy as np

from vit_jax.errors import WeightsError
from vit_jax.weights.containers import torch_pickle
from vit_jax.weights.containers.base import CONTAINERS, Container
from vit_jax.weights.containers.checks import damaged, open_member, zip_has, zip_members
from vit_jax.weights.containers.tensors import Spec, Tensors, from_bfloat16, storage_dtype
from vit_jax.weights.containers.torch_pickle import Storage, TensorRef, UnsafePickle

_MAGIC = 0x1950A86A20F9469CFC6C  # the first pickle of the format before zip
_MAX_PICKLE = 32 << 20
# What training scripts keep beside the weights.
_NO_WEIGHTS = re.compile('optim|sched|scaler|loss|centers?$|queue|metric|epoch|args|config', re.I)


class TorchCheckpoint(Tensors):
  """A state dict, at the top of the file or under one of the usual keys.

  Args:
    path: the file, in PyTorch's zip format or the one before it.
  """

  def __init__(self, path: str | pathlib.Path):
    path = pathlib.Path(path)
    self._members: dict[str, zipfile.ZipInfo] = {}  # zipped: storage key -> member
    self._big_endian = False
    self._places: dict[str, tuple[int, int]] = {}  # legacy: storage key -> (byte, count)
    with damaged(path):
      self._zipped = zipfile.is_zipfile(path)
      try:
        content = self._parse_zip(path) if self._zipped else self._parse_legacy(path)
      except UnsafePickle as e:
        raise WeightsError(
          f'{path} is a pickle that would run {e} when loaded with torch.load; nothing was run. '
          'Ask whoever made it for .safetensors, or for a plain state dict'
        ) from e
      self._refs = _state_dict(content)
    if not self._refs:
      raise WeightsError(f'{path} holds no state dict: a dictionary of names and tensors')
    specs = {name: Spec(ref.shape, ref.storage.dtype) for name, ref in self._refs.items()}
    super().__init__(path, specs)

  def _parse_zip(self, path: pathlib.Path) -> Any:
    members = zip_members(path)
    pickled = next(m for name, m in members.items() if name.split('/')[-1] == 'data.pkl')
    folder = pickled.filename.removesuffix('data.pkl')
    if pickled.file_size > _MAX_PICKLE:
      raise ValueError(f'data.pkl of {pickled.file_size:,} bytes')
    if folder + 'byteorder' in members:
      with open_member(path, members[folder + 'byteorder']) as f:
        self._big_endian = f.read(3) == b'big'
    folder += 'data/'
    self._members = {n.removeprefix(folder): m for n, m in members.items() if n.startswith(folder)}
    with open_member(path, pickled) as f:
      return torch_pickle.parse(io.BytesIO(f.read()))

  def _parse_legacy(self, path: pathlib.Path) -> Any:
    with open(path, 'rb') as f:
      if torch_pickle.parse(f) != _MAGIC:
        raise ValueError('no PyTorch checkpoint')
      torch_pickle.parse(f)  # version
      torch_pickle.parse(f)  # sizes of C types
      storages: dict[str, Storage] = {}
      content = torch_pickle.parse(f, storages)
      keys = torch_pickle.parse(f)
      end = path.stat().st_size
      if not isinstance(keys, list) or not set(map(type, keys)) <= {str}:
        raise ValueError('no list of storages')
      for key in keys:
        if key not in storages or key in self._places:
          raise ValueError(f'storage {key[:40]!r} is of no tensor, or there twice')
        count = struct.unpack('<q', f.read(8))[0]
        begin = f.tell()
        width = storage_dtype(storages[key].dtype).itemsize
        if count < 0 or begin + count * width > end:
          raise EOFError(f'storage {key} of {count:,} numbers')
        self._places[key] = (begin, count)
        f.seek(begin + count * width)
      if f.tell() != end:
        raise ValueError(f'{end - f.tell():,} bytes behind the last storage')
    return content

  def _read(self, name: str) -> np.ndarray:
    ref = self._refs[name]
    dtype = storage_dtype(ref.storage.dtype)
    if self._big_endian:
      dtype = dtype.newbyteorder('>')
    flat = self._read_storage(ref.storage, dtype)
    if flat.size < ref.storage.count:
      raise EOFError(f'{flat.size:,} of {ref.storage.count:,} numbers')
    strides = [s * dtype.itemsize for s in ref.strides]
    view = np.lib.stride_tricks.as_strided(flat[ref.offset :], ref.shape, strides, writeable=False)
    array = np.array(view, dtype.newbyteorder('='), order='C')
    return from_bfloat16(array) if ref.storage.dtype == 'bfloat16' else array

  def _read_storage(self, storage: Storage, dtype: np.dtype) -> np.ndarray:
    if not self._zipped:
      begin, count = self._places[storage.key]
      with open(self.path, 'rb') as f:
        f.seek(begin)
        return np.fromfile(f, dtype, count)
    member = self._members[storage.key]
    if member.file_size < storage.count * dtype.itemsize:
      raise EOFError(f'{member.file_size:,} bytes for {storage.count:,} numbers')
    with open_member(self.path, member) as f:
      return np.frombuffer(f.read(), dtype, storage.count)


def _state_dict(content: Any) -> dict[str, TensorRef]:
  """The tensors of a checkpoint; where it has several state dicts, with their keys in front."""
  dicts = _state_dicts(content)
  if len(dicts) == 1:
    return next(iter(dicts.values()))
  return {
    f'{key}.{name}'.lstrip('.'): ref for key, refs in dicts.items() for name, ref in refs.items()
  }


def _state_dicts(content: Any, key: str = '', depth: int = 0) -> dict[str, dict[str, TensorRef]]:
  """The dictionaries of tensors in a checkpoint, by the keys that lead to them."""
  if not isinstance(content, dict) or depth > 4:
    return {}
  found = {k: v for k, v in content.items() if isinstance(k, str) and isinstance(v, TensorRef)}
  if found and (depth or any('.' in k for k in found)):
    return {key: found}
  dicts = {}
  for k, v in content.items():
    if isinstance(k, str) and not _NO_WEIGHTS.search(k):
      dicts.update(_state_dicts(v, f'{key}.{k}'.lstrip('.'), depth + 1))
  return dicts or ({key: found} if found else {})


CONTAINERS.add(
  'torch',
  Container(
    recognises=lambda path, start: (
      start[:1] == b'\x80' or (start[:2] == b'PK' and zip_has(path, 'data.pkl'))
    ),
    open=TorchCheckpoint,
    endings=('.pth', '.pt', '.bin', '.pth.tar'),
    folder_file='pytorch_model.bin',
    folder_rank=1,
  ),
)
