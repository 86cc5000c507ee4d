"""Which axis of an array is divided among devices: by its shape, or by a rule for its name."""

import dataclasses
import math
import re
from collections.abc import Callable, Mapping
from typing import Any

import jax
from jax.sharding import PartitionSpec

from vit_jax import tree
from vit_jax.errors import ConfigError
from vit_jax.options import option

DATA, FSDP = 'data', 'fsdp'

# Elements below which an array stays whole: to gather it would take a message's latency, and all of
# them together are less than a thousandth of a model.
SMALL = 1024


def parse_axis(text: str) -> tuple[str, int | None]:
  """'REGEX=AXIS' as its two parts; None for 'none'.

  Raises:
    ConfigError: the text is of another form.
  """
  pattern, equals, axis = text.rpartition('=')
  try:
    if not equals:
      raise ValueError
    re.compile(pattern)
    return pattern, None if axis == 'none' else int(axis)
  except (ValueError, re.error):
    raise ConfigError(
      f"expected 'REGEX=AXIS' with the number of an axis or 'none', got {text!r}"
    ) from None


@dataclasses.dataclass(frozen=True)
class Mesh:
  data: int = option(
    1, 'fsdp: groups of devices with all of the state each; -1: as many as there are', low=-1
  )
  fsdp: int = option(
    -1,
    'fsdp: devices of a group, among which the state is divided; -1: those that are left',
    low=-1,
  )
  axes: tuple[str, ...] = option(
    (),
    "fsdp: 'REGEX=AXIS', the axis along which arrays of these names are divided, or 'none'; first "
    'match applies; others: the largest axis that divides',
    parse=parse_axis,
  )

  def sizes(self, devices: int) -> tuple[int, int]:
    """Groups, and devices of a group.

    Raises:
      ConfigError: they are not as many as there are devices.
    """
    named = f'config.mesh.data={self.data} and config.mesh.fsdp={self.fsdp}'
    if 0 in (self.data, self.fsdp) or self.data == self.fsdp == -1:
      raise ConfigError(f'{named}: expected counts from 1 on, one of them perhaps -1 for the rest')
    left = -(-devices // math.prod(n for n in (self.data, self.fsdp) if n != -1))
    data, fsdp = (left if n == -1 else n for n in (self.data, self.fsdp))
    if data * fsdp != devices:
      fits = ' or '.join(f'{devices // n} x {n}' for n in range(1, devices + 1) if devices % n == 0)
      raise ConfigError(
        f'{named} make a mesh of {data} x {fsdp} devices, and there are {devices}: use {fits}'
      )
    return data, fsdp


class Rules:
  """Where arrays of the training state are divided.

  Args:
    mesh: options.
    parts: devices that a state is divided among.
  """

  def __init__(self, mesh: Mesh, parts: int):
    self._named = [(text, *parse_axis(text)) for text in mesh.axes]
    self._parts = parts

  def axis(self, name: str, shape: tuple[int, ...]) -> int | None:
    """The axis along which an array is divided; None where it stays whole.

    Args:
      name: its path in the state: 'params/head/kernel', 'opt_state/0/mu/head/kernel'.
      shape: of the whole array.
    """
    for _, pattern, axis in self._named:
      if re.search(pattern, name):
        # An optimizer may keep arrays of other shapes under a parameter's name.
        if axis is None or (self._divides(shape, axis) and self._parts > 1):
          return axis
        break
    if math.prod(shape) < SMALL or self._parts == 1:
      return None
    fit = [axis for axis in range(len(shape)) if self._divides(shape, axis)]
    return max(fit, key=lambda axis: (shape[axis], -axis), default=None)

  def spec(self, name: str, shape: tuple[int, ...]) -> PartitionSpec:
    """The same as JAX writes it."""
    axis = self.axis(name, shape)
    if axis is None:
      return PartitionSpec()
    return PartitionSpec(*[None] * (axis % len(shape)), FSDP)  # as XLA gives it back

  def check(self, params: Mapping) -> None:
    """Refuses rules that match no parameter, or name an axis that cannot be divided.

    Args:
      params: arrays or shapes.

    Raises:
      ConfigError: naming each.
    """
    problems = []
    shapes = {f'params/{name}': x.shape for name, x in tree.flatten(params).items()}
    for text, pattern, axis in self._named:
      found = [name for name in shapes if re.search(pattern, name)]
      wrong = [n for n in found if axis is not None and not self._divides(shapes[n], axis)]
      if not found:
        problems.append(
          f'{text!r} matches no parameter; names are like {", ".join(list(shapes)[:2])}'
        )
      elif wrong:
        problems.append(
          f'{text!r}: {self._parts} devices do not divide axis {axis} of {wrong[0]} '
          f'{list(shapes[wrong[0]])}'
        )
    if problems:
      raise ConfigError([f'config.mesh.axes: {problem}' for problem in problems])

  def _divides(self, shape: tuple[int, ...], axis: int) -> bool:
    return -len(shape) <= axis < len(shape) and shape[axis] % self._parts == 0


def map_paths(function: Callable[[str, Any], Any], state: Any) -> Any:
  """Applies function(path, leaf) to a tree, with paths such as 'params/head/kernel'."""
  return jax.tree_util.tree_map_with_path(
    lambda path, x: function(jax.tree_util.keystr(path, simple=True, separator='/'), x), state
  )
