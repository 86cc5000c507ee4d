"""Programs on CPU whose matmuls and convolutions are computed by the library that is faster there.

XLA has two for them, YNNPACK and Eigen, and takes YNNPACK wherever it can. Which one is faster
depends on the processor and on the size of the matrices. It is measured where a program first needs
to know, in less than a second, and kept in the folder of the compilation cache: all later programs
on that kind of processor are compiled alike. The values differ by rounding only.

Where nothing can be kept, on other devices, and where $XLA_FLAGS says which library to take,
programs are those of `jax.jit`.
"""

import contextlib
import json
import math
import os
import pathlib
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import get_opaque_trace_state

from vit_jax.files import is_remote, read_json
from vit_jax.machine import processor

# What XLA gives to YNNPACK, and which of it is chosen here. (Sums are faster there.)
_FLAG = 'xla_cpu_experimental_ynn_fusion_type'
_KINDS = {'matmul': 'INDIVIDUAL_DOT', 'convolution': 'INDIVIDUAL_CONVOLUTION'}
_OTHERS = ('REDUCE',)

# With fewer rows YNNPACK was the faster one (docs/speed.md).
_MANY_ROWS = 2048
# FLOPs of a program that is worth a measurement: some milliseconds.
_WORTH = 10**9
# How much faster Eigen has to be: a measurement is as wrong as that.
_MARGIN = 1.03
_TURNS = 5

_NO_TRACE = get_opaque_trace_state()

_measured: dict[str, float] = {}
_measuring = threading.Lock()


def jit(function: Callable, **options: Any) -> Any:
  """`jax.jit`, with the faster library on CPU.

  Args:
    function: its second argument, a tree of arrays, tells calls of different shapes apart.
    options: of `jax.jit`, without `compiler_options` and static arguments.

  Returns:
    What is called as `function` is, and has `trace` and `lower` as `jax.jit` gives them.
  """
  if jax.default_backend() != 'cpu' or _FLAG in os.environ.get('XLA_FLAGS', ''):
    return jax.jit(function, **options)
  return _Chosen(function, options)


def describe(*functions: Any) -> str:
  """What Eigen computes of functions that were called or traced, for people.

  Args:
    functions: of `jit`, of `jax.jit` or of what is called so.
  """
  chosen = {kind for f in functions if isinstance(f, _Chosen) for kind in f.by_eigen}
  if not chosen:
    return 'as XLA has it'
  return ', '.join(
    f'{kind}s by Eigen ({_measured[kind]:.2f}x as fast as YNNPACK)' for kind in sorted(chosen)
  )


def equations(jaxpr: Any, times: int = 1) -> Iterator[tuple[Any, int]]:
  """Every equation of a program and of those within it, with how often it is computed."""
  for equation in jaxpr.eqns:
    yield equation, times
    repeated = times * (equation.params['length'] if equation.primitive.name == 'scan' else 1)
    for value in equation.params.values():
      inner = getattr(value, 'jaxpr', value)
      if hasattr(inner, 'eqns'):
        yield from equations(inner, repeated)


def flops(equation: Any) -> int:
  """FLOPs of a matmul or a convolution, a multiplication and an addition each; 0 of all else."""
  name, given = equation.primitive.name, equation.params
  if name == 'dot_general':
    (contracted, _), _ = given['dimension_numbers']
    shape = equation.invars[0].aval.shape
    return 2 * equation.outvars[0].aval.size * math.prod(shape[i] for i in contracted)
  if name == 'conv_general_dilated':
    kernel = equation.invars[1].aval.shape
    features = kernel[given['dimension_numbers'].rhs_spec[0]]
    # Zeros between the inputs, as in the gradient of a strided convolution, cost nothing.
    taps = math.prod(kernel) // features
    return 2 * equation.outvars[0].aval.size * taps // math.prod(given['lhs_dilation'])
  return 0


def _compiler_options(by_eigen: frozenset[str]) -> dict[str, str] | None:
  """What has XLA compute these kinds of operations by Eigen; None leaves all as it is."""
  if not by_eigen:
    return None
  left = [name for kind, name in _KINDS.items() if kind not in by_eigen]
  return {_FLAG: ','.join(f'LIBRARY_FUSION_TYPE_{name}' for name in (*left, *_OTHERS))}


class _Chosen:
  """A jitted function for each choice of libraries, made when the shapes of a call are known."""

  def __init__(self, function: Callable, options: dict[str, Any]):
    self._function, self._options = function, options
    self._jitted: dict[frozenset[str], Any] = {}
    self._of_shapes: dict[Any, Any] = {}

  def __call__(self, *args: Any) -> Any:
    return self._for(args)(*args)

  def trace(self, *args: Any) -> Any:
    return self._for(args).trace(*args)

  def lower(self, *args: Any) -> Any:
    return self._for(args).lower(*args)

  @property
  def by_eigen(self) -> frozenset[str]:
    """Kinds of operations that Eigen computes in any of the programs."""
    return frozenset().union(*self._jitted)

  def _cache_size(self) -> int:
    """As of `jax.jit`: for how many kinds of arguments there are programs."""
    return sum(jitted._cache_size() for jitted in self._jitted.values())

  def _for(self, args: tuple) -> Any:
    if get_opaque_trace_state() != _NO_TRACE:
      return self._jit(frozenset())  # part of another program
    shapes = tuple((np.shape(x), getattr(x, 'dtype', type(x))) for x in jax.tree.leaves(args[1]))
    if shapes not in self._of_shapes:
      if jax.config.values['jax_disable_jit']:
        return self._jit(frozenset())  # no program
      traced = self._jit(frozenset()).trace(*args)  # once: JAX keeps it for another choice
      self._of_shapes[shapes] = self._jit(_by_eigen(traced.jaxpr.jaxpr))
    return self._of_shapes[shapes]

  def _jit(self, by_eigen: frozenset[str]) -> Any:
    if by_eigen not in self._jitted:
      chosen = _compiler_options(by_eigen)
      self._jitted[by_eigen] = jax.jit(self._function, compiler_options=chosen, **self._options)
    return self._jitted[by_eigen]


def _by_eigen(jaxpr: Any) -> frozenset[str]:
  """Which kinds of a program's operations Eigen computes faster."""
  few = many = convolutions = 0
  for equation, times in equations(jaxpr):
    if equation.primitive.name == 'conv_general_dilated':
      convolutions += times * flops(equation)
    elif equation.primitive.name == 'dot_general':
      (contracted, _), (batch, _) = equation.params['dimension_numbers']
      shape = equation.invars[0].aval.shape
      if not contracted or contracted[-1] != len(shape) - 1:
        continue  # never YNNPACK's
      rows = math.prod(n for i, n in enumerate(shape) if i not in (*contracted, *batch))
      if rows < _MANY_ROWS:
        few += times * flops(equation)
      else:
        many += times * flops(equation)
  if few + many + convolutions < _WORTH:
    return frozenset()
  wanted = {'matmul': many > few, 'convolution': convolutions > 0}
  return frozenset(kind for kind, found in wanted.items() if found and _ratio(kind) > _MARGIN)


def _ratio(kind: str) -> float:
  """How many times as long YNNPACK takes as Eigen; 1 where that cannot be known."""
  with _measuring:
    if kind not in _measured:
      _measured[kind] = _kept(kind)
    return _measured[kind]


def _kept(kind: str) -> float:
  """The ratio from the cache's folder, or a measured one, which goes there; 1 if it cannot.

  Of processes that measure at the same time, all take the first one's.
  """
  folder = jax.config.values['jax_compilation_cache_dir']
  if not folder or is_remote(folder) or not jax.config.values['jax_enable_compilation_cache']:
    return 1.0
  path = pathlib.Path(folder) / f'{kind}-{processor()}-jaxlib{jax.lib.__version__}.json'
  found = _read(path)
  if found is None:
    temporary = path.with_name(f'.{path.name}.{os.getpid()}.tmp')
    with contextlib.suppress(OSError):
      path.parent.mkdir(parents=True, exist_ok=True)
      temporary.touch()  # nothing is measured where nothing can be kept
      if path.exists() and _read(path) is None:
        path.unlink()  # damaged
      temporary.write_text(json.dumps(_measure(kind)), encoding='utf-8')
      _link(temporary, path)
    with contextlib.suppress(OSError):
      temporary.unlink()
    found = _read(path)
  return found or 1.0


def _link(source: pathlib.Path, target: pathlib.Path) -> None:
  """Gives a whole file its name, unless another process was first."""
  try:
    os.link(source, target)
  except FileExistsError:
    pass
  except OSError:  # a file system without links
    os.replace(source, target)


def _read(path: pathlib.Path) -> float | None:
  found = read_json(path)
  return found if isinstance(found, float) and 0 < found < math.inf else None


def _measure(kind: str) -> float:
  """YNNPACK's time over Eigen's: the median of turns."""
  function, shapes = _SAMPLES[kind]
  random = np.random.default_rng(0)
  arrays = [jax.device_put(random.standard_normal(shape, np.float32)) for shape in shapes]
  programs = [
    jax.jit(function, compiler_options=_compiler_options(by_eigen))
    for by_eigen in (frozenset(), frozenset({kind}))
  ]

  def seconds(program: Callable) -> float:
    began = time.perf_counter()
    jax.block_until_ready(program(*arrays))
    return time.perf_counter() - began

  try:
    ratios = [seconds(programs[0]) / seconds(programs[1]) for _ in range(1 + _TURNS)]
  except jax.errors.JaxRuntimeError:  # a jaxlib without this flag
    return 1.0
  return statistics.median(ratios[1:])  # the first one compiles


def _block(x: jax.Array, up: jax.Array, down: jax.Array) -> tuple[jax.Array, jax.Array]:
  """The matmuls of an MLP, and those of attention among its inputs.

  Args:
    x: [b, n, d], heads of 64.
    up, down: [d, 4 d] and [4 d, d].
  """
  b, n, d = x.shape
  heads = x.reshape(b, n, -1, 64).transpose(0, 2, 1, 3)
  weights = jnp.einsum('bhnk,bhmk->bhnm', heads, heads)
  attended = jnp.einsum('bhnm,bhmk->bhnk', weights, heads)
  return x.reshape(-1, d) @ up @ down, attended


def _strided(x: jax.Array, kernel: jax.Array) -> tuple[jax.Array, jax.Array]:
  """A convolution of stride 2 and the gradient of its kernel."""

  def convolve(kernel: jax.Array) -> jax.Array:
    return jax.lax.conv_general_dilated(
      x, kernel, (2, 2), ((1, 1), (1, 1)), dimension_numbers=('NHWC', 'HWIO', 'NHWC')
    )

  y, gradient = jax.vjp(convolve, kernel)
  return y, gradient(y)[0]


# A block of ViT-S/16 for 16 images and a convolution of ResNet-50 for 8, both at 224 pixels.
_SAMPLES: dict[str, tuple[Callable, tuple[tuple[int, ...], ...]]] = {
  'matmul': (_block, ((16, 196, 384), (384, 1536), (1536, 384))),
  'convolution': (_strided, ((8, 56, 56, 128), (3, 3, 128, 128))),
}
