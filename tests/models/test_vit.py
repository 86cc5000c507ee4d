"""The options of the Vision Transformer, and what `build` says to mistakes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.models import small
from vit_jax import errors, models, tree


def _apply(module, **kwargs):
  return module.apply(small.variables(module), small.images(module), **kwargs)


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


def test_image_sizes_that_no_grid_divides_are_refused():
  module = small.build('vit_b16')
  with pytest.raises(errors.UserError, match='16x20 is not a multiple of the patch size 8x8'):
    module.apply(small.variables(module), jnp.zeros((1, 16, 20, 3)))
  with pytest.raises(errors.UserError, match='expected images'):
    module.apply(small.variables(module), jnp.zeros((16, 16, 3)))


@pytest.mark.parametrize(
  'name, options, message',
  [
    ('vit_b17', {}, "unknown model 'vit_b17'.*'vit_b16'"),
    ('vit_b16', {'widht': 8}, "no field 'widht'.*'width'"),
    ('vit_b16', {'depth': 'x'}, "'depth'.*must be int, got 'x'"),
    ('vit_b16', {'depth': True}, "'depth'.*must be int, got True"),
    ('vit_b16', {'pool': 'tok'}, "'pool'.*'tok'.*'token'"),
    ('vit_b16', {'dtype': 'bfloat61'}, "'dtype'.*'bfloat16'"),
    ('vit_b16', {'num_heads': 7}, 'num_heads=7 does not divide width=768'),
    ('vit_b16', {'patch_size': (3, 'a')}, "'patch_size'.*must be a tuple of 2 ints"),
    ('vit_b16', {'distilled': True, 'pool': 'gap'}, "distilled=True needs pool='token'"),
    ('vit_ti16', {'position_embedding': 'sincos_2d', 'width': 6, 'num_heads': 3}, 'multiple of 4'),
    ('r50_b16', {'patch_size': 8}, 'multiples of the stem stride 16'),
  ],
)
def test_mistakes_are_answered(name, options, message):
  with pytest.raises(errors.UserError, match=message):
    models.build(name, 10, **options)


def test_several_mistakes_are_reported_at_once():
  with pytest.raises(errors.UserError) as info:
    models.build('vit_b16', -1, depth=1.5, widht=3)
  assert len(info.value.problems) == 3


def test_values_from_files_and_command_lines_are_brought_to_type():
  module = models.build('r26_s32', 3, patch_size=64, stem_blocks=[1, 1, 1, 1], dropout=0)
  assert module.patch_size == (64, 64)
  assert module.stem_blocks == (1, 1, 1, 1)
  assert isinstance(module.dropout, float)
  assert models.build('vit_b16', 3, dtype=jnp.bfloat16).dtype == 'bfloat16'
  assert models.fields('vit_b16')['width'] == 768
