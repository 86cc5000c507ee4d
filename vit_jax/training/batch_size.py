"""`batch_size=auto`: the largest global batch whose step fits into memory by XLA's analysis."""

import dataclasses
import functools
import logging
import pathlib
from collections.abc import Callable

import jax

from vit_jax import machine, processes
from vit_jax.checkpoint import has_checkpoint, read_metas
from vit_jax.config import AUTO, Config
from vit_jax.console import phase
from vit_jax.errors import ConfigError
from vit_jax.report.text import size as size_text
from vit_jax.training import memory, summary
from vit_jax.training.experiment import prefetch_of
from vit_jax.training.preparation import Plan, prepared

log = logging.getLogger(__name__)

_SHARE = 0.92  # of the memory that is free; the rest is for what the analysis does not see
_TRIES = 8  # programs compiled at most
_CLOSE = 0.02  # how near to the largest is near enough, as a share of it


@dataclasses.dataclass(frozen=True)
class Found:
  """A batch size that fits.

  Attributes:
    batch_size: over all devices.
    needed: bytes on a device, or on the host where that computes.
    limit: bytes that may be used.
    tried: sizes that were compiled.
  """

  batch_size: int
  needed: int
  limit: int
  tried: tuple[int, ...]


def resolved(config: Config, path: pathlib.Path) -> Config:
  """The config with a number for its batch size: that of the run in the folder, or the largest.

  Args:
    config: checked options.
    path: the run's folder.

  Raises:
    ConfigError: not the smallest batch fits, or nobody says how much memory there is.
  """
  if config.batch_size != AUTO:
    return config
  before = processes.agreed(lambda: _saved(path))
  if before is not None:
    return dataclasses.replace(config, batch_size=before)
  devices = len(jax.devices())
  unit = devices * config.accumulate
  with prepared(dataclasses.replace(config, batch_size=unit), path) as plan:
    most = max(unit, len(plan.experiment.train) // unit * unit)
    needed = functools.cache(lambda size: _needed(config, plan, size))
    with phase('finding the largest batch that fits', told_after=0):
      before = machine.peak_memory_bytes() or 0
      needed(unit)
      compiling = (machine.peak_memory_bytes() or 0) - before
      limit = min(processes.collected(free_bytes(jax.local_devices()[0], compiling)))
      found = largest(needed, unit, most, limit)
  what = summary.shares_text(devices, config.accumulate)
  log.info(
    'config.batch_size=auto: %d (%s x %d) needs %s of the %s that may be used, by XLA\'s analysis; '
    'the learning rate is not changed with it', found.batch_size, what, found.batch_size // unit,
    size_text(found.needed), size_text(found.limit),
  )  # fmt: skip
  return dataclasses.replace(config, batch_size=found.batch_size)


def _saved(path: pathlib.Path) -> int | None:
  """The batch size of the run in a folder."""
  metas = read_metas(path / 'checkpoints')[0] if has_checkpoint(path) else {}
  return int(metas[max(metas)]['config']['batch_size']) if metas else None


def largest(needed: Callable[[int], int], unit: int, most: int, limit: int) -> Found:
  """The largest size that needs no more than a limit, or one within 2 % of it.

  Memory grows nearly in proportion to the batch, so that a line through two sizes says where the
  limit is; the sizes around it are tried until one fits and one a little larger does not.

  Args:
    needed: bytes of a size; takes as long as compiling a step.
    unit: sizes are its multiples.
    most: the largest size that is wanted, a multiple of it.
    limit: bytes.

  Raises:
    ConfigError: the smallest size does not fit.
  """
  known = {1: needed(unit)}
  if known[1] > limit:
    raise ConfigError(
      f'config.batch_size=auto: the smallest batch, {unit}, needs {size_text(known[1])}, and '
      f'{size_text(limit)} may be used: a smaller model, config.model.remat=block or a smaller '
      'config.input.image_size needs less'
    )
  top = most // unit
  fits, fails = 1, top + 1
  guess = min(top, 4)  # a line takes two sizes
  while len(known) < _TRIES and fails - fits > max(1, int(fits * _CLOSE)):
    known[guess] = needed(unit * guess)
    if known[guess] <= limit:
      fits = guess
    else:
      fails = guess
    guess = _next(known, fits, fails, limit)
  tried = tuple(unit * size for size in sorted(known))
  return Found(unit * fits, known[fits], limit, tried)


def _next(known: dict[int, int], fits: int, fails: int, limit: int) -> int:
  """The size at which a line through the two nearest sizes meets the limit, within the bracket."""
  near = sorted(known, key=lambda size: abs(known[size] - limit))[:2]
  low, high = sorted(near)
  slope = (known[high] - known[low]) / (high - low)
  meets = low + (limit - known[low]) / slope if slope > 0 else 2 * fits
  least = fits + max(1, int(fits * _CLOSE))
  return min(fails - 1, max(least, int(meets)))


def free_bytes(device: jax.Device, compiling: int = 0) -> int:
  """Memory that a step may take: of a device, or of the host where that computes.

  Args:
    device: of this process.
    compiling: bytes of the host that compiling a step took; those of the programs that follow
      (other sizes, evaluation) take as much again at most.

  Raises:
    ConfigError: nobody says how much there is.
  """
  stats = device.memory_stats() if device.platform != 'cpu' else None
  if stats and 'bytes_limit' in stats:
    free: int | None = stats['bytes_limit'] - stats.get('bytes_in_use', 0)
  else:
    free = machine.free_memory_bytes()
  if free is None:
    raise ConfigError('config.batch_size=auto: this system does not say how much memory is free')
  return int(_SHARE * max(0, free - compiling * (device.platform == 'cpu')))


def _needed(config: Config, plan: Plan, size: int) -> int:
  """Bytes that a run with this batch size takes where its steps are computed."""
  config = dataclasses.replace(config, batch_size=size)
  step = memory.of_step(config, plan)
  if plan.placement.devices[0].platform != 'cpu':
    return step
  # All devices are in the host's memory, and so are images that are loaded ahead and the copy of
  # the state that is being written to a checkpoint.
  local = [d for d in plan.placement.devices if d.process_index == processes.index()]
  images = prefetch_of(config, plan.experiment.image_hw).host_bytes
  return step * len(local) + images + summary.bytes_of(memory.state_shapes(config, plan))
