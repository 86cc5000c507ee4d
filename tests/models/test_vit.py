"""The options of the Vision Transformer, and how `build` reports mistakes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.models import small
from tests.support import raises
from vit_jax import models, tree
from vit_jax.errors import ConfigError, ModelError


def _apply(module, **kwargs):
  return small.apply(module, small.variables(module), small.images(module), **kwargs)


@pytest.mark.parametrize(
  'options, prefix, extra',
  [
    ({}, 1, {'class_token', 'position_embedding'}),
    ({'pool': 'gap'}, 0, {'position_embedding'}),
    ({'pool': 'map'}, 0, {'position_embedding', 'map_pool'}),
    ({'num_registers': 3}, 4, {'class_token', 'registers', 'position_embedding'}),
    ({'pool': 'gap', 'num_registers': 2}, 2, {'registers', 'position_embedding'}),
    ({'representation_size': 11}, 1, {'class_token', 'position_embedding', 'pre_logits'}),
    ({'position_embedding': 'sincos_2d'}, 1, {'class_token'}),
    ({'position_embedding': 'sinusoid_1d'}, 1, {'class_token'}),
    ({'position_embedding': 'none', 'pool': 'gap'}, 0, set()),
  ],
)
def test_options_have_their_parameters(options, prefix, extra):
  module = small.build('vit_b16', **options)
  assert module.num_prefix_tokens == prefix
  params = small.variables(module)['params']
  assert set(params) == {'patch_embedding', 'encoder', 'head'} | extra
  if 'position_embedding' in params:
    slots = 6 + (options.get('pool', 'token') == 'token')  # registers have none
    assert params['position_embedding'].shape == (1, slots, 24)
  assert _apply(module).shape == (2, small.CLASSES)


def test_block_options_have_their_parameters():
  module = small.build('vit_b16', layer_scale=1e-4, qk_norm=True, qkv_bias=False)
  block = tree.flatten(small.variables(module)['params']['encoder']['block_00'])
  assert block['scale1/gamma'].shape == block['scale2/gamma'].shape == (24,)
  assert block['attention/query_norm/scale'].shape == (8,)
  assert block['attention/qkv/kernel'].shape == (24, 3, 3, 8)
  assert 'attention/qkv/bias' not in block


def test_a_fresh_model_starts_as_published():
  module = small.build('vit_b16', layer_scale=0.1, head_bias_init=-3.0)
  params = module.init(jax.random.key(0), small.images(module))['params']
  assert not np.any(params['head']['kernel'])
  np.testing.assert_array_equal(params['head']['bias'], -3.0)
  assert not np.any(params['class_token'])
  assert np.std(params['position_embedding']) == pytest.approx(0.02, rel=0.2)
  block = params['encoder']['block_01']
  assert np.abs(block['mlp']['fc1']['bias']).max() < 1e-5
  np.testing.assert_allclose(block['scale1']['gamma'], 0.1)


def test_without_positions_patches_may_be_shuffled():
  module = small.build('vit_b16', position_embedding='none', pool='gap')
  x = small.images(module)
  mirrored = jnp.concatenate([x[:, 8:], x[:, :8]], axis=1)  # the two rows of patches swapped
  variables = small.variables(module)
  np.testing.assert_allclose(
    module.apply(variables, x), module.apply(variables, mirrored), atol=1e-5
  )


def test_class_token_reads_its_own_position():
  # A class token of 1 with position 0 equals a class token of 0 with position 1.
  module = small.build('vit_b16')
  variables = small.variables(module)
  params = dict(variables['params'])
  moved = params['position_embedding'].at[:, 0].add(params['class_token'][0, 0])
  changed = {
    **params,
    'class_token': jnp.zeros_like(params['class_token']),
    'position_embedding': moved,
  }
  x = small.images(module)
  np.testing.assert_allclose(
    module.apply(variables, x), module.apply({'params': changed}, x), atol=1e-5
  )


def test_position_table_without_a_slot_leaves_the_class_token_alone():
  module = small.build('vit_b16', position_for_class_token=False)
  assert small.variables(module)['params']['position_embedding'].shape == (1, 6, 24)


def test_dropout_and_stochastic_depth_act_in_training_alone():
  module = small.build('vit_b16', dropout=0.3, attention_dropout=0.3, drop_path_rate=0.5)
  quiet = small.build('vit_b16')
  first = _apply(module, train=True, rngs={'dropout': jax.random.key(0)})
  again = _apply(module, train=True, rngs={'dropout': jax.random.key(0)})
  other = _apply(module, train=True, rngs={'dropout': jax.random.key(1)})
  np.testing.assert_array_equal(first, again)
  assert not np.allclose(first, other)
  np.testing.assert_array_equal(_apply(module), _apply(quiet))


def test_image_sizes_that_patches_do_not_tile_are_refused():
  module = small.build('vit_b16')
  with raises(ModelError, '16x20', '8x8', '16x16'):
    module.apply(small.variables(module), jnp.zeros((1, 16, 20, 3)))
  with raises(ModelError, '[b, h, w, c]', '(16, 16, 3)'):
    module.apply(small.variables(module), jnp.zeros((16, 16, 3)))


@pytest.mark.parametrize(
  'patch_size, image_hw, nearest',
  [((8, 8), (7, 8), '8x8'), ((8, 8), (30, 0), '32x8'), ((4, 6), (9, 15), '8x12')],
)
def test_the_nearest_image_size_is_named(patch_size, image_hw, nearest):
  module = small.build('vit_b16', patch_size=patch_size)
  with raises(ModelError, f'{image_hw[0]}x{image_hw[1]}', nearest):
    models.check_image_size(module, image_hw)


def test_convolutional_networks_take_every_image_size():
  models.check_image_size(small.build('resnet50'), (37, 53))
  models.check_image_size(small.build('vit_b16'), (8, 24))


@pytest.mark.parametrize(
  'name, options, facts',
  [
    ('vit_b16', {'widht': 8}, ["'widht'", "'width'"]),
    ('vit_b16', {'depth': 'x'}, ["'depth'", 'an integer', "'x'"]),
    ('vit_b16', {'depth': True}, ["'depth'", 'an integer', 'True']),
    ('vit_b16', {'depth': 0}, ["'depth'", 'at least 1', 'got 0']),
    ('vit_b16', {'dropout': 1.0}, ["'dropout'", 'below 1', 'got 1.0']),
    ('vit_b16', {'drop_path_rate': float('nan')}, ["'drop_path_rate'", 'nan']),
    ('vit_b16', {'pool': 'tok'}, ["'tok'", "'token'"]),
    ('vit_b16', {'dtype': 'bfloat61'}, ["'bfloat61'", "'bfloat16'"]),
    ('vit_b16', {'num_heads': 7}, ['num_heads=7', 'width=768']),
    ('vit_b16', {'patch_size': (3, 'a')}, ["'patch_size'", '2 integers', "(3, 'a')"]),
    ('vit_b16', {'distilled': True, 'pool': 'gap'}, ['distilled', "pool='token'", "'gap'"]),
    ('vit_ti16', {'position_embedding': 'sincos_2d', 'width': 6, 'num_heads': 3}, ['width=6']),
    ('r50_b16', {'patch_size': 8}, ['patch_size=(8, 8)', '16']),
    ('r50_b16', {'stem_width': 40}, ['stem_width', '40', '32']),
  ],
)
def test_mistakes_are_reported(name, options, facts):
  with raises(ModelError, *facts):
    models.build(name, 10, **options)


def test_an_unknown_name_is_refused_with_the_nearest():
  with raises(ConfigError, "'vit_b17'", "'vit_b16'"):
    models.build('vit_b17', 10)


def test_several_mistakes_are_reported_at_once():
  with pytest.raises(ModelError) as caught:
    models.build('vit_b16', -1, depth=1.5, widht=3)
  assert len(caught.value.problems) == 3


def test_values_from_files_and_command_lines_are_brought_to_type():
  module = models.build('r26_s32', 3, patch_size=64, stem_blocks=[1, 1, 1, 1], dropout=0)
  assert module.patch_size == (64, 64)
  assert module.stem_blocks == (1, 1, 1, 1)
  assert isinstance(module.dropout, float)
  assert models.build('vit_b16', 3, dtype=jnp.bfloat16).dtype == 'bfloat16'
  assert models.fields('vit_b16')['width'] == 768
