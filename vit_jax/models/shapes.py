"""Shapes of a model's variables, and the record from which a model is built again."""

import functools
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import numpy as np

from vit_jax import tree
from vit_jax.models.base import MODELS, fields
from vit_jax.models.heads import backbone_of


@functools.lru_cache(64)
def variable_shapes(
  model: nn.Module, image_size: tuple[int, int], channels: int = 3
) -> Mapping[str, Any]:
  """Shapes and types of a model's variables, nested as they are; nothing is computed.

  Args:
    model: a module of `vit_jax.models.build`, or one around it.
    image_size: (h, w) in pixels.
    channels: of the images.
  """
  images = jax.ShapeDtypeStruct((1, *image_size, channels), np.float32)
  return jax.eval_shape(lambda x: model.init(jax.random.key(0), x, train=False), images)


def variable_specs(
  model: nn.Module, image_size: tuple[int, int], channels: int = 3
) -> dict[str, jax.ShapeDtypeStruct]:
  """The same as flat names to shapes and types, of what is saved: params and batch_stats."""
  shapes = variable_shapes(model, image_size, channels)
  return tree.flatten({k: v for k, v in shapes.items() if k in ('params', 'batch_stats')})


def description(module: nn.Module, name: str) -> dict[str, Any]:
  """{'name': ..., field: value} from which `models.build` makes a module again.

  Args:
    module: a model, or a module around one.
    name: the name that it was built by.
  """
  module = backbone_of(module)
  changed = {k: getattr(module, k) for k, v in fields(name).items() if getattr(module, k) != v}
  return {'name': name, **changed}


def name_of(module: nn.Module) -> str:
  """The first registered name that stands for a module's fields; '' where none does."""
  module = backbone_of(module)
  for name, entry in MODELS.items():
    same = all(getattr(module, field, None) == value for field, value in entry.preset.items())
    if entry.module is type(module) and same:
      return name
  return ''


# Fields that say how a model is trained or computed, not which it is.
_NOT_IN_TITLES = (
  *('dropout', 'attention_dropout', 'token_dropout', 'drop_path_rate', 'drop_path_schedule'),
  *('head_bias_init', 'norm_momentum', 'norm_frozen', 'axis_name'),
  *('attention', 'remat', 'scan', 'dtype'),
  *('gelu', 'norm_epsilon', 'stem_epsilon', 'kernel_epsilon', 'padding'),  # fixed by weights
)


def title(record: Mapping[str, Any]) -> str:
  """A model's name for people, with what makes it another: 'resnet50 (width=8)'.

  Args:
    record: as `description` gives it.
  """
  changed = [
    f'{name}={",".join(map(str, value)) if isinstance(value, list | tuple) else value}'
    for name, value in record.items()
    if name != 'name' and name not in _NOT_IN_TITLES
  ]
  return f'{record["name"]} ({" ".join(changed)})' if changed else record['name']
