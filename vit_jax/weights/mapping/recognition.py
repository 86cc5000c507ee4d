"""What the names and shapes of a file's tensors show of its model; helpers for the families."""

import dataclasses
import math
import re
from collections.abc import Collection, Mapping
from typing import Any

from vit_jax import models
from vit_jax.data.preprocess import Preprocess
from vit_jax.weights.containers.tensors import Tensors
from vit_jax.weights.mapping import rules
from vit_jax.weights.mapping.table import Table


@dataclasses.dataclass(frozen=True)
class Evidence:
  """A file of a known family.

  Args:
    tensors: of the file.
    naming: of its arrays.
    shapes: our names of its tensors, with our shapes where they follow from the file's alone.
    known: what a config of the file states: 'num_heads', 'gelu', 'norm_epsilon', 'grid'.
    hint: names of file and repository in small letters; they decide between models of the same
      tensors.
  """

  tensors: Tensors
  naming: str
  shapes: Mapping[str, tuple[int, ...]]
  known: Mapping[str, Any]
  hint: str = ''


@dataclasses.dataclass(frozen=True)
class Recognised:
  """The model that a file's tensors belong to.

  Args:
    model: {'name': ..., field: value, ...}.
    grid: (h, w) of the position embeddings; None where unknown.
    num_classes: outputs of the head; 0 without one.
    preprocess: of the authors, where the arrays show that they are not the family's; else None.
  """

  model: dict[str, Any]
  grid: tuple[int, int] | None = None
  num_classes: int = 0
  preprocess: Preprocess | None = None


def our_shapes(table: Table, tensors: Tensors) -> dict[str, tuple[int, ...]]:
  """See `Evidence.shapes`."""
  normalized, _ = table.normalized(tensors)
  found = {}
  for name, spec in normalized.specs.items():
    for rule in table.rules:
      values = next((v for t in rule.their_names if (v := rules.parse(t, name)) is not None), None)
      if values is not None:
        shape = _our_shape(rule, spec.shape)
        found.update({rules.fill_in(ours, values): shape for ours in rule.our_names})
        break
  return found


def _our_shape(rule: rules.Rule, shape: tuple[int, ...]) -> tuple[int, ...]:
  if not rule.axes or '(' in rule.axes or len(rule.their_names) > 1:
    return shape
  left, right = (side.split() for side in rule.axes.split('->'))
  if len(left) != len(shape):
    return shape
  return tuple(shape[left.index(axis)] for axis in right)


def count(names: Collection[str], pattern: str) -> int:
  """The highest number that the first group of a pattern matches, plus one; 0 without a match.

  Raises:
    ValueError: more than there are names.
  """
  found = [int(m[1]) for name in names if (m := re.search(pattern, name))]
  most = max(found, default=-1) + 1
  if most > len(names):
    raise ValueError(f'number {most - 1:,} in {len(names)} names')
  return most


def residual_units(names: Collection[str], prefix: str) -> tuple[int, ...]:
  """Units in each stage of a ResNet whose arrays are called PREFIXblock1/unit01/..."""
  stages = count(names, rf'^{prefix}block(\d+)/')
  return tuple(max(0, count(names, rf'^{prefix}block{b}/unit(\d+)/') - 1) for b in range(1, stages))


def square(n: int) -> tuple[int, int] | None:
  """The sides of a square of n tokens, or None."""
  side = math.isqrt(max(n, 0))
  return (side, side) if side and side * side == n else None


def choose(
  facts: Mapping[str, Any], prefixes: Collection[str], key: Collection[str], default: str
) -> dict[str, Any]:
  """The registered model that agrees with the facts, and what has to be overridden.

  Args:
    facts: field values that the file shows.
    prefixes: beginnings of the names to choose from, the likeliest first.
    key: the fields that must agree.
    default: the model to start from where none agrees.

  Returns:
    {'name': ..., field: value, ...}.
  """
  candidates = [n for prefix in prefixes for n in models.names() if n.startswith(prefix)]
  name = next(
    (n for n in candidates if all(models.fields(n).get(k) == facts[k] for k in key)), default
  )
  fields = models.fields(name)
  changed = {k: v for k, v in facts.items() if k in fields and fields[k] != v}
  return {'name': name, **changed}
