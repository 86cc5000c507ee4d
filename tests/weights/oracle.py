"""A small ViT out of Flax's own layers, under the names of the official files.

It shares no code with the library, so equal logits say that weights went where they belong.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from vit_jax import models
from vit_jax.tree import flatten


class Mlp(nn.Module):
  hidden: int

  @nn.compact
  def __call__(self, x):
    d = x.shape[-1]
    return nn.Dense(d, name='Dense_1')(nn.gelu(nn.Dense(self.hidden, name='Dense_0')(x)))


class Block(nn.Module):
  heads: int
  hidden: int

  @nn.compact
  def __call__(self, x):
    y = nn.LayerNorm(name='LayerNorm_0')(x)
    x = x + nn.MultiHeadDotProductAttention(self.heads, name='MultiHeadDotProductAttention_0')(y, y)
    y = nn.LayerNorm(name='LayerNorm_1')(x)
    return x + Mlp(self.hidden, name='MlpBlock_0')(y)


class Position(nn.Module):
  @nn.compact
  def __call__(self, x):
    return x + self.param('pos_embedding', nn.initializers.normal(), (1, *x.shape[1:]))


class Encoder(nn.Module):
  depth: int
  heads: int
  hidden: int

  @nn.compact
  def __call__(self, x):
    x = Position(name='posembed_input')(x)
    for i in range(self.depth):
      x = Block(self.heads, self.hidden, name=f'encoderblock_{i}')(x)
    return nn.LayerNorm(name='encoder_norm')(x)


class OfficialViT(nn.Module):
  classes: int
  width: int = 12
  depth: int = 2
  heads: int = 3
  hidden: int = 20
  patch: int = 8
  representation: int | None = None

  @nn.compact
  def __call__(self, images):
    x = nn.Conv(self.width, (self.patch,) * 2, (self.patch,) * 2, 'VALID', name='embedding')(images)
    b, h, w, d = x.shape
    token = self.param('cls', nn.initializers.normal(), (1, 1, d))
    x = jnp.concatenate([jnp.tile(token, (b, 1, 1)), x.reshape(b, h * w, d)], 1)
    x = Encoder(self.depth, self.heads, self.hidden, name='Transformer')(x)[:, 0]
    if self.representation:
      x = jnp.tanh(nn.Dense(self.representation, name='pre_logits')(x))
    return nn.Dense(self.classes, name='head')(x)


SIZES = {'width': 12, 'depth': 2, 'num_heads': 3, 'mlp_dim': 20, 'patch_size': 8}


def images(h=24, w=24, b=2, c=3, seed=0):
  return np.random.default_rng(seed).uniform(-1, 1, (b, h, w, c)).astype(np.float32)


def ours(classes=5, **overrides):
  """The same architecture built by the library."""
  return models.build('vit_ti16', classes, **{**SIZES, **overrides})


def scattered(tree, seed=0):
  """The same tree with every number drawn anew, so that no two tensors are alike."""
  rng = np.random.default_rng(seed)
  return {k: rng.normal(0, 0.3, v.shape).astype(np.float32) for k, v in flatten(tree).items()}


def scattered_specs(specs, seed=0):
  """Random arrays of given flat names and shapes; variances, of their names, are not negative."""
  rng = np.random.default_rng(seed)
  flat = {k: rng.normal(0, 0.3, s.shape).astype(np.float32) for k, s in sorted(specs.items())}
  return {k: abs(v) if k.endswith('/var') else v for k, v in flat.items()}


def official(classes=5, representation=None, h=24, w=24):
  """Random official weights and a function from images to logits."""
  model = OfficialViT(classes, representation=representation)
  shapes = jax.eval_shape(model.init, jax.random.key(0), images(h, w))['params']
  flat = scattered(shapes)

  def logits(x):
    from vit_jax.tree import unflatten

    return np.asarray(model.apply({'params': unflatten(flat)}, x))

  return flat, logits


def older(flat):
  """Renames to what files written before Flax Linen have."""
  pairs = [
    ('LayerNorm_1', 'LayerNorm_2'),
    ('MlpBlock_0', 'MlpBlock_3'),
    ('MultiHeadDotProductAttention_0', 'MultiHeadDotProductAttention_1'),
  ]
  result = {}
  for name, value in flat.items():
    for new, old in pairs:
      name = name.replace(new, old)
    result[name] = value
  return result
