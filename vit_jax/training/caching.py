"""What a run keeps in memory across epochs, and how much of it there is room for."""

import dataclasses
import functools
import logging
import math
from collections.abc import Mapping
from typing import Any

import flax.errors
import flax.linen as nn
import jax
import numpy as np

from vit_jax import data, machine, models, parallel, processes, tree
from vit_jax.config import Config
from vit_jax.console import phase
from vit_jax.errors import ConfigError
from vit_jax.evaluation.frozen_evaluator import feature_rows
from vit_jax.models.heads import backbone_of, headless_of, on_features, pack
from vit_jax.report.text import size as size_text
from vit_jax.training.experiment import Experiment, loading_of

log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Caching:
  """What a run keeps in memory across epochs.

  Attributes:
    cache: of images, or of features in their place; None where nothing is kept.
    text: what it is and how large, for the plan.
    module: what the steps compute with: the model, or its heads alone.
    preprocess: what the steps do to their input before that.
    input_shape: of an example.
  """

  cache: data.ImageCache | None
  text: str
  module: nn.Module
  preprocess: Any
  input_shape: tuple[int, ...]

  @property
  def of_features(self) -> bool:
    """Whether the steps see features in the images' place."""
    return isinstance(self.preprocess, _AsGiven)


class _AsGiven:
  """The `data.Preprocess` of features: none."""

  def normalize(self, features: Any) -> Any:
    """The features."""
    return features


def make_caching(
  config: Config, experiment: Experiment, placement: parallel.Placement, frozen: frozenset[str]
) -> Caching:
  """The cache that a config names, still empty.

  Where not all decoded images fit there is a warning: the others are decoded in every epoch.

  Args:
    config, experiment, placement: of the run.
    frozen: names of parameters that are not trained.

  Raises:
    ConfigError: features cannot be kept, and why; or nobody says how much memory there is.
  """
  module = experiment.on_axis(placement.axis_name)
  shape = (*experiment.image_hw, 3)
  if config.input.cache == 'features':
    return _of_features(config, experiment, frozen)
  cache, text = _of_images(config, experiment) if config.input.cache else (None, '')
  return Caching(cache, text, module, experiment.preprocess, shape)


def _of_images(config: Config, experiment: Experiment) -> tuple[data.ImageCache, str]:
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


def _of_features(config: Config, experiment: Experiment, frozen: frozenset[str]) -> Caching:
  body, shapes = headless_of(experiment.module), experiment.shapes
  if problems := _against_features(config, experiment, frozen):
    raise ConfigError(f"config.input.cache='features' does not fit: {'; '.join(problems)}")
  images = jax.ShapeDtypeStruct((1, *experiment.image_hw, 3), np.float32)
  outputs = jax.tree.leaves(
    jax.eval_shape(functools.partial(body.apply, train=False), shapes, images)
  )
  size = sum(math.prod(x.shape) for x in outputs)
  kept = _kept(experiment)
  needed, limit = (
    4 * size * sum(len(examples) for examples, _ in kept.values()),
    _limit_bytes(config),
  )
  what = f'features of {" and ".join(kept)}, {size_text(needed)}'
  if needed > limit:
    raise ConfigError(
      f"config.input.cache='features' needs {size_text(needed)} of memory, and there is room for "
      f"{size_text(limit)}: set config.input.cache_gib, or config.input.cache='decoded'"
    )
  text = f'{what} of at most {size_text(limit)} (config.input.cache_gib)'
  heads = on_features(experiment.module, outputs)
  return Caching(data.ImageCache(limit), text, heads, _AsGiven(), (size,))


def _against_features(config: Config, experiment: Experiment, frozen: frozenset[str]) -> list[str]:
  """Why features that are computed once would not be those of every step."""
  found = []
  if drawn := [str(op) for op in experiment.train_transform.ops if op.random]:
    found.append(
      f'{", ".join(drawn)} of config.input.train_transform gives other images each epoch: set '
      f"--config.input.train_transform='{config.input.eval_transform}'"
    )
  if config.mixing:
    found.append('config.mixing mixes images: set --config.mixing.mixup=0 --config.mixing.cutmix=0')
  if getattr(experiment.task, 'teacher', ''):
    found.append('config.task.teacher needs images')
  names = list(tree.flatten(experiment.shapes['params']))
  trained = [name for name in names if name not in frozen and not name.startswith('head')]
  if trained:
    found.append(f'{len(trained)} parameters below the head are trained, such as {trained[0]}: '
                 'set --config.freeze=backbone')  # fmt: skip
  others = [name for name in names if name.startswith('head') and not name.startswith('head/')]
  if others and backbone_of(experiment.module) is experiment.module:
    found.append(f'{others[0]} sees more than the pooled features')
  images = jax.ShapeDtypeStruct((1, *experiment.image_hw, 3), np.float32)
  forward = functools.partial(headless_of(experiment.module).apply, train=True)
  try:
    jax.eval_shape(forward, experiment.shapes, images)
  except flax.errors.InvalidRngError:
    fields = {**models.fields(config.model['name']), **config.model}
    rates = [
      name for name in fields if 'drop' in name and isinstance(fields[name], float) and fields[name]
    ]
    found.append(
      'dropout or stochastic depth acts below the head: set '
      + ' '.join(f'--config.model.{name}=0' for name in rates)
    )
  except flax.errors.ModifyScopeVariableError:
    found.append('batch statistics are updated: set --config.model.norm_frozen=true')
  return found


def compute_features(
  config: Config,
  experiment: Experiment,
  placement: parallel.Placement,
  cache: data.ImageCache,
  variables: Mapping[str, Any],
) -> None:
  """Fills a cache with what the frozen backbone gives for every image that an epoch reads.

  Args:
    config, experiment, placement: of the run.
    cache: empty.
    variables: on the host.
  """
  body, preprocess = headless_of(experiment.on_axis(placement.axis_name)), experiment.preprocess

  def features(variables: Any, batch: dict) -> jax.Array:
    found: Any = body.apply(variables, preprocess.normalize(batch['image']), train=False)
    return pack(found)

  step = placement.compile_eval(features)
  size = parallel.round_up(config.evaluation.batch_size or config.batch_size, placement)
  placed = placement.put_state(variables)
  for role, (examples, transform) in _kept(experiment).items():
    with phase(f'computing the features of {role}'):
      batches = data.eval_batches(
        examples,
        transform,
        batch_size=size // processes.count(),
        **loading_of(config),
      )
      rows, known = feature_rows(step, placement, placed, batches, len(examples))
    cache.put(examples, transform, rows, known)


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
