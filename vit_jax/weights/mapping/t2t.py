"""T2T-ViT: the authors' state dicts, whose fixed position embeddings are computed here."""

from collections.abc import Collection

import flax.linen as nn
import numpy as np

from vit_jax.models import posemb
from vit_jax.weights import preprocessing
from vit_jax.weights.mapping.family import Family, register
from vit_jax.weights.mapping.layers import MERGE_HEADS, norm, torch_block, torch_linear
from vit_jax.weights.mapping.recognition import Evidence, Recognised, choose, count, square
from vit_jax.weights.mapping.rules import Rule
from vit_jax.weights.mapping.table import Table

# Trained with 1 / sqrt(width) instead of 1 / sqrt(width of a head).
_SCALED_BY_WIDTH = {'query_scale': 256**-0.5}


def _authors(our_names: Collection[str]) -> Table:
  theirs, ours = 'tokens_to_token.attention{i}', 'tokens_to_token/attention{i}'
  if any('kqv' in name for name in our_names):  # a performer
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
      *torch_linear(f'{theirs}.attn.proj', f'{ours}/out', MERGE_HEADS),
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
      *torch_block('blocks.{i}', 'encoder/block_{i:02d}'),
      *norm('norm', 'encoder/norm', 'weight'),
      *torch_linear('head', 'head', role='head'),
    ),
    'tokens_to_token.project.weight',
    ignored='^pos_embed$',
  )


@register
class T2TViT(Family):
  """Tokens-to-token models, with performers or transformers in front."""

  name = 'T2TViT'
  tables = {'timm': _authors}
  signs = ('tokens_to_token.project.',)
  variants = {'.kqv.': 'params/tokens_to_token/attention1/kqv/kernel'}
  fixed_fields = (*Family.fixed_fields, 'query_scale', 'tokens')
  pretrained_facts = dict.fromkeys(
    ('t2t_vit_7.i1k', 't2t_vit_10.i1k', 't2t_vit_12.i1k'), _SCALED_BY_WIDTH
  )

  def model_of(self, file: Evidence) -> Recognised:
    shapes = file.shapes
    facts = {
      'tokens': 'performer' if any('kqv' in name for name in shapes) else 'transformer',
      'width': shapes['params/class_token'][2],
      'depth': count(shapes, r'^params/encoder/block_(\d+)/'),
      'mlp_dim': shapes['params/encoder/block_00/mlp/fc1/bias'][0],
    }
    chosen = choose(facts, ['t2t_vit_'], ('tokens', 'width', 'depth', 'mlp_dim'), 't2t_vit_14')
    if 'query_scale' in file.known:
      chosen['query_scale'] = file.known['query_scale']
    specs = file.tensors.specs
    positions = next((s.shape for n, s in specs.items() if n.endswith('pos_embed')), ())
    return Recognised(chosen, square(positions[1] - 1) if len(positions) == 3 else None)

  def extra_tensors(self, naming: str, module: nn.Module, image_size: tuple[int, int]):
    # The authors' state dicts keep the fixed embeddings too, and their loader asks for them.
    h, w = (n // p for n, p in zip(image_size, module.patch_size))
    return {'pos_embed': np.asarray(posemb.sinusoid_1d(h * w + 1, module.width))}

  def preprocess(self, model: str, naming: str, size: tuple[int, int]):
    return preprocessing.imagenet(size, crop_fraction=1.0 if max(size) > 224 else 0.9)
