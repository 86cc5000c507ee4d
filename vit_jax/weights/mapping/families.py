"""Recognises the members of each family of models from the tensors of a file."""

import re
from collections.abc import Mapping
from typing import Any

from vit_jax.errors import UserError
from vit_jax.weights.formats.tensors import Tensors
from vit_jax.weights.mapping import tables
from vit_jax.weights.mapping.facts import choose, count, our_shapes, square

_BLOCK = r'^params/encoder/block_(\d+)/'


def vit(tensors: Tensors, format: str, hint: str, known: Mapping[str, Any]) -> dict[str, Any]:
  """A ViT, hybrid or DeiT; see `recognise.model_of`."""
  shapes = our_shapes(tables.find('ViT', format, _traits(tensors)), tensors)
  kernel = shapes.get('params/patch_embedding/kernel', ())
  fc1 = shapes.get('params/encoder/block_00/mlp/fc1/bias', ())
  if len(kernel) != 4 or len(fc1) != 1:
    raise UserError(
      f'{tensors.path}: cannot tell which model these {len(tensors)} tensors ({format}) belong '
      'to; name it with --model'
    )
  stem = _stem(shapes)
  stride = 1 if stem is None else 4 * 2 ** max(0, len(stem) - 1)
  distilled = 'params/distillation_token' in shapes
  has_class = 'params/class_token' in shapes
  registers = shapes.get('params/registers', (1, 0, 0))[1]
  pool = 'token' if has_class else 'map' if 'params/map_pool/probe' in shapes else 'gap'
  tokens = int(has_class) + int(distilled)
  slots, grid = _positions(shapes, tokens, known.get('grid'), format)
  facts = {
    'width': kernel[3],
    'depth': count(shapes, _BLOCK),
    'mlp_dim': fc1[0],
    'patch_size': (kernel[0] * stride, kernel[1] * stride),
    'stem_blocks': stem,
    'distilled': distilled,
    'pool': pool,
    'representation_size': shapes.get('params/pre_logits/bias', (None,))[0],
    'num_registers': registers,
    'qk_norm': 'params/encoder/block_00/attention/query_norm/scale' in shapes,
    'qkv_bias': 'params/encoder/block_00/attention/qkv/bias' in shapes,
    'position_embedding': ('learned' if 'params/position_embedding' in shapes else 'sincos_2d'),
    'position_for_class_token': slots == tokens,
    'gelu': known.get('gelu', 'tanh' if format in ('npz', 'big_vision') else 'exact'),
    'norm_epsilon': known.get('norm_epsilon', 1e-6),
  }
  if stem is not None and format == 'timm':
    # timm writes the stem's two epsilons otherwise than the code that trained the weights.
    facts |= {
      'stem_epsilon': 1e-5,
      'stem_weight_epsilon': 1e-8,
      'stem_epsilon_in_variance': True,
    }
  scaled = 'params/encoder/block_00/scale1/gamma' in shapes
  key = ('width', 'depth', 'mlp_dim', 'patch_size', 'stem_blocks', 'distilled')
  chosen = choose(facts, _prefixes(hint, distilled, scaled), key, 'vit_b16')
  heads = known.get('num_heads') or _heads(tensors, format)
  _settle(chosen, facts, heads, scaled)
  classes = shapes.get('params/head/bias', (0,))[0]
  return {'model': chosen, 'num_classes': classes, 'grid': grid}


def _traits(tensors: Tensors) -> list[str]:
  """Those of our names on which a table's own names depend."""
  signs = {
    'backbone.stages': 'params/stem/block',
    'distillation_token': 'params/distillation_token',
    'reg_token': 'params/registers',
  }
  return [ours for sign, ours in signs.items() if any(sign in name for name in tensors)]


def _stem(shapes: Mapping[str, tuple]) -> tuple[int, ...] | None:
  if 'params/stem/root/conv/kernel' not in shapes:
    return None
  stages = count(shapes, r'^params/stem/block(\d+)/') - 1
  return tuple(
    count(shapes, rf'^params/stem/block{b}/unit(\d+)/') - 1 for b in range(1, stages + 1)
  )


def _positions(shapes: Mapping[str, tuple], tokens: int, known, format: str):
  """Slots of class tokens among the position embeddings, and their grid; (tokens, None): none."""
  shape = shapes.get('params/position_embedding')
  if not shape:
    return tokens, None
  n = shape[-2]
  order = (0, tokens) if format == 'big_vision' else (tokens, 0)
  for slots in order:
    if known and n - slots == known[0] * known[1]:
      return slots, tuple(known)
  for slots in order:
    if square(n - slots):
      return slots, square(n - slots)
  return order[0], None


def _prefixes(hint: str, distilled: bool, scaled: bool) -> list[str]:
  order = ['vit_', 'r_', 'r26_', 'r50_', 'deit_', 'deit3_']
  if 'deit3' in hint or 'deit_3' in hint or ('deit' in hint and scaled):
    order.insert(0, 'deit3_')
  elif 'deit' in hint or distilled:
    order.insert(0, 'deit_')
  return order


def _heads(tensors: Tensors, format: str) -> int | None:
  if format in ('npz', 'big_vision'):
    for name, spec in tensors.specs.items():
      if re.search(r'encoderblock(_0)?/MultiHeadDotProductAttention_\d/query/bias$', name):
        return spec.shape[-2]
  return None


def _settle(chosen: dict, facts: Mapping[str, Any], heads: int | None, scaled: bool) -> None:
  """Adds the fields that files do not show directly."""
  from vit_jax import models

  defaults = models.fields(chosen['name'])
  if heads is None:
    # Every published size has heads of 64 channels, or the head count of its name.
    same = 'width' not in chosen
    heads = defaults['num_heads'] if same else max(1, facts['width'] // 64)
  if heads != defaults['num_heads']:
    chosen['num_heads'] = heads
  if scaled != (defaults['layer_scale'] is not None):
    chosen['layer_scale'] = 1e-5 if scaled else None
  if facts['position_embedding'] != 'learned' or facts['pool'] != 'token':
    chosen.pop('position_for_class_token', None)
