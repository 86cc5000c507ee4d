"""From options to things: pictures, transforms, model, task and weights that fit together."""

import dataclasses
from typing import Any

import flax.linen as nn
import jax
import numpy as np

from vit_jax import data, models, optimizers, rng, tasks, tree
from vit_jax.config import Config, Length
from vit_jax.data import class_names
from vit_jax.errors import UserError
from vit_jax.inference import loaded
from vit_jax.models.heads import backbone_of, with_backbone
from vit_jax.tasks.mixing import Mixing
from vit_jax.weights.building import build
from vit_jax.weights.loading import Options, description, fit, variable_shapes
from vit_jax.weights.reading import Weights, read


@dataclasses.dataclass(frozen=True)
class Prepared:
  """What a config means: pictures, transforms, model and task.

  Attributes:
    config: the options.
    dataset: with classes and splits.
    train: pictures trained on.
    held_out: 'val' and 'test', where there are any.
    train_transform, eval_transform: what the host does to them.
    preprocess: value range and evaluation transform, saved with the weights.
    module: the model.
    task: losses and metrics.
    teacher: the model that is learned from, where there is one.
    weights: what `init_from` holds, not yet fitted to the module; None from scratch.
  """

  config: Config
  dataset: data.Dataset
  train: data.Examples
  held_out: dict[str, data.Examples]
  train_transform: data.Transform
  eval_transform: data.Transform
  preprocess: data.Preprocess
  module: nn.Module
  task: Any
  teacher: loaded.Loaded | None
  weights: Weights | None

  @property
  def model_record(self) -> dict[str, Any]:
    """{'name': ..., field: value}, from which the model is made again without its weights."""
    return description(self.module, self.config.model['name'])

  @property
  def mixing(self) -> Mixing:
    return Mixing(**dataclasses.asdict(self.config.mixing))

  @property
  def image_hw(self) -> tuple[int, int]:
    return self.train_transform.output_hw

  def steps(self, length: str) -> int:
    """A length such as '5 epochs' in steps of this run."""
    return optimizers.steps_of(length, self.config.batch_size, len(self.train))

  def due(self, step: int, every: str) -> bool:
    """Whether something done every so often falls to this step; epochs need not be whole steps."""
    if not every:
      return False
    length = Length.parse(every).steps(self.config.batch_size, len(self.train))
    return step // length > (step - 1) // length if length > 1 else True

  def on_axis(self, axis_name: str | None) -> nn.Module:
    """The model for a mapped step: batch statistics are averaged over the axis."""
    if axis_name and hasattr(backbone_of(self.module), 'axis_name'):
      return with_backbone(self.module, axis_name=axis_name)
    return self.module

  @property
  def shapes(self) -> dict:
    """Shapes and types of the model's variables; nothing is computed."""
    return variable_shapes(self.module, self.image_hw)

  def variables(self) -> dict:
    """Weights before the first step: those of `init_from`, or fresh ones from the seed."""
    if self.weights is None:
      return self._fresh()
    # Heads on top of a model are no part of foreign weights: they start as they are made.
    reset = self.config.head == 'reset'
    body = backbone_of(self.module) if reset else self.module
    kept = self._kept_classes()
    variables, report = fit(
      self.weights,
      body if kept is None else body.clone(num_classes=len(self.weights.classes)),
      self.image_hw,
      Options(head=self.config.head),
    )
    if kept is not None:  # kernels [d, k] and biases [k]
      variables = tree.map_named(
        lambda name, x: x[..., kept] if name.startswith('params/head') else x, variables
      )
    if body is not self.module:
      fresh = self._fresh()
      variables = tree.merge(fresh, variables)
      report.reinitialised += [n for n in tree.flatten(fresh) if n.startswith('params/head')]
    print(report)
    return variables

  def _kept_classes(self) -> np.ndarray | None:
    """Outputs of a kept classifier that are this dataset's classes, by name; None for all of it."""
    classes = self.weights.classes
    if self.config.head == 'reset' or not classes or classes == self.dataset.classes:
      return None
    if backbone_of(self.module) is not self.module:
      return None
    try:
      return class_names.align(self.dataset.classes, classes)
    except UserError as e:
      raise UserError(f"config.head='keep': {e}; config.head='reset' starts anew") from None

  def _fresh(self) -> dict:
    images = np.zeros((1, *self.image_hw, 3), np.float32)
    key = rng.stream(self.config.seed, 'params')
    return jax.jit(self.module.init, static_argnames='train')(key, images, train=False)


def prepare(config: Config) -> Prepared:
  """Opens the data, reads the weights and builds the model, checking that they fit together.

  Raises:
    UserError: naming what is missing or does not fit.
  """
  size = config.input.image_size
  image_size = size * 2 if len(size) == 1 else size
  train_transform = data.parse_transform(config.input.train_transform, image_size, train=True)
  eval_transform = data.parse_transform(config.input.eval_transform, image_size, train=False)
  if train_transform.output_hw != eval_transform.output_hw:
    raise UserError(
      f'config.input.train_transform gives pictures of {train_transform.output_hw} pixels and '
      f'eval_transform of {eval_transform.output_hw}: name one size in both'
    )
  dataset = config.dataset.open()
  train = dataset.split(config.dataset.train)
  held_out = {
    role: dataset.split(spec)
    for role, spec in (('val', config.dataset.val), ('test', config.dataset.test))
    if spec and (dataset.has_split(spec) or not spec.isidentifier())
  }
  weights = None
  wanted = data.Preprocess('decode')
  if config.init_from:
    weights = read(config.init_from, pretrained_dir=config.pretrained_dir)
    wanted = weights.preprocess or wanted
  preprocess = dataclasses.replace(
    wanted,
    transform=str(eval_transform),
    mean=config.input.mean or wanted.mean,
    std=config.input.std or wanted.std,
  )
  _check_task(config, dataset, weights)
  task = tasks.build(num_classes=len(dataset.classes), **dataclasses.asdict(config.task))
  module = task.wrap(_build(config, weights, len(dataset.classes)))
  return Prepared(
    config,
    dataset,
    train,
    held_out,
    train_transform,
    eval_transform,
    preprocess,
    module,
    task,
    _teacher(config),
    weights,
  )


def _teacher(config: Config) -> loaded.Loaded | None:
  if config.task.name != 'distill':
    return None
  return loaded.load(config.task.teacher, pretrained_dir=config.pretrained_dir)


def _check_task(config: Config, dataset: data.Dataset, weights: Weights | None) -> None:
  """Raises a UserError where the pictures or the kept heads are not those of the task."""
  name = config.task.name
  problems = []
  if name == 'boxes' and not dataset.has_boxes:
    problems.append(
      f"config.task.name='boxes' needs boxes, and {dataset.name} ({dataset.kind}) has none: give a "
      'folder with YOLO, COCO or Pascal VOC annotations'
    )
  if name == 'multilabel' and dataset.classes_each == 'one':
    problems.append(
      f"config.task.name='multilabel' needs sets of classes, and pictures of {dataset.name} "
      f'({dataset.kind}) have one each: give a folder with YOLO, COCO or Pascal VOC annotations, '
      "or a TFDS dataset with 'labels' or 'objects'"
    )
  if name != 'multilabel' and dataset.classes_each == 'several':
    problems.append(
      f'config.task.name={name!r} needs one class a picture, and pictures of {dataset.name} have '
      "several: set config.task.name='multilabel'"
    )
  if weights is not None and config.head == 'keep':
    before = (weights.config.get('task') or {}).get('name', 'classify')
    if (before == 'boxes') != (name == 'boxes'):
      problems.append(
        f"config.head='keep': {config.init_from} has the heads of task {before!r}, and this run "
        f"learns {name!r}: use config.head='reset'"
      )
  if problems:
    raise UserError(problems)


def _build(config: Config, weights: Weights | None, num_classes: int) -> nn.Module:
  """The model: the weights say what they need, such as their kind of GELU; options say the rest."""
  fields = {k: v for k, v in config.model.items() if k != 'name'}
  name = config.model['name']
  if 'norm_frozen' in models.fields(name) and 'backbone' in config.freeze:
    fields = {'norm_frozen': True, **fields}  # frozen layers keep their batch statistics too
  if weights is None:
    return models.build(name, num_classes, **fields)
  return build(weights, name, config.head, num_classes, **fields)
