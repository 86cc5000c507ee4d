"""Heads on top of any model: names stay, outputs fit, every parameter learns."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.models import small
from vit_jax import models, optim, tasks, tree
from vit_jax.models import heads

TASK = {'head_hidden': 13, 'head_dropout': 0.0}


def wrapped(name, **options):
  return tasks.build('boxes', 7, **TASK, **options).wrap(small.build(name, 3))


def shapes(module):
  x = small.images(heads.backbone_of(module))
  return jax.eval_shape(lambda: module.init(jax.random.key(0), x))


@pytest.mark.parametrize('name', models.names())
def test_the_backbone_of_every_model_keeps_its_names(name):
  module = wrapped(name)
  body = heads.backbone_of(module)
  assert body.num_classes == 0 and module.num_classes == 7
  own, found = tree.flatten(shapes(body)), tree.flatten(shapes(module))
  assert {k: v.shape for k, v in found.items() if not k.startswith('params/head')} == {
    k: v.shape for k, v in own.items()}
  added = {k for k in found if k not in own}
  assert added == {f'params/head_{part}/{layer}/{leaf}' for part in ('class', 'box')
                   for layer in ('hidden', 'outputs') for leaf in ('kernel', 'bias')}
  assert optim.frozen_names(shapes(module)['params'], ('backbone',)) == {
    k.removeprefix('params/') for k in own if k.startswith('params/')}


@pytest.mark.parametrize('name', ['vit_ti16', 'deit_ti16_distilled', 'resnet50', 'cait_xxs24'])
def test_outputs_and_gradients(name):
  module = wrapped(name, learned_weights=True)
  x = small.images(heads.backbone_of(module))
  variables = jax.jit(module.init)(jax.random.key(1), x)
  # Layer scale and other quiet parameters need a step away from their start.
  params = jax.tree.map(lambda p: p + 0.01, variables['params'])
  state = {k: v for k, v in variables.items() if k != 'params'}
  task = tasks.build('boxes', 7, learned_weights=True)
  batch = {'label': jnp.array([1, 5]), 'box': jnp.full((2, 4), 0.3), 'has_box': jnp.ones(2, bool)}

  @jax.jit
  def loss(params):
    outputs, _ = module.apply({'params': params, **state}, x, train=True,
                              rngs={'dropout': jax.random.key(2)}, mutable=list(state))
    return task.losses(outputs, batch).mean(), outputs

  gradients, outputs = jax.grad(loss, has_aux=True)(params)
  assert outputs['logits'].shape == (2, 7) and outputs['box'].shape == (2, 4)
  assert outputs['log_variance'].shape == (2, 2)
  still = [k for k, g in tree.flatten(gradients).items() if not np.abs(g).max() > 0]
  assert not [k for k in still if k.startswith('head')], still


def test_boxes_start_in_the_middle_with_and_without_a_sigmoid():
  for sigmoid in (True, False):
    module = wrapped('vit_ti16', box_sigmoid=sigmoid)
    x = small.images(heads.backbone_of(module))
    outputs = module.apply(module.init(jax.random.key(0), x), x)
    np.testing.assert_allclose(outputs['box'], 0.5, atol=0.05)
  far = jax.tree.map(lambda p: 100.0 * p, module.init(jax.random.key(0), x))
  assert np.abs(module.apply(far, x)['box']).max() > 1  # no sigmoid, no bound


def test_fields_of_the_model_below_can_be_changed():
  module = heads.with_backbone(wrapped('resnet50'), axis_name='batch')
  assert heads.backbone_of(module).axis_name == 'batch' and module.hidden == 13
