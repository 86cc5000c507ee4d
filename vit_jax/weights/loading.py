"""From a weights file to a model's variables, with every difference named."""

import dataclasses
import logging
import pathlib
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import numpy as np

from vit_jax import models, tree
from vit_jax.errors import ConfigError, UserError, WeightsError, did_you_mean, some
from vit_jax.models.heads import backbone_of
from vit_jax.models.shapes import name_of, title, variable_specs
from vit_jax.weights import resize
from vit_jax.weights.containers.checks import names_file
from vit_jax.weights.containers.tensors import FLOATS, Spec, Tensors, to_float32
from vit_jax.weights.formats.base import FORMATS, OWN_NAMES
from vit_jax.weights.mapping.family import family_of
from vit_jax.weights.mapping.rules import Binding
from vit_jax.weights.mapping.table import Table, own_table
from vit_jax.weights.matching import Plan, Shapes, match, raise_problems
from vit_jax.weights.reading import Weights, read
from vit_jax.weights.report import Report

log = logging.getLogger(__name__)

# Of models: no array shows them, and the same arrays compute something else with other values.
_UNSEEN_FIELDS = (
  'gelu', 'norm_epsilon', 'padding', 'stride_in_conv', 'kernel_epsilon', 'stem_epsilon',
  'query_scale',
)  # fmt: skip
HEADS = ('keep', 'reset')


@dataclasses.dataclass(frozen=True)
class Options:
  """What may change while weights are loaded.

  Args:
    head: 'keep' the file's classifier, or 'reset' it to zeros.
    resize: how position embeddings change their grid, see `resize.resize_grid`.
    source_grid: (h, w) of the file's position embeddings; None to recognise a square.
    allow_invalid: whether values that are NaN or infinite and negative variances are taken, with a
      warning, where they are otherwise refused.
    model: the name by which the model was asked for, for messages; '' where it was none.
    model_option: what names it for the user, for messages: '--model'.
  """

  head: str = 'keep'
  resize: str = 'bilinear'
  source_grid: tuple[int, int] | None = None
  allow_invalid: bool = False
  model: str = ''
  model_option: str = 'model'

  def __post_init__(self) -> None:
    problems = []
    if self.head not in HEADS:
      problems.append(f"head must be 'keep' or 'reset', got {self.head!r}")
    if self.resize not in resize.RESIZES:
      problems.append(f'resize={self.resize!r}: {did_you_mean(self.resize, resize.RESIZES)}')
    if problems:
      raise ConfigError(problems)


def load(
  path_or_name: str | pathlib.Path,
  model: nn.Module,
  image_size: tuple[int, int] | int | None = None,
  head: str = 'keep',
  format: str = 'auto',
  **options: Any,
) -> dict[str, Any]:
  """Loads weights into a model. See `load_with_report`; this returns the variables alone."""
  return load_with_report(path_or_name, model, image_size, head, format, **options)[0]


def load_with_report(
  path_or_name: str | pathlib.Path,
  model: nn.Module,
  image_size: tuple[int, int] | int | None = None,
  head: str = 'keep',
  format: str = 'auto',
  *,
  channels: int | None = None,
  resize: str = 'bilinear',
  source_grid: tuple[int, int] | None = None,
  pretrained_dir: str | pathlib.Path = '',
  submodel: str = '',
  allow_invalid: bool = False,
) -> tuple[dict[str, Any], Report]:
  """Loads weights into a model and reports what became of every tensor.

  Args:
    path_or_name: a file, a model's folder, a run's workdir, or a pretrained model name.
    model: a module of `vit_jax.models.build`.
    image_size: (h, w) in pixels of its images; None for the weights' own.
    head: 'keep', which fails where the classes differ in number, or 'reset', which starts at zero
      and also drops a pre-logits layer that the model lacks.
    format: one of `FORMATS`, or 'auto' to recognise it.
    channels: of the images; None for the file's.
    resize: 'bilinear' (as the official code) or 'bicubic' (antialiased) for position embeddings.
    source_grid: (h, w) of the file's position embeddings where they are no square.
    pretrained_dir: a folder that is searched for a pretrained model before any download.
    submodel: which of several models in a file, as in `read`.
    allow_invalid: as in `Options`.

  Returns:
    {'params': ..., 'batch_stats': ...} of float32 numpy arrays, and the report.

  Raises:
    UserError: with all problems at once; a WeightsError where file and model do not fit.
  """
  options = Options(head, resize, source_grid, allow_invalid)
  weights = read(path_or_name, format, pretrained_dir=pretrained_dir, submodel=submodel)
  if image_size is None:
    image_size = weights.preprocess.image_size if weights.preprocess else (224, 224)
  if isinstance(image_size, int):
    image_size = (image_size, image_size)
  return fit(weights, model, (image_size[0], image_size[1]), options, channels)


def fit(
  weights: Weights,
  model: nn.Module,
  image_size: tuple[int, int],
  options: Options = Options(),
  channels: int | None = None,
) -> tuple[dict[str, Any], Report]:
  """Fits tensors that were read to a model; arguments as in `load_with_report`."""
  _warn_of_other_fields(weights, model)
  try:
    matched = _match(weights, model, image_size, options, channels)
  except WeightsError:
    _refuse_other_model(weights, model, image_size, options, channels)
    raise
  report, plan = matched.report, matched.plan
  reader = _Reader(matched, options, _grid(model, image_size), weights.grid)
  variables: dict[str, np.ndarray] = {}
  for binding, names in plan.reads:
    variables.update(reader.read(binding, names))
  raise_problems(report, reader.problems)
  if report.invalid:
    found = some(report.invalid, 3)
    log.warning('%s: used as it is, though no model can compute with it: %s', report.source, found)
  for name in plan.fresh:
    variables[name] = _fresh(name, matched.target[name].shape)
    report.reinitialised.append(name)
  return tree.unflatten(variables), report


@dataclasses.dataclass(frozen=True)
class _Matched:
  """Tensors that have their places in a model."""

  tensors: Tensors
  target: Shapes
  table: Table
  report: Report
  plan: Plan


def _match(
  weights: Weights,
  model: nn.Module,
  image_size: tuple[int, int],
  options: Options,
  channels: int | None,
) -> _Matched:
  with names_file(weights.tensors.path):
    target: Shapes = variable_specs(model, image_size, channels or 3)
  naming = FORMATS[weights.format].naming
  own = naming == OWN_NAMES
  table = own_table(target) if own else family_of(model).table(naming, target)
  report = Report(str(weights.tensors.path), weights.format)
  tensors, report.ignored = table.normalized(weights.tensors)
  report.left_out = [n for n in report.ignored if _is_weight(n, weights.tensors, table)]
  if channels is None:  # the file's, where its first layer shows them
    channels = _channels_of(tensors, table, target)
    if channels != 3:
      target = variable_specs(model, image_size, channels)
  report.channels = channels
  plan = match(tensors, target, table, options.head == 'reset', report, type(model).__name__)
  return _Matched(tensors, target, table, report, plan)


def _refuse_other_model(
  weights: Weights,
  model: nn.Module,
  image_size: tuple[int, int],
  options: Options,
  channels: int | None,
) -> None:
  """Raises a `WeightsError` that names the model of weights that do not fit, where it is known."""
  record = weights.model
  name, asked = record.get('name'), options.model or name_of(model)
  if not name or not asked or name == asked:
    return
  fields = {field: value for field, value in record.items() if field != 'name'}
  classes = backbone_of(model).num_classes or 0
  try:
    _match(weights, models.build(name, classes, **fields), image_size, options, channels)
  except UserError:  # it would not fit either, so that this is no advice
    return
  raise WeightsError(
    f'{weights.tensors.path} looks like {title(record)}, not {asked}: {options.model_option}={name}'
  ) from None


def _is_weight(name: str, tensors: Tensors, table: Table) -> bool:
  """Whether a tensor that was left out might belong to the model."""
  spec = tensors.specs[name]
  if spec.dtype not in FLOATS or not spec.shape or name.startswith(('opt', 'loss', 'criterion')):
    return False
  return not table.is_no_weight(name)


def _warn_of_other_fields(weights: Weights, model: nn.Module) -> None:
  """Warns of fields that change no array but what is computed from it."""
  if not weights.model:
    return
  backbone = backbone_of(model)
  fields = {**models.fields(weights.model['name']), **weights.model}
  other = [
    f'{field}={fields[field]!r} (here {getattr(backbone, field)!r})'
    for field in (*_UNSEEN_FIELDS, *(['num_heads'] if 'num_heads' in weights.known else ()))
    if field in fields and getattr(backbone, field, fields[field]) != fields[field]
  ]
  if other:
    log.warning(
      '%s: the weights are of a model with %s and will compute something else here: build the '
      'model with these values, or let weights.building.build do it',
      weights.tensors.path, ', '.join(other),
    )  # fmt: skip


def _grid(model: nn.Module, image_size: tuple[int, int]) -> tuple[int, int]:
  patch = getattr(backbone_of(model), 'patch_size', (1, 1))
  return image_size[0] // patch[0], image_size[1] // patch[1]


def _channels_of(tensors: Tensors, table: Table, target: Shapes) -> int:
  """Image channels of a file's first layer; 3 where it does not show them."""
  for role in ('input', 'patch'):  # behind a hybrid's stem, patches are not cut from images
    for rule in table.rules:
      if rule.role == role and rule.our_names[0] in target:
        spec = tensors.specs.get(rule.their_names[0], Spec(()))
        if len(spec.shape) != 4:
          return 3
        return max(1, min(spec.shape[1 if rule.axes.startswith('o i') else 2], 1024))
  return 3


class _Reader:
  """Reads the tensors of a plan and brings them to the model's shapes."""

  def __init__(
    self,
    matched: _Matched,
    options: Options,
    grid: tuple[int, int],
    source_grid: tuple[int, int] | None,
  ):
    self._tensors, self._target, self._table = matched.tensors, matched.target, matched.table
    self._report, self._options = matched.report, options
    self._grid, self._source_grid = grid, options.source_grid or source_grid
    self.problems: list[str] = []

  def read(self, binding: Binding, names: Sequence[str]) -> dict[str, np.ndarray]:
    """Our variables of one binding; {} with a note in `problems` where the values are no good."""
    shapes = [self._target[name].shape for name in binding.ours]
    role = binding.rule.role
    arrays = []
    for name, shape in zip(names, binding.their_shapes(shapes)):
      try:
        array = to_float32(name, self._tensors[name])
      except UserError as e:
        self.problems += e.problems
        return {}
      self._check_values(name, array, binding.ours)
      if len(shape) == 1:
        array = array.reshape(shape)  # of (1, 1, 1, c)
      elif role == 'position' and array.ndim == 2:
        array = array[None]
      arrays.append(array)
    result = {}
    for name, array in zip(binding.ours, binding.to_ours(arrays, shapes)):
      try:
        result[name] = np.ascontiguousarray(self._adapted(role, name, array))
      except UserError as e:
        self.problems += [f'{name}: {problem}' for problem in e.problems]
    return result

  def _check_values(self, name: str, array: np.ndarray, ours: Sequence[str]) -> None:
    """Notes values that give no number: not finite, or a negative variance."""
    is_variance = all(n.startswith('batch_stats/') and n.endswith('/var') for n in ours)
    for what, bad in (
      ('values are NaN or infinite', ~np.isfinite(array)),
      ('variances are negative', array < 0 if is_variance else np.False_),
    ):
      if bad.any():
        problem = f'{name}: {bad.sum()} of {array.size} {what}'
        if self._options.allow_invalid:
          self._report.invalid.append(problem)
        else:
          self.problems.append(f'{problem} (allow_invalid takes them)')

  def _adapted(self, role: str, name: str, array: np.ndarray) -> np.ndarray:
    shape = self._target[name].shape
    adapted = array
    if role == 'position':
      prefix = shape[1] - self._grid[0] * self._grid[1]
      slots = prefix if self._table.class_slot else 0
      kept = np.delete(array, self._dropped_slots(), axis=1)
      adapted = resize.position_embedding(
        kept, slots, prefix, self._grid, self._source_grid, self._options.resize
      )
    elif role in ('patch', 'input') and array.shape != shape:
      kernel = resize.patch_kernel(array, (shape[0], shape[1]))
      adapted = resize.input_channels(kernel, shape[2])
    if adapted is not array and not np.array_equal(adapted, array):
      self._report.resized.append(f'{name} {array.shape} -> {adapted.shape}')
    if adapted.shape != shape:
      raise WeightsError(f'became {adapted.shape} where {shape} is needed')
    return adapted

  def _dropped_slots(self) -> list[int]:
    """Places among the position embeddings of tokens that the model does not have."""
    if not self._table.class_slot:
      return []
    # By name the class token comes before the distillation token, as it does in the file.
    tokens = sorted(name for name in self._tensors if self._table.role_of(name) == 'token')
    return [place for place, name in enumerate(tokens) if name in self._report.dropped]


def _fresh(name: str, shape: tuple[int, ...]) -> np.ndarray:
  """The start of a layer that a file does not give: zeros for a head, as fine-tuning does.

  A pre-logits layer gets LeCun's normal values: zeros before a head of zeros would never learn.
  """
  if name.startswith('params/pre_logits/kernel'):
    rng = np.random.default_rng(0)
    return rng.normal(0.0, shape[0] ** -0.5, shape).astype(np.float32)
  return np.zeros(shape, np.float32)
