"""The transform string: 'decode|inception_crop(224)|flip_lr', read and checked at once."""

import ast
import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from vit_jax.data.transforms.base import OPS, Arg, ImageSpec, Op, is_int
from vit_jax.data.transforms.fused import DecodeCropFlip, fuse
from vit_jax.errors import ConfigError, shown


class Transform:
  """A checked transform; call it with an example and a generator.

  Args:
    ops: its steps.
    output: what is known about the resulting images.
    steps: what is run instead of `ops`, to the same effect and faster.
  """

  def __init__(self, ops: tuple[Op, ...], output: ImageSpec, steps: tuple[Op, ...] = ()):
    self.ops = ops
    self.output = output
    self._steps = steps or ops

  @property
  def output_hw(self) -> tuple[int, int] | None:
    """Height and width of every result, in pixels; None where they vary."""
    return self.output.hw

  @property
  def random(self) -> bool:
    """Whether a result depends on the generator."""
    return any(op.random for op in self.ops)

  def split(self, take: Callable[[int], bool]) -> tuple[tuple[Op, ...], tuple[Op, ...]]:
    """The steps up to the first random one, whose results may be kept, and the rest.

    Args:
      take: asks for so many bytes to keep; for images that are kept at several scales.
    """
    steps = self._steps
    count = next((i for i, op in enumerate(steps) if op.random), len(steps))
    beginning = steps[:count]
    if count < len(steps) and isinstance(whole := steps[count], DecodeCropFlip):
      beginning += (whole.beginning(take),)
    return beginning, steps[count:]

  def __call__(self, example: dict, rng: np.random.Generator | None = None) -> dict:
    """Applies all steps.

    Args:
      example: 'image' as bytes or pixels, 'id' for errors, 'box' where there is one.
      rng: source of the random decisions; needed where the transform is random.

    Returns:
      A new dict; 'image' is uint8 `[h, w, c]`.
    """
    if rng is None:
      if self.random:
        raise ValueError(f'transform {self} is random and needs a generator')
      rng = np.random.default_rng(0)  # no op draws from it
    example = dict(example)
    for op in self._steps:
      example = op(example, rng)
    return example

  def __str__(self) -> str:
    return '|'.join(str(op) for op in self.ops)

  def __repr__(self) -> str:
    return f'Transform({str(self)!r})'

  def __eq__(self, other) -> bool:
    return isinstance(other, Transform) and self.ops == other.ops

  def __hash__(self) -> int:
    return hash(self.ops)

  def __setstate__(self, state: dict) -> None:
    self.__dict__.update(state)
    # In a worker process this is the first use of the registry: the files of the package and of
    # $VIT_JAX_PLUGINS are imported now, not by whichever thread needs one of their entries first.
    len(OPS)


def parse_transform(
  spec: str,
  image_size: tuple[int, int] = (224, 224),
  train: bool = False,
  fixed_size: bool = True,
) -> Transform:
  """Reads and checks a transform.

  Args:
    spec: ops separated by '|', arguments in parentheses, by position or name.
    image_size: height and width in pixels for ops that name none.
    train: whether random ops may occur.
    fixed_size: whether all results must have one size, as batches need.

  Raises:
    ConfigError: all mistakes, each naming the op and its position.
  """
  problems: list[str] = []
  ops: list[Op] = []
  image = ImageSpec()
  complete = True
  for position, text in enumerate(spec.split('|'), start=1):
    try:
      op = _parse_op(text.strip(), image_size)
      ops.append(op)
      found = list(_misplaced(op, image, train))
      image = op.output(dataclasses.replace(image, decoded=True))
    except ConfigError as e:
      found, complete = e.problems, False
    problems += [f'transform op {position} {shown(text.strip())}: {p}' for p in found]
  if complete and fixed_size and image.hw is None:
    problems.append(
      f'transform {spec!r}: the resulting images differ in size; '
      f'end it with resize({image_size[0]}) or central_crop({image_size[0]})'
    )
  if problems:
    raise ConfigError(problems)
  return Transform(tuple(ops), image, fuse(tuple(ops)))


def _misplaced(op: Op, image: ImageSpec, train: bool) -> Iterator[str]:
  if op.random and not train:
    yield 'is random, which an evaluation must not be'
  if op.name == 'decode' and image.decoded:
    yield 'images are decoded already; remove it'
  if op.name != 'decode' and not image.decoded:
    yield "needs decoded images; start with 'decode|'"


def _parse_op(text: str, image_size: tuple[int, int]) -> Op:
  if not text:
    raise ConfigError("is empty; write an op on each side of '|'")
  try:
    node = ast.parse(text, mode='eval').body
  except (SyntaxError, ValueError, MemoryError, RecursionError):  # the last two: nested too deeply
    raise ConfigError('cannot be read; write op, op(3) or op(3, name=4)') from None
  call = node if isinstance(node, ast.Call) else ast.Call(node, [], [])
  if not isinstance(call.func, ast.Name):
    raise ConfigError('cannot be read; write op, op(3) or op(3, name=4)')
  cls = OPS[call.func.id]
  try:
    args = [_literal(a) for a in call.args]
    kwargs = {k.arg: _literal(k.value) for k in call.keywords}
  except ValueError as e:
    raise ConfigError(str(e)) from None
  return cls(**_bind(cls, args, kwargs, image_size))


def _bind(cls: type[Op], args: list, kwargs: dict, image_size: tuple[int, int]) -> dict:
  """Arguments by field name, checked; all mistakes of the op at once."""
  fields = dataclasses.fields(cls)
  if cls.two_ints and len(args) >= 2 and is_int(args[0]) and is_int(args[1]):
    args = [(args[0], args[1]), *args[2:]]
  signature = f'{cls.name}({", ".join(_describe(f) for f in fields)})'
  if len(args) > len(fields):
    raise ConfigError(f'takes {len(fields)} arguments, got {len(args)}: {signature}')
  values = dict(zip([f.name for f in fields], args))
  problems = []
  for key, value in kwargs.items():
    if key in values:
      problems.append(f'argument {key!r} is given twice')
    elif key not in [f.name for f in fields]:
      problems.append(f'has no argument {key!r}: {signature}')
    values[key] = value
  bound = {}
  for field in fields:
    spec: Arg = field.metadata['arg']
    if field.name in values:
      try:
        bound[field.name] = spec.check(values[field.name])
      except ValueError as e:
        problems.append(f'{field.name} must be {e}, got {values[field.name]!r}')
    elif field.name == 'size':
      bound[field.name] = cls.default_size(image_size)
    elif field.default is dataclasses.MISSING:
      problems.append(f'needs {field.name}: {signature}')
  if problems:
    raise ConfigError(problems)
  return bound


def _describe(field: dataclasses.Field) -> str:
  return field.name if field.default is dataclasses.MISSING else f'{field.name}={field.default}'


def _literal(node: ast.expr) -> Any:
  if isinstance(node, ast.Name):
    return node.id
  try:
    return ast.literal_eval(node)
  except ValueError:
    raise ValueError(f'argument {ast.unparse(node)!r} is neither a number nor a name') from None
