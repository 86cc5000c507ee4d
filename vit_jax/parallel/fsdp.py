"""State divided among devices: fully sharded data parallelism by XLA's partitioner."""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from vit_jax import processes
from vit_jax.parallel.placements import DataPlacement, together
from vit_jax.parallel.sharding import DATA, FSDP, SMALL, Mesh, Rules, map_paths


class FsdpPlacement(DataPlacement):
  """jit over a mesh `data x fsdp`: each array of the state is divided along one of its axes.

  The batch is divided among all devices. Devices of a group hold a part of each array and gather a
  weight where it is used; groups hold the same. XLA inserts what is sent: see docs/scaling.md.

  Source: Rajbhandari et al. 2019 (1910.02054), section 5.3 (ZeRO stage 3); Xu et al. 2021
    (2105.04663), GSPMD.

  Args:
    devices: that share a batch; those of a group follow each other.
    mesh: how many groups of how many devices, and which axes are divided.

  Raises:
    ConfigError: the mesh is of another number of devices.
  """

  def __init__(self, devices: Sequence[jax.Device], mesh: Mesh):
    self.devices = list(devices)
    self.divides_state = len(self.devices) > 1
    self._sizes = mesh.sizes(len(self.devices))
    self.divides_in_groups = min(self._sizes) > 1
    self._rules = Rules(mesh, self._sizes[1])
    self._mesh = jax.make_mesh(
      self._sizes, (DATA, FSDP), (AxisType.Auto, AxisType.Auto), devices=self.devices
    )
    self._everywhere = NamedSharding(self._mesh, PartitionSpec())
    self._divided = NamedSharding(self._mesh, PartitionSpec((DATA, FSDP)))

  @property
  def title(self) -> str:
    data, fsdp = self._sizes
    return f'fsdp (mesh of {data} x {fsdp})'

  def build(self, function: Callable, *args: Any) -> Any:
    """function(*args), whose results are made in shards, as are arguments on the way to it."""
    if len(self.devices) == 1:
      return super().build(function, *args)
    placed = [self.put_state(x) for x in args]
    shapes = jax.eval_shape(function, *placed)
    return jax.jit(function, out_shardings=map_paths(self._sharding, shapes))(*placed)

  def constrain(self, params: Any) -> Any:
    if len(self.devices) == 1:
      return params
    return self._constrained({'params': params})['params']

  def check_names(self, params: Mapping) -> None:
    self._rules.check(params)

  def bytes_of(self, state: Any) -> int:
    def share(name: str, x: Any) -> int:
      shape = self._sharding(name, x).shard_shape(np.shape(x))
      return super(FsdpPlacement, self).bytes_of(jax.ShapeDtypeStruct(shape, x.dtype))

    return sum(jax.tree.leaves(map_paths(share, state)))

  def whole_arrays(self, state: Any) -> dict[str, Any]:
    found = {}

    def note(name: str, x: Any) -> None:
      if np.size(x) >= SMALL and self._rules.axis(name, np.shape(x)) is None:
        found[name] = x

    if self._sizes[1] > 1:
      map_paths(note, state)
    return found

  def put_state(self, state: Any) -> Any:
    """Host or device arrays -> the same arrays, of which a device gets its own part alone."""

    def put(name: str, x: Any) -> jax.Array:
      sharding = self._sharding(name, x)
      if isinstance(x, jax.Array):
        if x.sharding.is_equivalent_to(sharding, x.ndim):
          return x
        if processes.count() == 1:
          return jax.device_put(x, sharding)
        if jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key):
          data = put(name, np.asarray(jax.random.key_data(x)))
          return jax.random.wrap_key_data(data, impl=jax.random.key_impl(x))
      x = np.asarray(x)
      return jax.make_array_from_callback(x.shape, sharding, lambda index: x[index])

    return map_paths(put, state)

  def like_state(self, shapes: Any) -> Any:
    def like(name: str, x: Any) -> jax.ShapeDtypeStruct:
      return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=self._sharding(name, x))

    return map_paths(like, shapes)

  def compile_train(self, step: Callable) -> Any:
    if len(self.devices) == 1:  # the same program as that of `data`
      return super().compile_train(step)

    @functools.wraps(step)
    def placed(state: Any, batch: dict, rng: jax.Array) -> tuple[Any, dict]:
      with nn.intercept_methods(_DividedActivations(self._divided)):
        state, metrics = step(state, batch, rng)
      return self._constrained(state), metrics

    return together(jax.jit(placed, donate_argnums=0, out_shardings=(None, self._everywhere)))

  def compile_eval(self, step: Callable) -> Callable:
    return self._compiled(step)

  def compile_with_step(self, function: Callable) -> Callable:
    return self._compiled(function)

  def _compiled(self, function: Callable) -> Callable:
    """Compiles (variables, batch, ...) -> arrays with one row an example."""

    @functools.wraps(function)
    def placed(*args: Any) -> Any:
      with nn.intercept_methods(_DividedActivations(self._divided)):
        return function(*args)

    return together(jax.jit(placed, out_shardings=self._divided))

  def _sharding(self, name: str, x: Any) -> NamedSharding:
    return NamedSharding(self._mesh, self._rules.spec(name, np.shape(x)))

  def _constrained(self, state: Any) -> Any:
    return map_paths(
      lambda name, x: jax.lax.with_sharding_constraint(x, self._sharding(name, x)), state
    )


class _DividedActivations:
  """A Flax method interceptor: what modules return is divided by examples, and by nothing else.

  Without it XLA may choose to divide activations as weights are, and to send them instead.

  Args:
    sharding: of a batch.
  """

  def __init__(self, sharding: NamedSharding):
    self._sharding = sharding
    self._examples = 0  # of the model being called

  def __call__(
    self, method: Callable, args: tuple, kwargs: Mapping, context: nn.module.InterceptorContext
  ) -> Any:
    outermost = not self._examples
    if context.method_name != '__call__' or not args:
      return method(*args, **kwargs)
    if outermost:
      self._examples = len(args[0])
    try:
      return jax.tree.map(self._constrained, method(*args, **kwargs))
    finally:
      if outermost:
        self._examples = 0

  def _constrained(self, x: Any) -> Any:
    """Constrains arrays [b, ...] and [b n, ...]."""
    if not np.ndim(x) or len(x) % self._examples:
      return x
    return jax.lax.with_sharding_constraint(x, self._sharding)
