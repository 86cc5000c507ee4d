"""Registered models shrunk so that each compiles in seconds, and random parameters for them."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from vit_jax import models, tree

CLASSES = 5

# Smaller values of whatever fields a model has. Names that shrink to the same module share its
# results; what distinguishes them is in the table of parameter counts.
_SMALL = {
  'patch_size': (8, 8),
  'width': 24,
  'depth': 2,
  'num_heads': 3,
  'mlp_dim': 29,
  'stem_width': 32,
  'token_mlp_dim': 13,
  'token_width': 8,
  'blocks': (1, 2),
  'repeats': (1, 2, 1, 1, 1, 1, 1),
  'width_multiplier': 0.25,
}


def build(name, num_classes=CLASSES, **overrides):
  """A small model with the structure of the named one."""
  defaults = models.fields(name)
  fields = {field: value for field, value in _SMALL.items() if field in defaults}
  if defaults.get('stem_blocks'):
    fields['stem_blocks'] = (1, 2)
  if defaults.get('layer_scale') is not None:
    fields['layer_scale'] = 0.1
  if name.startswith('bit'):
    fields['width'] = 32  # the groups of its norms
  return models.build(name, num_classes, **{**fields, **overrides})


def images(module, rows=2, columns=3, batch=2):
  """[b, h, w, c] images of rows x columns patches, the same ones every time."""
  h, w = getattr(module, 'patch_size', (32, 32))
  rng = np.random.default_rng(7)
  return jnp.asarray(rng.standard_normal((batch, rows * h, columns * w, 3)), jnp.float32)


def apply(module, variables, *args, **kwargs):
  """`module.apply` as one program, with keywords as they are: op by op a model takes seconds."""
  return jax.jit(functools.partial(module.apply, **kwargs))(variables, *args)


@functools.cache
def variables(module, rows=2, columns=3):
  """Random variables in which nothing is zero: fresh heads and biases are, and hide mistakes."""
  x = images(module, rows, columns)
  shapes = jax.eval_shape(lambda: module.init(jax.random.key(0), x))
  rng = np.random.default_rng(11)

  def draw(name, leaf):
    noise = rng.standard_normal(leaf.shape)
    kind = name.rsplit('/', 1)[-1]
    if kind in ('scale', 'gamma'):
      value = 1 + 0.2 * noise
    elif kind == 'var':
      value = 0.5 + np.abs(noise)
    elif kind == 'kernel':
      value = noise / np.sqrt(max(leaf.size / leaf.shape[-1], 1))
    else:
      value = 0.3 * noise
    return jnp.asarray(value.astype(leaf.dtype))  # not converted by a program for each shape

  return tree.map_named(draw, shapes)
