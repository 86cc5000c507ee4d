"""What a run is about to do, said before anything is compiled."""

import math
import os
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from clu import parameter_overview

from vit_jax import runtime
from vit_jax.config import Config
from vit_jax.models.attention import chosen_attention
from vit_jax.models.heads import backbone_of, with_backbone
from vit_jax.models.stack import chosen_scan
from vit_jax.optimizers import Factors
from vit_jax.tree import flatten


def count(params: dict) -> int:
  """How many numbers a tree of arrays or shapes holds."""
  return sum(math.prod(x.shape) for x in jax.tree.leaves(params))


def bytes_of(arrays: Any) -> int:
  """Memory of a tree of arrays or shapes."""
  leaves = [x for x in jax.tree.leaves(arrays) if hasattr(x, 'dtype')]
  return sum(math.prod(x.shape) * x.dtype.itemsize for x in leaves)  # keys have one too


def activation_bytes(module: nn.Module, variables: dict, image_shape: tuple[int, ...]) -> int:
  """What one forward pass keeps for the backward pass, from shapes alone.

  The residuals of `jax.vjp` are traced, not computed. XLA fuses some away and adds temporaries, so
  this is an estimate. Rematerialised blocks count once, for the one that is computed again.

  Args:
    module: the model.
    variables: arrays or shapes.
    image_shape: [b, h, w, c] on one device, of one accumulation part.
  """

  def residuals(params, rest, images, key):
    def forward(p):
      return module.apply(
        {'params': p, **rest}, images, train=True, rngs={'dropout': key}, mutable=list(rest)
      )

    return jax.vjp(forward, params, has_aux=True)[1]

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
  return found + activation_bytes(plain, variables, image_shape) // body.depth


def describe(
  config: Config,
  module: nn.Module,
  state: Any,
  devices: list[jax.Device],
  image_hw: tuple[int, int],
  examples: dict[str, int],
  total_steps: int,
) -> str:
  """The plan as text.

  Args:
    config: the run's options.
    module: the model.
    state: `TrainState` of arrays or shapes.
    devices: those that share a batch.
    image_hw: height and width of the model's input, pixels.
    examples: pictures by split.
    total_steps: updates in all.
  """
  h, w = image_hw
  on_device = config.batch_size // len(devices)
  part = on_device // config.accumulate
  activations = activation_bytes(module, state.variables, (part, h, w, 3))
  weights, optimizer = bytes_of(state.params), bytes_of(state.opt_state)
  average = bytes_of(state.ema)
  second = weights if config.optimizer.sam_rho else 0  # SAM keeps one gradient for the other
  total = 2 * weights + optimizer + average + second + activations
  epochs = total_steps * config.batch_size / examples['train']
  kind = devices[0].device_kind
  pictures = ', '.join(f'{n:,} {split}' for split, n in examples.items())
  rows = {
    'devices': f'{len(devices)} x {kind} in {jax.process_count()} processes, {config.parallel}',
    'batch': f'{config.batch_size} = {len(devices)} devices x {config.accumulate} parts x {part}',
    'model': f'{config.model["name"]}, {count(state.params):,} parameters',
    'input': f'{h} x {w} pixels{_tokens(module, h, w)}',
    'pictures': pictures,
    'length': f'{total_steps:,} steps = {epochs:.4g} epochs',
    'memory': f'about {_size(total)} a device: weights {_size(weights)}, gradients '
    f'{_size(weights + second)}, optimizer {_size(optimizer)}'
    f'{f", average {_size(average)}" if average else ""}, '
    f'activations {_size(activations)}',
    'computing': _computing(module),
    **runtime.describe(),
  }
  return '\n'.join(f'  {name:9} {text}' for name, text in rows.items())


def _computing(module: nn.Module) -> str:
  """The choices that change speed but not results, 'auto' as what it stands for here."""
  body = backbone_of(module)
  words = [body.dtype]
  if hasattr(body, 'attention'):
    head_dim = body.width // body.num_heads
    words.append(f'attention {chosen_attention(body.attention, head_dim, body.dtype)}')
  if hasattr(body, 'remat'):
    scanned = chosen_scan(body.scan, body.remat)
    words.append(f'blocks {"scanned" if scanned else "written out"}, remat {body.remat}')
  return ', '.join([*words, f'XLA flags: {os.environ.get("XLA_FLAGS", "").strip() or "none"}'])


def parameter_table(params: dict, factors: dict[str, Factors], frozen: frozenset[str]) -> str:
  """Every parameter with shape, type and size, then how each is trained."""
  overview = parameter_overview.get_parameter_overview(params, include_stats=False)
  rows = [f'{name:60} {_training(name, factors, frozen)}' for name in flatten(params)]
  return '\n'.join([overview, '', *rows, ''])


def describe_factors(params: dict, factors: dict[str, Factors], frozen: frozenset[str]) -> str:
  """Parameters by learning rate and weight decay; every parameter is in one row."""
  groups: dict[str, list[str]] = {}
  for name in flatten(params):
    groups.setdefault(_training(name, factors, frozen), []).append(name)
  flat = flatten(params)
  width = max(map(len, groups))
  return '\n'.join(
    f'  {text:{width}}  {sum(math.prod(flat[name].shape) for name in names):>12,} in '
    f'{len(names)}: {names[0]}{" ..." if len(names) > 1 else ""}'
    for text, names in groups.items()
  )


def _training(name: str, factors: dict[str, Factors], frozen: frozenset[str]) -> str:
  if name in frozen:
    return 'frozen'
  return f'rate x {factors[name].rate:.4g}, decay x {factors[name].decay:.4g}'


def parameter_summary(params: dict) -> str:
  """Parameters by part: the two upper levels of names."""
  parts: dict[str, int] = {}
  for name, leaf in flatten(params).items():
    part = (
      '/'.join(name.split('/')[:2])
      if name.startswith(('encoder/', 'stem/'))
      else (name.split('/')[0])
    )
    parts[part] = parts.get(part, 0) + math.prod(leaf.shape)
  width = max(map(len, parts))
  return '\n'.join(f'  {name:{width}} {size:>12,}' for name, size in parts.items())


def _tokens(module: nn.Module, h: int, w: int) -> str:
  module = backbone_of(module)
  patch = getattr(module, 'patch_size', None)
  if patch is None:
    return ''
  ph, pw = patch
  prefix = getattr(module, 'num_prefix_tokens', 0)
  return f', {h // ph} x {w // pw} patches + {prefix} tokens'


def _size(n: int) -> str:
  return f'{n / 2**30:.2f} GiB' if n >= 2**30 else f'{n / 2**20:.0f} MiB'
