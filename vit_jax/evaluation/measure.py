"""What can be measured of an evaluation's circumstances: sizes, devices, memory, versions."""

import contextlib
from collections.abc import Mapping
from typing import Any

import jax

from vit_jax import optimizers, tree
from vit_jax.console import warnings_so_far
from vit_jax.errors import ConfigError, counted
from vit_jax.machine import cores, peak_memory_bytes, versions


def measure(variables: Mapping[str, Any], config: Mapping[str, Any]) -> dict[str, Any]:
  """The fields of `Facts` that can be measured: sizes, devices, memory, versions, warnings so far.

  Args:
    variables: 'params' and other collections.
    config: a run's options with 'freeze'; without it nothing is said about training.
  """
  sizes = {name: int(leaf.size) for name, leaf in tree.flatten(variables['params']).items()}
  trained = None
  if 'freeze' in config or 'optimizer' in config:
    with contextlib.suppress(ConfigError):  # of another version, whose rules were others
      frozen = optimizers.frozen_names(variables['params'], tuple(config.get('freeze') or ()))
      trained = sum(size for name, size in sizes.items() if name not in frozen)
  devices = jax.devices()
  peaks = [(d.memory_stats() or {}).get('peak_bytes_in_use') for d in jax.local_devices()]
  on = f' ({counted(cores(), "core")})' if devices[0].platform == 'cpu' else ''
  return {
    'parameters': sum(sizes.values()),
    'trained_parameters': trained,
    'devices': f'{len(devices)} x {devices[0].device_kind}{on}',
    'host_memory_bytes': peak_memory_bytes(),
    'device_memory_bytes': max((p for p in peaks if p), default=None),
    'versions': versions(),
    'warnings': warnings_so_far(),
  }
