"""ResNet-50: timm's and torchvision's `resnet50`, and keras.applications.ResNet50."""

from collections.abc import Collection

import flax.linen as nn

from vit_jax.weights import preprocessing
from vit_jax.weights.mapping.family import Family, register
from vit_jax.weights.mapping.layers import (
  CONV,
  flax_dense,
  keras_batch_norm,
  torch_batch_norm,
  torch_linear,
)
from vit_jax.weights.mapping.recognition import Evidence, Recognised, choose, residual_units
from vit_jax.weights.mapping.rules import Rule
from vit_jax.weights.mapping.table import Table

_UNIT = 'block{b}/unit{u:02d}'


def _timm(our_names: Collection[str]) -> Table:
  theirs = 'layer{b}.{u-1}'
  rules = [
    Rule('conv1.weight', 'root/conv/kernel', CONV, role='input'),
    *torch_batch_norm('bn1', 'root/norm'),
  ]
  for n in '123':
    rules.append(Rule(f'{theirs}.conv{n}.weight', f'{_UNIT}/conv{n}/kernel', CONV))
    rules += torch_batch_norm(f'{theirs}.bn{n}', f'{_UNIT}/norm{n}')
  rules.append(Rule(f'{theirs}.downsample.0.weight', f'{_UNIT}/conv_proj/kernel', CONV))
  rules += torch_batch_norm(f'{theirs}.downsample.1', f'{_UNIT}/norm_proj')
  rules += torch_linear('fc', 'head', role='head')
  return Table(tuple(rules), 'layer1.0.conv1.weight')


def _keras(our_names: Collection[str]) -> Table:
  """Its convolutions have biases."""
  rules = [
    Rule('conv1_conv/kernel', 'root/conv/kernel', role='input'),
    Rule('conv1_conv/bias', 'root/conv/bias'),
    *keras_batch_norm('conv1_bn', 'root/norm'),
  ]
  for number, part in (('1', '1'), ('2', '2'), ('3', '3'), ('0', '_proj')):
    theirs = f'conv{{b+1}}_block{{u}}_{number}'
    rules += [
      *flax_dense(f'{theirs}_conv', f'{_UNIT}/conv{part}'),
      *keras_batch_norm(f'{theirs}_bn', f'{_UNIT}/norm{part}'),
    ]
  rules += flax_dense('predictions', 'head', role='head')
  return Table(tuple(rules), 'conv1_conv/kernel')


def _keras_layers() -> tuple[tuple[str, str], ...]:
  layers = [('conv2d', 'conv1_conv'), ('batch_normalization', 'conv1_bn')]
  for stage, units in zip((2, 3, 4, 5), (3, 4, 6, 3)):
    for unit in range(1, units + 1):
      # The shortcut's convolution, number 0, stands beside the third.
      for together in (('1',), ('2',), ('0', '3') if unit == 1 else ('3',)):
        names = [f'conv{stage}_block{unit}_{number}' for number in together]
        layers += [('conv2d', f'{name}_conv') for name in names]
        layers += [('batch_normalization', f'{name}_bn') for name in names]
  return (*layers, ('dense', 'predictions'))


@register
class ResNet(Family):
  """Residual networks with BatchNorm."""

  name = 'ResNet'
  tables = {'timm': _timm, 'keras': _keras}
  signs = ('layer1.0.conv1.weight', 'conv1_conv/kernel')
  fixed_fields = (*Family.fixed_fields, 'conv_bias', 'padding', 'stride_in_conv')
  keras_layers = _keras_layers()

  def model_of(self, file: Evidence) -> Recognised:
    facts = {
      'blocks': residual_units(file.shapes, 'params/'),
      'width': file.shapes['params/root/conv/kernel'][3],
    }
    if file.naming == 'keras':
      facts |= {'stride_in_conv': 1, 'conv_bias': True}
      facts['norm_epsilon'] = file.known.get('norm_epsilon', 1.001e-5)
    return Recognised(choose(facts, ['resnet50'], ('blocks',), 'resnet50'))

  def preprocess(self, model: str, naming: str, size: tuple[int, int]):
    return preprocessing.caffe(size) if naming == 'keras' else preprocessing.imagenet(size)

  def timm_architecture(self, module: nn.Module, name: str, image_size: tuple[int, int]):
    return 'resnet50', {}
