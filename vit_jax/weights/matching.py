"""Which tensor of a file becomes which of a model's variables, by names and shapes alone."""

import dataclasses
import math
from collections.abc import Mapping, Sequence

import jax

from vit_jax.errors import WeightsError, some
from vit_jax.weights.containers.tensors import FLOATS, Spec, Tensors
from vit_jax.weights.mapping import rules
from vit_jax.weights.mapping.rules import Binding, Rule
from vit_jax.weights.mapping.table import Table
from vit_jax.weights.report import Report

Shapes = Mapping[str, jax.ShapeDtypeStruct]  # flat names of a model's variables

_MAX_PATCH = 1024  # a patch has far fewer pixels a side: a larger one is a damaged header
_MAX_PROBLEMS = 4


@dataclasses.dataclass(frozen=True)
class Plan:
  """What is read and what starts afresh.

  Args:
    reads: bindings, each with the names of its tensors in the file (an older file may have other
      names than the rule).
    fresh: names of our variables that start afresh.
  """

  reads: list[tuple[Binding, tuple[str, ...]]]
  fresh: list[str]


def match(
  tensors: Tensors, target: Shapes, table: Table, reset_head: bool, report: Report, family: str
) -> Plan:
  """Finds the tensors of all of a model's variables.

  Args:
    tensors: of the file, under the table's names.
    target: the model's variables.
    table: rules between the two.
    reset_head: whether the head starts afresh.
    report: is given what is missing, unexpected and dropped.
    family: the model's class, for messages.

  Raises:
    WeightsError: they do not fit, with all reasons at once.
  """
  matcher = _Matcher(tensors, target, table, reset_head, report)
  bindings, orphans = rules.bind(table.rules, target)
  report.missing += orphans
  for binding in bindings:
    matcher.place(binding)
  matcher.place_leftovers()
  if bindings and report.missing and not matcher.used:
    raise WeightsError(
      f'{report.source} ({report.format}) holds nothing that this {family} needs, for example '
      f'{some(list(tensors) or report.ignored, 3)}: it belongs to another model or format'
    )
  raise_problems(report, matcher.all_problems())
  return Plan(matcher.reads, matcher.fresh)


def raise_problems(report: Report, problems: Sequence[str]) -> None:
  """Raises a WeightsError with the first few problems, if there are any."""
  if not problems:
    return
  shown = list(problems[:_MAX_PROBLEMS])
  if len(problems) > _MAX_PROBLEMS:
    shown.append(f'and {len(problems) - _MAX_PROBLEMS} more tensors')
  shown[0] = f'{report.source} does not fit: {shown[0]}'
  raise WeightsError(shown)


class _Matcher:
  """The state of one matching."""

  def __init__(
    self, tensors: Tensors, target: Shapes, table: Table, reset_head: bool, report: Report
  ):
    self._tensors, self._target, self._table = tensors, target, table
    self._reset_head, self._report = reset_head, report
    self._misfits: list[str] = []
    self.used: set[str] = set()
    self.reads: list[tuple[Binding, tuple[str, ...]]] = []
    self.fresh: list[str] = []

  def place(self, binding: Binding) -> None:
    """Decides for one binding: read, start afresh, or missing."""
    absent = [name for name in binding.ours if name not in self._target]
    if absent:
      self._report.missing += absent
      return
    names = self._names_in_file(binding)
    present = [name for name in names if name in self._tensors]
    self.used.update(present)
    role = binding.rule.role
    if role == 'head' and self._reset_head:
      self._report.dropped += present
      self.fresh += binding.ours
    elif len(present) == len(names):
      if self._fits(binding, names):
        self.reads.append((binding, names))
    elif role == 'representation' and self._reset_head:
      self.fresh += binding.ours
    else:
      lost = [name for name in names if name not in present]
      self._report.missing += lost if present else list(binding.ours)

  def _names_in_file(self, binding: Binding) -> tuple[str, ...]:
    names = binding.theirs
    if len(names) == 1 and names[0] not in self._tensors:
      return next(((name,) for name in binding.also if name in self._tensors), names)
    return names

  def _fits(self, binding: Binding, names: Sequence[str]) -> bool:
    good = True
    shapes = [self._target[name].shape for name in binding.ours]
    for name, expected in zip(names, binding.their_shapes(shapes)):
      spec = self._tensors.specs[name]
      if spec.dtype not in FLOATS:
        self._misfits.append(f'{name} holds {spec.dtype}, expected floating point numbers')
        good = False
      elif spec.shape != expected and not _adaptable(binding.rule, spec, expected):
        hint = "; head='reset' starts it anew" if binding.rule.role == 'head' else ''
        self._misfits.append(f'{name} is {spec.shape}, {some(binding.ours)} needs {expected}{hint}')
        good = False
    return good

  def place_leftovers(self) -> None:
    """Sorts the tensors of the file that no binding uses into dropped and unexpected ones."""
    headless = self._reset_head or not any('params/head' in name for name in self._target)
    for name in self._tensors:
      if name in self.used:
        continue
      role = self._table.role_of(name)
      if (role == 'head' and headless) or (
        role in ('representation', 'token') and self._reset_head
      ):
        self._report.dropped.append(name)
      else:
        self._report.unexpected.append(name)

  def all_problems(self) -> list[str]:
    report, problems = self._report, list(self._misfits)
    if report.missing:
      problems.insert(0, f'not in the file: {some(report.missing)}')
    if report.unexpected:
      problems.append(f'in the file but not in the model: {some(report.unexpected)}')
      if any(self._table.role_of(name) == 'representation' for name in report.unexpected):
        problems.append(
          'keep the pre-logits layer with config.model.representation_size=N (convert: '
          "--set=representation_size=N), or drop it with head='reset' (config.head=reset, convert: "
          '--head=reset)'
        )
    return problems


def _adaptable(rule: Rule, spec: Spec, expected: tuple[int, ...]) -> bool:
  """Whether a tensor of another shape than expected can be brought to the model's."""
  shape = spec.shape
  if len(expected) == 1 and shape[-1:] == expected and math.prod(shape) == expected[0]:
    return True  # (1, 1, 1, c)
  if rule.role == 'position':
    shape = shape if len(shape) == 3 else (1, *shape)
    return len(shape) == 3 and shape[0] == 1 and shape[2] == expected[2]
  if rule.role in ('patch', 'input') and len(shape) == 4:
    outputs, inputs = (0, 1) if rule.axes.startswith('o i') else (3, 2)
    if rule.role == 'input':  # of other channels alone
      return shape[:inputs] + shape[inputs + 1 :] == expected[:inputs] + expected[inputs + 1 :]
    sides = [n for axis, n in enumerate(shape) if axis != outputs]
    return shape[outputs] == expected[outputs] and max(sides) <= _MAX_PATCH
  return False
