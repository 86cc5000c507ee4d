"""ViT, hybrids and DeiT: the official files, big_vision's, timm's (and DeiT's), Hugging Face's."""

import logging
import re
from collections.abc import Collection, Mapping
from typing import Any

import flax.linen as nn
import numpy as np

from vit_jax import models
from vit_jax.data.preprocess import Preprocess
from vit_jax.errors import WeightsError
from vit_jax.models import posemb
from vit_jax.weights import preprocessing
from vit_jax.weights.mapping.family import Family, register
from vit_jax.weights.mapping.layers import (
  CONV,
  flax_attention_pool,
  flax_block,
  flax_dense,
  flax_renames,
  hf_block,
  norm,
  timm_attention_pool,
  torch_block,
  torch_linear,
  torch_patches,
)
from vit_jax.weights.mapping.recognition import (
  Evidence,
  Recognised,
  choose,
  count,
  residual_units,
  square,
)
from vit_jax.weights.mapping.rules import Rule
from vit_jax.weights.mapping.table import Table

log = logging.getLogger(__name__)

_BLOCK = 'encoder/block_{i:02d}'
_STEM_UNIT = 'stem/block{b}/unit{u:02d}'

# Official files have the names from before Linen, which counted all layers of a block together:
# norm 0, attention 1, norm 2, mlp 3. Other programs, timm for one, read no others of this format.
_BEFORE_LINEN, _OF_LINEN = (1, 2, 3), (0, 1, 0)
# transformers 5 has other names in memory and writes the older ones; files may have either.
_NEWER_HF = (
  (r'^(vit\.|deit\.|)layers\.(\d+)\.', r'\1encoder.layer.\2.'),
  (r'\.attention\.q_proj\.', '.attention.attention.query.'),
  (r'\.attention\.k_proj\.', '.attention.attention.key.'),
  (r'\.attention\.v_proj\.', '.attention.attention.value.'),
  (r'\.attention\.o_proj\.', '.attention.output.dense.'),
  (r'(encoder\.layer\.\d+)\.mlp\.fc1\.', r'\1.intermediate.dense.'),
  (r'(encoder\.layer\.\d+)\.mlp\.fc2\.', r'\1.output.dense.'),
)


def _official(our_names: Collection[str]) -> Table:
  """The `.npz` files of google-research/vision_transformer."""
  position = 'Transformer/posembed_input/pos_embedding'
  return Table(_flax(position, _BEFORE_LINEN), 'embedding/kernel', flax_renames(_BEFORE_LINEN))


def _big_vision(our_names: Collection[str]) -> Table:
  """The `.npz` files of google-research/big_vision: no position embedding for the class token."""
  return Table(
    _flax('pos_embedding', _OF_LINEN),
    'embedding/kernel',
    (*flax_renames(_OF_LINEN), (r'Transformer/posembed_input/pos_embedding$', 'pos_embedding')),
    stacked='Transformer/encoderblock/',
    unstacked='Transformer/encoderblock_{i}/',
    class_slot=False,
  )


def _flax(position: str, numbers: tuple[int, int, int]) -> tuple[Rule, ...]:
  return (
    Rule('embedding/kernel', 'patch_embedding/kernel', role='patch'),
    Rule('embedding/bias', 'patch_embedding/bias'),
    Rule('cls', 'class_token', role='token'),
    Rule(position, 'position_embedding', role='position'),
    *flax_block('Transformer/encoderblock_{i}', _BLOCK, numbers),
    *norm('Transformer/encoder_norm', 'encoder/norm'),
    *flax_attention_pool('MAPHead_0', 'map_pool'),
    *flax_dense('pre_logits', 'pre_logits', role='representation'),
    *flax_dense('head', 'head', role='head'),
    *_flax_stem(),
  )


def _flax_stem() -> list[Rule]:
  unit = 'block{b}/unit{u}'
  rules = [
    Rule('conv_root/kernel', 'stem/root/conv/kernel', role='input'),
    *norm('gn_root', 'stem/root/norm'),
  ]
  for part in ('1', '2', '3', '_proj'):
    rules.append(Rule(f'{unit}/conv{part}/kernel', f'{_STEM_UNIT}/conv{part}/kernel'))
    rules += norm(f'{unit}/gn{part}', f'{_STEM_UNIT}/norm{part}')
  return rules


def _timm(our_names: Collection[str]) -> Table:
  """timm's `vit_*` and DeiT's own files, which share their names."""
  return Table(
    (
      *torch_patches('patch_embed.proj'),
      Rule('cls_token', 'class_token', role='token'),
      Rule('dist_token', 'distillation_token', role='token'),
      Rule('reg_token', 'registers'),
      Rule('pos_embed', 'position_embedding', role='position'),
      *torch_block('blocks.{i}', _BLOCK),
      *norm('norm', 'encoder/norm', 'weight'),
      *timm_attention_pool('attn_pool', 'map_pool'),
      *torch_linear('pre_logits.fc', 'pre_logits', role='representation'),
      *torch_linear('head', 'head', role='head'),
      *torch_linear('head_dist', 'head_distillation', role='head'),
      *_timm_stem(our_names),
    ),
    'patch_embed.proj.weight',
    ignored=r'^mask_token$',
    class_slot='params/registers' not in our_names,
  )


def _timm_stem(our_names: Collection[str]) -> list[Rule]:
  # A stem that is a root alone is not wrapped in a ResNet there.
  staged = any(name.startswith('params/stem/block') for name in our_names)
  root = 'patch_embed.backbone' + ('.stem' if staged else '')
  unit = 'patch_embed.backbone.stages.{b-1}.blocks.{u-1}'
  rules = [
    Rule(f'{root}.conv.weight', 'stem/root/conv/kernel', CONV, role='input'),
    *norm(f'{root}.norm', 'stem/root/norm', 'weight'),
  ]
  for theirs, part in (('{}1', '1'), ('{}2', '2'), ('{}3', '3'), ('downsample.{}', '_proj')):
    conv, gn = theirs.format('conv'), theirs.format('norm')
    rules.append(Rule(f'{unit}.{conv}.weight', f'{_STEM_UNIT}/conv{part}/kernel', CONV))
    rules += norm(f'{unit}.{gn}', f'{_STEM_UNIT}/norm{part}', 'weight')
  return rules


def _hugging_face(our_names: Collection[str]) -> Table:
  """`ViTForImageClassification` and `ViTModel`; with two tokens, those of DeiT."""
  distilled = 'params/distillation_token' in our_names
  tower = 'deit' if distilled else 'vit'  # the word in front of all names but the head's
  embeddings = f'{tower}.embeddings'
  return Table(
    (
      *torch_patches(f'{embeddings}.patch_embeddings.projection'),
      Rule(f'{embeddings}.cls_token', 'class_token', role='token'),
      Rule(f'{embeddings}.distillation_token', 'distillation_token', role='token'),
      Rule(f'{embeddings}.position_embeddings', 'position_embedding', role='position'),
      *hf_block(f'{tower}.encoder.layer.{{i}}', _BLOCK),
      *norm(f'{tower}.layernorm', 'encoder/norm', 'weight'),
      *torch_linear(f'{tower}.pooler.dense', 'pre_logits', role='representation'),
      *torch_linear('cls_classifier' if distilled else 'classifier', 'head', role='head'),
      *torch_linear('distillation_classifier', 'head_distillation', role='head'),
      Rule(f'{tower}.encoder.layer.{{i}}.layer_scale1.lambda1', f'{_BLOCK}/scale1/gamma'),
      Rule(f'{tower}.encoder.layer.{{i}}.layer_scale2.lambda1', f'{_BLOCK}/scale2/gamma'),
    ),
    f'{embeddings}.patch_embeddings.projection.weight',
    (
      *_NEWER_HF,
      (r'^(vit|deit|dinov2)\.', f'{tower}.'),
      (r'(encoder\.layer\.\d+)\.norm1\.', r'\1.layernorm_before.'),  # DINOv2
      (r'(encoder\.layer\.\d+)\.norm2\.', r'\1.layernorm_after.'),
      # A bare ViTModel has no word in front.
      (r'^(embeddings|encoder|layernorm|pooler)\.', rf'{tower}.\1.'),
    ),
    ignored=r'embeddings\.mask_token$|position_ids$',
  )


@register
class ViT(Family):
  """Plain transformers of patches, some with a ResNet below or a distillation token."""

  name = 'ViT'
  tables = {'npz': _official, 'big_vision': _big_vision, 'timm': _timm, 'hf': _hugging_face}
  variants = {
    'backbone.stages': 'params/stem/block',
    'distillation_token': 'params/distillation_token',
    'reg_token': 'params/registers',
  }
  fixed_fields = (
    *Family.fixed_fields,
    'layer_scale',
    'num_registers',
    'pool',
    'position_embedding',
    'position_for_class_token',
    'qk_norm',
    'qkv_bias',
    'stem_epsilon',
  )
  fallback = True

  def recognises(self, names: Collection[str]) -> bool:
    return True  # `model_of` decides

  def model_of(self, file: Evidence) -> Recognised | None:
    shapes, known = file.shapes, file.known
    kernel = shapes['params/patch_embedding/kernel']
    (mlp_dim,) = shapes['params/encoder/block_00/mlp/fc1/bias']
    if len(kernel) != 4:
      return None
    stem = None
    if 'params/stem/root/conv/kernel' in shapes:
      stem = residual_units(shapes, 'params/stem/')
    stride = 1 if stem is None else 4 * 2 ** max(0, len(stem) - 1)
    distilled = 'params/distillation_token' in shapes
    has_class = 'params/class_token' in shapes
    scaled = 'params/encoder/block_00/scale1/gamma' in shapes
    tokens = int(has_class) + int(distilled)
    slots, grid = _slots_and_grid(file, tokens)
    google = file.naming in ('npz', 'big_vision')
    facts = {
      'width': kernel[3],
      'depth': count(shapes, r'^params/encoder/block_(\d+)/'),
      'mlp_dim': mlp_dim,
      'patch_size': (kernel[0] * stride, kernel[1] * stride),
      'stem_blocks': stem,
      'distilled': distilled,
      'pool': 'token' if has_class else 'map' if 'params/map_pool/probe' in shapes else 'gap',
      'representation_size': shapes.get('params/pre_logits/bias', (None,))[0],
      'num_registers': shapes.get('params/registers', (1, 0, 0))[1],
      'qk_norm': 'params/encoder/block_00/attention/query_norm/scale' in shapes,
      'qkv_bias': 'params/encoder/block_00/attention/qkv/bias' in shapes,
      'position_embedding': 'learned' if 'params/position_embedding' in shapes else 'sincos_2d',
      'position_for_class_token': slots == tokens,
      'gelu': known.get('gelu', 'tanh' if google else 'exact'),
      'norm_epsilon': known.get('norm_epsilon', 1e-12 if file.naming == 'hf' else 1e-6),
    }
    if has_class and known.get('global_pool') in ('avg', 'avgmax', 'max', 'map'):
      raise WeightsError(
        f'{file.tensors.path}: global_pool={known["global_pool"]!r} with a class token: our models '
        'classify by the class token, or average the patches of a model without one'
      )
    if stem is not None and file.naming == 'timm':
      facts['stem_epsilon'] = 1e-5  # another one than in the code that trained the weights
    key = ('width', 'depth', 'mlp_dim', 'patch_size', 'stem_blocks', 'distilled')
    chosen = choose(facts, _prefixes(file.hint, distilled, scaled), key, 'vit_b16')
    heads = known.get('num_heads') or _heads(file)
    _add_unseen_fields(chosen, facts, heads, scaled)
    if heads is None and 'width' in chosen:
      log.warning(
        '%s does not state its number of attention heads: assuming %d for a width of %d; give '
        'another with num_heads=N (convert: --set=num_heads=N)',
        file.tensors.path, chosen.get('num_heads') or models.fields(chosen['name'])['num_heads'],
        kernel[3],
      )  # fmt: skip
    return Recognised(chosen, grid, preprocess=_self_supervised(file, grid, kernel[0], scaled))

  def problems(self, naming: str, module: nn.Module) -> list[str]:
    problems = []
    if naming == 'hf' and module.layer_scale is not None:
      problems.append("the hf format's ViT has no LayerScale, this model has")
    if module.position_embedding == 'none' and naming in ('timm', 'hf', 'npz'):
      problems.append(f'the {naming} format has position embeddings, this model has none')
    if naming == 'hf' and module.pool != 'token':
      problems.append(f"the hf format has pool='token' alone, this model has {module.pool!r}")
    if naming == 'hf' and module.patch_size[0] != module.patch_size[1]:
      problems.append('the hf format has square patches alone')
    if module.representation_size is not None and (
      naming == 'timm' or (naming == 'hf' and module.num_classes)
    ):
      problems.append(
        f'the {naming} format has no pre-logits layer before a head; --head=reset drops both'
      )
    return problems

  def to_write(
    self,
    arrays: Mapping[str, np.ndarray],
    naming: str,
    module: nn.Module,
    image_size: tuple[int, int],
  ) -> dict[str, np.ndarray]:
    arrays = dict(arrays)
    if naming in ('timm', 'hf', 'npz'):
      arrays |= _computed_positions(module, image_size)
    if not self.table(naming, arrays).class_slot and 'params/class_token' in arrays:
      position = arrays.get('params/position_embedding')
      if position is not None:
        h, w = (n // p for n, p in zip(image_size, module.patch_size))
        arrays |= _without_slots(arrays['params/class_token'], position, position.shape[1] - h * w)
    return arrays

  def preprocess(self, model: str, naming: str, size: tuple[int, int]):
    if not model.startswith('deit'):
      return preprocessing.google(size)
    return preprocessing.imagenet(size, crop_fraction=1.0 if max(size) > 224 else 0.875)

  def timm_architecture(
    self, module: nn.Module, name: str, image_size: tuple[int, int]
  ) -> tuple[str, dict[str, Any]]:
    arguments: dict[str, Any] = {}
    match = re.fullmatch(r'(vit|deit|deit3)_([a-z]+)(\d+)(_distilled)?', name)
    if name in _TIMM_HYBRIDS:
      architecture = _TIMM_HYBRIDS[name]
    elif match:
      family, size, patch, distilled = match.groups()
      size, patch = models.SIZES[size], int(patch)
      known = _TIMM_PATCHES.get(size, (14,)) if family == 'vit' else (patch,)
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
    return architecture, arguments | _timm_arguments(module)

  def hf_config(
    self, module: nn.Module, image_size: tuple[int, int], channels: int
  ) -> dict[str, Any]:
    tower = 'DeiT' if module.distilled else 'ViT'
    head = 'ForImageClassification' + ('WithTeacher' if module.distilled else '')
    h, w = image_size
    return {
      'architectures': [tower + (head if module.num_classes else 'Model')],
      'model_type': tower.lower(),
      'hidden_size': module.width,
      'num_hidden_layers': module.depth,
      'num_attention_heads': module.num_heads,
      'intermediate_size': module.mlp_dim,
      'hidden_act': 'gelu' if module.gelu == 'exact' else 'gelu_pytorch_tanh',
      'hidden_dropout_prob': 0.0,
      'attention_probs_dropout_prob': 0.0,
      'layer_norm_eps': module.norm_epsilon,
      'image_size': h if h == w else [h, w],
      'patch_size': module.patch_size[0],
      'num_channels': channels,
      'qkv_bias': module.qkv_bias,
      'pooler_act': 'tanh',
      'pooler_output_size': module.representation_size or module.width,
    }


def _self_supervised(
  file: Evidence, grid: tuple[int, int] | None, patch: int, scaled: bool
) -> Preprocess | None:
  """The preprocessing of DINO and DINOv2, whose files state none; None for other weights."""
  masked = scaled and any(name.endswith('mask_token') for name in file.tensors)
  if grid is None or not (masked or 'dino' in file.hint):
    return None
  size = grid[0] * patch, grid[1] * patch
  return preprocessing.imagenet(size, crop_fraction=1.0 if max(size) > 224 else 0.875)


def _known_grid(file: Evidence) -> tuple[int, int] | None:
  """(h, w) in patches where a config states it, or the size of the images."""
  size, kernel = file.known.get('image_size'), file.shapes['params/patch_embedding/kernel']
  if 'grid' in file.known or size is None or 'params/stem/root/conv/kernel' in file.shapes:
    return file.known.get('grid')
  return size[0] // kernel[0], size[1] // kernel[1]


def _slots_and_grid(file: Evidence, tokens: int) -> tuple[int, tuple[int, int] | None]:
  """Position embeddings in front of the grid, and (h, w) of the grid; (tokens, None) without."""
  shape, known = file.shapes.get('params/position_embedding'), _known_grid(file)
  if not shape:
    return tokens, None
  n = shape[-2]
  order = (0, tokens) if file.naming == 'big_vision' else (tokens, 0)
  for slots in order:
    if known and n - slots == known[0] * known[1]:
      return slots, (known[0], known[1])
  for slots in order:
    if grid := square(n - slots):
      return slots, grid
  return order[0], None


def _prefixes(hint: str, distilled: bool, scaled: bool) -> list[str]:
  """Beginnings of model names, the likeliest first."""
  order = ['vit_', 'r_', 'r26_', 'r50_', 'deit_', 'deit3_']
  if 'deit3' in hint or 'deit_3' in hint or ('deit' in hint and scaled):
    order.insert(0, 'deit3_')
  elif 'deit' in hint or distilled:
    order.insert(0, 'deit_')
  return order


def _heads(file: Evidence) -> int | None:
  """Attention heads, which only Flax's biases show."""
  if file.naming in ('npz', 'big_vision'):
    for name, spec in file.tensors.specs.items():
      if re.search(r'encoderblock(_0)?/MultiHeadDotProductAttention_\d/query/bias$', name):
        return spec.shape[-2]
  return None


def _add_unseen_fields(
  chosen: dict[str, Any], facts: Mapping[str, Any], heads: int | None, scaled: bool
) -> None:
  """Adds the fields that arrays do not show directly."""
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


def _computed_positions(module: nn.Module, image_size: tuple[int, int]) -> dict[str, np.ndarray]:
  """Fixed position embeddings as the learned ones that other formats have."""
  h, w = (n // p for n, p in zip(image_size, module.patch_size))
  slots = module.num_prefix_tokens - module.num_registers if module.position_for_class_token else 0
  if module.position_embedding == 'sincos_2d':
    grid = posemb.sincos_2d(h, w, module.width)
    x = np.concatenate([np.zeros((1, slots, module.width), np.float32), grid], axis=1)
  elif module.position_embedding == 'sinusoid_1d':
    x = np.asarray(posemb.sinusoid_1d(slots + h * w, module.width))
  else:
    return {}
  return {'params/position_embedding': x}


def _without_slots(
  class_token: np.ndarray, position: np.ndarray, slots: int
) -> dict[str, np.ndarray]:
  """For namings without a slot: the class token takes up its position embedding.

  Args:
    class_token: [1, 1, d].
    position: [1, slots + n, d].
    slots: places in front of the grid.
  """
  if slots == 0:
    return {}
  return {
    'params/class_token': class_token + position[:, :1],
    'params/position_embedding': position[:, slots:],
  }


# Patch sizes under which timm has a name; others start from one of these and say patch_size.
_TIMM_PATCHES = {'tiny': (16,), 'small': (8, 16, 32), 'base': (8, 16, 32), 'large': (14, 16, 32)}
_TIMM_HYBRIDS = {
  'r_ti16': 'vit_tiny_r_s16_p8_224',
  'r26_s32': 'vit_small_r26_s32_224',
  'r26_b32': 'vit_base_r26_s32_224',
  'r50_b16': 'vit_base_r50_s16_224',
  'r50_l16': 'vit_base_r50_s16_224',
  'r50_l32': 'vit_large_r50_s32_224',
}


def _timm_arguments(module: nn.Module) -> dict[str, Any]:
  """Arguments of timm's VisionTransformer for fields other than its sizes."""
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
