"""ResNet50, BiT and MobileNetV2: timm (and torchvision), Keras, and BiT's official npz."""

from collections.abc import Collection

from vit_jax.weights.mapping.rules import Rule, norm, torch_linear
from vit_jax.weights.mapping.table import Table

_CONV = 'o i h w -> h w i o'
_UNIT = 'block{b}/unit{u:02d}'
_COUNTERS = r'num_batches_tracked$'
# MobileNetV2 (1801.04381) table 2: blocks in each stage.
_REPEATS = (1, 2, 3, 4, 3, 3, 1)


def _batch_norm(theirs: str, ours: str, words: tuple[str, str, str, str]) -> list[Rule]:
  scale, bias, mean, variance = (f'{theirs}{w}' for w in words)
  return [
    Rule(scale, f'{ours}/scale'),
    Rule(bias, f'{ours}/bias'),
    Rule(mean, f'{ours}/mean', collection='batch_stats'),
    Rule(variance, f'{ours}/var', collection='batch_stats'),
  ]


def _torch_norm(theirs: str, ours: str) -> list[Rule]:
  return _batch_norm(theirs, ours, ('.weight', '.bias', '.running_mean', '.running_var'))


def _keras_norm(theirs: str, ours: str) -> list[Rule]:
  return _batch_norm(theirs, ours, ('/gamma', '/beta', '/moving_mean', '/moving_variance'))


def resnet_timm(names: Collection[str]) -> Table:
  """`resnet50` of timm and torchvision, whose names are the same."""
  theirs = 'layer{b}.{u-1}'
  rules = [
    Rule('conv1.weight', 'root/conv/kernel', _CONV, role='input'),
    *_torch_norm('bn1', 'root/norm'),
  ]
  for n in '123':
    rules.append(Rule(f'{theirs}.conv{n}.weight', f'{_UNIT}/conv{n}/kernel', _CONV))
    rules += _torch_norm(f'{theirs}.bn{n}', f'{_UNIT}/norm{n}')
  rules.append(Rule(f'{theirs}.downsample.0.weight', f'{_UNIT}/conv_proj/kernel', _CONV))
  rules += _torch_norm(f'{theirs}.downsample.1', f'{_UNIT}/norm_proj')
  rules += torch_linear('fc', 'head', role='head')
  return Table(tuple(rules), 'layer1.0.conv1.weight', ignored=_COUNTERS)


def resnet_keras(names: Collection[str]) -> Table:
  """`keras.applications.ResNet50`; its convolutions have biases."""
  rules = [
    Rule('conv1_conv/kernel', 'root/conv/kernel', role='input'),
    Rule('conv1_conv/bias', 'root/conv/bias'),
    *_keras_norm('conv1_bn', 'root/norm'),
  ]
  for number, part in (('1', '1'), ('2', '2'), ('3', '3'), ('0', '_proj')):
    theirs = f'conv{{b+1}}_block{{u}}_{number}'
    rules += [
      Rule(f'{theirs}_conv/kernel', f'{_UNIT}/conv{part}/kernel'),
      Rule(f'{theirs}_conv/bias', f'{_UNIT}/conv{part}/bias'),
      *_keras_norm(f'{theirs}_bn', f'{_UNIT}/norm{part}'),
    ]
  rules += [
    Rule('predictions/kernel', 'head/kernel', role='head'),
    Rule('predictions/bias', 'head/bias', role='head'),
  ]
  return Table(tuple(rules), 'conv1_conv/kernel')


def bit_official(names: Collection[str]) -> Table:
  """The `.npz` files of google-research/big_transfer."""
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


def bit_timm(names: Collection[str]) -> Table:
  """timm's `resnetv2_*_bit`."""
  unit = 'stages.{b-1}.blocks.{u-1}'
  rules = [
    Rule('stem.conv.weight', 'root/conv/kernel', _CONV, role='input'),
    Rule(f'{unit}.downsample.conv.weight', f'{_UNIT}/conv_proj/kernel', _CONV),
  ]
  for n in '123':
    rules.append(Rule(f'{unit}.conv{n}.weight', f'{_UNIT}/conv{n}/kernel', _CONV))
    rules += norm(f'{unit}.norm{n}', f'{_UNIT}/norm{n}', 'weight')
  rules += [
    *norm('norm', 'norm', 'weight'),
    Rule('head.fc.weight', 'head/kernel', 'o i 1 1 -> i o', role='head'),
    Rule('head.fc.bias', 'head/bias', role='head'),
  ]
  return Table(tuple(rules), 'stem.conv.weight')


def _places() -> list[tuple[int, int, int]]:
  """(number over all blocks, stage, number in the stage)."""
  pairs = [(stage, j) for stage, count in enumerate(_REPEATS) for j in range(count)]
  return [(i, stage, j) for i, (stage, j) in enumerate(pairs)]


def mobilenet_timm(names: Collection[str]) -> Table:
  """timm's `mobilenetv2_100`."""
  rules = [
    Rule('conv_stem.weight', 'stem/conv/kernel', _CONV, role='input'),
    *_torch_norm('bn1', 'stem/norm'),
    Rule('conv_head.weight', 'last/conv/kernel', _CONV),
    *_torch_norm('bn2', 'last/norm'),
    *torch_linear('classifier', 'head', role='head'),
  ]
  first = (('depthwise', 'conv_dw'), ('project', 'conv_pw'))
  others = (('expand', 'conv_pw'), ('depthwise', 'conv_dw'), ('project', 'conv_pwl'))
  for i, stage, j in _places():
    for n, (ours, theirs) in enumerate(first if i == 0 else others, 1):
      mine = f'block_{i:02d}/{ours}'
      rules.append(Rule(f'blocks.{stage}.{j}.{theirs}.weight', f'{mine}/conv/kernel', _CONV))
      rules += _torch_norm(f'blocks.{stage}.{j}.bn{n}', f'{mine}/norm')
  return Table(tuple(rules), 'conv_stem.weight', ignored=_COUNTERS)


def mobilenet_keras(names: Collection[str]) -> Table:
  """`keras.applications.MobileNetV2`."""
  rules = [
    Rule('Conv1/kernel', 'stem/conv/kernel', role='input'),
    *_keras_norm('bn_Conv1', 'stem/norm'),
    Rule('Conv_1/kernel', 'last/conv/kernel'),
    *_keras_norm('Conv_1_bn', 'last/norm'),
    Rule('predictions/kernel', 'head/kernel', role='head'),
    Rule('predictions/bias', 'head/bias', role='head'),
  ]
  for i, _, _ in _places():
    theirs = 'expanded_conv' if i == 0 else f'block_{i}'
    for part in ('expand', 'depthwise', 'project'):
      # Keras keeps depthwise kernels as [h, w, channels, 1].
      axes = 'h w c 1 -> h w 1 c' if part == 'depthwise' else ''
      also = (f'{theirs}_{part}/depthwise_kernel',) if part == 'depthwise' else ()
      ours = f'block_{i:02d}/{part}'
      rules.append(Rule(f'{theirs}_{part}/kernel', f'{ours}/conv/kernel', axes, also=also))
      rules += _keras_norm(f'{theirs}_{part}_BN', f'{ours}/norm')
  return Table(tuple(rules), 'Conv1/kernel')
