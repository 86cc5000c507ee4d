"""From options to things: dataset, transforms, model, task and weights that fit together."""

import dataclasses
import functools
import hashlib
import logging
import os
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import numpy as np

from vit_jax import data, models, processes, rng, tasks, tree
from vit_jax.config import Config
from vit_jax.console import phase
from vit_jax.data import class_names, sources, splits
from vit_jax.data.duplicates import warn_of_duplicates, warn_of_overlap
from vit_jax.errors import ConfigError, Problems, UserError, some
from vit_jax.evaluation.evaluator import loader_options
from vit_jax.models.heads import backbone_of, with_backbone
from vit_jax.models.shapes import description, variable_shapes
from vit_jax.weights import hub
from vit_jax.weights.building import build
from vit_jax.weights.loading import Options, fit
from vit_jax.weights.reading import Weights, needs_download, read

log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Experiment:
  """What a config means, before anything is placed on devices.

  Attributes:
    dataset: with classes and splits.
    train: examples trained on.
    held_out: 'val' and 'test', where there are any.
    train_transform, eval_transform: what the host does to images.
    preprocess: value range and evaluation transform, saved with the weights.
    module: the model.
    model_name: that it was built by.
    task: targets, loss and metrics.
    weights: those of `init_from`, not yet fitted to the module; None from scratch.
    head: whether their classifier is kept.
    seed: of fresh parameters.
  """

  dataset: data.Dataset
  train: data.Examples
  held_out: Mapping[str, data.Examples]
  train_transform: data.Transform
  eval_transform: data.Transform
  preprocess: data.Preprocess
  module: nn.Module
  model_name: str
  task: tasks.Task
  weights: Weights | None
  head: str
  seed: int

  @functools.cached_property
  def fingerprint(self) -> dict[str, str]:
    """A digest of each split's image names, in order."""
    splits = {'train': self.train, **self.held_out}
    return {role: _digest(examples) for role, examples in splits.items()}

  @property
  def model_record(self) -> dict[str, Any]:
    """{'name': ..., field: value}, from which the model is built again without its weights."""
    return description(self.module, self.model_name)

  @property
  def image_hw(self) -> tuple[int, int]:
    return self.train_transform.output_hw

  def on_axis(self, axis_name: str | None) -> nn.Module:
    """The model for a mapped step: batch statistics are averaged over the axis."""
    if axis_name and hasattr(backbone_of(self.module), 'axis_name'):
      return with_backbone(self.module, axis_name=axis_name)
    return self.module

  @property
  def shapes(self) -> Mapping[str, Any]:
    """Shapes and types of the model's variables; nothing is computed."""
    return variable_shapes(self.module, self.image_hw)

  def variables(
    self, initialise: Callable[..., dict] = lambda init, *args: jax.jit(init)(*args)
  ) -> tuple[dict, str]:
    """Variables before the first step, of `init_from` or fresh from the seed, and a load report.

    Args:
      initialise: `build` of a placement, by which fresh ones are made where they will lie.
    """
    if self.weights is None:
      return self._fresh(initialise), ''
    # Heads on top of a model are not part of foreign weights: they start fresh.
    body = backbone_of(self.module) if self.head == 'reset' else self.module
    kept = self._kept_classes()
    variables, report = fit(
      self.weights,
      body if kept is None else body.clone(num_classes=len(self._classes_of_weights)),
      self.image_hw,
      Options(head=self.head, model=self.model_name, model_option='--config.model.name'),
    )
    if kept is not None:  # kernels [d, k] and biases [k]
      variables = tree.map_named(
        lambda name, x: x[..., kept] if name.startswith('params/head') else x, variables
      )
    if body is not self.module:
      fresh = self._fresh(initialise, besides=frozenset(tree.flatten(variables)))
      variables = tree.merge(fresh, variables)
      report.reinitialised += [n for n in tree.flatten(fresh) if n.startswith('params/head')]
    return variables, str(report)

  @property
  def _classes_of_weights(self) -> tuple[str, ...]:
    """Classes by output; without names, the dataset's, of which numbers are in their order."""
    assert self.weights is not None
    return self.weights.classes or class_names.in_order_of_numbers(self.dataset.classes)

  def _kept_classes(self) -> np.ndarray | None:
    """Outputs of a kept classifier that are this dataset's classes, by name; None for all of it."""
    classes = self._classes_of_weights
    if self.head == 'reset' or classes == self.dataset.classes:
      return None
    if backbone_of(self.module) is not self.module:
      return None
    try:
      return class_names.align(self.dataset.classes, classes)
    except UserError as e:
      raise ConfigError(
        f"config.head='keep': {e}; config.head='reset' starts a new classifier"
      ) from None

  def _fresh(self, initialise: Callable[..., dict], besides: frozenset[str] = frozenset()) -> dict:
    """Fresh variables, but for those of these names."""

    def init(key: jax.Array, images: jax.Array) -> dict:
      return tree.split(self.module.init(key, images, train=False), besides)[0]

    images = np.zeros((1, *self.image_hw, 3), np.float32)
    return initialise(init, rng.stream(self.seed, 'params'), images)


@dataclasses.dataclass(frozen=True)
class Inputs:
  """What a config names outside of itself, opened; attributes as of `Experiment`."""

  dataset: data.Dataset
  train: data.Examples
  held_out: Mapping[str, data.Examples]
  train_transform: data.Transform
  eval_transform: data.Transform
  weights: Weights | None


class NotDownloadedError(UserError):
  """Without a sentence: what takes a download was left out, as the run cannot start."""


def open_inputs(config: Config, may_download: bool = True) -> Inputs:
  """Opens the dataset, its splits, the weights and the transforms.

  What is here is opened first, and nothing is downloaded for a run that cannot start.

  Args:
    config: checked options.
    may_download: False for a run that has problems elsewhere.

  Raises:
    UserError: naming everything that is missing or cannot be used.
  """
  size = config.input.image_size
  image_size = (size[0], size[-1])
  problems = Problems()
  train_transform = eval_transform = None
  with problems.collect():
    train_transform = data.parse_transform(config.input.train_transform, image_size, train=True)
  with problems.collect():
    eval_transform = data.parse_transform(config.input.eval_transform, image_size, train=False)
  with problems.collect():
    _refuse_weights_of_another_model(config)
  weights = dataset = train = None
  held_out: dict[str, data.Examples] = {}
  # False, what takes no download, comes before True.
  takes_download = {
    'dataset': sources.needs_download(config.dataset.name, config.dataset.data_dir),
    'weights': needs_download(config.init_from, pretrained_dir=config.pretrained_dir),
  }
  for what in sorted(takes_download, key=lambda what: takes_download[what]):
    with problems.collect():
      if takes_download[what] and (problems.sentences or not may_download):
        raise NotDownloadedError([])
      if what == 'dataset':
        dataset, train, held_out = _open_dataset(config, problems)
      elif config.init_from:
        with phase(f'reading the weights {config.init_from}'):
          weights = read(config.init_from, pretrained_dir=config.pretrained_dir)
  problems.raise_if_any()
  assert dataset and train and train_transform and eval_transform
  roles = {'train': train, **held_out}
  specs = {role: f'config.dataset.{role}={getattr(config.dataset, role)!r}' for role in roles}
  warn_of_overlap(roles, specs)
  warn_of_duplicates(dataset.name, roles)
  if weights is not None:
    for role, examples in held_out.items():
      seen = f'{role} metrics will be of images that the model of config.init_from has seen'
      weights.trained_on.warn(dataset.name, examples, f'{role} images', seen)
  return Inputs(dataset, train, held_out, train_transform, eval_transform, weights)


def _open_dataset(
  config: Config, problems: Problems
) -> tuple[data.Dataset, data.Examples | None, dict[str, data.Examples]]:
  """The dataset, its training split and the others, with what is wrong with these."""
  train, held_out = None, {}
  with phase(f'opening the dataset {config.dataset.name}'):
    dataset = config.dataset.open()
  with problems.collect():
    train = dataset.split(config.dataset.train)
  for role, spec in (('val', config.dataset.val), ('test', config.dataset.test)):
    with problems.collect():
      if spec and (dataset.has_split(spec) or splits.canonical(spec) != role):  # or it has none
        held_out[role] = dataset.split(spec)
  if config.dataset.on_error == 'raise':
    for examples in filter(None, (train, *held_out.values())):
      with problems.collect(), phase('checking that no image is cut short'):
        data.check_whole(examples)
  return dataset, train, held_out


def prefetch_of(config: Config, image_hw: tuple[int, int]) -> data.Prefetch:
  """How far a run's process loads training images ahead of its steps."""
  size, loading = config.batch_size // processes.count(), loading_of(config)
  return data.Prefetch.choose(
    image_hw, size, loading['threads'], config.input.workers, loading['prefetch_bytes']
  )


def loading_of(config: Config) -> dict[str, Any]:
  """Arguments of `data.train_batches` and `data.eval_batches` that a run's options decide."""
  limit = int(config.input.prefetch_gib * 2**30)
  return loader_options(config.input.threads, config.dataset.on_error, limit)


def _refuse_weights_of_another_model(config: Config) -> None:
  """Raises a `ConfigError` for a pretrained model's name that is of another size or family.

  Whether weights in a file fit is checked when they are read; these may be hundreds of MiB away.
  """
  pretrained, name = hub.pretrained_models(), config.model.get('name', '')
  if config.init_from not in pretrained or os.path.exists(config.init_from):
    return
  theirs = pretrained[config.init_from].model
  if not name or name == theirs:
    return
  blocks = [_block_shapes(model) for model in (theirs, name)]
  shared = blocks[0].keys() & blocks[1].keys()
  if shared and all(blocks[0][k] == blocks[1][k] for k in shared):
    return  # another name of the same blocks: a distilled model of a plain one, say
  own = [entry.name for entry in map(pretrained.__getitem__, pretrained) if entry.model == name]
  ending = f', or weights of {name}: {some(own)}' if own else ''
  raise ConfigError(
    f'config.init_from={config.init_from!r} is of {theirs}, and config.model.name is {name!r}: '
    f'--config.model.name={theirs}{ending}'
  )


def _block_shapes(name: str) -> dict[str, tuple[int, ...]]:
  """Shapes of a registered model's parameters but those that classes and image size decide on."""
  params = variable_shapes(models.build(name, 2), (224, 224))['params']
  found = {k: tuple(x.shape) for k, x in tree.flatten(params).items()}
  return {k: shape for k, shape in found.items() if 'head' not in k and 'position' not in k}


def build_experiment(config: Config, may_download: bool = True) -> Experiment:
  """Opens the dataset, reads the weights and builds the model, checking that they fit together.

  Args:
    config, may_download: as of `open_inputs`.

  Raises:
    UserError: naming what is missing or does not fit.
  """
  inputs = open_inputs(config, may_download)
  dataset, weights = inputs.dataset, inputs.weights
  stated = (weights.preprocess if weights else None) or data.Preprocess('decode')
  preprocess = dataclasses.replace(
    stated,
    transform=str(inputs.eval_transform),
    mean=config.input.mean or stated.mean,
    std=config.input.std or stated.std,
  )
  task = tasks.build(num_classes=len(dataset.classes), **dataclasses.asdict(config.task))
  _check_task(task, config, dataset, weights)
  module = _module(config, weights, len(dataset.classes))
  try:
    models.check_image_size(module, inputs.train_transform.output_hw)
  except ConfigError as e:
    raise ConfigError(f'config.input.image_size: {e}') from None
  return Experiment(
    dataset=dataset,
    train=inputs.train,
    held_out=inputs.held_out,
    train_transform=inputs.train_transform,
    eval_transform=inputs.eval_transform,
    preprocess=preprocess,
    module=task.wrap(module),
    model_name=config.model['name'],
    task=task,
    weights=weights,
    head=config.head,
    seed=config.seed,
  )


def _digest(examples: data.Examples) -> str:
  names = hashlib.sha256()
  for i in range(len(examples)):
    names.update(examples.id(i).encode('utf-8', 'surrogateescape') + b'\0')
  return names.hexdigest()[:32]


def _check_task(
  task: tasks.Task, config: Config, dataset: data.Dataset, weights: Weights | None
) -> None:
  """Raises a `ConfigError` where the examples or the kept heads are not those of the task."""
  name = config.task.name
  which = f'{dataset.name} ({dataset.kind})'
  problems = []
  if task.needs_boxes and not dataset.has_boxes:
    problems.append(
      f'config.task.name={name!r} needs boxes, and {which} has none: use a folder with YOLO, COCO '
      'or Pascal VOC annotations'
    )
  if task.labels_per_image == 'several' and dataset.labels_per_image == 'one':
    problems.append(
      f'config.task.name={name!r} needs label sets, and images of {which} have one class each: use '
      "a folder with YOLO, COCO or Pascal VOC annotations, or a TFDS dataset with 'labels' or "
      "'objects'"
    )
  if len(dataset.classes) == 1 and task.labels_per_image == 'one' and not task.needs_boxes:
    problems.append(
      f'{which} has one class, {dataset.classes[0]!r}, and telling classes apart takes two: '
      'expected a folder for each class, CLASS/image.jpg'
    )
  if task.labels_per_image == 'one' and dataset.labels_per_image == 'several':
    problems.append(
      f'config.task.name={name!r} needs one class per image, and images of {which} have several: '
      "set config.task.name='multilabel'"
    )
  if weights is not None and config.head == 'keep':
    before = tasks.of_config(weights.config, len(dataset.classes))
    if before.needs_boxes != task.needs_boxes:
      kept = (weights.config.get('task') or {}).get('name', 'classify')
      problems.append(
        f"config.head='keep': {config.init_from} has the heads of task {kept!r}, and this run's "
        f"task is {name!r}: use config.head='reset'"
      )
  if problems:
    raise ConfigError(problems)


def _module(config: Config, weights: Weights | None, num_classes: int) -> nn.Module:
  """The model: the weights fix what they need, such as their kind of GELU; options set the rest."""
  fields = {k: v for k, v in config.model.items() if k != 'name'}
  name = config.model['name']
  if 'norm_frozen' in models.fields(name) and 'backbone' in config.freeze:
    fields = {'norm_frozen': True, **fields}  # frozen layers keep their batch statistics too
  if weights is None:
    return models.build(name, num_classes, **fields)
  return build(weights, name, config.head, num_classes, **fields)
