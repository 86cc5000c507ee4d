"""BiT: google-research/big_transfer's files and timm's `resnetv2_*_bit`."""

from collections.abc import Collection

import flax.linen as nn

from vit_jax.weights import preprocessing
from vit_jax.weights.mapping.family import Family, register
from vit_jax.weights.mapping.layers import CONV, norm
from vit_jax.weights.mapping.recognition import Evidence, Recognised, choose, residual_units
from vit_jax.weights.mapping.rules import Rule
from vit_jax.weights.mapping.table import Table

_UNIT = 'block{b}/unit{u:02d}'


def _official(our_names: Collection[str]) -> Table:
  unit = 'resnet/block{b}/unit{u:02d}'
  rules = [
    Rule('resnet/root_block/standardized_conv2d/kernel', 'root/conv/kernel', role='input'),
    Rule(f'{unit}/a/proj/standardized_conv2d/kernel', f'{_UNIT}/conv_proj/kernel'),
  ]
  for letter, n in zip('abc', '123'):
    rules += [
      Rule(f'{unit}/{letter}/standardized_conv2d/kernel', f'{_UNIT}/conv{n}/kernel'),
      Rule(f'{unit}/{letter}/group_norm/gamma', f'{_UNIT}/norm{n}/scale'),
      Rule(f'{unit}/{letter}/group_norm/beta', f'{_UNIT}/norm{n}/bias'),
    ]
  rules += [
    Rule('resnet/group_norm/gamma', 'norm/scale'),
    Rule('resnet/group_norm/beta', 'norm/bias'),
    Rule('resnet/head/conv2d/kernel', 'head/kernel', '1 1 d c -> d c', role='head'),
    Rule('resnet/head/conv2d/bias', 'head/bias', role='head'),
  ]
  renames = ((r'(standardized_conv2d|group_norm|conv2d)_\d+/', r'\1/'),)
  return Table(tuple(rules), 'resnet/root_block/standardized_conv2d/kernel', renames)


def _timm(our_names: Collection[str]) -> Table:
  unit = 'stages.{b-1}.blocks.{u-1}'
  rules = [
    Rule('stem.conv.weight', 'root/conv/kernel', CONV, role='input'),
    Rule(f'{unit}.downsample.conv.weight', f'{_UNIT}/conv_proj/kernel', CONV),
  ]
  for n in '123':
    rules.append(Rule(f'{unit}.conv{n}.weight', f'{_UNIT}/conv{n}/kernel', CONV))
    rules += norm(f'{unit}.norm{n}', f'{_UNIT}/norm{n}', 'weight')
  rules += [
    *norm('norm', 'norm', 'weight'),
    Rule('head.fc.weight', 'head/kernel', 'o i 1 1 -> i o', role='head'),
    Rule('head.fc.bias', 'head/bias', role='head'),
  ]
  return Table(tuple(rules), 'stem.conv.weight')


@register
class BiT(Family):
  """Residual networks with GroupNorm and standardised kernels."""

  name = 'BiT'
  tables = {'npz': _official, 'timm': _timm}
  signs = ('root_block/standardized_conv2d', 'stages.0.blocks.0.norm1.weight')
  fixed_fields = (*Family.fixed_fields, 'kernel_epsilon')

  def model_of(self, file: Evidence) -> Recognised:
    facts = {
      'blocks': residual_units(file.shapes, 'params/'),
      'width': file.shapes['params/root/conv/kernel'][3],
    }
    if file.naming == 'timm':
      facts['kernel_epsilon'] = 1e-8
    return Recognised(choose(facts, ['bit_'], ('blocks', 'width'), 'bit_r50x1'))

  def preprocess(self, model: str, naming: str, size: tuple[int, int]):
    return preprocessing.google(size)

  def timm_architecture(self, module: nn.Module, name: str, image_size: tuple[int, int]):
    return f'resnetv2_{name.removeprefix("bit_r")}_bit', {}
