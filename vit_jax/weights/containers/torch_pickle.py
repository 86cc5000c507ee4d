"""Reads the pickles of PyTorch checkpoints as data.

This is not an unpickler: it walks the opcodes and builds dictionaries, tuples and numbers, and
calls nothing that the file names. The few functions that state dicts need have a meaning here;
names that are known to be harmless stand for themselves; anything else is refused. An `Unpickler`
with a restricted `find_class` would still call what it finds, and allocate what a length claims.
"""

import dataclasses
import pickletools
from collections.abc import Callable
from typing import Any, BinaryIO


class UnsafePickle(Exception):
  """A pickle that names a function which no state dict needs; its text is the function's name."""


@dataclasses.dataclass(frozen=True)
class Name:
  """A global that a pickle refers to; never imported."""

  module: str
  name: str

  def __str__(self) -> str:
    return f'{self.module}.{self.name}'


@dataclasses.dataclass(frozen=True)
class Storage:
  """A run of numbers that lies elsewhere in the file."""

  key: str
  dtype: str
  count: int


@dataclasses.dataclass(frozen=True)
class TensorRef:
  """A tensor as a view of a storage; offset and strides count numbers."""

  storage: Storage
  offset: int
  shape: tuple[int, ...]
  strides: tuple[int, ...]


class Opaque:
  """Something that is no weight: settings, an optimizer's state."""


_STORAGES = {
  'DoubleStorage': 'float64',
  'FloatStorage': 'float32',
  'HalfStorage': 'float16',
  'BFloat16Storage': 'bfloat16',
  'LongStorage': 'int64',
  'IntStorage': 'int32',
  'ShortStorage': 'int16',
  'CharStorage': 'int8',
  'ByteStorage': 'uint8',
  'BoolStorage': 'bool',
}
# Objects that training scripts leave beside the weights. They become Opaque.
_HARMLESS = (
  'argparse.Namespace',
  'collections.defaultdict',
  'torch.device',
  'torch.dtype',
  'numpy.dtype',
  'numpy.ndarray',
  'numpy.core.multiarray.scalar',
  'numpy.core.multiarray._reconstruct',
  'numpy._core.multiarray.scalar',
  'numpy._core.multiarray._reconstruct',
  '_codecs.encode',
  'builtins.set',
  '__builtin__.set',
  'torch.Size',
  'pathlib.PosixPath',
)
_MARK = object()
_MAX_OPCODES = 2_000_000  # of which a tensor needs some sixty
_MAX_AXES = 32


def parse(stream: BinaryIO, storages: dict[str, Storage] | None = None) -> Any:
  """The value of one pickle; leaves the stream behind it.

  Args:
    stream: the file, at the pickle's beginning.
    storages: is given all the storages that the pickle mentions, by key.

  Raises:
    UnsafePickle: it names a function that no state dict needs.
    ValueError: damaged, or an opcode that no state dict needs.
  """
  return _Machine({} if storages is None else storages).run(_Bounded(stream))


class _Bounded:
  """A stream that refuses to read more than it has, which would be allocated before it is read."""

  def __init__(self, stream: BinaryIO):
    self._stream = stream
    here = stream.tell()
    self._end = stream.seek(0, 2)
    stream.seek(here)

  def read(self, count: int) -> bytes:
    if count > self._end - self._stream.tell():
      raise EOFError(f'pickle of {count:,} more bytes')
    return self._stream.read(count)

  def readline(self) -> bytes:
    return self._stream.readline(1 << 16)

  def tell(self) -> int:
    return self._stream.tell()


class _Machine:
  """Pickle's stack machine; a method for each opcode, named after it."""

  def __init__(self, storages: dict[str, Storage]):
    self.storages = storages
    self.stack: list[Any] = []
    self.memo: dict[int, Any] = {}

  def run(self, stream: _Bounded) -> Any:
    # genops calls the three methods that a _Bounded has.
    operations = pickletools.genops(stream)  # type: ignore[arg-type]  # see above
    for count, (opcode, value, _) in enumerate(operations):
      if count > _MAX_OPCODES:
        raise ValueError(f'pickle of more than {_MAX_OPCODES:,} operations')
      name = opcode.name
      if name == 'STOP':
        return self.stack.pop()
      if name in _VALUES:
        self.stack.append(value)
      elif name in _CONSTANTS:
        self.stack.append(_CONSTANTS[name]())
      elif name not in ('PROTO', 'FRAME'):
        method = getattr(self, '_' + name.lower(), None)
        if method is None:
          raise ValueError(f'pickle opcode {name}')
        method(value)
    raise ValueError('pickle without an end')

  def _mark(self, value: Any) -> None:
    self.stack.append(_MARK)

  def _to_mark(self) -> list[Any]:
    for i in range(len(self.stack) - 1, -1, -1):
      if self.stack[i] is _MARK:
        items = self.stack[i + 1 :]
        del self.stack[i:]
        return items
    raise ValueError('pickle mark missing')

  def _binput(self, index: Any) -> None:
    self.memo[index] = self.stack[-1]

  _long_binput = _put = _binput

  def _memoize(self, value: Any) -> None:
    self.memo[len(self.memo)] = self.stack[-1]

  def _binget(self, index: Any) -> None:
    self.stack.append(self.memo[index])

  _long_binget = _get = _binget

  def _pop(self, value: Any) -> None:
    self.stack.pop()

  def _tuple(self, value: Any) -> None:
    self.stack.append(tuple(self._to_mark()))

  def _tuple1(self, value: Any) -> None:
    self.stack[-1:] = [tuple(self.stack[-1:])]

  def _tuple2(self, value: Any) -> None:
    self.stack[-2:] = [tuple(self.stack[-2:])]

  def _tuple3(self, value: Any) -> None:
    self.stack[-3:] = [tuple(self.stack[-3:])]

  def _list(self, value: Any) -> None:
    self.stack.append(self._to_mark())

  def _dict(self, value: Any) -> None:
    items = self._to_mark()
    self.stack.append({})
    self._update(items)

  def _append(self, value: Any) -> None:
    item = self.stack.pop()
    self._extend([item])

  def _appends(self, value: Any) -> None:
    self._extend(self._to_mark())

  def _extend(self, items: list[Any]) -> None:
    if isinstance(self.stack[-1], list):
      self.stack[-1].extend(items)

  def _additems(self, value: Any) -> None:
    self._to_mark()

  def _setitem(self, value: Any) -> None:
    item, key = self.stack.pop(), self.stack.pop()
    self._update([key, item])

  def _setitems(self, value: Any) -> None:
    self._update(self._to_mark())

  def _update(self, items: list[Any]) -> None:
    if isinstance(self.stack[-1], dict):
      # Weights have texts as names. Another key is never hashed: that of a nested tuple may crash.
      pairs = zip(items[::2], items[1::2])
      self.stack[-1].update((key, item) for key, item in pairs if isinstance(key, str))

  def _global(self, value: Any) -> None:
    self.stack.append(Name(*value.split(' ', 1)))

  def _stack_global(self, value: Any) -> None:
    name, module = self.stack.pop(), self.stack.pop()
    self.stack.append(Name(_text(module), _text(name)))

  def _binpersid(self, value: Any) -> None:
    storage = _storage(self.stack.pop())
    self.storages[storage.key] = storage
    self.stack.append(storage)

  def _reduce(self, value: Any) -> None:
    arguments, function = self.stack.pop(), self.stack.pop()
    self.stack.append(_call(function, arguments))

  _newobj = _reduce

  def _build(self, value: Any) -> None:
    self.stack.pop()  # the state of an object: attributes of an OrderedDict, of settings


_VALUES = {
  'BININT',
  'BININT1',
  'BININT2',
  'INT',
  'LONG',
  'LONG1',
  'LONG4',
  'BINFLOAT',
  'FLOAT',
  'UNICODE',
  'BINUNICODE',
  'SHORT_BINUNICODE',
  'BINUNICODE8',
  'BINSTRING',
  'SHORT_BINSTRING',
  'STRING',
  'BINBYTES',
  'SHORT_BINBYTES',
}
_CONSTANTS: dict[str, Callable[[], Any]] = {
  'NONE': lambda: None,
  'NEWTRUE': lambda: True,
  'NEWFALSE': lambda: False,
  'EMPTY_TUPLE': tuple,
  'EMPTY_LIST': list,
  'EMPTY_DICT': dict,
  'EMPTY_SET': Opaque,
}


def _text(value: Any) -> str:
  """A text of a pickle. To print anything else may never end: lists may share lists."""
  if not isinstance(value, str):
    raise ValueError(f'a {type(value).__name__} where a pickle needs text')
  return value


def _storage(persistent: Any) -> Storage:
  if not isinstance(persistent, tuple) or len(persistent) < 5:
    raise ValueError('a persistent id that is no storage')
  kind, storage_type, key, _, count = persistent[:5]
  if _text(kind) != 'storage' or any(v is not None for v in persistent[5:]):
    raise ValueError(f'persistent id {kind!r}')
  if not isinstance(storage_type, Name) or not _is_size(count):
    raise ValueError('a storage without a type and a number')
  return Storage(_text(key), _STORAGES.get(storage_type.name, str(storage_type)), count)


def _is_size(value: Any) -> bool:
  return type(value) is int and 0 <= value < 1 << 63


def _call(function: Any, arguments: Any) -> Any:
  """What a call in the pickle stands for."""
  if isinstance(function, Opaque):
    return Opaque()
  if not isinstance(function, Name) or not isinstance(arguments, tuple):
    raise ValueError('a call of what is no function')
  name = str(function)
  if name == 'collections.OrderedDict':
    return {}
  if name in ('torch._utils._rebuild_tensor', 'torch._utils._rebuild_tensor_v2'):
    storage, offset, shape, strides = arguments[:4]
    return _tensor(storage, offset, shape, strides)
  if name in ('torch._utils._rebuild_parameter', 'torch._tensor._rebuild_from_type_v2'):
    return arguments[0] if isinstance(arguments[0], TensorRef) else Opaque()
  if name in _HARMLESS:
    return Opaque()
  raise UnsafePickle(name)


def _tensor(storage: Any, offset: Any, shape: Any, strides: Any) -> TensorRef:
  if not isinstance(storage, Storage) or not isinstance(shape, tuple):
    raise ValueError('a tensor without storage or shape')
  if not isinstance(strides, tuple) or not len(shape) == len(strides) <= _MAX_AXES:
    raise ValueError(f'a tensor of {len(shape)} axes without as many strides')
  if not all(map(_is_size, (offset, *shape, *strides))):
    raise ValueError('a tensor whose shape and strides are not whole numbers')
  last = offset + sum((n - 1) * s for n, s in zip(shape, strides))
  if 0 not in shape and last >= storage.count:
    raise ValueError(f'a tensor of shape {shape} in a storage of {storage.count} numbers')
  return TensorRef(storage, offset, shape, strides)
