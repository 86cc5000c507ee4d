"""CaiT: timm's `cait_*`, whose names are those of the authors' files."""

from collections.abc import Collection

import flax.linen as nn

from vit_jax.weights import preprocessing
from vit_jax.weights.mapping.family import Family, register
from vit_jax.weights.mapping.layers import (
  MERGE_HEADS,
  norm,
  torch_block,
  torch_linear,
  torch_patches,
  torch_split_heads,
)
from vit_jax.weights.mapping.recognition import Evidence, Recognised, choose, count, square
from vit_jax.weights.mapping.rules import Rule
from vit_jax.weights.mapping.table import Table

_BLOCK = 'encoder/block_{i:02d}'


def _timm(our_names: Collection[str]) -> Table:
  classes, ours = 'blocks_token_only.{i}', 'class_encoder/block_{i:02d}'
  gains = [
    Rule(f'{theirs}.gamma_{n}', f'{mine}/scale{n}/gamma')
    for theirs, mine in (('blocks.{i}', _BLOCK), (classes, ours))
    for n in (1, 2)
  ]
  block = [r for r in torch_block('blocks.{i}', _BLOCK) if 'gamma' not in r.our_names[0]]
  return Table(
    (
      *torch_patches('patch_embed.proj'),
      Rule('cls_token', 'class_token', role='token'),
      Rule('pos_embed', 'position_embedding', role='position'),
      *gains,
      *block,
      *torch_linear('blocks.{i}.attn.proj_l', f'{_BLOCK}/attention/heads_before'),
      *torch_linear('blocks.{i}.attn.proj_w', f'{_BLOCK}/attention/heads_after'),
      *norm(f'{classes}.norm1', f'{ours}/norm1', 'weight'),
      *torch_split_heads(f'{classes}.attn.q', f'{ours}/attention/query'),
      *torch_split_heads(f'{classes}.attn.k', f'{ours}/attention/key'),
      *torch_split_heads(f'{classes}.attn.v', f'{ours}/attention/value'),
      *torch_linear(f'{classes}.attn.proj', f'{ours}/attention/out', MERGE_HEADS),
      *norm(f'{classes}.norm2', f'{ours}/norm2', 'weight'),
      *torch_linear(f'{classes}.mlp.fc1', f'{ours}/mlp/fc1'),
      *torch_linear(f'{classes}.mlp.fc2', f'{ours}/mlp/fc2'),
      *norm('norm', 'norm', 'weight'),
      *torch_linear('head', 'head', role='head'),
    ),
    'patch_embed.proj.weight',
  )


@register
class CaiT(Family):
  """Class-attention models."""

  name = 'CaiT'
  tables = {'timm': _timm}
  signs = ('blocks_token_only.0.',)
  fixed_fields = (*Family.fixed_fields, 'layer_scale')

  def model_of(self, file: Evidence) -> Recognised:
    shapes = file.shapes
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
    return Recognised(chosen, square(shapes['params/position_embedding'][1]))

  def preprocess(self, model: str, naming: str, size: tuple[int, int]):
    return preprocessing.imagenet(size, crop_fraction=1.0)

  def timm_architecture(self, module: nn.Module, name: str, image_size: tuple[int, int]):
    size = list(image_size)
    return f'{name}_224', {} if size == [224, 224] else {'img_size': size}
