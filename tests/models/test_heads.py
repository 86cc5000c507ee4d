"""Heads on top of any model: names stay, outputs fit, every parameter learns."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.models import small
from vit_jax import models, optimizers, tasks, tree
from vit_jax.models import heads

TASK = {'head_hidden': 13, 'head_dropout': 0.0}


def wrapped(name, **options):
  return tasks.build('boxes', 7, **TASK, **options).wrap(small.build(name, 3))


@functools.cache
def shapes(module):
  x = small.images(heads.backbone_of(module))
  return jax.eval_shape(lambda: module.init(jax.random.key(0), x))


@pytest.mark.parametrize(
  'name, box_from',
  [
    *((name, 'pooled') for name in models.names()),
    ('vit_ti16', 'dense'),
    ('resnet50', 'dense'),
  ],
)
def test_the_backbone_of_every_model_keeps_its_names(name, box_from):
  module = wrapped(name, box_from=box_from)
  body = heads.backbone_of(module)
  assert body.num_classes == (0 if box_from == 'pooled' else None) and module.num_classes == 7
  own, found = tree.flatten(shapes(body)), tree.flatten(shapes(module))
  assert {k: v.shape for k, v in found.items() if not k.startswith('params/head')} == {
    k: v.shape for k, v in own.items()
  }
  added = {k for k in found if k not in own}
  assert added == {
    f'params/head_{part}/{layer}/{leaf}'
    for part in ('class', 'box')
    for layer in ('hidden', 'outputs')
    for leaf in ('kernel', 'bias')
  }
  assert optimizers.frozen_names(shapes(module)['params'], ('backbone',)) == {
    k.removeprefix('params/') for k in own if k.startswith('params/')
  }


@pytest.mark.parametrize(
  'name, box_from',
  [
    ('vit_ti16', 'pooled'),
    ('deit_ti16_distilled', 'pooled'),
    ('resnet50', 'pooled'),
    ('cait_xxs24', 'pooled'),
    ('deit_ti16_distilled', 'dense'),
    ('resnet50', 'dense'),
  ],
)
def test_outputs_and_gradients(name, box_from):
  module = wrapped(name, learned_weights=True, box_from=box_from)
  x = small.images(heads.backbone_of(module))
  variables = jax.jit(module.init)(jax.random.key(1), x)
  # Layer scale and other quiet parameters need a step away from their start.
  params = jax.tree.map(lambda p: p + 0.01, variables['params'])
  state = {k: v for k, v in variables.items() if k != 'params'}
  task = tasks.build('boxes', 7, learned_weights=True)
  batch = {'label': jnp.array([1, 5]), 'box': jnp.full((2, 4), 0.3), 'has_box': jnp.ones(2, bool)}

  @jax.jit
  def loss(params):
    outputs, _ = module.apply(
      {'params': params, **state},
      x,
      train=True,
      rngs={'dropout': jax.random.key(2)},
      mutable=list(state),
    )
    return task.losses(outputs, batch).mean(), outputs

  gradients, outputs = jax.grad(loss, has_aux=True)(params)
  assert outputs['logits'].shape == (2, 7) and outputs['box'].shape == (2, 4)
  assert outputs['log_variance'].shape == (2, 2)
  still = [k for k, g in tree.flatten(gradients).items() if not np.abs(g).max() > 0]
  assert not [k for k in still if k.startswith('head')], still


@functools.cache
def features(module):
  """Shapes of pooled and patch features, and of pooled ones alone."""
  x, variables = small.images(module, rows=2, columns=3), small.variables(module)
  both = jax.eval_shape(lambda: module.clone(num_classes=None).apply(variables, x))
  return both, jax.eval_shape(lambda: module.clone(num_classes=0).apply(variables, x))


@pytest.mark.parametrize('name', models.names())
def test_patch_features_have_the_shape_of_the_grid(name):
  (pooled, patches), alone = features(small.build(name, 3))
  assert pooled.shape == alone.shape and pooled.dtype == jnp.float32
  assert patches.shape[0] == 2 and patches.shape[1] * 3 == patches.shape[2] * 2


def test_a_patch_feature_is_at_its_patch():
  """Without attention and positions, a patch's features depend on its own pixels alone."""
  module = small.build('vit_ti16', 3, depth=1, pool='gap', position_embedding='none')
  x = small.images(module, rows=2, columns=3)
  variables = tree.map_named(
    lambda name, value: 0 * value if 'attention/out/' in name else value, small.variables(module)
  )
  apply = jax.jit(module.clone(num_classes=None).apply)
  _, patches = apply(variables, x)
  _, alone = apply(variables, x[:, 8:, 16:])
  np.testing.assert_allclose(patches[:, 1, 2], alone[:, 0, 0], atol=1e-5)
  assert not np.allclose(patches[:, 0, 2], patches[:, 1, 2], atol=1e-2)


def test_a_dense_box_is_a_weighted_mean_of_each_edge():
  predictions = np.zeros((1, 2, 4, 8), np.float32)
  np.testing.assert_allclose(heads.dense_box(predictions), [[0.5, 0.5, 0.5, 0.5]], atol=1e-6)
  # The patch in the first row and the fourth column, at (0.875, 0.25), alone predicts the left
  # edge: a quarter before it by default, moved by three tenths; the others agree on the rest.
  predictions[0, 0, 3, 4], predictions[0, 0, 3, 0] = 50.0, -3.0
  left = 0.875 - 0.25 - 0.3
  np.testing.assert_allclose(
    heads.dense_box(predictions), [[(left + 0.75) / 2, 0.5, 0.75 - left, 0.5]], atol=1e-6
  )
  # Two patches with weights 3 : 1 (logits of 4) for the bottom edge, at 0.25 and 0.75.
  predictions = np.full((1, 2, 1, 8), 0.0, np.float32)
  predictions[0, 0, 0, 7] = np.log(3) / 4
  bottom = (3 * 0.25 + 0.75) / 4 + 0.25
  np.testing.assert_allclose(
    heads.dense_box(predictions), [[0.5, (0.25 + bottom) / 2, 0.5, bottom - 0.25]], atol=1e-6
  )


@pytest.mark.parametrize('options', [{}, {'box_sigmoid': False}, {'box_from': 'dense'}])
def test_boxes_start_in_the_middle(options):
  module = wrapped('vit_ti16', **options)
  x = small.images(heads.backbone_of(module))
  outputs = module.apply(jax.jit(module.init)(jax.random.key(0), x), x)
  np.testing.assert_allclose(outputs['box'], 0.5, atol=0.05)


def test_without_a_sigmoid_boxes_have_no_bound():
  module = wrapped('vit_ti16', box_sigmoid=False)
  x = small.images(heads.backbone_of(module))
  far = jax.tree.map(lambda p: 100.0 * p, jax.jit(module.init)(jax.random.key(0), x))
  assert np.abs(module.apply(far, x)['box']).max() > 1  # no sigmoid, no bound


def test_fields_of_the_model_below_can_be_changed():
  module = heads.with_backbone(wrapped('resnet50'), axis_name='batch')
  assert heads.backbone_of(module).axis_name == 'batch' and module.hidden == 13
