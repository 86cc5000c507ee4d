"""Weights drawn on CPU by a program that is quick to compile: those drawn alike are one array.

A model's init is a long program of little work: each of a ViT's 72 kernels is drawn from a key of
its own, and XLA compiles each. Here those that differ by nothing but the key are rows of one array,
and those that hold one number, such as biases and an optimizer's moments, need no program.
The numbers are the same, but for last digits where a vector's remainder is computed otherwise.
"""

import collections
import math
from collections.abc import Callable, Hashable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core, random


class _Leaf(NamedTuple):
  """An output of a program.

  Attributes:
    place: among the outputs.
    value: of the jaxpr.
    equations: that it is made by, in order.
    inputs: what they read: the program's inputs, and keys.
  """

  place: int
  value: Any
  equations: Sequence[Any]
  inputs: Sequence[Any]


def drawn(function: Callable, *args: Any) -> Any:
  """function(*args) of a function that draws weights from keys that it folds from its own.

  Args:
    function: traceable.
    args: trees of arrays and keys; an array among the results is not copied.
  """
  if any(_is_key(x) and not _is_threefry(x) for x in jax.tree.leaves(args)):
    return jax.jit(function)(*args)  # other keys give other numbers when there are many
  args = jax.tree.map(_written_out, args)
  closed, shapes = jax.make_jaxpr(function, return_shape=True)(*args)
  program = _Program(closed)
  leaves = jax.tree.leaves(args)
  rows = []
  if program.groups:
    options = {'xla_backend_optimization_level': 1}  # compiles sooner, to the same bits
    rows = jax.jit(program.draw, compiler_options=options)(leaves)
  return jax.tree.unflatten(jax.tree.structure(shapes), program.outputs(rows, leaves))


class _Program:
  """A jaxpr whose outputs that are drawn alike are made together.

  Attributes:
    groups: outputs to be computed, those that are drawn alike in one.
  """

  def __init__(self, closed: Any):
    self._closed = closed
    self._keys: dict[Any, Any] = {}  # what folds a key, by the value that it gives
    makers: dict[Any, Any] = {}  # what makes any other value, with its place
    given = {v for v in (*closed.jaxpr.invars, *closed.jaxpr.constvars) if not v.aval.shape}
    for place, equation in enumerate(closed.jaxpr.eqns):
      folds = equation.primitive.name == 'random_fold_in' and equation.invars[0] in given
      if folds and isinstance(equation.invars[1], core.Literal):
        self._keys[equation.outvars[0]] = equation
      else:
        makers |= dict.fromkeys(equation.outvars, (place, equation))
    alike = collections.defaultdict(list)
    inputs = {v: i for i, v in enumerate(closed.jaxpr.invars)}
    # By the place of an output, that of the input that it is, and the one number that it holds.
    self._kept: dict[int, int] = {}
    self._filled: dict[int, np.ndarray] = {}
    for place, value in enumerate(closed.jaxpr.outvars):
      if not isinstance(value, core.Literal) and value in inputs:
        self._kept[place] = inputs.pop(value)  # were it there twice, it would have one memory
        continue
      leaf = _Leaf(place, value, *_needs(value, makers))
      number = _number(leaf)
      if number is None:
        alike[self._likeness(leaf)].append(leaf)
      else:
        self._filled[place] = np.broadcast_to(number, value.aval.shape)
    self.groups = list(alike.values())

  def _likeness(self, leaf: _Leaf) -> Hashable:
    """Equal for leaves that equal operations make, of keys that one key was folded to."""
    number = {v: i for i, v in enumerate(leaf.inputs)}

    def reference(v: Any) -> Hashable:
      return (str(v.val), str(v.aval)) if isinstance(v, core.Literal) else number[v]

    inputs = [self._keys[v].invars[0] if v in self._keys else v for v in leaf.inputs]
    found: list[Hashable] = [tuple(inputs)]
    for e in leaf.equations:
      params = tuple(sorted(e.params.items()))
      shapes = tuple(str(v.aval) for v in e.outvars)
      found.append((e.primitive, params, tuple(map(reference, e.invars)), shapes))
      number |= {v: len(number) + i for i, v in enumerate(e.outvars)}
    found.append(reference(leaf.value))
    try:
      hash(tuple(found))
    except TypeError:  # of parameters that cannot be compared
      return leaf.place
    return tuple(found)

  def draw(self, args: Sequence[Any]) -> list[jax.Array]:
    """Of each group its leaves [k, ...], or the one value that all of them have."""
    given = dict(zip(self._closed.jaxpr.invars, args))
    given |= dict(zip(self._closed.jaxpr.constvars, self._closed.consts))
    keys = self._folded(given)
    return [self._drawn(group, given, keys) for group in self.groups]

  def _drawn(self, group: Sequence[_Leaf], given: dict, keys: dict) -> jax.Array:
    first = group[0]
    jaxpr = self._closed.jaxpr.replace(
      constvars=(),
      invars=first.inputs,
      outvars=[first.value],
      eqns=first.equations,
      debug_info=self._closed.jaxpr.debug_info.with_unknown_names(),
    )
    make = core.jaxpr_as_fun(core.ClosedJaxpr(jaxpr, ()))
    values, axes = [], []
    for i, v in enumerate(first.inputs):
      values.append(keys[first.place, i] if v in self._keys else given[v])
      axes.append(0 if v in self._keys else None)
    return (jax.vmap(make, axes) if 0 in axes else make)(*values)[0]

  def _folded(self, given: dict) -> dict[tuple[int, int], jax.Array]:
    """By the place of each group's first leaf and the number of an input, the keys [k] of all."""
    folded = collections.defaultdict(list)  # by the key that they are of
    for group in self.groups:
      for i, v in enumerate(group[0].inputs):
        if v in self._keys:
          folds = [self._keys[leaf.inputs[i]].invars for leaf in group]
          folded[folds[0][0]].append(((group[0].place, i), [data.val for _, data in folds]))
    found: dict[tuple[int, int], jax.Array] = {}
    for key, parts in folded.items():
      data = np.concatenate([x for _, x in parts]).astype(np.uint32)
      keys = jax.vmap(jax.random.fold_in, (None, 0))(given[key], data)
      ends = np.cumsum([len(x) for _, x in parts])
      found |= zip((name for name, _ in parts), jnp.split(keys, ends[:-1]))
    return found

  def outputs(self, rows: list[Any], args: Sequence[Any]) -> list[jax.Array]:
    """The program's outputs, of its inputs and of what `draw` returns, which is emptied."""
    found = {place: _copied(number) for place, number in self._filled.items()}
    for place, i in self._kept.items():
      found[place] = args[i] if isinstance(args[i], jax.Array) else _copied(args[i])
    for group in self.groups:
      made = np.asarray(rows.pop(0))
      stacked = made.ndim > len(group[0].value.aval.shape)
      found |= {leaf.place: _copied(made[k] if stacked else made) for k, leaf in enumerate(group)}
    return [found[place] for place in range(len(found))]


def _number(leaf: _Leaf) -> np.ndarray | None:
  """The number that fills an output, where it is written in the program; else None."""
  value = leaf.value
  if len(leaf.equations) == 1 and leaf.equations[0].primitive.name == 'broadcast_in_dim':
    value = leaf.equations[0].invars[0]
  if not isinstance(value, core.Literal):
    return None
  return np.asarray(value.val, leaf.value.aval.dtype)


def _copied(x: np.ndarray) -> jax.Array:
  """An array in memory of its own, which a step may write its results to.

  `jnp.array` would compile a program for each shape, and `device_put` share the memory of an array
  that is aligned.
  """
  unaligned = np.empty(x.nbytes + 1, np.uint8)[1:].view(x.dtype).reshape(x.shape)
  unaligned[...] = x
  return jax.device_put(unaligned)


def _needs(value: Any, makers: dict) -> tuple[Sequence[Any], Sequence[Any]]:
  """The equations that make a value, in order, and what they read that none of them makes."""
  equations: dict[int, Any] = {}
  inputs: dict[Any, None] = {}
  needed = [value]
  while needed:
    v = needed.pop()
    if isinstance(v, core.Literal):
      continue
    if v not in makers:
      inputs[v] = None
      continue
    place, equation = makers[v]
    if place not in equations:
      equations[place] = equation
      needed += reversed(equation.invars)
  return [equations[place] for place in sorted(equations)], list(inputs)


def _is_key(x: Any) -> bool:
  return isinstance(x, jax.Array) and jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key)


def _is_threefry(key: jax.Array) -> bool:
  return str(jax.random.key_impl(key)) == 'threefry2x32'


def _written_out(x: Any) -> Any:
  """A key whose bits one loop computes, in place of JAX's own; any other value as it is."""
  partitionable = jax.config.jax_threefry_partitionable  # type: ignore[attr-defined]
  if not _is_key(x) or not partitionable:
    return x
  return jax.random.wrap_key_data(jax.random.key_data(x), impl=_WRITTEN_OUT)


def _hash(key: jax.Array, counts: jax.Array) -> tuple[jax.Array, jax.Array]:
  """Threefry of the pairs (0, count), its rounds written out.

  JAX has a CPU go over an array once for four of the twenty rounds, in loops that take longer to
  compile. Source: Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3", section 3.3.

  Args:
    key: [2] uint32.
    counts: [...] uint32.
  """
  lax, word = jax.lax, np.uint32  # operators of arrays take longer to trace
  a, b = key[0], key[1]
  keys = (a, b, a ^ b ^ word(0x1BD11BDA))
  x, y = jnp.broadcast_to(a, counts.shape), counts + b
  for i in range(5):
    for rotation in ((13, 15, 26, 6), (17, 29, 16, 24))[i % 2]:
      x = lax.add(x, y)
      left = lax.shift_left(y, word(rotation))
      right = lax.shift_right_logical(y, word(32 - rotation))
      y = lax.bitwise_xor(x, lax.bitwise_or(left, right))
    x, y = x + keys[(i + 1) % 3], y + (keys[(i + 2) % 3] + word(i + 1))
  return x, y


def _bits(key: jax.Array, width: int, shape: Sequence[int]) -> jax.Array:
  size = math.prod(shape)
  if width != 32 or size >= 1 << 32:
    return _THREEFRY.random_bits(key, width, shape)
  x, y = _hash(key, jax.lax.iota(np.uint32, size))
  return (x ^ y).reshape(shape)


def _fold_in(key: jax.Array, data: Any) -> jax.Array:
  return jnp.stack(_hash(key, data.astype(np.uint32)))


_THREEFRY: Any = random.threefry_prng_impl

_WRITTEN_OUT = random.define_prng_impl(
  key_shape=(2,),
  seed=_THREEFRY.seed,
  split=_THREEFRY.split,
  fold_in=_fold_in,
  random_bits=_bits,
  name='threefry2x32 written out',
  tag='fry',
)
