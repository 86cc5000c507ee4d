"""Memory of a traced program, were XLA to fuse all that it can: a lower bound of its workspace.

Arrays that elementwise operations give are taken to exist only where a matmul, a convolution, a
barrier or the like reads them, or where computing them a second time is dear. The others are
computed again from their inputs, which live as long as they do. What reshapes costs nothing.

Of an array with a sharding constraint a device has its part. A matmul or the like gathers the
whole, which lives until the last one has read it; what is computed again gathers it again.
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
  'pad', 'concatenate', 'stack', 'rev',
))
_DEAR = frozenset((
  'exp', 'exp2', 'expm1', 'log', 'log1p', 'tanh', 'logistic', 'pow', 'erf', 'erf_inv', 'cos', 'sin',
  'sqrt', 'rsqrt', 'cbrt', 'div',
))
_RESHAPES = frozenset((
  'reshape', 'squeeze', 'expand_dims', 'transpose', 'optimization_barrier', 'sharding_constraint',
  'split', 'unstack',
))
_REDUCTIONS = frozenset((
  'reduce_sum', 'reduce_max', 'reduce_min', 'reduce_and', 'reduce_or', 'reduce_prod', 'argmax',
  'argmin',
))
# fmt: on
_FUSED = _CHEAP | _DEAR
_LOOPS = frozenset(('scan', 'while', 'cond'))


@dataclasses.dataclass(frozen=True)
class _Step:
  """An operation.

  Attributes:
    kind: its primitive's name.
    inputs, outputs: numbers of arrays.
    inside: workspace of a loop's body or of a branch, or of what XLA makes of the operation.
  """

  kind: str
  inputs: Sequence[int]
  outputs: Sequence[int]
  inside: int = 0

  @property
  def fused(self) -> bool:
    return self.kind in _FUSED

  @property
  def in_place(self) -> bool:
    """Whether it may write results of the program where its inputs were."""
    return self.fused or self.kind == 'cond'

  @property
  def reshapes(self) -> bool:
    return self.kind in _RESHAPES

  @property
  def made_of(self) -> dict[int, int]:
    """Outputs of what reshapes, with the input that each is made of."""
    inputs = self.inputs if len(self.inputs) > 1 else [*self.inputs] * len(self.outputs)
    return dict(zip(self.outputs, inputs))


class _Program:
  """A jaxpr with its calls written out: a list of steps on numbered arrays.

  Args:
    closed: of `jax.make_jaxpr`.
    given_parts: of each input, which part of it a device has.
    constant: how many inputs are the same in each turn, of the body of a loop.

  Attributes:
    sizes: bytes on a device by array.
    steps: in order.
    given, results: the arrays that come in and go out; of these `result_parts`.
    held: bytes of what is gathered once, before a loop.
  """

  def __init__(self, closed: Any, given_parts: Sequence[float] = (), constant: int = 0):
    self.sizes: list[int] = []
    self.steps: list[_Step] = []
    self.held = 0
    self._parts: dict[int, float] = {}  # of arrays that are divided
    self._settled: set[int] = set()  # what elementwise operations make of inputs alone
    self._source: dict[int, int] = {}  # what reshaping has made -> of what
    self._gathered: dict[int, int] = {}
    self._made: dict[Any, list[int]] = {}  # what an operation of the same inputs has given
    self.given = [self._array(v.aval) for v in closed.jaxpr.invars]
    self._settled.update(self.given)
    self._constant = {*self.given[:constant]}
    for x, part in zip(self.given, given_parts):
      self._hold(x, part)
    outputs = self._inline(closed.jaxpr, self._constants(closed), self.given)
    self.results = {x for x in outputs if x is not None}
    self.result_parts = [self._parts.get(x, 1.0) if x is not None else 1.0 for x in outputs]
    self._divide_outputs_of_loops()

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
        if equation.params.get('prevent_cse'):
          inputs = [x if x is None else self._seen_anew(x) for x in inputs]
        outputs = self._inline(body, own, inputs)
      else:
        outputs = self._step(equation, inputs)
      known |= dict(zip(equation.outvars, outputs))
    return [read(v) for v in jaxpr.outvars]

  def _step(self, equation: Any, inputs: Sequence[int | None]) -> list[int]:
    kind, known = equation.primitive.name, [x for x in inputs if x is not None]
    literals = [str(v) for v in equation.invars if isinstance(v, Literal)]
    same = (kind, tuple(inputs), tuple(literals), str(equation.params) if kind in _FUSED else '')
    if kind in _FUSED and same in self._made:
      return self._made[same]
    outputs = self._made[same] = [self._array(v.aval) for v in equation.outvars]
    if not (_plain(kind) or kind in _LOOPS):
      inputs = [x if x is None else self._whole(x) for x in inputs]
    parts = [1.0 if x is None else self._parts.get(x, 1.0) for x in inputs]
    inside, result_parts = _inside(equation, parts)
    step = _Step(kind, [x for x in inputs if x is not None], outputs, inside)
    self.steps.append(step)
    if step.reshapes:
      self._source.update(step.made_of)
    if step.fused and self._settled.issuperset(known):
      self._settled.update(outputs)
    part = self._part(step)
    if kind == 'sharding_constraint':
      aval, sharding = equation.outvars[0].aval, equation.params['sharding']
      part = math.prod(sharding.shard_shape(aval.shape)) / max(1, math.prod(aval.shape))
    for x, own in zip(outputs, result_parts or [part] * len(outputs)):
      self._hold(x, own)
    return outputs

  def _hold(self, x: int, part: float) -> None:
    """Notes that a device has this part of an array."""
    if part < 1:
      self._parts[x] = part
      self.sizes[x] = int(self.sizes[x] * part)

  def _part(self, step: _Step) -> float:
    """Of what an elementwise operation makes of divided arrays, and perhaps of inputs."""
    if not (step.fused or step.reshapes):
      return 1.0
    divided = {x: self._parts[x] for x in step.inputs if x in self._parts}
    whole = sum(self.sizes[x] / part for x, part in divided.items())
    others = [x for x in step.inputs if x not in divided and x not in self._settled]
    if not divided or others or self.sizes[step.outputs[0]] > max(whole, 1):
      return 1.0
    return max(divided.values())

  def _whole(self, x: int) -> int:
    """The whole of an array, which is gathered where only parts are there."""
    if x not in self._parts:
      return x
    while x in self._source and self._source[x] in self._parts:
      x = self._source[x]
    if x not in self._gathered:
      size = int(self.sizes[x] / self._parts[x])
      if _root(self._source, x) in self._constant:
        self.held, size = self.held + size, 0
      self.sizes.append(size)
      self._gathered[x] = len(self.sizes) - 1
      self.steps.append(_Step('all_gather', [x], [self._gathered[x]]))
    return self._gathered[x]

  def _seen_anew(self, x: int) -> int:
    """The same array under another number, for which the whole is gathered again."""
    self.sizes.append(self.sizes[x])
    new = len(self.sizes) - 1
    if x in self._parts:
      self._parts[new] = self._parts[x]
    self.steps.append(_Step('reshape', [x], [new]))
    return new

  def _divide_outputs_of_loops(self) -> None:
    """Of those that only constraints read, behind elementwise operations, a device has its part."""
    needed = dict.fromkeys(self.results, 1.0)  # by array, the part of it that its readers need
    for step in reversed(self.steps):
      for x in step.outputs:
        if step.kind in _LOOPS and x not in self._parts:
          self._hold(x, needed.get(x, 1.0))
      most = max((needed.get(x, 0.0) for x in step.outputs), default=1.0)
      if step.kind == 'sharding_constraint':
        most = self._parts.get(step.outputs[0], 1.0)
      elif not (step.fused or step.reshapes):
        most = 1.0
      for x in step.inputs:
        needed[x] = max(needed.get(x, 0.0), most)


def _plain(kind: str) -> bool:
  """Whether each device can do it with its parts of arrays."""
  return kind in _FUSED or kind in _RESHAPES or kind in _REDUCTIONS


def _called(equation: Any) -> Any:
  """The jaxpr of a call that runs once; None for any other operation."""
  if equation.primitive.name in _LOOPS:
    return None
  names = ('jaxpr', 'call_jaxpr', 'fun_jaxpr')
  return next((equation.params[name] for name in names if name in equation.params), None)


def _bodies(equation: Any) -> list[Any]:
  """The jaxprs of a loop or of branches."""
  if equation.primitive.name not in _LOOPS:
    return []
  found = [equation.params.get(name) for name in ('jaxpr', 'body_jaxpr')]
  return [body for body in (*found, *equation.params.get('branches', ())) if body is not None]


def _inside(equation: Any, parts: Sequence[float]) -> tuple[int, Sequence[float]]:
  """Workspace inside an operation, and the parts of its outputs that a device has.

  Args:
    equation: of a jaxpr.
    parts: of its inputs.
  """
  if equation.primitive.name == 'select_and_scatter_add':  # the gradient of a max pooling
    # XLA looks for the places of the largest: four indices for each, beside the padded input.
    operand = equation.invars[1].aval
    return 5 * math.prod(operand.shape) * 4, ()
  bodies = _bodies(equation)
  if equation.primitive.name == 'scan':
    program = _Program(bodies[0], parts, equation.params['num_consts'])
    return _most(program) + program.held, program.result_parts
  return max(map(workspace, bodies), default=0), ()


def workspace(closed: Any) -> int:
  """The most memory of arrays between inputs and outputs at once, in bytes on a device.

  Args:
    closed: of `jax.make_jaxpr`. Outputs that elementwise operations or branches give take none:
      they are written where inputs were.
  """
  return _most(_Program(closed))


def _most(program: _Program) -> int:
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
      if x in exists and x not in source and not (x in results and step.in_place):
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
        for made in step.outputs:
          yield from uses(made)
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
      for made, x in step.made_of.items():
        source[made] = x
        if made in exists or made in program.results or step.kind == 'optimization_barrier':
          exists.add(x)
  return exists, source


def _root(source: dict[int, int], x: int) -> int:
  while x in source:
    x = source[x]
  return x
