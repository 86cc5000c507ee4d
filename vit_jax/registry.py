"""A table from names to things, with an error that helps."""

from collections.abc import Iterator, Mapping
from typing import Generic, TypeVar

from vit_jax.errors import UserError, did_you_mean

T = TypeVar('T')


class Registry(Mapping[str, T], Generic[T]):
  """Names to entries; a lookup that fails says the nearest names.

  Args:
    kind: what the entries are, for messages ('model', 'optimizer').
  """

  def __init__(self, kind: str):
    self.kind = kind
    self._entries: dict[str, T] = {}

  def add(self, name: str, entry: T) -> T:
    if name in self._entries:
      raise ValueError(f'{self.kind} {name!r} is registered twice')
    self._entries[name] = entry
    return entry

  def __getitem__(self, name: str) -> T:
    if name not in self._entries:
      raise UserError(f'unknown {self.kind} {name!r}: {did_you_mean(name, self._entries)}')
    return self._entries[name]

  def __contains__(self, name: object) -> bool:
    return name in self._entries

  def __iter__(self) -> Iterator[str]:
    return iter(self._entries)

  def __len__(self) -> int:
    return len(self._entries)
