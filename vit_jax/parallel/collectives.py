"""What the devices of a compiled program send each other, read from its text."""

import dataclasses
import math
import re
from collections.abc import Iterator

KINDS = ('all-gather', 'all-reduce', 'reduce-scatter', 'all-to-all', 'collective-permute')

_BYTES = {'pred': 1, 's8': 1, 'u8': 1, 's16': 2, 'u16': 2, 'bf16': 2, 'f16': 2, 's32': 4, 'u32': 4,
          'f32': 4, 's64': 8, 'u64': 8, 'f64': 8}  # fmt: skip
_COMPUTATION = re.compile(r'^(?:ENTRY )?%?([\w.\-]+) \(.*\{$')
_COLLECTIVE = re.compile(rf'= (.*?) ({"|".join(KINDS)})(?:-start)?\(')
_ARRAY = re.compile(r'(\w+)\[([\d,]*)\]')
_CALLED = re.compile(
  r'(?:body|condition|calls|to_apply|true_computation|false_computation)=%?([\w.\-]+)'
)
_TRIPS = re.compile(r'known_trip_count"?:\{"?n"?:"?(\d+)')


@dataclasses.dataclass(frozen=True)
class Collective:
  """One instruction.

  Attributes:
    kind: one of `KINDS`.
    shapes: of the arrays that it gives on each device.
    nbytes: of these together: whole arrays for 'all-gather' and 'all-reduce', parts for
      'reduce-scatter'.
    devices: that take part in it together; 0 where the program does not say.
    times: how often it runs in one call of the program.
    source: the operation that it belongs to.
  """

  kind: str
  shapes: tuple[tuple[int, ...], ...]
  nbytes: int
  devices: int
  times: int
  source: str


def collectives(text: str) -> list[Collective]:
  """The collectives of a compiled program.

  Args:
    text: of `jax.stages.Compiled.as_text()`.
  """
  lines = list(_by_computation(text))
  times = _times(lines)
  found = []
  for computation, line in lines:
    match = _COLLECTIVE.search(line)
    if match is None:
      continue
    arrays = [
      (kind, tuple(int(n) for n in dims.split(',') if n)) for kind, dims in _ARRAY.findall(match[1])
    ]
    source = re.search(r'op_name="([^"]*)"', line)
    found.append(
      Collective(
        match[2],
        tuple(shape for _, shape in arrays),
        sum(_BYTES[kind] * math.prod(shape) for kind, shape in arrays),
        _group_size(line),
        times.get(computation, 1),
        source[1] if source else '',
      )
    )
  return found


def _by_computation(text: str) -> Iterator[tuple[str, str]]:
  """Lines of a program, each with the name of its computation; '' for the program itself."""
  name = ''
  for line in text.splitlines():
    if match := _COMPUTATION.match(line):
      name = '' if line.startswith('ENTRY') else match[1]
    elif line.startswith(' '):
      yield name, line


def _times(lines: list[tuple[str, str]]) -> dict[str, int]:
  """How often each computation runs in one call of the program, from the loops that call it."""
  callers: dict[str, list[tuple[str, int]]] = {}
  for computation, line in lines:
    trips = _TRIPS.search(line)
    for called in _CALLED.findall(line):
      callers.setdefault(called, []).append((computation, int(trips[1]) if trips else 1))

  def times(computation: str) -> int:
    if not computation:
      return 1
    return sum(count * times(caller) for caller, count in callers.get(computation, ()))

  return {computation: times(computation) for computation in {name for name, _ in lines}}


def _group_size(line: str) -> int:
  """Devices of a group, from any of the ways in which XLA writes groups."""
  if match := re.search(r'replica_groups=mesh\[([^\]]*)\].*?\{([^}]*)\}', line):
    sizes = dict(re.findall(r"'(\w+)'=(\d+)", match[1]))
    return math.prod(int(sizes[axis]) for axis in re.findall(r"'(\w+)'", match[2]))
  if match := re.search(r'replica_groups=\[\d+,(\d+)\]', line):
    return int(match[1])
  if match := re.search(r'replica_groups=\{\{([\d,]+)\}', line):
    return match[1].count(',') + 1
  return 0
