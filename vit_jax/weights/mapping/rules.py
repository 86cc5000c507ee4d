"""The language of the conversion tables: one line maps a foreign tensor to ours, both ways.

A rule pairs foreign names with ours and says how the axes move, as einops writes it:

    Rule('blocks.{i}.attn.qkv.weight', 'encoder/block_{i:02d}/attention/qkv/kernel',
         '(s h k) d -> d s h k')

Several names on a side are several arrays, stacked along the first letter of that side. `{i}` is a
number that both sides share; `{i+1}` and `{i-1}` count from another start and `{i:02d}` writes
zeros in front.
"""

import dataclasses
import functools
import re
from collections.abc import Iterable, Mapping, Sequence

import einops
import numpy as np

_FIELD = re.compile(r'\{(\w+)([+-]\d+)?(?::(\w+))?\}')
_FUSED = re.compile(r'\(([^)]*)\)')


@dataclasses.dataclass(frozen=True)
class Rule:
  """One line of a table.

  Args:
    theirs: the foreign name, or several that are stacked.
    ours: our flat name without its collection's prefix, or several.
    axes: 'theirs -> ours', where only theirs are fused; '' where the arrays are equal.
    role: what may be adapted when shapes differ: 'position', 'patch', 'head', 'representation',
      'input' (a first convolution, whose input channels may change), 'token'.
    collection: Flax collection of ours.
    also: other foreign names under which older files keep the same tensor.
  """

  theirs: str | tuple[str, ...]
  ours: str | tuple[str, ...]
  axes: str = ''
  role: str = ''
  collection: str = 'params'
  also: tuple[str, ...] = ()

  @property
  def their_names(self) -> tuple[str, ...]:
    return (self.theirs,) if isinstance(self.theirs, str) else self.theirs

  @property
  def our_names(self) -> tuple[str, ...]:
    names = (self.ours,) if isinstance(self.ours, str) else self.ours
    return tuple(f'{self.collection}/{name}' for name in names)


@dataclasses.dataclass(frozen=True)
class Binding:
  """A rule with its numbers filled in."""

  rule: Rule
  theirs: tuple[str, ...]
  ours: tuple[str, ...]
  also: tuple[str, ...] = ()

  def to_ours(
    self, arrays: Sequence[np.ndarray], shapes: Sequence[tuple[int, ...]]
  ) -> list[np.ndarray]:
    """Turns foreign arrays into ours.

    Args:
      arrays: in the order of `theirs`.
      shapes: of our parameters, which say into what a fused axis is split.
    """
    if not self.rule.axes:
      return list(arrays)
    left, right = self.rule.axes.split('->')
    fused = {letter for group in _FUSED.findall(left) for letter in group.split()}
    shape = shapes[0] if len(self.ours) == 1 else (len(self.ours), *shapes[0])
    sizes = {letter: n for letter, n in zip(right.split(), shape) if letter in fused}
    return _rearranged(arrays, f'{left} -> {right}', sizes, len(self.ours))

  def to_theirs(self, arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Turns our arrays into the foreign ones: the exact inverse of `to_ours`."""
    if not self.rule.axes:
      return list(arrays)
    left, right = self.rule.axes.split('->')
    return _rearranged(arrays, f'{right} -> {left}', {}, len(self.theirs))

  def their_shapes(self, shapes: Sequence[tuple[int, ...]]) -> list[tuple[int, ...]]:
    """The shapes that the foreign arrays must have for ours to have `shapes`."""
    # Arrays of one repeated byte: rearranging them moves little memory.
    stand_ins = [np.broadcast_to(np.int8(0), s) for s in shapes]
    return [tuple(a.shape) for a in self.to_theirs(stand_ins)]


def _rearranged(
  arrays: Sequence[np.ndarray], pattern: str, sizes: Mapping[str, int], count: int
) -> list[np.ndarray]:
  x = einops.rearrange(arrays[0] if len(arrays) == 1 else list(arrays), pattern, **sizes)
  return [x] if count == 1 else list(x)


def bind(rules: Iterable[Rule], our_names: Iterable[str]) -> tuple[list[Binding], list[str]]:
  """Finds the rule of each of our tensors.

  Returns:
    The bindings in the order of our names, and those of our names that no rule covers.
  """
  rules = list(rules)
  bound: dict[tuple[str, ...], Binding] = {}
  orphans = []
  for name in our_names:
    binding = next((b for rule in rules if (b := _match(rule, name)) is not None), None)
    if binding is None:
      orphans.append(name)
    else:
      bound.setdefault(binding.ours, binding)
  return list(bound.values()), orphans


def _match(rule: Rule, name: str) -> Binding | None:
  for template in rule.our_names:
    values = parse(template, name)
    if values is not None:
      fill = functools.partial(fill_in, values=values)
      return Binding(
        rule,
        tuple(map(fill, rule.their_names)),
        tuple(map(fill, rule.our_names)),
        tuple(map(fill, rule.also)),
      )
  return None


def parse(template: str, name: str) -> dict[str, int] | None:
  """The numbers in `name` where it has the template's form, else None."""
  pattern, offsets = _compile(template)
  match = pattern.fullmatch(name)
  if match is None:
    return None
  return {key: int(text) - offsets[key] for key, text in match.groupdict().items()}


def fill_in(template: str, values: Mapping[str, int]) -> str:
  """The template with its numbers written in."""

  def number(match: re.Match[str]) -> str:
    key, offset, form = match.groups()
    return format(values[key] + int(offset or 0), form or 'd')

  return _FIELD.sub(number, template)


@functools.cache
def _compile(template: str) -> tuple[re.Pattern[str], dict[str, int]]:
  pattern, offsets, end = '', {}, 0
  for match in _FIELD.finditer(template):
    key, offset, _ = match.groups()
    pattern += re.escape(template[end : match.start()])
    pattern += rf'(?P<{key}>\d+)' if key not in offsets else rf'(?P={key})'
    offsets[key] = int(offset or 0)
    end = match.end()
  return re.compile(pattern + re.escape(template[end:])), offsets
