"""Recognises CaiT, T2T-ViT, Mixer, ResNet50, BiT and MobileNetV2 from the tensors of a file."""

import math
from collections.abc import Callable, Mapping
from typing import Any

from vit_jax.weights.formats.tensors import Tensors
from vit_jax.weights.mapping import tables
from vit_jax.weights.mapping.facts import choose, count, our_shapes, square

_Shapes = Mapping[str, tuple[int, ...]]


def cait(tensors: Tensors, format: str, shapes: _Shapes, known: Mapping) -> dict[str, Any]:
  kernel = shapes['params/patch_embedding/kernel']
  facts = {
    'width': kernel[3],
    'depth': count(shapes, r'^params/encoder/block_(\d+)/'),
    'class_depth': count(shapes, r'^params/class_encoder/block_(\d+)/'),
    'num_heads': shapes['params/encoder/block_00/attention/heads_before/bias'][0],
    'mlp_dim': shapes['params/encoder/block_00/mlp/fc1/bias'][0],
    'patch_size': kernel[:2],
  }
  chosen = choose(facts, ['cait_'], ('width', 'depth', 'num_heads'), 'cait_xxs24')
  return {'model': chosen, 'grid': square(shapes['params/position_embedding'][1])}


def t2t(tensors: Tensors, format: str, shapes: _Shapes, known: Mapping) -> dict[str, Any]:
  facts = {
    'tokens': 'performer' if any('kqv' in name for name in shapes) else 'transformer',
    'width': shapes['params/class_token'][2],
    'depth': count(shapes, r'^params/encoder/block_(\d+)/'),
    'mlp_dim': shapes['params/encoder/block_00/mlp/fc1/bias'][0],
  }
  key = ('tokens', 'width', 'depth', 'mlp_dim')
  chosen = choose(facts, ['t2t_vit_'], key, 't2t_vit_14')
  if 'query_scale' in known:
    chosen['query_scale'] = known['query_scale']
  positions = next((s for n, s in tensors.specs.items() if n.endswith('pos_embed')), None)
  grid = square(positions.shape[1] - 1) if positions and len(positions.shape) == 3 else None
  return {'model': chosen, 'grid': grid}


def mixer(tensors: Tensors, format: str, shapes: _Shapes, known: Mapping) -> dict[str, Any]:
  kernel = shapes['params/patch_embedding/kernel']
  tokens, hidden = shapes['params/encoder/block_00/token_mixing/fc1/kernel']
  facts = {
    'width': kernel[3],
    'depth': count(shapes, r'^params/encoder/block_(\d+)/'),
    'token_mlp_dim': hidden,
    'mlp_dim': shapes['params/encoder/block_00/channel_mixing/fc1/bias'][0],
    'patch_size': kernel[:2],
    'gelu': known.get('gelu', 'tanh' if format == 'npz' else 'exact'),
  }
  chosen = choose(facts, ['mixer_'], ('width', 'depth', 'patch_size'), 'mixer_b16')
  return {'model': chosen, 'grid': square(tokens)}


def resnet(tensors: Tensors, format: str, shapes: _Shapes, known: Mapping) -> dict[str, Any]:
  facts = {'blocks': _blocks(shapes), 'width': shapes['params/root/conv/kernel'][3]}
  if format == 'keras':
    facts |= {'stride_in_conv': 1, 'conv_bias': True, 'norm_epsilon': 1.001e-5}
  return {'model': choose(facts, ['resnet50'], ('blocks',), 'resnet50'), 'grid': None}


def bit(tensors: Tensors, format: str, shapes: _Shapes, known: Mapping) -> dict[str, Any]:
  facts = {'blocks': _blocks(shapes), 'width': shapes['params/root/conv/kernel'][3]}
  if format == 'timm':
    facts['kernel_epsilon'] = 1e-8
  return {'model': choose(facts, ['bit_'], ('blocks', 'width'), 'bit_r50x1'), 'grid': None}


def mobilenet(tensors: Tensors, format: str, shapes: _Shapes, known: Mapping) -> dict[str, Any]:
  facts = {'width_multiplier': shapes['params/stem/conv/kernel'][3] / 32}
  if format == 'keras':
    facts |= {'padding': 'same', 'norm_epsilon': 1e-3}
  return {'model': choose(facts, ['mobilenet_v2'], (), 'mobilenet_v2'), 'grid': None}


def _blocks(shapes: _Shapes) -> tuple[int, ...]:
  stages = count(shapes, r'^params/block(\d+)/')
  return tuple(max(0, count(shapes, rf'^params/block{b}/unit(\d+)/') - 1) for b in range(1, stages))


# A name that only this family has, in any of its formats; the class; who recognises its members.
SIGNS: tuple[tuple[str, str, Callable[..., dict[str, Any]]], ...] = (
  ('blocks_token_only.0.', 'CaiT', cait),
  ('tokens_to_token.project.', 'T2TViT', t2t),
  ('.mlp_tokens.fc1.weight', 'Mixer', mixer),
  ('MixerBlock_0/', 'Mixer', mixer),
  ('layer1.0.conv1.weight', 'ResNet', resnet),
  ('conv1_conv/kernel', 'ResNet', resnet),
  ('root_block/standardized_conv2d', 'BiT', bit),
  ('stages.0.blocks.0.norm1.weight', 'BiT', bit),
  ('conv_stem.weight', 'MobileNetV2', mobilenet),
  ('expanded_conv_depthwise/', 'MobileNetV2', mobilenet),
)


def other(tensors: Tensors, format: str, known: Mapping[str, Any]) -> dict[str, Any] | None:
  """The model of a family other than ViT; None where no family's sign is there.

  Raises:
    UserError: the family has no such format.
  """
  for sign, family, recognise in SIGNS:
    # A hybrid's stem looks like a ResNet, below its own prefix.
    if not any(sign in name and 'patch_embed.' not in name for name in tensors):
      continue
    traits = ['kqv'] if any('.kqv.' in name for name in tensors) else []
    shapes = our_shapes(tables.find(family, format, traits), tensors)
    try:
      found = recognise(tensors, format, shapes, known)
    except (KeyError, IndexError, ValueError, TypeError):
      return None  # its first tensors are missing or misshapen
    head = shapes.get('params/head/bias', (0,))
    return {'num_classes': math.prod(head) if head else 0, **found}
  return None
