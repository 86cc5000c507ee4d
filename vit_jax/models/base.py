"""The table of models: a name stands for a module class with its published sizes.

To add a model, write a file in this package: a Flax module whose fields are made by `option`, and
`register('name', Module, field=value, ...)` for each published size.
"""

import dataclasses
import re
import typing
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from vit_jax.errors import ConfigError, ModelError, did_you_mean
from vit_jax.options import checked, rule_of
from vit_jax.registry import Registry

DTYPES = ('float32', 'bfloat16')
_NOT_FIELDS = ('parent', 'name', 'num_classes')


@dataclasses.dataclass(frozen=True)
class Entry:
  """A registered model: its class and the field values that its name stands for."""

  module: type[nn.Module]
  preset: dict[str, Any]


# What timm and Hugging Face write in full.
SIZES = {
  'ti': 'tiny',
  's': 'small',
  'm': 'medium',
  'b': 'base',
  'l': 'large',
  'h': 'huge',
  'g': 'giant',
  'gg': 'gigantic',
}
_LETTERS = {word: letters for letters, word in SIZES.items()}
_THEIRS = re.compile(
  r'(?:^|[/_-])(?:(?P<family>vit|deit3?)[_-])?'
  rf'(?P<size>{"|".join([*_LETTERS, *SIZES])})(?P<distilled>[_-]distilled)?'
  r'[/_-]?(?:patch)?(?P<patch>\d+)'
)


def _ours(name: str) -> str:
  """'vit_ti16' of timm's 'vit_tiny_patch16_224', 'google/vit-tiny-patch16-224' or 'ViT-Ti/16'."""
  found = _THEIRS.search(name.casefold())
  if not found:
    return name
  size = _LETTERS.get(found['size'], found['size'])
  distilled = '_distilled' if found['distilled'] else ''
  return f'{found["family"] or "vit"}_{size}{found["patch"]}{distilled}'


MODELS: Registry[Entry] = Registry('model', 'vit_jax.models', _ours)


def register(name: str, module: type[nn.Module], **preset: Any) -> None:
  """Gives a name to a module class with some of its fields set.

  A module class may have a method `problems() -> list[str]` that says which field values do not fit
  together.
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


def is_text(field: str) -> bool:
  """Whether a field is a text in every model that has it, so that 'none' is a word there."""
  modules = {entry.module for entry in (MODELS[name] for name in MODELS)}
  hints = [typing.get_type_hints(module).get(field) for module in modules]
  return {hint for hint in hints if hint is not None} == {str}


def build(name: str, num_classes: int, **overrides: Any) -> nn.Module:
  """Makes a model by name.

  Args:
    name: one of `names()`.
    num_classes: outputs of the head; 0 for a model without a head that returns pooled features. (A
      module cloned with None returns the pair of pooled features and patch features.)
    **overrides: fields of the model, see `fields(name)`; lists count as tuples, one number as a
      pair where a pair is meant.

  Raises:
    UserError: unknown name or field, a value of the wrong type, or values that do not fit.
  """
  entry = MODELS[name]
  values = fields(name)
  hints = typing.get_type_hints(entry.module)
  stated = {f.name: rule_of(f) for f in dataclasses.fields(entry.module)}
  problems = []
  if isinstance(num_classes, bool) or not isinstance(num_classes, int) or num_classes < 0:
    problems.append(f'num_classes must be a count (0: no head), got {num_classes!r}')
  for field, value in overrides.items():
    if field not in values:
      problems.append(f'model {name!r} has no field {field!r}: {did_you_mean(field, values)}')
      continue
    if field == 'dtype' and not isinstance(value, str):
      value = jnp.dtype(value).name
    try:
      called = f'field {field!r} of model {name!r}'
      values[field] = checked(called, value, hints[field], stated[field])
    except ConfigError as e:
      problems += e.problems
  if not problems:
    module = entry.module(num_classes=num_classes, **values)
    problems = module.problems() if hasattr(module, 'problems') else []
  if problems:
    raise ModelError(problems)
  return module


def check_image_size(module: nn.Module, image_hw: tuple[int, int]) -> None:
  """Raises a `ModelError` unless whole patches of the module tile images of this size.

  Args:
    module: with `patch_size` (height, width) in pixels; any other takes every size.
    image_hw: height and width in pixels.
  """
  h, w = image_hw
  ph, pw = getattr(module, 'patch_size', (1, 1))
  if h % ph or w % pw or not h or not w:
    near = [max(1, round(size / p)) * p for size, p in ((h, ph), (w, pw))]
    raise ModelError(
      f'image size {h}x{w} is not a multiple of the patch size {ph}x{pw}: the nearest that is: '
      f'{near[0]}x{near[1]}'
    )


def check_images(module: nn.Module, images: Any) -> None:
  """Raises a `ModelError` unless images are [b, h, w, c] and whole patches tile them."""
  if images.ndim != 4:
    raise ModelError(f'expected images [b, h, w, c], got an array of shape {images.shape}')
  check_image_size(module, images.shape[1:3])
