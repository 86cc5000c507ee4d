"""What a run keeps in memory across epochs, and how much of it there is room for."""

import logging
from collections.abc import Mapping

from vit_jax import data, machine
from vit_jax.config import Config
from vit_jax.errors import ConfigError
from vit_jax.report.text import size as size_text
from vit_jax.training.experiment import Experiment

log = logging.getLogger(__name__)


def image_cache(config: Config, experiment: Experiment) -> tuple[data.ImageCache | None, str]:
  """The cache of decoded images that a config names, and what the plan says of it.

  Where not all images fit there is a warning: those that do not are decoded in every epoch.

  Args:
    config, experiment: of the run.

  Returns:
    None and '' where nothing is kept.

  Raises:
    ConfigError: nobody says how much memory there is.
  """
  if config.input.cache != 'decoded':
    return None, ''
  cache = data.ImageCache(_limit_bytes(config))
  kept = {role: cache.of(*of) for role, of in _kept(experiment).items()}
  expected = sum(examples.expected_bytes() for examples in kept.values())
  room = f'{size_text(cache.limit_bytes)} (config.input.cache_gib)'
  what = f'decoded images of {" and ".join(kept)}'
  if expected > cache.limit_bytes:
    log.warning(
      'config.input.cache=decoded: %s need about %s, and there is room for %s: %d %% of them are '
      'kept and the others decoded in every epoch', what, size_text(expected), room,
      100 * cache.limit_bytes // expected,
    )  # fmt: skip
  return cache, f'{what}, about {size_text(expected)} of at most {room}'


def _kept(experiment: Experiment) -> Mapping[str, tuple[data.Examples, data.Transform]]:
  """The examples that are read in every epoch, with their transforms."""
  found = {'train': (experiment.train, experiment.train_transform)}
  if 'val' in experiment.held_out:
    found['val'] = (experiment.held_out['val'], experiment.eval_transform)
  return found


def _limit_bytes(config: Config) -> int:
  if config.input.cache_gib:
    return int(config.input.cache_gib * 2**30)
  free = machine.free_memory_bytes()
  if free is None:
    raise ConfigError(
      f'config.input.cache={config.input.cache!r}: this system does not say how much memory is '
      'free: set config.input.cache_gib'
    )
  return free // 2
