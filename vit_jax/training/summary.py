"""The run summary: what a run is about to do, before anything is compiled."""

import dataclasses
import math
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from clu import parameter_overview

from vit_jax import processes, runtime
from vit_jax.config import Config
from vit_jax.errors import counted, dimensions
from vit_jax.models import convs
from vit_jax.models.attention import chosen_attention
from vit_jax.models.heads import backbone_of, with_backbone
from vit_jax.models.shapes import title
from vit_jax.models.stack import chosen_scan
from vit_jax.optimizers import Factors
from vit_jax.report.text import size as size_text
from vit_jax.training.experiment import Experiment
from vit_jax.training.train_state import TrainState
from vit_jax.tree import flatten, merge, split


def count(params: Mapping) -> int:
  """Elements of a tree of arrays or shapes."""
  return sum(math.prod(x.shape) for x in jax.tree.leaves(params))


def bytes_of(arrays: Any) -> int:
  """Memory of a tree of arrays or shapes."""
  leaves = [x for x in jax.tree.leaves(arrays) if hasattr(x, 'dtype')]
  return sum(math.prod(x.shape) * x.dtype.itemsize for x in leaves)  # keys have one too


def activation_bytes(
  module: nn.Module,
  variables: Mapping,
  image_shape: tuple[int, ...],
  frozen: frozenset[str] = frozenset(),
) -> int:
  """Bytes of the residuals that a forward pass stores for the backward pass, from shapes alone.

  The residuals of `jax.vjp` are traced, not computed. XLA fuses some away and adds temporaries, so
  this is an estimate. Rematerialised blocks count once, for the one that is computed again.

  Args:
    module: the model.
    variables: arrays or shapes.
    image_shape: [b, h, w, c] on one device, of one gradient accumulation step.
    frozen: names of parameters that have no gradient.
  """

  def residuals(params, rest, images, key):
    trained, fixed = split(params, frozen)

    def forward(p):
      params = merge(p, fixed)
      return module.apply(
        {'params': params, **rest}, images, train=True, rngs={'dropout': key}, mutable=list(rest)
      )

    return jax.vjp(forward, trained, has_aux=True)[1]

  rest = {k: v for k, v in variables.items() if k != 'params'}
  images = jax.ShapeDtypeStruct(image_shape, jnp.float32)
  key = jax.eval_shape(lambda: jax.random.key(0))
  kept = jax.eval_shape(residuals, variables['params'], rest, images, key)
  weights = {(x.shape, x.dtype) for x in jax.tree.leaves(variables['params'])}
  found = bytes_of([x for x in jax.tree.leaves(kept) if (x.shape, x.dtype) not in weights])
  body = backbone_of(module)
  if getattr(body, 'remat', 'none') != 'block':
    return found
  plain = with_backbone(module, remat='none')
  return found + activation_bytes(plain, variables, image_shape, frozen) // body.depth


def description(
  config: Config,
  experiment: Experiment,
  state: TrainState,
  devices: Sequence[jax.Device],
  total_steps: int,
  memory: Mapping[str, int],
  libraries: str,
) -> str:
  """The run summary as text.

  Args:
    config, experiment: of the run.
    state: of arrays or shapes.
    devices: those that share a batch.
    total_steps: updates in all.
    memory: bytes on a device by what they are for.
    libraries: what computes matmuls and convolutions, see `kernels.describe`.
  """
  module, (h, w) = experiment.module, experiment.image_hw
  n, kind = len(devices), devices[0].device_kind
  part = config.batch_size // n // config.accumulate
  epochs = total_steps * config.batch_size / len(experiment.train)
  dataset = experiment.dataset
  rows = {
    'devices': f'{n} x {kind} in {counted(processes.count(), "process", "processes")}, '
    f'{config.parallel}',
    'batch': f'{config.batch_size} = {shares_text(n, config.accumulate)} x {part}',
    'model': f'{title(experiment.model_record)}, {count(state.params):,} parameters',
    'input': f'{dimensions((h, w))}{tokens_text(module, h, w)}',
    'dataset': f'{dataset.name} ({dataset.kind})',
    **dataset.found,
    'images': split_text(experiment),
    'classes': f'{len(dataset.classes):,}',
    'length': f'{counted(total_steps, "step")} = {counted(epochs, "epoch")}',
    'memory': memory_text(memory),
    'precision': _precision(module),
    'convolutions': convs.forms() if _convolves(experiment.shapes) else '',
    'libraries': libraries,
    **runtime.describe(),
  }
  lines = [f'  {name:9} {text}' for name, text in rows.items() if text]
  return '\n'.join([*lines, *(f'  note: {note}' for note in notes(config, experiment))])


def shares_text(devices: int, accumulate: int) -> str:
  """'8 devices x 1 gradient accumulation step', among which a batch is divided."""
  steps = counted(accumulate, 'gradient accumulation step')
  return f'{counted(devices, "device")} x {steps}'


def split_sizes(experiment: Experiment) -> dict[str, int]:
  """Images by split, those of training first."""
  held_out = {role: len(examples) for role, examples in experiment.held_out.items()}
  return {'train': len(experiment.train), **held_out}


def split_text(experiment: Experiment) -> str:
  """'1,297 train, 200 val'."""
  return ', '.join(f'{size:,} {role}' for role, size in split_sizes(experiment).items())


def notes(config: Config, experiment: Experiment) -> list[str]:
  """Which splits are missing, with splits to set instead; boxes without use, or for want of one."""
  wanted = {'val': config.dataset.val, 'test': config.dataset.test}
  missing = [role for role, spec in wanted.items() if spec and role not in experiment.held_out]
  first = 100 - 10 * len(missing)
  slices = {'train': f'train[:{first}%]'}
  for i, role in enumerate(missing):
    start, end = first + 10 * i, first + 10 * (i + 1)
    slices[role] = f'train[{start}%:{end}%]' if end < 100 else f'train[{start}%:]'
  words = [f'config.dataset.{role}={spec!r}' for role, spec in slices.items()]
  dataset, task = experiment.dataset, experiment.task
  unused = dataset.has_boxes and not task.needs_boxes and dataset.labels_per_image == 'one'
  boxes = (
    f'the boxes of {dataset.name} ({dataset.kind}) are not used: task.name={config.task.name!r} '
    "learns classes alone, and config.task.name='boxes' boxes too"
  )
  return (
    [boxes] * unused
    + (_without_box(experiment) if task.needs_boxes else [])
    + [
      f'{experiment.dataset.name} has no split {wanted[role]!r}, so there is no {role} '
      f'metric; set {", ".join(words[:-1])} and {words[-1]}, say, or config.dataset.resplit=true'
      for role in missing
    ]
  )


def _without_box(experiment: Experiment) -> list[str]:
  """That some training images have their class alone, where they do."""
  train = experiment.train
  rows = np.flatnonzero(~train.has_box)
  if not len(rows):
    return []
  lacking = f'{len(rows):,} of {counted(len(train), "training image")} have no box'
  return [f'{lacking}, such as {train.id(int(rows[0]))}: of these the class alone is learned']


def memory_parts(
  config: Config,
  state: TrainState,
  share: Callable[[Any], int] = bytes_of,
  frozen: frozenset[str] = frozenset(),
) -> dict[str, int]:
  """Bytes on a device of what a state's shapes tell, by what they are for.

  Args:
    config: of the run.
    state: of arrays or shapes.
    share: a placement's bytes on a device of a part of the state.
    frozen: names of parameters that are not trained.
  """
  return {
    'parameters': share({'params': state.params}),
    # SAM keeps one gradient for the other
    'gradients': share({'params': split(state.params, frozen)[0]})
    * (2 if config.optimizer.sam_rho else 1),
    'optimizer': share({'opt_state': state.opt_state}),
    'EMA': share({'ema': state.ema}),
  }


def memory_text(parts: Mapping[str, int]) -> str:
  """Their sum, then each."""
  words = ', '.join(f'{name} {size_text(size)}' for name, size in parts.items() if size)
  return f'about {size_text(sum(parts.values()))} per device: {words}'


def _precision(module: nn.Module) -> str:
  """The choices that change speed but not results, 'auto' as what it means here."""
  body = backbone_of(module)
  words = [body.dtype]
  if hasattr(body, 'attention'):
    head_dim = body.width // body.num_heads
    words.append(f'attention {chosen_attention(body.attention, head_dim, body.dtype)}')
  if hasattr(body, 'remat'):
    scanned = chosen_scan(body.scan, body.remat)
    words.append(f'blocks {"scanned" if scanned else "unrolled"}, remat {body.remat}')
  return ', '.join([*words, f'XLA flags: {os.environ.get("XLA_FLAGS", "").strip() or "none"}'])


def _convolves(shapes: Mapping[str, Any]) -> bool:
  """Whether a model has convolutions besides those that embed patches."""
  kernels = [name for name, x in flatten(shapes).items() if len(x.shape) == 4]
  return any('conv' in name for name in kernels)


@dataclasses.dataclass(frozen=True)
class Parameters:
  """What is said of a model's parameters.

  Attributes:
    table: every parameter with shape, type and size, then how each is trained.
    counts: elements by part of the model.
    groups: parameters by learning rate and weight decay, each in one group.
  """

  table: str
  counts: str
  groups: str


def describe_parameters(
  params: Mapping, factors: Mapping[str, Factors], frozen: frozenset[str]
) -> Parameters:
  """Counts and training of every parameter.

  Args:
    params: arrays or shapes.
    factors: of learning rate and weight decay, by name.
    frozen: names of parameters that are not trained.
  """
  sizes = {name: math.prod(leaf.shape) for name, leaf in flatten(params).items()}
  trained = {
    name: 'frozen'
    if name in frozen
    else f'LR x {factors[name].rate:.4g}, WD x {factors[name].decay:.4g}'
    for name in sizes
  }
  overview = parameter_overview.get_parameter_overview(params, include_stats=False)
  rows = [f'{name:60} {how}' for name, how in trained.items()]
  parts: dict[str, int] = {}
  groups: dict[str, list[str]] = {}
  for name, size in sizes.items():
    depth = 2 if name.startswith(('encoder/', 'stem/')) else 1
    part = '/'.join(name.split('/')[:depth])
    parts[part] = parts.get(part, 0) + size
    groups.setdefault(trained[name], []).append(name)
  widths = max(map(len, parts)), max(map(len, groups))
  return Parameters(
    table='\n'.join([overview, '', *rows, '']),
    counts='\n'.join(f'  {part:{widths[0]}} {size:>12,}' for part, size in parts.items()),
    groups='\n'.join(
      f'  {how:{widths[1]}}  {sum(sizes[n] for n in names):>12,} in {len(names)}: {names[0]}'
      f'{" ..." if len(names) > 1 else ""}'
      for how, names in groups.items()
    ),
  )


def tokens_text(module: nn.Module, h: int, w: int) -> str:
  """', 14 x 14 patches + 1 tokens'; '' for a model without patches."""
  module = backbone_of(module)
  patch = getattr(module, 'patch_size', None)
  if patch is None:
    return ''
  ph, pw = patch
  prefix = getattr(module, 'num_prefix_tokens', 0)
  return f', {w // pw} x {h // ph} patches + {prefix} tokens'
