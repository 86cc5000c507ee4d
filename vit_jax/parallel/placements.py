"""Every device with all of the state: jit over a mesh, and pmap; and what all placements share."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from vit_jax import kernels, processes
from vit_jax.errors import ConfigError
from vit_jax.parallel import drawing

AXIS = 'batch'


class _Together:
  """A compiled step of several processes, none of which runs it before all have compiled it.

  An exchange waits 30 s for the last of them (gloo), and compiling may take one longer than that.
  All have to call it in the same order.

  Args:
    step: of `jax.jit` or `jax.pmap`, whose attributes this has.
  """

  def __init__(self, step: Any):
    self._step, self._compiled = step, False

  def __call__(self, *args: Any) -> Any:
    if not self._compiled:
      with processes.busy():
        self._step.lower(*args).compile()
      processes.collected(0)
      self._compiled = True
    return self._step(*args)

  def __getattr__(self, name: str) -> Any:
    return getattr(self._step, name)


def together(step: Any) -> Any:
  """A compiled step as all processes call it."""
  return _Together(step) if processes.count() > 1 else step


class DataPlacement:
  """jit over a mesh: state on every device, the batch divided among them."""

  axis_name: str | None = None
  divides_state = False  # whether a device has less than all of the state
  divides_in_groups = False  # and others have the same part of it

  def __init__(self, devices: Sequence[jax.Device]):
    self.devices = list(devices)
    mesh = Mesh(np.array(self.devices), (AXIS,))
    self._everywhere = NamedSharding(mesh, PartitionSpec())
    self._divided = NamedSharding(mesh, PartitionSpec(AXIS))

  @property
  def title(self) -> str:
    """How the devices share work, for people."""
    return 'data'

  def build(self, function: Callable, *args: Any) -> Any:
    """function(*args) -> state or a part of it, before `put_state`; fsdp makes it in shards."""
    if jax.default_backend() == 'cpu':
      return drawing.drawn(function, *args)
    return jax.jit(function)(*args)

  def constrain(self, params: Any) -> Any:
    """Inside a step: keeps parameters and, behind them, gradients where `put_state` puts them."""
    return params

  def check_names(self, params: Any) -> None:
    """Refuses options that name parameters where they name none of these."""

  def bytes_of(self, state: Any) -> int:
    """Bytes on each device of a tree of arrays or shapes."""
    return sum(_nbytes(x) for x in jax.tree.leaves(state) if hasattr(x, 'dtype'))

  def whole_arrays(self, state: Any) -> dict[str, Any]:
    """Large arrays by name that are whole on every device although state is divided."""
    return {}

  def put_state(self, state: Any) -> Any:
    """Host or device arrays -> the same arrays on every device."""
    return jax.device_put(state, self._everywhere)

  def like_state(self, shapes: Any) -> Any:
    """The shapes of a state as `put_state` places it; nothing is computed."""
    return jax.tree.map(
      lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=self._everywhere), shapes
    )

  def like_batch(self, shapes: Any) -> Any:
    """The shapes of a global batch as `put_batch` places it."""
    return jax.tree.map(
      lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=self._divided), shapes
    )

  def get_state(self, state: Any) -> Any:
    """Placed state -> one copy, as checkpoints hold it."""
    return jax.tree.map(_one_copy, state)

  def put_batch(self, batch: dict) -> dict:
    """This process's examples -> one global array, divided along its first axis."""
    arrays = jax.tree.map(
      lambda x: jax.make_array_from_process_local_data(self._divided, self._rows(x)), batch
    )
    # A step whose inputs are not there yet runs in a thread of XLA's (`runtime.prepare_jax`).
    return jax.block_until_ready(arrays) if self.devices[0].platform == 'cpu' else arrays

  def _rows(self, x: Any) -> np.ndarray:
    """What is divided along its first axis."""
    return np.asarray(x)

  def get_examples(self, outputs: Any) -> Any:
    """Arrays with one row an example -> this process's rows, numpy, in batch order."""
    return jax.tree.map(_local_rows, outputs)

  def get_metrics(self, metrics: dict) -> dict[str, Any]:
    """Metrics of a train step -> host scalars."""
    return jax.device_get(metrics)

  @property
  def _jit(self) -> Callable:
    return kernels.jit if len(self.devices) == 1 else jax.jit

  def compile_train(self, step: Callable) -> Any:
    """Compiles (state, batch, rng) -> (state, metrics); the old state's memory is reused."""
    return together(
      self._jit(
        step,
        donate_argnums=0,
        in_shardings=(self._everywhere, self._divided, self._everywhere),
        out_shardings=(self._everywhere, self._everywhere),
      )
    )

  def compile_eval(self, step: Callable) -> Callable:
    """Compiles (variables, batch) -> arrays with one row an example."""
    return together(
      self._jit(step, in_shardings=(self._everywhere, self._divided), out_shardings=self._divided)
    )

  def compile_with_step(self, function: Callable) -> Callable:
    """Compiles (variables, batch, rng, step) -> arrays with one row an example."""
    everywhere, divided = self._everywhere, self._divided
    shardings = (everywhere, divided, everywhere, everywhere)
    return together(self._jit(function, in_shardings=shardings, out_shardings=divided))


class PmapPlacement(DataPlacement):
  """pmap: every device holds a copy of the state and maps the step over its share of the batch."""

  axis_name = AXIS

  def __init__(self, devices: Sequence[jax.Device]):
    super().__init__(devices)
    self._local = [d for d in self.devices if d.process_index == processes.index()]

  @property
  def title(self) -> str:
    return 'pmap'

  def put_state(self, state: Any) -> Any:
    def replicate(x):
      rows = np.broadcast_to(np.asarray(x)[None], (len(self._local), *np.shape(x)))
      return jax.make_array_from_process_local_data(self._divided, rows)

    return jax.tree.map(replicate, state)

  def like_state(self, shapes: Any) -> Any:
    n = len(self.devices)
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct((n, *x.shape), x.dtype), shapes)

  def like_batch(self, shapes: Any) -> Any:
    n = len(self.devices)
    return jax.tree.map(
      lambda x: jax.ShapeDtypeStruct((n, x.shape[0] // n, *x.shape[1:]), x.dtype), shapes
    )

  def get_state(self, state: Any) -> Any:
    return jax.tree.map(lambda x: np.asarray(x.addressable_shards[0].data)[0], state)

  def _rows(self, x: Any) -> np.ndarray:
    return np.asarray(x).reshape(len(self._local), -1, *np.shape(x)[1:])

  def get_examples(self, outputs: Any) -> Any:
    return jax.tree.map(lambda x: _local_rows(x).reshape(-1, *x.shape[2:]), outputs)

  def get_metrics(self, metrics: dict) -> dict[str, Any]:
    return self.get_state(metrics)

  def compile_train(self, step: Callable) -> Any:
    return together(
      jax.pmap(step, axis_name=AXIS, devices=self.devices, in_axes=(0, 0, None), donate_argnums=0)
    )

  def compile_eval(self, step: Callable) -> Callable:
    return together(jax.pmap(step, axis_name=AXIS, devices=self.devices))

  def compile_with_step(self, function: Callable) -> Callable:
    axes = (0, 0, None, None)
    return together(jax.pmap(function, axis_name=AXIS, devices=self.devices, in_axes=axes))


def _nbytes(x: Any) -> int:
  return math.prod(np.shape(x)) * x.dtype.itemsize


def _one_copy(x: jax.Array) -> jax.Array:
  """The array on the devices that hold its first copy, where all of them are of this process.

  Orbax would let each copy write its part, and compile a slice for every part of every shape.
  """
  if not x.is_fully_addressable or not isinstance(x.sharding, NamedSharding):
    return x
  mesh, spec = x.sharding.mesh, x.sharding.spec
  dividing = jax.tree.leaves(tuple(spec))
  first = tuple(slice(None if axis in dividing else 1) for axis in mesh.axis_names)
  sharding = NamedSharding(Mesh(mesh.devices[first], mesh.axis_names), spec)
  parts = [shard.data for shard in x.addressable_shards if shard.replica_id == 0]
  return jax.make_array_from_single_device_arrays(x.shape, sharding, parts)


def _local_rows(x: jax.Array) -> np.ndarray:
  shards = {s.index[0].start or 0: s for s in x.addressable_shards}
  return np.concatenate([np.asarray(shards[start].data) for start in sorted(shards)])


def check_batch_size(option: str, batch_size: int, parts: int, why: str) -> None:
  """Refuses a batch that cannot be divided, naming the nearest sizes that can.

  Raises:
    ConfigError: unless `batch_size` is a multiple of `parts`.
  """
  if batch_size % parts:
    below = batch_size // parts * parts
    near = ' or '.join(str(n) for n in (below, below + parts) if n)
    raise ConfigError(f'{option}={batch_size} cannot be divided by {parts} ({why}): use {near}')


def gather(rows: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
  """Rows of all processes, one process's after another's; every process has to call it.

  Args:
    rows: arrays [n, ...] of this process; n is the same in all processes.

  Returns:
    [n * processes, ...]. With several processes 64-bit numbers come back with 32 bits, which is
    what JAX would make of them without saying so; positions in a data set fit.
  """
  if processes.count() == 1:
    return rows
  from jax.experimental import multihost_utils

  narrow = {
    name: x.astype(f'{x.dtype.kind}4') if x.dtype.itemsize == 8 else x for name, x in rows.items()
  }
  every = multihost_utils.process_allgather(narrow, tiled=True)
  return {name: np.asarray(x) for name, x in every.items()}
