"""The table of models: a name stands for a module class with its published sizes."""

import dataclasses
import types
import typing
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from vit_jax.errors import UserError, did_you_mean
from vit_jax.registry import Registry

DTYPES = ('float32', 'bfloat16', 'float16')
_NOT_FIELDS = ('parent', 'name', 'num_classes')


@dataclasses.dataclass(frozen=True)
class Entry:
  """A registered model: its class and the field values that its name stands for."""

  module: type[nn.Module]
  preset: dict[str, Any]


MODELS: Registry[Entry] = Registry('model')


def register(name: str, module: type[nn.Module], **preset: Any) -> None:
  """Gives a name to a module class with some of its fields set.

  A module class may have `choices`, a mapping from a field to its valid values, and a method
  `problems() -> list[str]` that says which field values do not fit together.
  """
  MODELS.add(name, Entry(module, preset))


def names() -> list[str]:
  """The names of all models, family by family."""
  return list(MODELS)


def fields(name: str) -> dict[str, Any]:
  """The fields of a model that `build` lets one override, with the values they have otherwise."""
  entry = MODELS[name]
  found = {f.name: f.default for f in dataclasses.fields(entry.module) if f.name not in _NOT_FIELDS}
  return {**found, **entry.preset}


def build(name: str, num_classes: int, **overrides: Any) -> nn.Module:
  """Makes a model by name.

  Args:
    name: one of `names()`.
    num_classes: outputs of the head; 0 for a model without a head that returns pooled features. (A
      module cloned with None returns the pair of pooled features and features by place.)
    **overrides: fields of the model, see `fields(name)`; lists count as tuples, one number as a
      pair where a pair is meant.

  Raises:
    UserError: unknown name or field, a value of the wrong type, or values that do not fit.
  """
  entry = MODELS[name]
  values = fields(name)
  hints = typing.get_type_hints(entry.module)
  problems = []
  if isinstance(num_classes, bool) or not isinstance(num_classes, int) or num_classes < 0:
    problems.append(f'num_classes must be a count (0: no head), got {num_classes!r}')
  for field, value in overrides.items():
    if field not in values:
      problems.append(f'model {name!r} has no field {field!r}: {did_you_mean(field, values)}')
      continue
    try:
      values[field] = _coerce(field, value, hints[field])
    except (TypeError, ValueError):
      problems.append(
        f'field {field!r} of model {name!r} must be {_describe(hints[field])}, got {value!r}'
      )
  problems = problems or _choice_problems(name, entry.module, values)
  if not problems:
    module = entry.module(num_classes=num_classes, **values)
    problems = module.problems() if hasattr(module, 'problems') else []
  if problems:
    raise UserError(problems)
  return module


def _choice_problems(name: str, module: type[nn.Module], values: dict[str, Any]) -> list[str]:
  choices = {'dtype': DTYPES, **getattr(module, 'choices', {})}
  return [
    f'field {field!r} of model {name!r} is {values[field]!r}: '
    f'{did_you_mean(values[field], [str(v) for v in valid])}'
    for field, valid in choices.items()
    if field in values and values[field] not in valid
  ]


def _coerce(field: str, value: Any, hint: Any) -> Any:
  """Brings a value from a command line or a JSON file to the field's type, or raises."""
  if field == 'dtype':
    return value if isinstance(value, str) else jnp.dtype(value).name
  kinds = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
  if value is None and type(None) in kinds:
    return None
  for kind in kinds:
    if typing.get_origin(kind) is tuple:
      return _as_tuple(value, typing.get_args(kind))
    if kind is float and isinstance(value, int | float) and not isinstance(value, bool):
      return float(value)
    if isinstance(value, kind) and not (isinstance(value, bool) and kind is not bool):
      return value
  raise TypeError(field)


def _as_tuple(value: Any, kinds: tuple) -> tuple[int, ...]:
  fixed = None if Ellipsis in kinds else len(kinds)
  if isinstance(value, int) and not isinstance(value, bool) and fixed:
    return (value,) * fixed
  if isinstance(value, str) or not all(type(v) is int for v in value):
    raise TypeError(value)
  if fixed and len(value) != fixed:
    raise ValueError(value)
  return tuple(value)


def _describe(hint: Any) -> str:
  if isinstance(hint, types.UnionType):
    return ' or '.join(_describe(h) for h in typing.get_args(hint))
  if typing.get_origin(hint) is tuple:
    kinds = typing.get_args(hint)
    return 'a tuple of ints' if Ellipsis in kinds else f'a tuple of {len(kinds)} ints'
  return 'None' if hint is type(None) else str(getattr(hint, '__name__', hint))
