"""What can be told of a model from the names and shapes of a file's tensors."""

import math
import re
from collections.abc import Collection, Mapping
from typing import Any

from vit_jax import models
from vit_jax.weights.formats.tensors import Tensors
from vit_jax.weights.mapping import rules
from vit_jax.weights.mapping.table import Table


def our_shapes(table: Table, tensors: Tensors) -> dict[str, tuple[int, ...]]:
  """Our names of a file's tensors, with our shapes where they follow from the file's alone."""
  normalized, _ = table.normalized(tensors)
  found = {}
  for name in normalized:
    for rule in table.rules:
      values = next((v for t in rule.their_names if (v := rules.parse(t, name)) is not None), None)
      if values is not None:
        shape = _our_shape(rule, normalized.specs[name].shape)
        found.update({rules.fill_in(ours, values): shape for ours in rule.our_names})
        break
  return found


def _our_shape(rule: rules.Rule, shape: tuple[int, ...]) -> tuple[int, ...]:
  left, _, right = rule.axes.partition('->')
  left, right = left.split(), right.split()
  if not rule.axes or '(' in rule.axes or len(left) != len(shape) or len(rule.their_names) > 1:
    return shape
  return tuple(shape[left.index(axis)] for axis in right)


def count(names: Collection[str], pattern: str) -> int:
  """The highest number that the first group of a pattern matches, plus one; 0 without a match."""
  found = [int(m[1]) for name in names if (m := re.search(pattern, name))]
  return max(found, default=-1) + 1


def square(n: int) -> tuple[int, int] | None:
  """The sides of a square of n tokens, or None."""
  side = math.isqrt(max(n, 0))
  return (side, side) if side and side * side == n else None


def choose(
  facts: Mapping[str, Any], prefixes: Collection[str], key: Collection[str], fallback: str
) -> dict[str, Any]:
  """The registered model that agrees with the facts, and what has to be overridden.

  Args:
    facts: field values told from the file.
    prefixes: beginnings of the names to choose from, the likeliest first.
    key: the fields that must agree.
    fallback: the model to start from where none agrees.

  Returns:
    {'name': ..., field: value, ...}.
  """
  best = fallback
  for name in sorted(models.names(), key=lambda n: _rank(n, prefixes)):
    if _rank(name, prefixes) == len(prefixes):
      continue
    fields = models.fields(name)
    if all(fields.get(k) == facts[k] for k in key):
      best = name
      break
  fields = models.fields(best)
  changed = {k: v for k, v in facts.items() if k in fields and fields[k] != v}
  return {'name': best, **changed}


def _rank(name: str, prefixes: Collection[str]) -> int:
  return next((i for i, p in enumerate(prefixes) if name.startswith(p)), len(prefixes))
