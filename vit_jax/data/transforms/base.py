"""What a transform is made of: ops with checked arguments.

An op is a subclass of `Op` whose fields are its arguments, registered under a name with
`@register('name')` in any file of this package, or in one that $VIT_JAX_PLUGINS names. `parse`
reads strings of them.
"""

import dataclasses
import typing
from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np

from vit_jax.options import LARGEST_SIDE
from vit_jax.registry import Registry

Size = tuple[int, int]  # height and width in pixels

OPS: Registry[type['Op']] = Registry('transform', 'vit_jax.data.transforms')

METHODS = ('bilinear', 'bicubic', 'lanczos', 'nearest')
_MISSING = object()


@dataclasses.dataclass(frozen=True)
class Arg:
  """What an argument of an op may be.

  Args:
    kind: 'size' (an integer or `(h, w)`), 'int', 'float' or 'name'.
    low: smallest number allowed.
    high: largest number allowed.
    choices: the only values allowed, names or numbers.
  """

  kind: str
  low: float | None = None
  high: float | None = None
  choices: tuple = ()

  def check(self, value: Any) -> Any:
    """The value in its final type.

    Raises:
      ValueError: what was expected.
    """
    if self.kind == 'size':
      size = value if isinstance(value, tuple) else (value, value)
      if len(size) != 2 or not all(is_int(v) and v >= 1 for v in size):
        raise ValueError('a positive integer or (height, width)')
      if max(size) > LARGEST_SIDE:
        raise ValueError(f'at most {LARGEST_SIDE} pixels a side')
      return size
    if self.choices:
      if value not in self.choices:
        raise ValueError('one of ' + ', '.join(map(str, self.choices)))
      return value
    number = is_int(value) or (self.kind == 'float' and isinstance(value, float))
    low = -np.inf if self.low is None else self.low
    high = np.inf if self.high is None else self.high
    if not number or not low <= value <= high:
      raise ValueError(self._words())
    return float(value) if self.kind == 'float' else value

  def _words(self) -> str:
    noun = 'an integer' if self.kind == 'int' else 'a number'
    if self.low is not None and self.high is not None:
      return f'{noun} from {self.low:g} to {self.high:g}'
    return noun if self.low is None else f'{noun} of at least {self.low:g}'


def arg(kind: str, default: Any = _MISSING, **limits: Any) -> Any:
  """A checked field of an op; see `Arg`. A field named `size` defaults to the run's image size."""
  metadata = {'arg': Arg(kind, **limits)}
  if default is _MISSING:
    return dataclasses.field(metadata=metadata)
  return dataclasses.field(default=default, metadata=metadata)


@dataclasses.dataclass(frozen=True)
class ImageSpec:
  """What is known about the images between two ops, before any image is read.

  Args:
    hw: height and width in pixels, None while they vary by image.
    decoded: whether images are pixels already, not a file's bytes.
    channels: number of channels.
  """

  hw: Size | None = None
  decoded: bool = False
  channels: int = 3


@dataclasses.dataclass(frozen=True)
class Op:
  """One step of a transform.

  A subclass changes `example['image']` (uint8 `[h, w, c]`). Where it moves pixels, it does so
  through the functions of `geometry.py`, so that boxes follow by themselves.
  """

  name: ClassVar[str] = ''
  random: ClassVar[bool] = False  # draws numbers, so has no place in an evaluation
  two_ints: ClassVar[bool] = False  # `op(h, w)` is a size: no other argument is a number

  def __call__(self, example: dict, rng: np.random.Generator) -> dict:
    raise NotImplementedError

  def output(self, spec: ImageSpec) -> ImageSpec:
    """What the images are after this op; unchanged unless overridden.

    Args:
      spec: what they are before it.
    """
    return spec

  @classmethod
  def default_size(cls, image_size: Size) -> Any:
    """The size taken when the string gives none."""
    return image_size

  def __str__(self) -> str:
    parts = []
    for i, field in enumerate(dataclasses.fields(self)):
      value = getattr(self, field.name)
      if field.default is not dataclasses.MISSING and value == field.default:
        continue
      if isinstance(value, tuple):
        value = value[0] if value[0] == value[1] else f'({value[0]}, {value[1]})'
      elif isinstance(value, float):
        value = f'{value:g}' if float(f'{value:g}') == value else repr(value)
      parts.append(f'{value}' if i == 0 else f'{field.name}={value}')
    return self.name + (f'({", ".join(parts)})' if parts else '')


OpClass = typing.TypeVar('OpClass', bound=type[Op])


@typing.dataclass_transform(frozen_default=True, field_specifiers=(arg,))
def register(name: str) -> Callable[[OpClass], OpClass]:
  """Class decorator: makes an op usable under this name, and a frozen dataclass."""

  def add(cls: OpClass) -> OpClass:
    dataclasses.dataclass(frozen=True)(cls)  # which changes the class itself
    cls.name = name
    OPS.add(name, cls)
    return cls

  return add


def image_name(example: dict) -> str:
  """How errors name an example's image: its path, or its id."""
  return example.get('path') or example.get('id', '')


def is_int(value: Any) -> bool:
  """Whether a value is an integer; True and False are not."""
  return isinstance(value, int) and not isinstance(value, bool)
