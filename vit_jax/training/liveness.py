"""Memory of a traced program, were XLA to fuse all that it can: a lower bound of its workspace.

Arrays that elementwise operations give are taken to exist only where a matmul, a convolution or the
like reads them, or where computing them a second time is dear. The others are computed again from
their inputs, which live as long as they do. What reshapes costs nothing.
"""

import collections
import dataclasses
import math
from collections.abc import Iterator, Sequence
from typing import Any

import jax
from jax.extend.core import Literal

# fmt: off
_CHEAP = frozenset((
  'add', 'sub', 'mul', 'max', 'min', 'neg', 'sign', 'integer_pow', 'abs', 'select_n', 'square',
  'copy', 'lt', 'gt', 'eq', 'ge', 'le', 'ne', 'and', 'or', 'not', 'xor', 'is_finite', 'clamp',
  'round', 'floor', 'ceil', 'rem', 'add_any', 'shift_left', 'shift_right_logical',
  'shift_right_arithmetic', 'iota',
  'convert_element_type', 'bitcast_convert_type', 'broadcast_in_dim', 'slice', 'dynamic_slice',
  'pad', 'concatenate', 'rev',
))
_DEAR = frozenset((
  'exp', 'exp2', 'expm1', 'log', 'log1p', 'tanh', 'logistic', 'pow', 'erf', 'erf_inv', 'cos', 'sin',
  'sqrt', 'rsqrt', 'cbrt', 'div',
))
_RESHAPES = frozenset((
  'reshape', 'squeeze', 'expand_dims', 'transpose', 'optimization_barrier', 'sharding_constraint',
))
_REDUCTIONS = frozenset((
  'reduce_sum', 'reduce_max', 'reduce_min', 'reduce_and', 'reduce_or', 'reduce_prod', 'argmax',
  'argmin',
))
# fmt: on
_FUSED = _CHEAP | _DEAR


@dataclasses.dataclass(frozen=True)
class _Step:
  """An operation.

  Attributes:
    kind: its primitive's name.
    inputs, outputs: numbers of arrays.
    inside: workspace of a loop's body or of a branch.
  """

  kind: str
  inputs: Sequence[int]
  outputs: Sequence[int]
  inside: int = 0

  @property
  def fused(self) -> bool:
    return self.kind in _FUSED

  @property
  def reshapes(self) -> bool:
    return self.kind in _RESHAPES


class _Program:
  """A jaxpr with its calls written out: a list of steps on numbered arrays."""

  def __init__(self, closed: Any):
    self.sizes: list[int] = []
    self.steps: list[_Step] = []
    self.given = [self._array(v.aval) for v in closed.jaxpr.invars]
    outputs = self._inline(closed.jaxpr, self._constants(closed), self.given)
    self.results = {x for x in outputs if x is not None}

  def _array(self, aval: Any) -> int:
    size = math.prod(aval.shape) * aval.dtype.itemsize if hasattr(aval, 'shape') else 0
    self.sizes.append(size)
    return len(self.sizes) - 1

  def _constants(self, closed: Any) -> list[int]:
    return [self._array(jax.typeof(c)) for c in closed.consts]

  def _inline(self, jaxpr: Any, constants: Sequence[int], given: Sequence[int | None]) -> list:
    known: dict[Any, int | None] = dict(zip(jaxpr.constvars, constants))
    known |= dict(zip(jaxpr.invars, given))

    def read(v: Any) -> int | None:
      return None if isinstance(v, Literal) else known[v]

    for equation in jaxpr.eqns:
      inputs = [read(v) for v in equation.invars]
      called = _called(equation)
      if called is not None:
        closed = hasattr(called, 'consts')
        body, own = (called.jaxpr, self._constants(called)) if closed else (called, [])
        outputs = self._inline(body, own, inputs)
      else:
        outputs = [self._array(v.aval) for v in equation.outvars]
        inside = max((workspace(body) for body in _bodies(equation)), default=0)
        known_inputs = [x for x in inputs if x is not None]
        self.steps.append(_Step(equation.primitive.name, known_inputs, outputs, inside))
      known |= dict(zip(equation.outvars, outputs))
    return [read(v) for v in jaxpr.outvars]


def _called(equation: Any) -> Any:
  """The jaxpr of a call that runs once; None for any other operation."""
  if equation.primitive.name in ('scan', 'while', 'cond'):
    return None
  names = ('jaxpr', 'call_jaxpr', 'fun_jaxpr')
  return next((equation.params[name] for name in names if name in equation.params), None)


def _bodies(equation: Any) -> list[Any]:
  """The jaxprs of a loop or of branches."""
  if equation.primitive.name not in ('scan', 'while', 'cond'):
    return []
  found = [equation.params.get(name) for name in ('jaxpr', 'body_jaxpr')]
  return [body for body in (*found, *equation.params.get('branches', ())) if body is not None]


def workspace(closed: Any) -> int:
  """The most memory of arrays between inputs and outputs at once, in bytes.

  Args:
    closed: of `jax.make_jaxpr`. Outputs that elementwise operations give take none: they are
      written where inputs were.
  """
  program = _Program(closed)
  steps = _needed(program)
  readers = _readers(steps)
  exists, source = _existing(program, steps, readers)
  results = {_root(source, x) for x in program.results}
  last = dict.fromkeys(results, len(steps))
  for k, step in reversed(list(enumerate(steps))):
    until = k
    if step.reshapes or (step.fused and not exists & set(step.outputs)):
      until = max(last.get(_root(source, x), last.get(x, k)) for x in step.outputs)
      until = max([until, *(last.get(x, k) for x in step.outputs)])
    for x in step.inputs:
      last[x] = max(last.get(x, 0), until)
  ending = collections.defaultdict(list)
  for x, k in last.items():
    ending[k].append(x)
  alive: dict[int, int] = {}
  now = most = 0
  for k, step in enumerate(steps):
    # An elementwise operation or a sum may write where an input was.
    before = ending[k] if step.fused or step.kind in _REDUCTIONS else []
    now -= sum(alive.pop(x, 0) for x in before)
    for x in step.outputs:
      if x in exists and x not in source and not (x in results and step.fused):
        alive[x] = program.sizes[x]
        now += alive[x]
    most = max(most, now + step.inside)
    now -= sum(alive.pop(x, 0) for x in ending[k])
  return most


def _needed(program: _Program) -> list[_Step]:
  """The steps whose outputs are used."""
  used, kept = set(program.results), []
  for step in reversed(program.steps):
    if used & set(step.outputs):
      kept.append(step)
      used |= set(step.inputs)
  return kept[::-1]


def _readers(steps: Sequence[_Step]) -> dict[int, list[_Step]]:
  found = collections.defaultdict(list)
  for step in steps:
    for x in step.inputs:
      found[x].append(step)
  return found


def _existing(
  program: _Program, steps: Sequence[_Step], readers: dict[int, list[_Step]]
) -> tuple[set[int], dict[int, int]]:
  """The arrays that lie in memory, and by array that reshaping gives the one it is made of."""

  def uses(x: int) -> Iterator[_Step]:
    for step in readers.get(x, ()):
      if step.reshapes:
        yield from uses(step.outputs[0])
      else:
        yield step

  exists, source = set(program.given), {}
  for step in steps:
    if step.fused:
      (x,) = step.outputs
      largest = max((program.sizes[i] for i in step.inputs), default=0)
      dear = step.kind in _DEAR and program.sizes[x] >= largest
      if x in program.results or (dear and len(list(uses(x))) > 1):
        exists.add(x)
    elif not step.reshapes:
      exists |= set(step.outputs)
      if step.kind not in _REDUCTIONS:
        exists |= set(step.inputs)
  for step in reversed(steps):
    if step.reshapes:
      for made, x in zip(step.outputs, step.inputs):
        source[made] = x
        if made in exists or made in program.results:
          exists.add(x)
  return exists, source


def _root(source: dict[int, int], x: int) -> int:
  while x in source:
    x = source[x]
  return x
