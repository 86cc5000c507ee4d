"""MobileNetV2: timm's `mobilenetv2_100` and keras.applications.MobileNetV2."""

from collections.abc import Collection
from typing import Any

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
from vit_jax.weights.mapping.recognition import Evidence, Recognised, choose
from vit_jax.weights.mapping.rules import Rule
from vit_jax.weights.mapping.table import Table

# (stage, number in the stage) of each block. Source: Sandler et al. 2018 (1801.04381), table 2.
_PLACES = [
  (stage, j) for stage, repeats in enumerate((1, 2, 3, 4, 3, 3, 1)) for j in range(repeats)
]


def _timm(our_names: Collection[str]) -> Table:
  rules = [
    Rule('conv_stem.weight', 'stem/conv/kernel', CONV, role='input'),
    *torch_batch_norm('bn1', 'stem/norm'),
    Rule('conv_head.weight', 'last/conv/kernel', CONV),
    *torch_batch_norm('bn2', 'last/norm'),
    *torch_linear('classifier', 'head', role='head'),
  ]
  first = (('depthwise', 'conv_dw'), ('project', 'conv_pw'))
  others = (('expand', 'conv_pw'), ('depthwise', 'conv_dw'), ('project', 'conv_pwl'))
  for i, (stage, j) in enumerate(_PLACES):
    for n, (part, conv) in enumerate(first if i == 0 else others, 1):
      theirs, ours = f'blocks.{stage}.{j}', f'block_{i:02d}/{part}'
      rules.append(Rule(f'{theirs}.{conv}.weight', f'{ours}/conv/kernel', CONV))
      rules += torch_batch_norm(f'{theirs}.bn{n}', f'{ours}/norm')
  return Table(tuple(rules), 'conv_stem.weight')


def _keras(our_names: Collection[str]) -> Table:
  rules = [
    Rule('Conv1/kernel', 'stem/conv/kernel', role='input'),
    *keras_batch_norm('bn_Conv1', 'stem/norm'),
    Rule('Conv_1/kernel', 'last/conv/kernel'),
    *keras_batch_norm('Conv_1_bn', 'last/norm'),
    *flax_dense('predictions', 'head', role='head'),
  ]
  for i, theirs in enumerate(_KERAS_BLOCKS):
    for part in ('expand', 'depthwise', 'project'):
      # Keras keeps depthwise kernels as [h, w, channels, 1].
      axes = 'h w c 1 -> h w 1 c' if part == 'depthwise' else ''
      also = (f'{theirs}_{part}/depthwise_kernel',) if part == 'depthwise' else ()
      ours = f'block_{i:02d}/{part}'
      rules.append(Rule(f'{theirs}_{part}/kernel', f'{ours}/conv/kernel', axes, also=also))
      rules += keras_batch_norm(f'{theirs}_{part}_BN', f'{ours}/norm')
  return Table(tuple(rules), 'Conv1/kernel')


_KERAS_BLOCKS = ('expanded_conv', *(f'block_{i}' for i in range(1, len(_PLACES))))


def _keras_layers() -> tuple[tuple[str, str], ...]:
  layers = [('conv2d', 'Conv1'), ('batch_normalization', 'bn_Conv1')]
  for block in _KERAS_BLOCKS:
    for part in ('expand', 'depthwise', 'project'):
      if (block, part) != ('expanded_conv', 'expand'):
        kind = 'depthwise_conv2d' if part == 'depthwise' else 'conv2d'
        layers += [(kind, f'{block}_{part}'), ('batch_normalization', f'{block}_{part}_BN')]
  return (
    *layers,
    ('conv2d', 'Conv_1'),
    ('batch_normalization', 'Conv_1_bn'),
    ('dense', 'predictions'),
  )


@register
class MobileNetV2(Family):
  """Inverted residual blocks with depthwise convolutions."""

  name = 'MobileNetV2'
  tables = {'timm': _timm, 'keras': _keras}
  signs = ('conv_stem.weight', 'expanded_conv_depthwise/')
  fixed_fields = (*Family.fixed_fields, 'padding')
  keras_layers = _keras_layers()

  def model_of(self, file: Evidence) -> Recognised:
    # Several multipliers have the same width of the stem, which is rounded.
    width = file.shapes[f'params/block_{len(_PLACES) - 1:02d}/project/conv/kernel'][3]
    facts: dict[str, Any] = {'width_multiplier': width / 320}
    if file.naming == 'keras':
      facts |= {'padding': 'same', 'norm_epsilon': file.known.get('norm_epsilon', 1e-3)}
    return Recognised(choose(facts, ['mobilenet_v2'], (), 'mobilenet_v2'))

  def preprocess(self, model: str, naming: str, size: tuple[int, int]):
    return preprocessing.google(size) if naming == 'keras' else preprocessing.imagenet(size)

  def timm_architecture(self, module: nn.Module, name: str, image_size: tuple[int, int]):
    return 'mobilenetv2_100', {}
