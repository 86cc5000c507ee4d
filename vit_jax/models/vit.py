"""The Vision Transformer, its sizes, and its kin that differ by a field (DeiT, hybrids)."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from vit_jax.models import layers, posemb
from vit_jax.models.attention import ATTENTIONS, BlockOptions
from vit_jax.models.base import DTYPES, check_images, register
from vit_jax.models.stem import ResNetStem, stem_stride
from vit_jax.options import option

POOLS = ('token', 'gap', 'map')


class ViT(nn.Module):
  """An image as a sequence of patches through a transformer encoder.

  Tokens stand in the order: class token (with pool='token'), distillation token, registers, patches
  row by row.

  Source: Dosovitskiy et al. 2021 (2010.11929), section 3.1.
  """

  num_classes: int
  patch_size: tuple[int, int] = option(
    (16, 16), 'pixels of the input image per token, (height, width)', low=1, high=1024
  )
  width: int = option(768, 'channels of a token', low=1, high=1 << 16)
  depth: int = option(12, 'encoder blocks', low=1, high=1000)
  num_heads: int = option(12, 'attention heads; they divide width', low=1, high=1024)
  mlp_dim: int = option(3072, 'hidden units of the MLPs', low=1, high=1 << 20)
  pool: str = option(
    'token',
    "'token' (class token), 'gap' (mean of patches), 'map' (attention pooling)",
    choices=POOLS,
  )
  representation_size: int | None = option(
    None, 'width of a tanh layer before the head; None: no layer', low=1, high=1 << 20
  )
  position_embedding: str = option(
    'learned', "'learned', 'sinusoid_1d', 'sincos_2d', 'none'", choices=posemb.KINDS
  )
  position_for_class_token: bool = option(
    True,
    'whether class and distillation tokens have position embeddings of their own (learned and '
    'sinusoid_1d; sincos_2d never has them)',
  )
  num_registers: int = option(0, 'extra learned tokens that no head reads', low=0, high=10_000)
  distilled: bool = option(False, "DeiT's second token and head; see __call__")
  dropout: float = option(0.0, 'rate on embeddings, attention outputs and MLPs', low=0, below=1)
  attention_dropout: float = option(0.0, 'rate on attention weights', low=0, below=1)
  drop_path_rate: float = option(0.0, "stochastic depth: the last block's rate", low=0, below=1)
  drop_path_schedule: str = option(
    'linear',
    "'linear' (grows evenly from 0 at the first), 'constant'",
    choices=layers.DROP_PATH_SCHEDULES,
  )
  layer_scale: float | None = option(
    None, 'initial gain of residual branches; None: no gains', low=0, high=100
  )
  qk_norm: bool = option(False, "LayerNorm on each head's queries and keys")
  qkv_bias: bool = option(True, 'whether queries, keys and values have biases')
  gelu: str = option(
    'tanh', "'tanh' (official ViT) or 'exact' (PyTorch's weights)", choices=layers.GELUS
  )
  norm_epsilon: float = option(1e-6, "added to LayerNorm's variance", low=0, high=1)
  head_bias_init: float = option(
    0.0, "start of the head's bias; about -log(classes) for sigmoid losses", low=-100, high=100
  )
  stem_blocks: tuple[int, ...] | None = option(
    None, 'hybrids: residual units per ResNet stage; (): root', low=1, high=100
  )
  stem_width: int = option(64, "hybrids: channels of the ResNet's root", low=32, high=4096)
  stem_epsilon: float = option(1e-6, "hybrids: added to GroupNorm's variance", low=0, high=1)
  attention: str = option(
    'auto', "'auto' (by backend), 'einsum', 'deferred', 'cudnn'", choices=ATTENTIONS
  )
  remat: str = option(
    'none', "'block': recompute blocks in the backward pass to save memory", choices=layers.REMATS
  )
  scan: bool | None = option(None, 'whether blocks are a loop, quick to compile; None: by backend')
  dtype: str = option(
    'float32', 'precision of the computation; parameters are float32', choices=DTYPES
  )

  def problems(self) -> list[str]:
    """Says which field values do not fit together."""
    found = []
    if self.width % self.num_heads:
      found.append(f'num_heads={self.num_heads} does not divide width={self.width}')
    if self.position_embedding == 'sincos_2d' and (self.width % 4 or self.width < 8):
      found.append(
        f"position_embedding='sincos_2d' needs a multiple of 4 from 8 on, got width={self.width}"
      )
    if self.distilled and self.pool != 'token':
      found.append(f"distilled=True needs pool='token', got pool={self.pool!r}")
    if self.stem_blocks is not None and self.stem_width % 32:
      found.append(f'stem_width must be a multiple of 32, got {self.stem_width}')
    stride = stem_stride(self.stem_blocks)
    if self.patch_size[0] % stride or self.patch_size[1] % stride:
      found.append(f'patch_size={self.patch_size} must be multiples of the stem stride {stride}')
    return found

  @property
  def num_prefix_tokens(self) -> int:
    """Tokens in front of the patches."""
    return int(self.pool == 'token') + int(self.distilled) + self.num_registers

  @property
  def block_options(self) -> BlockOptions:
    return BlockOptions(
      num_heads=self.num_heads,
      mlp_dim=self.mlp_dim,
      gelu=self.gelu,
      norm_epsilon=self.norm_epsilon,
      dropout=self.dropout,
      attention_dropout=self.attention_dropout,
      layer_scale=self.layer_scale,
      qk_norm=self.qk_norm,
      qkv_bias=self.qkv_bias,
      attention=self.attention,
      remat=self.remat,
      scan=self.scan,
      dtype=self.dtype,
    )

  @nn.compact
  def __call__(self, images: jax.Array, train: bool = False):
    """Classifies images.

    Args:
      images: [b, h, w, c] float; patch_size divides h and w.
      train: whether dropout and stochastic depth act.

    Returns:
      Logits [b, num_classes] in float32; pooled features [b, d] where num_classes is 0, and with
      None the pair of them and the patches [b, h / patch, w / patch, d]. With a head a distilled
      model returns the pair (class logits, distillation logits) in training, else their mean.

    Raises:
      UserError: the image size does not fit the patches.
    """
    check_images(self, images)
    x = images.astype(jnp.dtype(self.dtype))
    patch = self.patch_size
    if self.stem_blocks is not None:
      stride = stem_stride(self.stem_blocks)
      patch = (patch[0] // stride, patch[1] // stride)
      x = ResNetStem(self.stem_blocks, self.stem_width, self.stem_epsilon, self.dtype, name='stem')(
        x, train
      )
    x = layers.PatchEmbedding(patch, self.width, dtype=self.dtype, name='patch_embedding')(x)
    x = self._add_tokens_and_positions(x)
    x = nn.Dropout(self.dropout, name='dropout')(x, deterministic=not train)
    x = layers.Encoder(
      self.depth, self.block_options, self.drop_path_rate, self.drop_path_schedule, name='encoder'
    )(x, train)
    self.sow('intermediates', 'tokens', x)
    return self._head(images, x, train)

  def _add_tokens_and_positions(self, x: jax.Array) -> jax.Array:
    """Turns the patch grid [b, h, w, d] into tokens [b, n, d]."""
    b, h, w, d = x.shape
    x = x.reshape(b, h * w, d)
    tokens = []
    if self.pool == 'token':
      tokens.append(self.param('class_token', nn.initializers.zeros, (1, 1, d)))
    if self.distilled:
      init = nn.initializers.truncated_normal(0.02)
      tokens.append(self.param('distillation_token', init, (1, 1, d)))
    tokens = [jnp.broadcast_to(t, (b, 1, d)).astype(x.dtype) for t in tokens]
    has_slots = self.position_for_class_token and self.position_embedding != 'sincos_2d'
    if has_slots:
      x = jnp.concatenate([*tokens, x], axis=1)
    if self.position_embedding == 'learned':
      init = nn.initializers.normal(0.02)
      x = x + self.param('position_embedding', init, (1, x.shape[1], d)).astype(x.dtype)
    elif self.position_embedding == 'sinusoid_1d':
      x = x + posemb.sinusoid_1d(x.shape[1], d).astype(x.dtype)
    elif self.position_embedding == 'sincos_2d':
      x = x + posemb.sincos_2d(h, w, d).astype(x.dtype)
    if not has_slots:
      x = jnp.concatenate([*tokens, x], axis=1)
    if self.num_registers:
      r = self.param('registers', nn.initializers.normal(0.02), (1, self.num_registers, d))
      r = jnp.broadcast_to(r, (b, self.num_registers, d)).astype(x.dtype)
      k = len(tokens)
      x = jnp.concatenate([x[:, :k], r, x[:, k:]], axis=1)
    return x

  def _head(self, images: jax.Array, x: jax.Array, train: bool):
    """Pools the tokens [b, n, d] of the images and classifies them."""
    patches = x[:, self.num_prefix_tokens :]
    if self.pool == 'token':
      pooled = x[:, 0]
    elif self.pool == 'gap':
      pooled = patches.mean(axis=1)
    else:
      pooled = layers.MapPool(self.block_options, name='map_pool')(patches, train)
    if self.distilled and not self.num_classes:
      pooled = (pooled + x[:, 1]) / 2
    self.sow('intermediates', 'pooled', pooled)
    if self.representation_size is not None:
      dtype = jnp.dtype(self.dtype)
      pooled = nn.tanh(nn.Dense(self.representation_size, dtype=dtype, name='pre_logits')(pooled))
    if not self.num_classes:
      return layers.headless(self, pooled, layers.grid(images, x, self.patch_size))
    logits = layers.head(self.num_classes, self.dtype, 'head', self.head_bias_init)(pooled)
    if not self.distilled:
      return logits.astype(jnp.float32)
    distilled = layers.head(self.num_classes, self.dtype, 'head_distillation', self.head_bias_init)(
      x[:, 1]
    )
    logits, distilled = logits.astype(jnp.float32), distilled.astype(jnp.float32)
    return (logits, distilled) if train else (logits + distilled) / 2


# Width, depth, MLP and heads: ViT (2010.11929) table 1, AugReg (2106.10270) table 2 (Ti, S), and
# Scaling ViT (2106.04560) table 2 (g, and G, here 'gg' as file systems may not tell g from G).
SIZES = {
  'ti': {'width': 192, 'depth': 12, 'num_heads': 3, 'mlp_dim': 768},
  's': {'width': 384, 'depth': 12, 'num_heads': 6, 'mlp_dim': 1536},
  'b': {'width': 768, 'depth': 12, 'num_heads': 12, 'mlp_dim': 3072},
  'l': {'width': 1024, 'depth': 24, 'num_heads': 16, 'mlp_dim': 4096},
  'h': {'width': 1280, 'depth': 32, 'num_heads': 16, 'mlp_dim': 5120},
  'g': {'width': 1408, 'depth': 40, 'num_heads': 16, 'mlp_dim': 6144},
  'gg': {'width': 1664, 'depth': 48, 'num_heads': 16, 'mlp_dim': 8192},
}

# Patch sizes with published weights: ViT and AugReg (16, 32, b8, h14), Scaling ViT (g14, gg14),
# DINO (s8, b8), SigLIP, CLIP and DINOv2 (s14, b14, l14), MAE and I-JEPA (h14, h16).
PATCHES = {
  'ti': (16,),
  's': (8, 14, 16, 32),
  'b': (8, 14, 16, 32),
  'l': (14, 16, 32),
  'h': (14, 16),
  'g': (14,),
  'gg': (14,),
}

for _size, _patches in PATCHES.items():
  for _patch in _patches:
    # Scaling ViT drops the class token and pools by attention; all the others publish with one.
    _pool = 'map' if _size in ('g', 'gg') else 'token'
    register(f'vit_{_size}{_patch}', ViT, **SIZES[_size], patch_size=(_patch, _patch), pool=_pool)
