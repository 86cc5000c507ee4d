"""Where a step runs: one interface over pmap, jit on a device mesh, and fully sharded state.

The step itself is the same pure function; a placement says where state and batches lie and compiles
the step for them. Batches enter as this process's numpy arrays [b / processes, ...].
"""

from collections.abc import Sequence

import jax

from vit_jax import processes, runtime
from vit_jax.errors import ConfigError
from vit_jax.parallel.fsdp import FsdpPlacement
from vit_jax.parallel.placements import (
  AXIS,
  DataPlacement,
  PmapPlacement,
  check_batch_size,
  gather,
)
from vit_jax.parallel.sharding import Mesh

__all__ = [
  'AXIS',
  'PLACEMENTS',
  'DataPlacement',
  'FsdpPlacement',
  'Mesh',
  'Placement',
  'PmapPlacement',
  'check_batch_size',
  'gather',
  'make',
  'round_up',
]

Placement = DataPlacement
PLACEMENTS: dict[str, type[DataPlacement]] = {
  'data': DataPlacement,
  'pmap': PmapPlacement,
  'fsdp': FsdpPlacement,
}


def make(
  name: str, devices: Sequence[jax.Device] | None = None, mesh: Mesh | None = None
) -> Placement:
  """The placement of a name over all devices, or over those given.

  Args:
    name: one of `PLACEMENTS`.
    devices: that share a batch.
    mesh: options of 'fsdp'; None for all devices on its axis.

  Raises:
    ConfigError: the mesh is of another number of devices, or the devices are those of several
      processes that were not connected.
  """
  runtime.prepare_jax()
  if devices is None:
    devices = jax.devices()
    if jax.process_count() != processes.count():
      raise ConfigError(
        f'JAX sees {jax.process_count()} processes that are not connected: call '
        'jax.distributed.initialize first'
      )
  if name == 'fsdp':
    return FsdpPlacement(devices, mesh or Mesh())
  return PLACEMENTS[name](devices)


def round_up(batch_size: int, placement: Placement) -> int:
  """The nearest batch size from here up that all devices can share, for padded batches."""
  devices = len(placement.devices)
  return -(-batch_size // devices) * devices
