"""MLP-Mixer: google-research/vision_transformer's files and timm's `mixer_*`."""

from collections.abc import Collection

import flax.linen as nn

from vit_jax.weights import preprocessing
from vit_jax.weights.mapping.family import Family, register
from vit_jax.weights.mapping.layers import flax_dense, norm, torch_linear, torch_patches
from vit_jax.weights.mapping.recognition import Evidence, Recognised, choose, count, square
from vit_jax.weights.mapping.rules import Rule
from vit_jax.weights.mapping.table import Table

_BLOCK = 'encoder/block_{i:02d}'


def _official(our_names: Collection[str]) -> Table:
  theirs = 'MixerBlock_{i}'
  mlps = [
    rule
    for part in ('token_mixing', 'channel_mixing')
    for n in (0, 1)
    for rule in flax_dense(f'{theirs}/{part}/Dense_{n}', f'{_BLOCK}/{part}/fc{n + 1}')
  ]
  return Table(
    (
      Rule('stem/kernel', 'patch_embedding/kernel', role='patch'),
      Rule('stem/bias', 'patch_embedding/bias'),
      *norm(f'{theirs}/LayerNorm_0', f'{_BLOCK}/norm1'),
      *norm(f'{theirs}/LayerNorm_1', f'{_BLOCK}/norm2'),
      *mlps,
      *norm('pre_head_layer_norm', 'encoder/norm'),
      *flax_dense('head', 'head', role='head'),
    ),
    'stem/kernel',
  )


def _timm(our_names: Collection[str]) -> Table:
  mlps = [
    rule
    for theirs, ours in (('tokens', 'token'), ('channels', 'channel'))
    for fc in ('fc1', 'fc2')
    for rule in torch_linear(f'blocks.{{i}}.mlp_{theirs}.{fc}', f'{_BLOCK}/{ours}_mixing/{fc}')
  ]
  return Table(
    (
      *torch_patches('stem.proj'),
      *norm('blocks.{i}.norm1', f'{_BLOCK}/norm1', 'weight'),
      *norm('blocks.{i}.norm2', f'{_BLOCK}/norm2', 'weight'),
      *mlps,
      *norm('norm', 'encoder/norm', 'weight'),
      *torch_linear('head', 'head', role='head'),
    ),
    'stem.proj.weight',
  )


@register
class Mixer(Family):
  """Mixers of tokens and channels."""

  name = 'Mixer'
  tables = {'npz': _official, 'timm': _timm}
  signs = ('.mlp_tokens.fc1.weight', 'MixerBlock_0/')

  def model_of(self, file: Evidence) -> Recognised:
    shapes = file.shapes
    kernel = shapes['params/patch_embedding/kernel']
    tokens, hidden = shapes['params/encoder/block_00/token_mixing/fc1/kernel']
    facts = {
      'width': kernel[3],
      'depth': count(shapes, r'^params/encoder/block_(\d+)/'),
      'token_mlp_dim': hidden,
      'mlp_dim': shapes['params/encoder/block_00/channel_mixing/fc1/bias'][0],
      'patch_size': kernel[:2],
      'gelu': file.known.get('gelu', 'tanh' if file.naming == 'npz' else 'exact'),
    }
    chosen = choose(facts, ['mixer_'], ('width', 'depth', 'patch_size'), 'mixer_b16')
    return Recognised(chosen, square(tokens))

  def preprocess(self, model: str, naming: str, size: tuple[int, int]):
    return preprocessing.google(size)

  def timm_architecture(self, module: nn.Module, name: str, image_size: tuple[int, int]):
    size = list(image_size)
    return f'{name}_224', {} if size == [224, 224] else {'img_size': size}
