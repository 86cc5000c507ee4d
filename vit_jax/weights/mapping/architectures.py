"""Our model names in the words of timm."""

import re
from typing import Any

from vit_jax.errors import UserError

_SIZES = {
  'ti': 'tiny',
  's': 'small',
  'm': 'medium',
  'b': 'base',
  'l': 'large',
  'h': 'huge',
  'g': 'giant',
  'gg': 'gigantic',
}
_HYBRIDS = {
  'r_ti16': 'vit_tiny_r_s16_p8_224',
  'r26_s32': 'vit_small_r26_s32_224',
  'r26_b32': 'vit_base_r26_s32_224',
  'r50_b16': 'vit_base_r50_s16_224',
  'r50_l16': 'vit_base_r50_s16_224',
  'r50_l32': 'vit_large_r50_s32_224',
}
# Patch sizes under which timm has a name; others start from one of these and say patch_size.
_PATCHES = {'tiny': (16,), 'small': (8, 16, 32), 'base': (8, 16, 32), 'large': (14, 16, 32)}


def timm_model(module: Any, name: str, image_size: tuple[int, int]) -> tuple[str, dict[str, Any]]:
  """timm's architecture and the arguments that make it the same as a module of ours.

  Args:
    module: a model.
    name: the name it was built by.
    image_size: (h, w) in pixels.

  Raises:
    UserError: timm has no such model.
  """
  if type(module).__name__ != 'ViT':
    return _other_family(module, name, image_size)
  arguments: dict[str, Any] = {}
  match = re.fullmatch(r'(vit|deit|deit3)_([a-z]+)(\d+)(_distilled)?', name)
  if name in _HYBRIDS:
    architecture = _HYBRIDS[name]
  elif match:
    family, size, patch, distilled = match.groups()
    size, patch = _SIZES[size], int(patch)
    known = _PATCHES.get(size, (14,)) if family == 'vit' else (patch,)
    named = patch if patch in known else 16 if 16 in known else known[0]
    architecture = f'{family}_{size}{distilled or ""}_patch{named}_224'
    if named != module.patch_size[0]:
      arguments['patch_size'] = module.patch_size[0]
  else:
    architecture = 'vit_base_patch16_224'
  arguments |= {
    'embed_dim': module.width,
    'depth': module.depth,
    'num_heads': module.num_heads,
    'mlp_ratio': module.mlp_dim / module.width,
  }
  if tuple(image_size) != (224, 224):
    arguments['img_size'] = list(image_size)
  if module.gelu == 'tanh':
    arguments['act_layer'] = 'gelu_tanh'
  arguments |= _vit_arguments(module)
  return architecture, arguments


def _vit_arguments(module: Any) -> dict[str, Any]:
  found: dict[str, Any] = {}
  if module.pool == 'gap':
    found |= {'global_pool': 'avg', 'class_token': False, 'fc_norm': False}
  elif module.pool == 'map':
    found |= {'global_pool': 'map', 'class_token': False}
  if module.num_registers:
    found |= {'reg_tokens': module.num_registers, 'no_embed_class': True}
  elif module.pool == 'token' and not module.position_for_class_token:
    found['no_embed_class'] = True
  if module.layer_scale is not None:
    found['init_values'] = module.layer_scale
  if module.qk_norm:
    found['qk_norm'] = True
  if not module.qkv_bias:
    found['qkv_bias'] = False
  return found


def _other_family(
  module: Any, name: str, image_size: tuple[int, int]
) -> tuple[str, dict[str, Any]]:
  """timm's name of a model that is no ViT; its sizes are those of the name."""
  family = type(module).__name__
  if family in ('CaiT', 'Mixer'):
    size = list(image_size)
    return f'{name}_224', {} if size == [224, 224] else {'img_size': size}
  known = {'ResNet': 'resnet50', 'MobileNetV2': 'mobilenetv2_100'}
  if family == 'BiT':
    return f'resnetv2_{name.removeprefix("bit_r")}_bit', {}
  if family not in known:
    raise UserError(f'timm has no {family} models: write a .safetensors file instead of a folder')
  return known[family], {}
