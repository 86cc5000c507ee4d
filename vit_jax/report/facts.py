"""What a report says of the model and the machine, besides what was predicted."""

import dataclasses
import importlib.metadata
import os
import platform
import resource
import sys
from collections.abc import Mapping
from typing import Any

_PACKAGES = (
  'vit_jax',
  'jax',
  'jaxlib',
  'flax',
  'optax',
  'orbax-checkpoint',
  'numpy',
  'grain',
  'tensorflow-datasets',
  'pillow',
  'simplejpeg',
  'scikit-learn',
  'matplotlib',
)


@dataclasses.dataclass(frozen=True)
class Facts:
  """The circumstances of an evaluation; whatever is not known stays None or empty.

  Attributes:
    name: of the run, or of the weights.
    model: its registered name.
    dataset: its name.
    split: the pictures scored, such as 'test'.
    step: of the checkpoint.
    image_size: (height, width) of the model's input in pixels.
    link: how logits become probabilities.
    config: the run's options, nested.
    parameters: numbers in the model's parameters.
    trained_parameters: those that training could change; None where there was no training here.
    devices: that computed.
    host_memory_bytes: peak resident memory of the process.
    device_memory_bytes: peak memory of the fullest device, where the platform tells.
    versions: of packages.
  """

  name: str
  model: str = ''
  dataset: str = ''
  split: str = ''
  step: int | None = None
  image_size: tuple[int, int] | None = None
  link: str = 'softmax'
  config: dict = dataclasses.field(default_factory=dict)
  parameters: int | None = None
  trained_parameters: int | None = None
  devices: str = ''
  host_memory_bytes: int | None = None
  device_memory_bytes: int | None = None
  versions: dict[str, str] = dataclasses.field(default_factory=dict)

  def to_json(self) -> dict[str, Any]:
    return dataclasses.asdict(self)

  @classmethod
  def from_json(cls, values: Mapping[str, Any]) -> 'Facts':
    """The inverse of `to_json`; names that a newer version added are left out."""
    known = {f.name for f in dataclasses.fields(cls)}
    values = {k: v for k, v in values.items() if k in known}
    size = values.get('image_size')
    return cls(**{**values, 'image_size': tuple(size) if size else None})


def measure(variables: Mapping[str, Any], config: Mapping[str, Any]) -> dict[str, Any]:
  """The fields of `Facts` that can be measured: sizes, devices, memory, versions.

  Args:
    variables: 'params' and other collections.
    config: a run's options with 'freeze'; without it nothing is said about training.
  """
  import jax  # reports are read and compared without it

  from vit_jax import optim, tree

  sizes = {name: int(leaf.size) for name, leaf in tree.flatten(variables['params']).items()}
  trained = None
  if 'freeze' in config or 'optimizer' in config:
    frozen = optim.frozen_names(variables['params'], tuple(config.get('freeze') or ()))
    trained = sum(size for name, size in sizes.items() if name not in frozen)
  devices = jax.devices()
  peaks = [(d.memory_stats() or {}).get('peak_bytes_in_use') for d in jax.local_devices()]
  cores = f' ({os.cpu_count()} cores)' if devices[0].platform == 'cpu' else ''
  return {
    'parameters': sum(sizes.values()),
    'trained_parameters': trained,
    'devices': f'{len(devices)} x {devices[0].device_kind}{cores}',
    'host_memory_bytes': _peak_resident_bytes(),
    'device_memory_bytes': max((p for p in peaks if p), default=None),
    'versions': versions(),
  }


def versions() -> dict[str, str]:
  """Versions of Python and of the packages that results depend on."""
  found = {'python': platform.python_version()}
  for name in _PACKAGES:
    try:
      found[name] = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
      continue
  if 'vit_jax' not in found:
    import vit_jax  # run from its sources

    found['vit_jax'] = vit_jax.__version__
  return found


def _peak_resident_bytes() -> int:
  peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
  return peak if sys.platform == 'darwin' else peak * 1024  # Linux counts in KiB
