"""Weight files as lazy mappings: names and shapes first, arrays only when they are looked up.

A file that came from elsewhere is not trusted. Its headers are read and compared with what the
model needs before any array is, so that memory is bounded by the model and not by what a header
claims.
"""

import dataclasses
import math
import pathlib
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np

from vit_jax.errors import WeightsError
from vit_jax.weights.containers.checks import check_count, check_expansion, check_name, damaged

FLOATS = ('float16', 'bfloat16', 'float32', 'float64')


@dataclasses.dataclass(frozen=True)
class Spec:
  """Shape and type of a tensor, known without reading it.

  Args:
    shape: its axes.
    dtype: its numpy name; also 'bfloat16', and the file's own words where numpy has none.
  """

  shape: tuple[int, ...]
  dtype: str = 'float32'

  @property
  def size(self) -> int:
    return math.prod(self.shape)


class Tensors(Mapping[str, np.ndarray]):
  """The tensors of a file, each read when it is looked up. Subclasses implement `_read`.

  Args:
    path: where they come from, for messages.
    specs: name to shape and dtype.
    metadata: texts that the file keeps beside its arrays, by name.
  """

  def __init__(
    self,
    path: str | pathlib.Path,
    specs: Mapping[str, Spec],
    metadata: Mapping[str, str] | None = None,
  ):
    self.path = pathlib.Path(path)
    self.specs = dict(specs)
    self.metadata = dict(metadata or {})

  def _read(self, name: str) -> np.ndarray:
    raise NotImplementedError

  def __getitem__(self, name: str) -> np.ndarray:
    if name not in self.specs:
      raise KeyError(name)
    with damaged(self.path, name):
      return self._read(name)

  def __contains__(self, name: object) -> bool:
    return name in self.specs

  def __iter__(self) -> Iterator[str]:
    return iter(self.specs)

  def __len__(self) -> int:
    return len(self.specs)


class Arrays(Tensors):
  """Tensors that are in memory already.

  Args:
    arrays: by name.
    path: where they come from, for messages.
    metadata: as in `Tensors`.
  """

  def __init__(
    self,
    arrays: Mapping[str, np.ndarray],
    path: str | pathlib.Path = '',
    metadata: Mapping[str, str] | None = None,
  ):
    specs = {k: Spec(tuple(v.shape), str(v.dtype)) for k, v in arrays.items()}
    super().__init__(path, specs, metadata)
    self._arrays = dict(arrays)

  def _read(self, name: str) -> np.ndarray:
    return np.asarray(self._arrays[name])


class View(Tensors):
  """Some of the tensors of another file under other names.

  Args:
    base: the file.
    names: new name to (name in the file, index along its first axis or None for all of it).
  """

  def __init__(self, base: Tensors, names: Mapping[str, tuple[str, int | None]]):
    specs = {}
    for new, (old, index) in names.items():
      spec = base.specs[old]
      specs[new] = spec if index is None else Spec(spec.shape[1:], spec.dtype)
    super().__init__(base.path, specs, base.metadata)
    self._base, self._names = base, dict(names)
    self._last: tuple[str, np.ndarray] | None = None

  def _read(self, name: str) -> np.ndarray:
    old, index = self._names[name]
    if index is None:
      return self._base[old]
    if self._last is None or self._last[0] != old:  # a stack is looked up slice after slice
      self._last = (old, self._base[old])
    return self._last[1][index]


class Derived(Tensors):
  """Tensors that are computed from those of another file when they are looked up.

  Args:
    base: the file.
    made: name -> (shape and dtype, what gives the array).
  """

  def __init__(self, base: Tensors, made: Mapping[str, tuple[Spec, Callable[[], np.ndarray]]]):
    super().__init__(base.path, {name: spec for name, (spec, _) in made.items()}, base.metadata)
    self._made = dict(made)

  def _read(self, name: str) -> np.ndarray:
    return self._made[name][1]()


class Merged(Tensors):
  """The tensors of several files as one.

  Args:
    parts: the files, of which there is at least one.
  """

  def __init__(self, parts: Sequence[Tensors]):
    self._home: dict[str, Tensors] = {}
    for part in parts:
      for name in part:
        if name in self._home:
          raise WeightsError(f'{part.path} holds {name!r}, and {self._home[name].path} does too')
        self._home[name] = part
    specs = {name: part.specs[name] for name, part in self._home.items()}
    super().__init__(parts[0].path, specs, parts[0].metadata)

  def _read(self, name: str) -> np.ndarray:
    return self._home[name][name]


def checked(tensors: Tensors) -> Tensors:
  """The tensors of a file, whose names and sizes are such as a file of its length can have.

  Raises:
    WeightsError: they are not.
  """
  with damaged(tensors.path):
    check_count(len(tensors))
    total = 0
    for name, spec in tensors.specs.items():
      check_name(name)
      total += spec.size * (storage_dtype(spec.dtype).itemsize if spec.dtype in FLOATS else 1)
    check_expansion(tensors.path, total)
  return tensors


def to_float32(name: str, array: np.ndarray) -> np.ndarray:
  """A parameter in float32, whatever float the file keeps it in.

  Raises:
    WeightsError: for another dtype.
  """
  if array.dtype == np.dtype('V2'):  # numpy's name for what it does not know: bfloat16
    array = from_bfloat16(array.view(np.uint16))
  if array.dtype.name not in FLOATS:  # whatever the order of its bytes
    raise WeightsError(f'{name}: expected floating point numbers, got {array.dtype}')
  with np.errstate(over='ignore'):
    return np.asarray(array, np.float32, order='C')


def from_bfloat16(bits: np.ndarray) -> np.ndarray:
  """float32 values of bfloat16 bit patterns: the same bits, followed by zeros."""
  return (bits.astype(np.uint32) << 16).view(np.float32)


def storage_dtype(dtype: str) -> np.dtype:
  """The little-endian numpy type under which values lie in a file; bfloat16 as its bits."""
  return np.dtype('uint16' if dtype == 'bfloat16' else dtype).newbyteorder('<')
