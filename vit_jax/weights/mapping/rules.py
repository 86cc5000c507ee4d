"""The language of the conversion tables: one line says how a foreign tensor is ours, both ways.

A rule pairs foreign names with ours and says how the axes move, in letters:

    Rule('blocks.{i}.attn.qkv.weight', 'encoder/block_{i:02d}/attention/qkv/kernel',
         '(s h k) d -> d s h k')

Parentheses hold axes that are one in the array. Several names on a side are several arrays, stacked
along the first letter of that side. `{i}` is a number that both sides share; `{i+1}` and `{i-1}`
count from another start and `{i:02d}` writes zeros in front.
"""

import dataclasses
import functools
import re
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

_FIELD = re.compile(r'\{(\w+)([+-]\d+)?(?::(\w+))?\}')
_GROUP = re.compile(r'\([^)]*\)|\S+')


@dataclasses.dataclass(frozen=True)
class Rule:
  """One line of a table.

  Args:
    theirs: the foreign name, or several that are stacked.
    ours: our flat name without its collection's prefix, or several.
    axes: 'theirs -> ours'; '' where the arrays are equal.
    role: what may be adapted when shapes differ: 'position', 'patch', 'head', 'representation',
      'input' (a first convolution, whose input channels may change), 'token'.
    collection: Flax collection of ours.
    also: other foreign names under which older files keep the same tensor.
    optional: a file may lack it, and then it is zero (a bias that some writers leave out).
  """

  theirs: str | tuple[str, ...]
  ours: str | tuple[str, ...]
  axes: str = ''
  role: str = ''
  collection: str = 'params'
  also: tuple[str, ...] = ()
  optional: bool = False

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
    left, right = _sides(self.rule.axes)
    if left is None:
      return list(arrays)
    target = shapes[0] if len(self.ours) == 1 else (len(self.ours), *shapes[0])
    x = arrays[0] if len(self.theirs) == 1 else np.stack(arrays)
    x = rearrange(x, left, right, target)
    return [x] if len(self.ours) == 1 else list(x)

  def to_theirs(self, arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Turns our arrays into the foreign ones: the exact inverse of `to_ours`."""
    left, right = _sides(self.rule.axes)
    if left is None:
      return list(arrays)
    x = arrays[0] if len(self.ours) == 1 else np.stack(arrays)
    target = (len(self.theirs),) if len(self.theirs) > 1 else ()
    x = rearrange(x, right, left, target)
    return [x] if len(self.theirs) == 1 else list(x)

  def their_shapes(self, shapes: Sequence[tuple[int, ...]]) -> list[tuple[int, ...]]:
    """The shapes the foreign arrays must have for ours to have `shapes`."""
    # Arrays of one repeated byte: reshaping and transposing them moves no memory.
    stand_ins = [np.broadcast_to(np.int8(0), s) for s in shapes]
    return [tuple(a.shape) for a in self.to_theirs(stand_ins)]


def bind(rules: Iterable[Rule], our_names: Iterable[str]) -> tuple[list[Binding], list[str]]:
  """Finds the rule of each of our tensors.

  Returns:
    The bindings in the order of the rules' tensors, and those of our names that no rule covers.
  """
  names = list(our_names)
  rules = list(rules)
  bound: dict[tuple, Binding] = {}
  orphans = []
  for name in names:
    for rule in rules:
      binding = _match(rule, name)
      if binding is not None:
        bound.setdefault(binding.ours, binding)
        break
    else:
      orphans.append(name)
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

  def number(match: re.Match) -> str:
    key, offset, form = match.groups()
    return format(values[key] + int(offset or 0), form or 'd')

  return _FIELD.sub(number, template)


@functools.cache
def _compile(template: str) -> tuple[re.Pattern, dict[str, int]]:
  pattern, offsets, end = '', {}, 0
  for match in _FIELD.finditer(template):
    key, offset, _ = match.groups()
    pattern += re.escape(template[end : match.start()])
    pattern += rf'(?P<{key}>\d+)' if key not in offsets else rf'(?P={key})'
    offsets[key] = int(offset or 0)
    end = match.end()
  return re.compile(pattern + re.escape(template[end:])), offsets


@functools.cache
def _sides(axes: str) -> tuple[tuple | None, tuple | None]:
  if not axes:
    return None, None
  left, right = (
    tuple(tuple(group.strip('()').split()) for group in _GROUP.findall(side))
    for side in axes.split('->')
  )
  return left, right


def rearrange(
  x: np.ndarray,
  source: tuple[tuple[str, ...], ...],
  target: tuple[tuple[str, ...], ...],
  target_shape: Sequence[int] = (),
) -> np.ndarray:
  """Splits, moves and joins axes.

  Args:
    x: its axes are the groups of `source`.
    source, target: groups of letters; '1' is an axis of length one.
    target_shape: gives the lengths of letters that are joined in `source` and alone in `target`;
      may be shorter than `target`.
  """
  if x.ndim != len(source):
    raise ValueError(f'shape {x.shape} does not have {len(source)} axes')
  sizes = {'1': 1}
  for group, size in [*zip(target, target_shape), *zip(source, x.shape)]:
    if len(group) == 1 and group[0] != '1':
      sizes[group[0]] = size
  full = []
  for group, size in zip(source, x.shape):
    unknown = [a for a in group if a not in sizes]
    known = int(np.prod([sizes[a] for a in group if a in sizes], dtype=np.int64))
    if len(unknown) == 1:
      sizes[unknown[0]] = size // max(known, 1)
    full.extend(sizes[a] for a in group)
  order = [a for group in source for a in group if a != '1']
  x = x.reshape([sizes[a] for a in order])
  x = x.transpose([order.index(a) for group in target for a in group if a != '1'])
  return x.reshape([int(np.prod([sizes[a] for a in g], dtype=np.int64)) for g in target])


def prefixed(rules: Iterable[Rule], theirs: str = '', ours: str = '') -> list[Rule]:
  """The same rules for a module that lies deeper on either side."""

  def put(prefix: str, names):
    return prefix + names if isinstance(names, str) else tuple(prefix + n for n in names)

  return [
    dataclasses.replace(
      r, theirs=put(theirs, r.theirs), ours=put(ours, r.ours), also=put(theirs, r.also)
    )
    for r in rules
  ]


def norm(theirs: str, ours: str, scale: str = 'scale', axes: str = '', **kw) -> list[Rule]:
  """A LayerNorm or GroupNorm; `scale` is the foreign word ('weight' in torch)."""
  sep = '.' if scale == 'weight' else '/'
  return [
    Rule(f'{theirs}{sep}{scale}', f'{ours}/scale', axes, **kw),
    Rule(f'{theirs}{sep}bias', f'{ours}/bias', axes, **kw),
  ]


def flax_dense(theirs: str, ours: str, **kw) -> list[Rule]:
  """A layer with Flax's own arrays on both sides."""
  return [
    Rule(f'{theirs}/kernel', f'{ours}/kernel', **kw),
    Rule(f'{theirs}/bias', f'{ours}/bias', **kw),
  ]


def torch_linear(theirs: str, ours: str, axes: str = 'o i -> i o', **kw) -> list[Rule]:
  """A torch Linear; its weight is [out, in]."""
  return [
    Rule(f'{theirs}.weight', f'{ours}/kernel', axes, **kw),
    Rule(f'{theirs}.bias', f'{ours}/bias', **kw),
  ]


def torch_conv(theirs: str, ours: str, **kw) -> list[Rule]:
  """A torch Conv2d; its weight is [out, in, h, w]."""
  return [
    Rule(f'{theirs}.weight', f'{ours}/kernel', 'o i h w -> h w i o', **kw),
    Rule(f'{theirs}.bias', f'{ours}/bias', **kw),
  ]
