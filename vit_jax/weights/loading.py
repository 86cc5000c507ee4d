"""From a weights file to a model's variables, with every difference named."""

import dataclasses
import functools
import math
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from vit_jax import models, tree
from vit_jax.errors import UserError, did_you_mean
from vit_jax.models.heads import backbone_of
from vit_jax.weights import resize
from vit_jax.weights.formats.tensors import Spec, Tensors, to_float32
from vit_jax.weights.mapping import rules, tables
from vit_jax.weights.mapping.table import Table
from vit_jax.weights.reading import Weights, read
from vit_jax.weights.report import Report, some

HEADS = ('keep', 'reset')


@dataclasses.dataclass(frozen=True)
class Options:
  """What may change while weights are loaded.

  Args:
    head: 'keep' the file's classifier, or 'reset' it to zeros.
    resize: how position embeddings change their grid, see `resize.resize_grid`.
    source_grid: (h, w) of the file's position embeddings; None to recognise a square.
  """

  head: str = 'keep'
  resize: str = 'bilinear'
  source_grid: tuple[int, int] | None = None

  def __post_init__(self):
    problems = []
    if self.head not in HEADS:
      problems.append(f"head must be 'keep' or 'reset', got {self.head!r}")
    if self.resize not in resize.RESIZES:
      problems.append(f'resize={self.resize!r}: {did_you_mean(self.resize, resize.RESIZES)}')
    if problems:
      raise UserError(problems)


def load(path_or_name, model, image_size=None, head='keep', format='auto', **options) -> dict:
  """Loads weights into a model. See `load_with_report`; this returns the variables alone."""
  return load_with_report(path_or_name, model, image_size, head, format, **options)[0]


def load_with_report(
  path_or_name: str | pathlib.Path,
  model: Any,
  image_size: tuple[int, int] | int | None = None,
  head: str = 'keep',
  format: str = 'auto',
  *,
  channels: int | None = None,
  resize: str = 'bilinear',
  source_grid: tuple[int, int] | None = None,
  pretrained_dir: str | pathlib.Path = '',
) -> tuple[dict[str, Any], Report]:
  """Loads weights into a model and says what became of every tensor.

  Args:
    path_or_name: a file, a directory of a Hugging Face model, or a name of the zoo.
    model: a module of `vit_jax.models.build`.
    image_size: (h, w) in pixels of the pictures it will get; None for the weights' own.
    head: 'keep', which fails where the classes differ in number, or 'reset', which starts at zero
      and also drops a pre-logits layer that the model lacks.
    format: one of `tables.FORMATS`, or 'auto' to recognise it.
    channels: of the pictures; None for the file's.
    resize: 'bilinear' (as the official code) or 'bicubic' (antialiased) for position embeddings.
    source_grid: (h, w) of the file's position embeddings where they are no square.
    pretrained_dir: a folder that is searched for a named file before any download.

  Returns:
    {'params': ..., 'batch_stats': ...} of float32 numpy arrays, and the report.

  Raises:
    UserError: with all problems at once.
  """
  options = Options(head, resize, source_grid)
  weights = read(path_or_name, format, pretrained_dir=pretrained_dir)
  if image_size is None:
    size = getattr(weights.preprocess, 'image_size', None)
    image_size = size or (224, 224)
  if isinstance(image_size, int):
    image_size = (image_size, image_size)
  return fit(weights, model, tuple(image_size), options, channels)


def fit(
  weights: Weights,
  model: Any,
  image_size: tuple[int, int],
  options: Options = Options(),
  channels: int | None = None,
) -> tuple[dict[str, Any], Report]:
  """Fits tensors that were read to a model; arguments as in `load_with_report`."""
  target = variable_specs(model, image_size, channels or 3)
  if weights.format == 'vit_jax':
    table = Table(identity_rules(target), '')
  else:
    table = tables.find(type(model).__name__, weights.format, target)
  report = Report(str(weights.tensors.path), weights.format)
  tensors, report.ignored = table.normalized(weights.tensors)
  if channels is None:  # the file's, where its first layer tells
    channels = _file_channels(table, tensors, target)
    if channels != 3:
      target = variable_specs(model, image_size, channels)
  if options.source_grid is None and weights.grid:
    options = dataclasses.replace(options, source_grid=weights.grid)
  loader = _Loader(tensors, target, table, options, report, _grid(model, image_size))
  variables = loader.run(type(model).__name__)
  return tree.unflatten(variables), report


# Tensors of our own format that are treated in a way of their own; see `_own_role`.
_ROLES = {
  'params/position_embedding': 'position',
  'params/patch_embedding/kernel': 'patch',
  'params/class_token': 'token',
  'params/distillation_token': 'token',
}


@functools.lru_cache(64)
def variable_shapes(model: Any, image_size: tuple[int, int], channels: int = 3) -> dict:
  """Shapes and types of a model's variables, nested as they are; nothing is computed."""
  import jax

  images = jax.ShapeDtypeStruct((1, *image_size, channels), np.float32)
  return jax.eval_shape(lambda x: model.init(jax.random.key(0), x, train=False), images)


def variable_specs(model: Any, image_size: tuple[int, int], channels: int = 3) -> dict[str, Spec]:
  """Flat names and shapes of a model's variables, without computing anything."""
  shapes = variable_shapes(model, image_size, channels)
  keep = {k: v for k, v in shapes.items() if k in ('params', 'batch_stats')}
  return {k: Spec(tuple(v.shape)) for k, v in tree.flatten(keep).items()}


def description(module: Any, name: str) -> dict[str, Any]:
  """{'name': ..., field: value} from which `models.build` makes a module again.

  Args:
    module: a model.
    name: the name it was built by.
  """
  module = backbone_of(module)
  fields = models.fields(name)
  changed = {k: getattr(module, k) for k, v in fields.items() if getattr(module, k) != v}
  return {'name': name, **changed}


def identity_rules(target: Mapping[str, Spec]) -> tuple[rules.Rule, ...]:
  """The rules of our own format: every name is itself; what may be adapted keeps its role."""
  made = []
  for name in target:
    collection, rest = name.split('/', 1)
    made.append(rules.Rule(name, rest, role=_own_role(name), collection=collection))
  return tuple(made)


def _own_role(name: str) -> str:
  """What a tensor of our own format is; '' for most."""
  if name.startswith('params/head'):
    return 'head'
  return 'representation' if name.startswith('params/pre_logits/') else _ROLES.get(name, '')


def _grid(model: Any, image_size: tuple[int, int]) -> tuple[int, int]:
  patch = getattr(backbone_of(model), 'patch_size', (1, 1))
  return image_size[0] // patch[0], image_size[1] // patch[1]


def _file_channels(table, tensors: Tensors, target: Mapping[str, Spec]) -> int:
  for role in ('input', 'patch'):  # behind a hybrid's stem, patches are not cut from pictures
    for rule in table.rules:
      if rule.role == role and rule.our_names[0] in target:
        spec = tensors.specs.get(rule.their_names[0], Spec(()))
        if len(spec.shape) != 4:
          return 3
        return max(1, min(spec.shape[1 if rule.axes.startswith('o i') else 2], 1024))
  return 3


class _Loader:
  """One loading: goes through our tensors, collects problems, reads what fits."""

  def __init__(
    self,
    tensors: Tensors,
    target: Mapping[str, Spec],
    table: Table,
    options: Options,
    report: Report,
    grid: tuple[int, int],
  ):
    self.tensors, self.target, self.table = tensors, target, table
    self.options, self.report, self.grid = options, report, grid
    self.problems: list[str] = []
    self.used: set[str] = set()
    self.plan: list[tuple[rules.Binding, tuple[str, ...]]] = []

  def run(self, family: str) -> dict[str, np.ndarray]:
    bindings, orphans = rules.bind(self.table.rules, self.target)
    self.report.missing += orphans
    fresh = [b for b in bindings if not self._find(b)]
    self._check_leftovers()
    self._explain(family, len(bindings))
    variables = {}
    for binding, names in self.plan:
      variables.update(self._convert(binding, names))
    if self.problems:
      raise UserError(self._headed(self.problems))
    for name in (n for b in fresh for n in b.ours):
      variables[name] = fresh_array(name, self.target[name].shape)
      self.report.reinitialised.append(name)
    return variables

  def _find(self, binding: rules.Binding) -> bool:
    """Plans to read a binding's tensors; False where they start afresh."""
    shapes = [self.target[n].shape for n in binding.ours if n in self.target]
    if len(shapes) < len(binding.ours):
      self.report.missing += [n for n in binding.ours if n not in self.target]
      return True
    role, reset = binding.rule.role, self.options.head == 'reset'
    names = binding.theirs
    if len(names) == 1 and names[0] not in self.tensors:
      names = next(((a,) for a in binding.also if a in self.tensors), names)
    present = [n for n in names if n in self.tensors]
    self.used.update(present)
    if role == 'head' and reset:
      self.report.dropped += present
      return False
    if len(present) < len(names):
      if (role == 'representation' and reset) or (binding.rule.optional and not present):
        return False
      lost = [n for n in names if n not in present]
      self.report.missing += lost if present else list(binding.ours)
      return True
    if self._shapes_fit(binding, names, shapes):
      self.plan.append((binding, names))
    return True

  def _shapes_fit(self, binding, names, shapes) -> bool:
    good = True
    for name, expected in zip(names, binding.their_shapes(shapes)):
      spec = self.tensors.specs[name]
      if spec.dtype not in ('float16', 'bfloat16', 'float32', 'float64'):
        self.problems.append(f'{name} holds {spec.dtype}, expected floating point numbers')
        good = False
      elif spec.shape != expected and not self._adaptable(binding.rule.role, spec, expected):
        ours = some(binding.ours)
        hint = "; head='reset' starts it anew" if binding.rule.role == 'head' else ''
        self.problems.append(f'{name} is {spec.shape}, {ours} needs {expected}{hint}')
        good = False
    return good

  def _adaptable(self, role: str, spec: Spec, expected: tuple[int, ...]) -> bool:
    shape = spec.shape
    if len(expected) == 1 and shape[-1:] == expected and math.prod(shape) == expected[0]:
      return True  # (1, 1, 1, c)
    if role == 'position':
      shape = shape if len(shape) == 3 else (1, *shape)
      return len(shape) == 3 and shape[0] == 1 and shape[2] == expected[2]
    if role in ('patch', 'input') and len(shape) == 4:
      width = 0 if shape[0] == expected[0] and shape[-1] != expected[-1] else -1
      if shape[width] != expected[width]:
        return False
      # A patch is never over 64 pixels: a larger one is a damaged header.
      return role == 'patch' and max(shape[:-1] if width else shape[1:]) <= 1024
    return False

  def _check_leftovers(self) -> None:
    for name in self.tensors:
      if name in self.used:
        continue
      role = self._role_of(name)
      gone = self.options.head == 'reset' or not any('params/head' in n for n in self.target)
      if (role == 'head' and gone) or (
        self.options.head == 'reset' and role in ('representation', 'token')
      ):
        self.report.dropped.append(name)
      else:
        self.report.unexpected.append(name)

  def _role_of(self, name: str) -> str:
    for rule in self.table.rules:
      if any(rules.parse(t, name) is not None for t in (*rule.their_names, *rule.also)):
        return rule.role
    return _own_role(name)

  def _explain(self, family: str, wanted: int) -> None:
    report = self.report
    if wanted and len(report.missing) and not self.used:
      raise UserError(
        f'{report.source} ({report.format}) holds nothing that this {family} needs, for example '
        f'{some(list(self.tensors) or report.ignored, 3)}: it belongs to another model or format'
      )
    if report.missing:
      self.problems.insert(0, f'not in the file: {some(report.missing)}')
    if report.unexpected:
      self.problems.append(f'in the file but not in the model: {some(report.unexpected)}')
      if any(self._role_of(n) == 'representation' for n in report.unexpected):
        self.problems.append(
          "keep the pre-logits layer with representation_size=..., or drop it with head='reset'"
        )
    if self.problems:
      raise UserError(self._headed(self.problems))

  def _headed(self, problems: Sequence[str], most: int = 4) -> list[str]:
    shown = list(problems[:most])
    if len(problems) > most:
      shown.append(f'and {len(problems) - most} more tensors')
    shown[0] = f'{self.report.source} does not fit: {shown[0]}'
    return shown

  def _convert(self, binding: rules.Binding, names: tuple[str, ...]) -> dict[str, np.ndarray]:
    shapes = [self.target[n].shape for n in binding.ours]
    expected = binding.their_shapes(shapes)
    arrays = []
    for name, shape in zip(names, expected):
      try:
        array = to_float32(name, self.tensors[name])
      except UserError as e:
        self.problems += e.problems
        return {}
      if len(shape) == 1 or (binding.rule.role == 'position' and array.ndim == 2):
        array = array.reshape(shape) if len(shape) == 1 else array[None]
      arrays.append(array)
    result = {}
    for name, array in zip(binding.ours, binding.to_ours(arrays, shapes)):
      try:
        result[name] = np.ascontiguousarray(self._adapt(binding.rule.role, name, array))
      except UserError as e:
        self.problems += [f'{name}: {p}' for p in e.problems]
    return result

  def _adapt(self, role: str, name: str, array: np.ndarray) -> np.ndarray:
    shape, before = self.target[name].shape, array.shape
    resized = array
    if role == 'position':
      prefix = shape[1] - self.grid[0] * self.grid[1]
      slots = prefix if self.table.class_slot else 0
      kept = np.delete(array, self._dropped_slots(), axis=1)
      resized = resize.position_embedding(
        kept, slots, prefix, self.grid, self.options.source_grid, self.options.resize
      )
    elif role in ('patch', 'input') and before != shape:
      resized = resize.input_channels(resize.patch_kernel(array, shape[:2]), shape[2])
    if resized is not array and not (resized.shape == before and np.array_equal(resized, array)):
      self.report.resized.append(f'{name} {before} -> {resized.shape}')
    if resized.shape != shape:
      raise UserError(f'became {resized.shape} where {shape} is needed')
    return resized

  def _dropped_slots(self) -> list[int]:
    """Places among the position embeddings of tokens that the model has not."""
    if not self.table.class_slot:
      return []
    tokens = sorted(n for n in self.tensors if self._role_of(n) == 'token')  # class before dist...
    return [place for place, name in enumerate(tokens) if name in self.report.dropped]


def fresh_array(name: str, shape: tuple[int, ...]) -> np.ndarray:
  """The start of a layer that a file does not give: zeros for a head, as fine-tuning does.

  A pre-logits layer gets LeCun's normal values: zeros before a head of zeros would never learn.
  """
  if name.startswith('params/pre_logits/kernel'):
    rng = np.random.default_rng(0)
    return rng.normal(0.0, shape[0] ** -0.5, shape).astype(np.float32)
  return np.zeros(shape, np.float32)
