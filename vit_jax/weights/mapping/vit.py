"""ViT and hybrids: official npz, big_vision, timm and Hugging Face."""

from collections.abc import Collection

from vit_jax.weights.mapping.rules import Rule, flax_dense, norm, prefixed, torch_conv, torch_linear
from vit_jax.weights.mapping.table import Table

_BLOCK = 'encoder/block_{i:02d}'


def _flax_attention(theirs: str, ours: str) -> list[Rule]:
  """Flax's attention, whose projections are apart, and ours, where they are one."""
  parts = ('query', 'key', 'value')
  return [
    Rule(tuple(f'{theirs}/{p}/kernel' for p in parts), f'{ours}/qkv/kernel', 's d h k -> d s h k'),
    Rule(tuple(f'{theirs}/{p}/bias' for p in parts), f'{ours}/qkv/bias', 's h k -> s h k'),
    *flax_dense(f'{theirs}/out', f'{ours}/out'),
  ]


def _flax_map_pool(theirs: str, ours: str) -> list[Rule]:
  attention = f'{theirs}/MultiHeadDotProductAttention_0'
  return [
    Rule(f'{theirs}/probe', f'{ours}/probe'),
    *(
      rule
      for part in ('query', 'key', 'value', 'out')
      for rule in flax_dense(f'{attention}/{part}', f'{ours}/attention/{part}')
    ),
    *norm(f'{theirs}/LayerNorm_0', f'{ours}/norm'),
    *flax_dense(f'{theirs}/MlpBlock_0/Dense_0', f'{ours}/mlp/fc1'),
    *flax_dense(f'{theirs}/MlpBlock_0/Dense_1', f'{ours}/mlp/fc2'),
  ]


def _flax_stem() -> list[Rule]:
  unit = 'block{b}/unit{u}'
  rules = [
    Rule('conv_root/kernel', 'stem/root/conv/kernel', role='input'),
    *norm('gn_root', 'stem/root/norm'),
  ]
  for part in ('1', '2', '3', '_proj'):
    ours = 'stem/block{b}/unit{u:02d}'
    rules += [
      Rule(f'{unit}/conv{part}/kernel', f'{ours}/conv{part}/kernel'),
      *norm(f'{unit}/gn{part}', f'{ours}/norm{part}'),
    ]
  return rules


def _flax_vit(position: str) -> tuple[Rule, ...]:
  theirs = 'Transformer/encoderblock_{i}'
  return (
    Rule('embedding/kernel', 'patch_embedding/kernel', role='patch'),
    Rule('embedding/bias', 'patch_embedding/bias'),
    Rule('cls', 'class_token', role='token'),
    Rule(position, 'position_embedding', role='position'),
    *norm(f'{theirs}/LayerNorm_0', f'{_BLOCK}/norm1'),
    *_flax_attention(f'{theirs}/MultiHeadDotProductAttention_0', f'{_BLOCK}/attention'),
    *norm(f'{theirs}/LayerNorm_1', f'{_BLOCK}/norm2'),
    *flax_dense(f'{theirs}/MlpBlock_0/Dense_0', f'{_BLOCK}/mlp/fc1'),
    *flax_dense(f'{theirs}/MlpBlock_0/Dense_1', f'{_BLOCK}/mlp/fc2'),
    *norm('Transformer/encoder_norm', 'encoder/norm'),
    *_flax_map_pool('MAPHead_0', 'map_pool'),
    *flax_dense('pre_logits', 'pre_logits', role='representation'),
    *flax_dense('head', 'head', role='head'),
    *_flax_stem(),
  )


# The names before Linen counted all layers of a block together: norm 0, attention 1, norm 2, mlp 3.
_OLDER_FLAX = (
  (r'(encoderblock(?:_\d+)?/)LayerNorm_2/', r'\1LayerNorm_1/'),
  (r'(encoderblock(?:_\d+)?/)MlpBlock_3/', r'\1MlpBlock_0/'),
  (r'MultiHeadDotProductAttention_1/', r'MultiHeadDotProductAttention_0/'),
  (r'(block\d+/unit)0(\d)/', r'\1\2/'),
)


def official(names: Collection[str]) -> Table:
  """The `.npz` files of google-research/vision_transformer."""
  return Table(
    _flax_vit('Transformer/posembed_input/pos_embedding'), 'embedding/kernel', _OLDER_FLAX
  )


def big_vision(names: Collection[str]) -> Table:
  """The `.npz` files of google-research/big_vision; position embeddings know no class token."""
  return Table(
    _flax_vit('pos_embedding'),
    'embedding/kernel',
    (*_OLDER_FLAX, (r'Transformer/posembed_input/pos_embedding$', 'pos_embedding')),
    stacked='Transformer/encoderblock/',
    unstacked='Transformer/encoderblock_{i}/',
    class_slot=False,
  )


def torch_block(theirs: str, ours: str) -> list[Rule]:
  """A transformer block as timm and the torch code of most papers name it."""
  return [
    *norm(f'{theirs}.norm1', f'{ours}/norm1', 'weight'),
    Rule(f'{theirs}.attn.qkv.weight', f'{ours}/attention/qkv/kernel', '(s h k) d -> d s h k'),
    Rule(f'{theirs}.attn.qkv.bias', f'{ours}/attention/qkv/bias', '(s h k) -> s h k'),
    *norm(f'{theirs}.attn.q_norm', f'{ours}/attention/query_norm', 'weight'),
    *norm(f'{theirs}.attn.k_norm', f'{ours}/attention/key_norm', 'weight'),
    *torch_linear(f'{theirs}.attn.proj', f'{ours}/attention/out', 'd (h k) -> h k d'),
    Rule(f'{theirs}.ls1.gamma', f'{ours}/scale1/gamma'),
    *norm(f'{theirs}.norm2', f'{ours}/norm2', 'weight'),
    *torch_linear(f'{theirs}.mlp.fc1', f'{ours}/mlp/fc1'),
    *torch_linear(f'{theirs}.mlp.fc2', f'{ours}/mlp/fc2'),
    Rule(f'{theirs}.ls2.gamma', f'{ours}/scale2/gamma'),
  ]


def _timm_map_pool() -> list[Rule]:
  theirs, ours = 'attn_pool', 'map_pool'
  return [
    Rule(f'{theirs}.latent', f'{ours}/probe'),
    Rule(f'{theirs}.q.weight', f'{ours}/attention/query/kernel', '(h k) d -> d h k'),
    Rule(f'{theirs}.q.bias', f'{ours}/attention/query/bias', '(h k) -> h k'),
    Rule(
      f'{theirs}.kv.weight',
      (f'{ours}/attention/key/kernel', f'{ours}/attention/value/kernel'),
      '(s h k) d -> s d h k',
    ),
    Rule(
      f'{theirs}.kv.bias',
      (f'{ours}/attention/key/bias', f'{ours}/attention/value/bias'),
      '(s h k) -> s h k',
    ),
    *torch_linear(f'{theirs}.proj', f'{ours}/attention/out', 'd (h k) -> h k d'),
    *norm(f'{theirs}.norm', f'{ours}/norm', 'weight'),
    *torch_linear(f'{theirs}.mlp.fc1', f'{ours}/mlp/fc1'),
    *torch_linear(f'{theirs}.mlp.fc2', f'{ours}/mlp/fc2'),
  ]


def _timm_stem(names: Collection[str]) -> list[Rule]:
  # A stem that is a root alone is not wrapped in a ResNet there.
  staged = any(name.startswith('params/stem/block') for name in names)
  root = 'patch_embed.backbone' + ('.stem' if staged else '')
  rules = [
    Rule(f'{root}.conv.weight', 'stem/root/conv/kernel', 'o i h w -> h w i o', role='input'),
    *norm(f'{root}.norm', 'stem/root/norm', 'weight'),
  ]
  unit, ours = 'patch_embed.backbone.stages.{b-1}.blocks.{u-1}', 'stem/block{b}/unit{u:02d}'
  for theirs, part in (('', '1'), ('', '2'), ('', '3'), ('downsample.', '_proj')):
    number = '' if theirs else part
    rules += [
      Rule(
        f'{unit}.{theirs}conv{number}.weight', f'{ours}/conv{part}/kernel', 'o i h w -> h w i o'
      ),
      *norm(f'{unit}.{theirs}norm{number}', f'{ours}/norm{part}', 'weight'),
    ]
  return rules


def timm(names: Collection[str]) -> Table:
  """timm's `vit_*` and DeiT's own files, which share their names."""
  conv = torch_conv('patch_embed.proj', 'patch_embedding')
  return Table(
    (
      Rule(conv[0].theirs, conv[0].ours, conv[0].axes, role='patch'),
      conv[1],
      Rule('cls_token', 'class_token', role='token'),
      Rule('dist_token', 'distillation_token', role='token'),
      Rule('reg_token', 'registers'),
      Rule('pos_embed', 'position_embedding', role='position'),
      *torch_block('blocks.{i}', _BLOCK),
      *norm('norm', 'encoder/norm', 'weight'),
      *_timm_map_pool(),
      *torch_linear('pre_logits.fc', 'pre_logits', role='representation'),
      *torch_linear('head', 'head', role='head'),
      *torch_linear('head_dist', 'head_distillation', role='head'),
      *_timm_stem(names),
    ),
    'patch_embed.proj.weight',
    class_slot='params/registers' not in names,
  )


def _hf_block(theirs: str, ours: str) -> list[Rule]:
  attention = f'{theirs}.attention.attention'
  parts = ('query', 'key', 'value')
  return [
    *norm(f'{theirs}.layernorm_before', f'{ours}/norm1', 'weight'),
    Rule(
      tuple(f'{attention}.{p}.weight' for p in parts),
      f'{ours}/attention/qkv/kernel',
      's (h k) d -> d s h k',
    ),
    Rule(
      tuple(f'{attention}.{p}.bias' for p in parts),
      f'{ours}/attention/qkv/bias',
      's (h k) -> s h k',
    ),
    *torch_linear(f'{theirs}.attention.output.dense', f'{ours}/attention/out', 'd (h k) -> h k d'),
    *norm(f'{theirs}.layernorm_after', f'{ours}/norm2', 'weight'),
    *torch_linear(f'{theirs}.intermediate.dense', f'{ours}/mlp/fc1'),
    *torch_linear(f'{theirs}.output.dense', f'{ours}/mlp/fc2'),
  ]


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


def hugging_face(names: Collection[str]) -> Table:
  """Hugging Face's `ViTForImageClassification` and `ViTModel`; with two tokens, those of DeiT."""
  distilled = 'params/distillation_token' in names
  tower = 'deit' if distilled else 'vit'  # the word in front of all names but the head's
  patches = 'embeddings.patch_embeddings.projection'
  backbone = [
    Rule(f'{patches}.weight', 'patch_embedding/kernel', 'o i h w -> h w i o', role='patch'),
    Rule(f'{patches}.bias', 'patch_embedding/bias'),
    Rule('embeddings.cls_token', 'class_token', role='token'),
    Rule('embeddings.distillation_token', 'distillation_token', role='token'),
    Rule('embeddings.position_embeddings', 'position_embedding', role='position'),
    *_hf_block('encoder.layer.{i}', _BLOCK),
    *norm('layernorm', 'encoder/norm', 'weight'),
    *torch_linear('pooler.dense', 'pre_logits', role='representation'),
  ]
  return Table(
    (
      *prefixed(backbone, f'{tower}.'),
      *torch_linear('cls_classifier' if distilled else 'classifier', 'head', role='head'),
      *torch_linear('distillation_classifier', 'head_distillation', role='head'),
    ),
    f'{tower}.{patches}.weight',
    (
      *_NEWER_HF,
      (r'^(vit|deit)\.', f'{tower}.'),
      # A bare ViTModel has no word in front.
      (r'^(embeddings|encoder|layernorm|pooler)\.', rf'{tower}.\1.'),
    ),
    ignored=r'embeddings\.mask_token$|position_ids$',
  )
