"""CaiT, T2T-ViT and MLP-Mixer."""

from collections.abc import Collection

from vit_jax.weights.mapping.rules import Rule, flax_dense, norm, torch_conv, torch_linear
from vit_jax.weights.mapping.table import Table
from vit_jax.weights.mapping.vit import torch_block

_BLOCK = 'encoder/block_{i:02d}'


def _patches(theirs: str) -> list[Rule]:
  kernel, bias = torch_conv(theirs, 'patch_embedding')
  return [Rule(kernel.theirs, kernel.ours, kernel.axes, role='patch'), bias]


def cait(names: Collection[str]) -> Table:
  """timm's `cait_*`, whose names are those of the authors' files."""
  classes, ours = 'blocks_token_only.{i}', 'class_encoder/block_{i:02d}'
  attention = []
  for part in ('query', 'key', 'value'):
    theirs = f'{classes}.attn.{part[0]}'
    attention += [
      Rule(f'{theirs}.weight', f'{ours}/attention/{part}/kernel', '(h k) d -> d h k'),
      Rule(f'{theirs}.bias', f'{ours}/attention/{part}/bias', '(h k) -> h k'),
    ]
  gains = [
    Rule(f'{theirs}.gamma_{n}', f'{mine}/scale{n}/gamma')
    for theirs, mine in (('blocks.{i}', _BLOCK), (classes, ours))
    for n in (1, 2)
  ]
  block = [r for r in torch_block('blocks.{i}', _BLOCK) if 'gamma' not in r.our_names[0]]
  return Table(
    (
      *_patches('patch_embed.proj'),
      Rule('cls_token', 'class_token', role='token'),
      Rule('pos_embed', 'position_embedding', role='position'),
      *gains,
      *block,
      *torch_linear('blocks.{i}.attn.proj_l', f'{_BLOCK}/attention/heads_before'),
      *torch_linear('blocks.{i}.attn.proj_w', f'{_BLOCK}/attention/heads_after'),
      *norm(f'{classes}.norm1', f'{ours}/norm1', 'weight'),
      *attention,
      *torch_linear(f'{classes}.attn.proj', f'{ours}/attention/out', 'd (h k) -> h k d'),
      *norm(f'{classes}.norm2', f'{ours}/norm2', 'weight'),
      *torch_linear(f'{classes}.mlp.fc1', f'{ours}/mlp/fc1'),
      *torch_linear(f'{classes}.mlp.fc2', f'{ours}/mlp/fc2'),
      *norm('norm', 'norm', 'weight'),
      *torch_linear('head', 'head', role='head'),
    ),
    'patch_embed.proj.weight',
  )


def t2t(names: Collection[str]) -> Table:
  """The T2T-ViT authors' state dicts; their position embeddings are fixed and computed here."""
  theirs, ours = 'tokens_to_token.attention{i}', 'tokens_to_token/attention{i}'
  performer = any('kqv' in name for name in names)
  if performer:
    attention = [
      *torch_linear(f'{theirs}.kqv', f'{ours}/kqv'),
      *torch_linear(f'{theirs}.proj', f'{ours}/out'),
      Rule(f'{theirs}.w', f'{ours}/features', collection='batch_stats'),
      *torch_linear(f'{theirs}.mlp.0', f'{ours}/mlp/fc1'),
      *torch_linear(f'{theirs}.mlp.2', f'{ours}/mlp/fc2'),
    ]
  else:
    attention = [
      Rule(f'{theirs}.attn.qkv.weight', f'{ours}/qkv/kernel', '(s h k) d -> d s h k'),
      *torch_linear(f'{theirs}.attn.proj', f'{ours}/out', 'd (h k) -> h k d'),
      *torch_linear(f'{theirs}.mlp.fc1', f'{ours}/mlp/fc1'),
      *torch_linear(f'{theirs}.mlp.fc2', f'{ours}/mlp/fc2'),
    ]
  return Table(
    (
      Rule('cls_token', 'class_token', role='token'),
      *norm(f'{theirs}.norm1', f'{ours}/norm1', 'weight'),
      *norm(f'{theirs}.norm2', f'{ours}/norm2', 'weight'),
      *attention,
      *torch_linear('tokens_to_token.project', 'tokens_to_token/project'),
      *torch_block('blocks.{i}', _BLOCK),
      *norm('norm', 'encoder/norm', 'weight'),
      *torch_linear('head', 'head', role='head'),
    ),
    'tokens_to_token.project.weight',
    ignored='^pos_embed$',
  )


def mixer_official(names: Collection[str]) -> Table:
  """The Mixers of google-research/vision_transformer."""
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


def mixer_timm(names: Collection[str]) -> Table:
  """timm's `mixer_*`."""
  mlps = [
    rule
    for theirs, ours in (('tokens', 'token'), ('channels', 'channel'))
    for fc in ('fc1', 'fc2')
    for rule in torch_linear(f'blocks.{{i}}.mlp_{theirs}.{fc}', f'{_BLOCK}/{ours}_mixing/{fc}')
  ]
  return Table(
    (
      *_patches('stem.proj'),
      *norm('blocks.{i}.norm1', f'{_BLOCK}/norm1', 'weight'),
      *norm('blocks.{i}.norm2', f'{_BLOCK}/norm2', 'weight'),
      *mlps,
      *norm('norm', 'encoder/norm', 'weight'),
      *torch_linear('head', 'head', role='head'),
    ),
    'stem.proj.weight',
  )
