"""What is kept of a forward pass, and gradients by attention weights."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.models import small
from tests.support import raises
from vit_jax import models, visualization
from vit_jax.errors import ModelError

TRANSFORMERS = ['vit_ti16', 'deit_ti16_distilled', 'cait_xxs24', 't2t_vit_7']


def _small(name):
  module = small.build(name)
  return module, small.variables(module), small.images(module)


@pytest.mark.parametrize('name', TRANSFORMERS)
def test_every_family_has_its_blocks(name):
  module, variables, images = _small(name)
  seen = visualization.capture(module, variables, images)
  expected = jax.jit(module.apply)(variables, images)
  np.testing.assert_allclose(seen.logits, expected, rtol=1e-4, atol=1e-4)
  layers = [layer for layer in seen.layers if layer.kind == 'self']
  assert len(layers) == len(seen.outputs) == 2
  for layer in layers:
    assert layer.weights.shape == (2, 3, 6 + layer.prefix, 6 + layer.prefix)
    assert layer.query.shape == layer.key.shape == layer.value.shape
  assert seen.grid == (2, 3)
  patches = seen.patches(seen.tokens)
  np.testing.assert_array_equal(patches[1, 1, 2], seen.tokens[1, -1])


@pytest.mark.parametrize('name', ['vit_ti16', 'cait_xxs24'])
def test_gradients_are_slopes_of_the_logit(name):
  module, variables, images = _small(name)
  seen = visualization.capture_gradients(module, variables, images, [1, 3])
  layer = seen.layers[-1]
  place = (1, 2, 0, 4)  # image, head, class token's row, column

  @jax.jit
  def logit(step):
    delta = jnp.zeros(layer.weights.shape).at[place].set(step)
    tree = {'weights': delta}
    for part in reversed(layer.name.split('/')):
      tree = {part: tree}
    given = {**variables, 'perturbations': tree}
    out, _ = module.apply(given, images, mutable=['intermediates'])
    return out[1, 3]

  slope = float(logit(0.05) - logit(-0.05)) / 0.1
  assert abs(slope) > 1e-4
  assert layer.gradient[place] == pytest.approx(slope, rel=0.03, abs=1e-4)
  # An image's gradient is of its own class's logit.
  both = visualization.capture_gradients(module, variables, images, 3)
  np.testing.assert_allclose(both.layers[-1].gradient[1], layer.gradient[1], rtol=1e-5)
  assert not np.allclose(both.layers[-1].gradient[0], layer.gradient[0])


def test_fused_attention_is_bypassed():
  module, variables, images = _small('vit_ti16')
  fused = small.build('vit_ti16', attention='cudnn')  # which would fail on a CPU
  seen = visualization.capture(fused, variables, images)
  np.testing.assert_allclose(seen.layers[0].weights.sum(-1), 1.0, rtol=1e-5)


def test_half_precision_comes_back_as_float32():
  module = small.build('vit_ti16', dtype='bfloat16')
  seen = visualization.capture_gradients(module, small.variables(module), small.images(module), 0)
  assert seen.layers[0].weights.dtype == seen.layers[0].gradient.dtype == np.float32


def test_what_a_model_does_not_have_is_an_error():
  module, variables, images = _small('vit_ti16')
  with raises(ModelError, 'class 7', '0 to 4'):
    visualization.capture_gradients(module, variables, images, [0, 7])
  fresh = {'params': {**variables['params'], 'head': jax.tree.map(
    jnp.zeros_like, variables['params']['head'])}}  # fmt: skip
  with raises(visualization.NotApplicable, 'never trained'):
    visualization.capture_gradients(module, fresh, images, 0)
  with raises(visualization.NotApplicable, 'no head'):
    visualization.capture_gradients(module.clone(num_classes=0), variables, images, 0)
  network = models.build('resnet50', 5)
  with raises(visualization.NotApplicable, 'no patch tokens'):
    visualization.capture(network, {}, images)
