"""A model of ours and another library's, timed in turns: medians of alternating rounds, and ratios.

Every peer is a process of its own that lives through all rounds and computes only when it is its
turn, with the same batch of uint8 images, the same precision, cross-entropy and AdamW. PyTorch's
take a GPU where there is one, as JAX does; there, leave them memory with
XLA_PYTHON_CLIENT_PREALLOCATE=false.
"""

import dataclasses
import pathlib
import statistics
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from vit_jax.benchmark.peer import Peer, alternate

PARTS = ('train', 'infer')

# What each process runs: it defines train() and infer(), which return when all is computed.
DATA = """
import numpy as np
batch, size, classes, dtype = words['batch'], words['size'], words['classes'], words['dtype']
images = np.random.default_rng(0).integers(0, 256, (batch, size, size, 3), np.uint8)
labels = np.arange(batch) % classes
"""

OURS = """
from vit_jax import runtime
runtime.start()
runtime.prepare_jax()
import jax
from vit_jax import kernels, models, rng
from vit_jax.benchmark.measure import training_step
from vit_jax.data import Preprocess
module = models.build(words['model'], classes, **words['fields'])
zeros = np.zeros((1, size, size, 3), np.float32)
variables = jax.jit(module.init, static_argnames='train')(rng.stream(0, 'params'), zeros,
                                                          train=False)
step, state = training_step(module, variables, classes)
del variables
normalize = Preprocess('decode').normalize
forward = kernels.jit(lambda v, x: module.apply(v, normalize(x), train=False))
x = jax.device_put({'image': images, 'label': labels})
key = rng.stream(0, 'dropout')
def train():
  global state
  state, metrics = step(state, x, key)
  jax.block_until_ready((state, metrics))
def infer():
  forward(state.variables, x['image']).block_until_ready()
"""

TORCH = """
import torch
library = torch.library.Library('torchvision', 'DEF')  # a torchvision without its operators
for op in ('nms', 'qnms'):
  try: library.define(op + '(Tensor dets, Tensor scores, float iou_threshold) -> Tensor')
  except RuntimeError: pass
on_gpu = torch.cuda.is_available()
device = 'cuda' if on_gpu else 'cpu'
MAKE
optimizer = torch.optim.AdamW(model.parameters(), 1e-4, fused=on_gpu)
x, y = torch.from_numpy(images).to(device), torch.from_numpy(labels).to(device)
def logits():
  with torch.autocast(device, torch.bfloat16, enabled=dtype == 'bfloat16'):
    return forward(((x.float() / 127.5) - 1).permute(0, 3, 1, 2)).float()
def finish():
  if on_gpu: torch.cuda.synchronize()
def train():
  model.train()
  optimizer.zero_grad(set_to_none=True)
  torch.nn.functional.cross_entropy(logits(), y).backward()
  optimizer.step()
  finish()
def infer():
  model.eval()
  with torch.inference_mode(): logits()
  finish()
"""

_TIMM = """import timm
model = timm.create_model(words['architecture'], num_classes=classes, **words['arguments'])
model = model.to(device)
forward = model"""

PEERS = {
  'timm': TORCH.replace('MAKE', _TIMM),
  'timm_compiled': TORCH.replace('MAKE', _TIMM + '\nforward = torch.compile(model)'),
}


@dataclasses.dataclass(frozen=True)
class Timing:
  """One peer's times.

  Attributes:
    rates: images/s, {part: median}.
    first_steps: seconds of the first call, {part: seconds}.
    memory_mib: peak memory of the process.
  """

  rates: dict[str, float]
  first_steps: dict[str, float]
  memory_mib: float


def compare(
  name: str,
  peers: Sequence[str] = ('timm',),
  *,
  python: str = sys.executable,
  batch_size: int = 16,
  image_size: int = 224,
  classes: int = 1000,
  rounds: int = 8,
  parts: Sequence[str] = PARTS,
  fields: Mapping[str, Any] | None = None,
) -> dict[str, Timing]:
  """Times a model in turns with the same architecture in timm.

  Args:
    name: of our model.
    peers: of PEERS.
    python: the interpreter that has their packages.
    batch_size: global.
    image_size: pixels.
    classes: outputs of the head.
    rounds: of which each peer has one turn for each part.
    parts: of PARTS.
    fields: of the model.

  Raises:
    WeightsError: timm has no such model.
    DependencyError: a peer could not be started, or ended.
  """
  from vit_jax import models
  from vit_jax.weights.mapping.family import family_of

  module = models.build(name, classes, **(fields or {}))
  models.check_image_size(module, (image_size, image_size))
  size = (image_size, image_size)
  architecture, arguments = family_of(module).timm_architecture(module, name, size)
  words = {
    'batch': batch_size,
    'size': image_size,
    'classes': classes,
    'dtype': module.dtype,
    'model': name,
    'fields': dict(fields or {}),
    'architecture': architecture,
    'arguments': arguments,
  }
  root = str(pathlib.Path(__file__).resolve().parents[2])
  codes = {'vit_jax': (sys.executable, OURS, root)}
  codes |= {peer: (python, PEERS[peer], '') for peer in peers}
  return time_in_turns(codes, words, rounds, parts)


def time_in_turns(
  codes: Mapping[str, tuple[str, str, str]],
  words: Mapping[str, Any],
  rounds: int,
  parts: Sequence[str] = PARTS,
) -> dict[str, Timing]:
  """Times programs that define train() and infer().

  Args:
    codes: {name: (interpreter, code, first folder of its module search path)}.
    words: what they find under that name: 'batch', 'size', 'classes', 'dtype' and their own.
    rounds: turns of each after the first call.
    parts: of PARTS.
  """
  running: list[Peer] = []
  try:
    for name, (python, code, path) in codes.items():
      running.append(Peer(name, python, DATA + code, dict(words), path))
    first = {peer.name: {part: peer.time(part) for part in parts} for peer in running}
    seconds = alternate([(peer, part) for part in parts for peer in running], rounds)
    return {
      peer.name: Timing(
        {part: words['batch'] / statistics.median(seconds[peer.name, part]) for part in parts},
        first[peer.name],
        peer.memory,
      )
      for peer in running
    }
  finally:
    for peer in running:
      peer.stop()


def table(timings: Mapping[str, Timing]) -> str:
  """Rates with our ratio to each (more is faster), first steps and memory; ours comes first."""
  (ours_name, ours), *others = timings.items()

  def line(title: str, cells: Sequence[str]) -> str:
    return f'  {title:22}' + ''.join(f'{cell:>16}' for cell in cells)

  lines = [line('', list(timings))]
  for part in ours.rates:
    ratios = [f'{ours.rates[part] / other.rates[part]:.2f}x' for _, other in others]
    lines += [
      line(f'{part}, images/s', [f'{t.rates[part]:.2f}' for t in timings.values()]),
      line(f'  {ours_name} is', ['', *ratios]),
      line(f'{part}, first step, s', [f'{t.first_steps[part]:.1f}' for t in timings.values()]),
    ]
  return '\n'.join(
    [*lines, line('peak memory, MiB', [f'{t.memory_mib:.0f}' for t in timings.values()])]
  )
