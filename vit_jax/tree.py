"""Nested dictionaries of arrays as flat ones with slash-joined names, and back."""

from collections.abc import Callable, Collection, Mapping
from typing import Any


def flatten(tree: Mapping, prefix: str = '') -> dict[str, Any]:
  """Turns {'a': {'b': x}} into {'a/b': x}, in sorted order of names."""
  flat = {}
  for key in sorted(tree):
    value = tree[key]
    if isinstance(value, Mapping):
      flat.update(flatten(value, f'{prefix}{key}/'))
    else:
      flat[prefix + key] = value
  return flat


def unflatten(flat: Mapping[str, Any]) -> dict[str, Any]:
  """Turns {'a/b': x} into {'a': {'b': x}}."""
  tree: dict[str, Any] = {}
  for name, value in flat.items():
    *parents, leaf = name.split('/')
    node = tree
    for parent in parents:
      node = node.setdefault(parent, {})
    node[leaf] = value
  return tree


def map_named(f: Callable[[str, Any], Any], tree: Mapping) -> dict[str, Any]:
  """Applies f(name, leaf) to every leaf, where name is the slash-joined path."""
  return unflatten({name: f(name, leaf) for name, leaf in flatten(tree).items()})


def map_pairs(f: Callable[[str, Any, Any], Any], one: Mapping, other: Mapping) -> dict[str, Any]:
  """Applies f(name, leaf, leaf) to the leaves of two trees that have the same names."""
  others = flatten(other)
  return unflatten({name: f(name, leaf, others[name]) for name, leaf in flatten(one).items()})


def split(tree: Mapping, names: Collection[str]) -> tuple[dict[str, Any], dict[str, Any]]:
  """Divides a tree into the leaves that are not among the names and those that are."""
  flat = flatten(tree)
  return (
    unflatten({name: leaf for name, leaf in flat.items() if name not in names}),
    unflatten({name: leaf for name, leaf in flat.items() if name in names}),
  )


def merge(one: Mapping, other: Mapping) -> dict[str, Any]:
  """The leaves of both; the inverse of `split`."""
  return unflatten(flatten(one) | flatten(other))
