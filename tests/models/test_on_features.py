"""A model's heads on features that were computed before are the model."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.models import small
from vit_jax import models
from vit_jax.models.heads import ClassAndBox, headless_of, on_features, pack
from vit_jax.models.shapes import variable_shapes

VIT = {'width': 16, 'depth': 1, 'num_heads': 2, 'mlp_dim': 8, 'patch_size': (4, 4)}
CNN = {'norm_frozen': True, 'dropout': 0.3}


def built(kind, dtype):
  if kind == 'resnet':
    return models.build('resnet50', 3, blocks=(1,), width=2, dtype=dtype, **CNN)
  classes = {'box': 0, 'dense': None}.get(kind, 3)
  fields = VIT | ({'representation_size': 5} if kind == 'representation' else {})
  module = models.build('vit_ti16', classes or 0, dtype=dtype, **fields).clone(num_classes=classes)
  return ClassAndBox(module, 3, hidden=7) if kind in ('box', 'dense') else module


@pytest.mark.parametrize(
  'kind, dtype',
  [
    ('representation', 'float32'),
    ('resnet', 'bfloat16'),
    ('box', 'float32'),
    ('dense', 'bfloat16'),
  ],
)
def test_outputs_are_equal(kind, dtype):
  module = built(kind, dtype)
  images = np.random.default_rng(0).standard_normal((3, 16, 16, 3), np.float32)
  draw = np.random.default_rng(1).standard_normal
  # Not those it starts with: its last layer's zeros would hide everything.
  shapes = variable_shapes(module, (16, 16))
  variables = jax.tree.map(lambda x: 0.2 * abs(draw(x.shape, np.float32)), shapes)
  keys = {'rngs': {'dropout': jax.random.key(2)}, 'train': True}
  outputs = small.apply(headless_of(module), variables, images, train=True)
  heads = on_features(module, jax.tree.leaves(outputs))
  packed = pack(outputs)
  assert packed.dtype == jnp.float32 and packed.ndim == 2
  expected = small.apply(module, variables, images, **keys)
  got = small.apply(heads, variables, packed, **keys)
  assert jax.tree.structure(got) == jax.tree.structure(expected)
  for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True):
    assert np.asarray(b).std() > 0
    np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
