"""Compute, communication and memory a device of ViTs on pods, on paper; the tables of
docs/scaling.md.

python -m benchmarks.scaling            prints the tables
python -m benchmarks.scaling --write    writes them into docs/scaling.md

Nothing here was measured on a pod. Numbers of a model are those of this code, from shapes; what is
sent is what tests/parallel/test_eight.py finds in compiled programs; figures of machines are
the makers'; what is assumed stands in capitals below.
"""

import dataclasses
import functools
import itertools
import math
import pathlib
import sys

import jax

from vit_jax import models
from vit_jax.console import show
from vit_jax.models.shapes import variable_shapes
from vit_jax.training import flops, summary

DOCUMENT = pathlib.Path(__file__).resolve().parents[1] / 'docs' / 'scaling.md'
DTYPE, DTYPE_BYTES = 'bfloat16', 2  # of the computation, so of gathered weights and of gradients
CLASSES, SIZE = 1000, 224
# Assumptions.
UTILISATION = 0.5  # of the peak while matmuls run and nothing is waited for
USABLE = 0.9  # of a device's memory
BATCH, LEAST = 4096, 16  # global batch size; images a device where that would be fewer
MODELS = ('vit_b16', 'vit_l16', 'vit_h14', 'vit_g14', 'vit_gg14')
DEVICES = (8, 32, 128, 512, 4096)


@dataclasses.dataclass(frozen=True)
class Machine:
  """A kind of device and how it is connected.

  Attributes:
    name: for the table.
    flops: peak of half-precision matmuls a second.
    memory: bytes.
    node: devices that the inner network connects.
    inner, outer: bytes a second into a device from others of its node, and into a whole node.
  """

  name: str
  flops: float
  memory: float
  node: int
  inner: float
  outer: float


MACHINES = (
  # 1,200 GB/s in and out of a chip together; one slice has up to 6,144 chips, here one "node".
  Machine('TPU v5p', 459e12, 95 * 2**30, 6144, 600e9, math.inf),
  # NVLink: 900 GB/s in and out together; ConnectX-7: 8 x 400 Gb/s each way.
  Machine('H100, NVLink and 8 x 400 Gb/s', 989e12, 80e9, 8, 450e9, 400e9),
  # NVLink inside; 1,000 Gb/s for a machine of 8.
  Machine('H100, NVLink and 1,000 Gb/s Ethernet', 989e12, 80e9, 8, 450e9, 125e9),
)


@dataclasses.dataclass(frozen=True)
class Model:
  """What a model needs, from shapes.

  Attributes:
    params: elements, and those of the blocks among them.
    flops: forward and backward, an image.
    activations: bytes an image keeps for the backward pass; by remat.
    block: elements of one block.
    divides: the largest mesh that divides every large array.
  """

  params: int
  blocks: int
  block: int
  flops: float
  activations: dict[str, float]
  divides: int


@functools.cache
def model(name: str) -> Model:
  """The needs of a registered ViT; blocks are alike, so those of one and two are computed."""
  depth = models.fields(name)['depth']
  found = []
  for layers in (1, 2):
    module = models.build(name, CLASSES, depth=layers, dtype=DTYPE, attention='einsum')
    shapes = variable_shapes(module, (SIZE, SIZE))
    image = (1, SIZE, SIZE, 3)
    found.append(
      (
        summary.count(shapes['params']),
        flops.training_flops(module, shapes, image),
        summary.activation_bytes(module, shapes, image),
      )
    )
  (p1, f1, a1), (p2, f2, a2) = found
  block, tokens = p2 - p1, (SIZE // models.fields(name)['patch_size'][0]) ** 2 + 1
  kept = tokens * models.fields(name)['width'] * DTYPE_BYTES  # a block's input
  large = [x.shape for x in jax.tree.leaves(shapes['params']) if math.prod(x.shape) >= 1 << 20]
  return Model(
    params=p1 + (depth - 1) * block,
    blocks=depth * block,
    block=block,
    flops=f1 + (depth - 1) * (f2 - f1),
    activations={
      'none': a1 + (depth - 1) * (a2 - a1),
      'block': a1 + depth * kept,
    },
    divides=min(max(n & -n for n in shape) for shape in large),
  )


def gathered(divided: float, again: float, dtype_bytes: int) -> float:
  """Bytes of weights that a device gathers in a step, its own among them.

  Args:
    divided: elements of divided weights, each of which the forward pass gathers and leaves to the
      backward pass.
    again: elements of those that the backward pass gathers again: of blocks that are computed
      again, and kernels of spatial convolutions, which it needs turned around.
    dtype_bytes: of the computation's type.
  """
  return dtype_bytes * (divided + again)


def received(whole: float, parts: int) -> float:
  """Bytes into a device when an array is gathered from parts, or reduced to parts."""
  return whole * (parts - 1) / parts


def seconds(whole: float, parts: int, machine: Machine, stride: int = 1) -> float:
  """Of one gathering or scattering.

  Args:
    whole: bytes of the array.
    parts: devices that hold a part each.
    machine: what they are.
    stride: distance between two of them; others send as much through the same node's network.
  """
  inside = max(1, min(parts, machine.node // stride))
  nodes = parts // inside
  within = received(whole, inside) / machine.inner
  if nodes == 1:
    return within
  # Each of a node's groups brings a copy of what the other nodes hold into the node.
  groups = min(stride, machine.node)
  return max(within, groups * received(whole, nodes) / machine.outer)


@dataclasses.dataclass(frozen=True)
class Choice:
  """One way to train: how the state is divided, what is computed again, in how many parts.

  Attributes:
    data, fsdp: the mesh; fsdp=1 is `parallel=data`.
    remat: as the model's field.
    accumulate: gradient accumulation steps.
    memory: bytes on a device.
    compute, communicate: seconds.
  """

  data: int
  fsdp: int
  remat: str
  accumulate: int
  memory: float
  compute: float
  communicate: float

  @property
  def seconds(self) -> float:
    """Of a step that sends nothing while it computes: at most this, at least the longer of both."""
    return self.compute + self.communicate


def choose(name: str, machine: Machine, devices: int) -> Choice | None:
  """The quickest way that fits; of those within 2 %, the one that divides and recomputes least."""
  images = max(BATCH // devices, LEAST)
  sizes = [2**i for i in range(13) if 2**i <= min(devices, model(name).divides)]
  steps = [2**i for i in range(10) if 2**i <= images]
  found = [
    choice(name, machine, devices, images, fsdp, remat, accumulate)
    for fsdp, remat, accumulate in itertools.product(sizes, ('none', 'block'), steps)
  ]
  fit = [c for c in found if c.memory <= USABLE * machine.memory]
  if not fit:
    return None
  best = min(c.seconds for c in fit)
  return next(c for c in fit if c.seconds <= 1.02 * best)


def choice(
  name: str, machine: Machine, devices: int, images: int, fsdp: int, remat: str, accumulate: int
) -> Choice:
  """The costs of one way to train with AdamW in float32, without EMA."""
  m, data = model(name), devices // fsdp
  part = math.ceil(images / accumulate)
  weights = m.params / fsdp
  held = 0.0
  if fsdp > 1:  # all weights until the backward pass, or those of two blocks
    held = DTYPE_BYTES * (m.params if remat == 'none' else m.params - m.blocks + 2 * m.block)
  gradients = 4 * weights * (2 if accumulate > 1 else 1)
  memory = 12 * weights + gradients + held + part * m.activations[remat]
  again = m.blocks if remat == 'block' else 0
  compute = (4 / 3 if again else 1) * images * m.flops / (UTILISATION * machine.flops)
  grads = DTYPE_BYTES * m.params
  send = 0.0
  if fsdp > 1:
    send += seconds(gathered(m.params, again, DTYPE_BYTES), fsdp, machine)
    send += seconds(grads, fsdp, machine)
  if data > 1:  # reduced and gathered again
    send += 2 * seconds(grads / fsdp, data, machine, stride=fsdp)
  return Choice(data, fsdp, remat, accumulate, memory, compute, accumulate * send)


def tables() -> str:
  """The models' needs, then the choice for each machine and number of devices, as Markdown."""
  lines = [
    '| model | parameters | GFLOP/image | state, gradients, GB | MB kept/image | with remat |',
    '|---|--:|--:|--:|--:|--:|',
  ]
  for name in MODELS:
    m = model(name)
    lines.append(
      f'| {name} | {m.params / 1e6:,.0f} M | {m.flops / 1e9:,.0f} | {16 * m.params / 1e9:.1f} | '
      f'{m.activations["none"] / 1e6:,.0f} | {m.activations["block"] / 1e6:,.0f} |'
    )
  for machine in MACHINES:
    lines += [
      '',
      f'{machine.name}:',
      '',
      '| model | devices | images | data x fsdp | remat | accumulate | GB | compute ms | send ms |',
      '|---|--:|--:|---|---|--:|--:|--:|--:|',
    ]
    for name, devices in itertools.product(MODELS, DEVICES):
      lines.append(row(name, machine, devices))
  return '\n'.join(lines) + '\n'


def row(name: str, machine: Machine, devices: int) -> str:
  """One choice as a row of a table."""
  c = choose(name, machine, devices)
  images = max(BATCH // devices, LEAST)
  if c is None:
    return f'| {name} | {devices:,} | {images} | does not fit | | | | | |'
  mesh = f'{c.data:,} x {c.fsdp}' if c.fsdp > 1 else 'data'
  return (
    f'| {name} | {devices:,} | {images} | {mesh} | {c.remat} | {c.accumulate} | '
    f'{c.memory / 1e9:.0f} | {1e3 * c.compute:,.0f} | {1e3 * c.communicate:,.1f} |'
  )


BEGIN, END = '<!-- tables: python -m benchmarks.scaling --write -->', '<!-- end of tables -->'


def main() -> int:
  """Prints the tables, or writes them into the document."""
  if '--write' not in sys.argv[1:]:
    show(tables())
    return 0
  before, rest = DOCUMENT.read_text('utf-8').split(BEGIN)
  after = rest.split(END)[1]
  DOCUMENT.write_text(f'{before}{BEGIN}\n{tables()}{END}{after}', 'utf-8')
  return 0


if __name__ == '__main__':
  sys.exit(main())
