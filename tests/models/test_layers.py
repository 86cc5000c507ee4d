"""Layers against values worked by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vit_jax.models import attention, layers


def test_drop_path_rates_grow_evenly_from_zero():
  np.testing.assert_allclose(layers.drop_path_rates(0.3, 4), [0, 0.1, 0.2, 0.3])
  assert layers.drop_path_rates(0.3, 1) == [0]
  assert layers.drop_path_rates(0.3, 3, 'constant') == [0.3] * 3


def test_drop_path_drops_whole_examples_and_keeps_the_mean():
  x = jnp.ones((997, 3, 2))
  y = layers.DropPath(0.25).apply({}, x, True, rngs={'dropout': jax.random.key(0)})
  per_example = np.asarray(y).reshape(997, -1)
  assert np.all((per_example == 0).all(1) | np.isclose(per_example, 4 / 3).all(1))
  assert abs(per_example.mean() - 1) < 0.06  # three standard deviations of the mean
  np.testing.assert_array_equal(layers.DropPath(0.25).apply({}, x, False), x)


def test_layer_scale_multiplies_channels():
  x = jnp.asarray([[[1.0, 2.0, 3.0]]])
  module = layers.LayerScale(0.5)
  variables = module.init(jax.random.key(0), x)
  np.testing.assert_allclose(module.apply(variables, x), [[[0.5, 1, 1.5]]])


def test_gelu_kinds_differ_where_they_should():
  # erf: x * Phi(x), Phi(1) = 0.8413447; tanh: 0.5 (1 + tanh(sqrt(2/pi) 1.044715)) = 0.8411920
  assert float(layers.gelu(jnp.float32(1), 'exact')) == pytest.approx(0.8413447, abs=1e-6)
  assert float(layers.gelu(jnp.float32(1), 'tanh')) == pytest.approx(0.8411920, abs=1e-6)


def test_patch_embedding_is_the_strided_convolution():
  rng = np.random.default_rng(0)
  x = jnp.asarray(rng.standard_normal((2, 6, 10, 3)), jnp.float32)
  module = layers.PatchEmbedding((3, 5), 7)
  variables = module.init(jax.random.key(0), x)
  variables['params']['bias'] = jnp.arange(7.0)
  kernel = variables['params']['kernel']
  assert kernel.shape == (3, 5, 3, 7)
  expected = jax.lax.conv_general_dilated(
    x, kernel, (3, 5), 'VALID', dimension_numbers=('NHWC', 'HWIO', 'NHWC')
  )
  np.testing.assert_allclose(module.apply(variables, x), expected + jnp.arange(7.0), atol=1e-5)


def _attention(num_heads=1, **options):
  return attention.Attention(attention.BlockOptions(num_heads=num_heads, mlp_dim=1, **options))


def _identity_attention(d, num_heads, scale=1.0):
  """Parameters that make queries, keys and values the input itself and the output their mix."""
  eye = jnp.eye(d).reshape(d, num_heads, d // num_heads)
  return {
    'params': {
      'qkv': {'kernel': jnp.stack([scale * eye, eye, eye], 1)},
      'out': {'kernel': jnp.eye(d).reshape(num_heads, -1, d), 'bias': jnp.zeros(d)},
    }
  }


def test_attention_by_hand():
  # Two tokens, one head of width 1: logits q k = [[0, 0], [0, ln 3]], so the second token attends
  # with weights 1/4 and 3/4.
  root = np.sqrt(np.log(3))
  x = jnp.asarray([[[0.0], [root]]], jnp.float32)
  module = _attention(qkv_bias=False)
  y, state = module.apply(_identity_attention(1, 1), x, False, mutable=['intermediates'])
  np.testing.assert_allclose(y[0, :, 0], [root / 2, root * 3 / 4], rtol=1e-6)
  weights = state['intermediates']['weights'][0]
  np.testing.assert_allclose(weights[0, 0], [[0.5, 0.5], [0.25, 0.75]], rtol=1e-6)


def test_attention_scales_by_head_width_unless_a_scale_is_given():
  x = jnp.asarray(np.random.default_rng(1).standard_normal((1, 3, 8)), jnp.float32)
  default = _attention(2, qkv_bias=False).apply(_identity_attention(8, 2), x, False)
  given = _attention(2, qkv_bias=False, query_scale=1.0).apply(
    _identity_attention(8, 2, scale=0.5), x, False
  )
  np.testing.assert_allclose(default, given, rtol=1e-6)  # 1 / sqrt(4) = 0.5


def test_fused_qkv_starts_like_three_projections():
  module = attention.HeadsDense((3, 2), 5)
  kernel = module.init(jax.random.key(0), jnp.ones((1, 1, 7)))['params']['kernel']
  assert kernel.shape == (7, 3, 2, 5)
  limit = np.sqrt(6 / (7 + 10))  # Xavier's bound of one [7, 10] projection
  assert 0.9 * limit < float(jnp.abs(kernel).max()) <= limit
  assert not np.allclose(kernel[:, 0], kernel[:, 1])


def test_map_pool_of_equal_tokens_ignores_their_number():
  options = attention.BlockOptions(num_heads=1, mlp_dim=3)
  module = layers.MapPool(options)
  token = jnp.asarray([0.3, -0.7])
  x = jnp.broadcast_to(token, (2, 5, 2))
  variables = module.init(jax.random.key(0), x, False)
  y = module.apply(variables, x, False)
  assert y.shape == (2, 2)
  # Any weights average equal tokens to the token, so attention is out(value(token)).
  p = variables['params']['attention']
  mixed = token @ p['value']['kernel'].reshape(2, 2) @ p['out']['kernel'].reshape(2, 2)
  mlp = layers.Mlp(3).apply({'params': variables['params']['mlp']}, _normed(mixed)[None], False)
  np.testing.assert_allclose(y[0], mixed + mlp[0], atol=1e-5)
  np.testing.assert_allclose(y, module.apply(variables, x[:, :3], False), atol=1e-6)


def _normed(x):
  return (x - x.mean()) / jnp.sqrt(x.var() + 1e-6)


def test_rematerialised_blocks_give_the_same_gradient():
  x = jnp.asarray(np.random.default_rng(2).standard_normal((2, 3, 4)), jnp.float32)

  def gradient(remat):
    options = attention.BlockOptions(num_heads=2, mlp_dim=5, dropout=0.2, remat=remat, scan=False)
    module = layers.Encoder(2, options, 0.3)
    params = jax.jit(lambda x: module.init(jax.random.key(0), x, False))(x)['params']

    def loss(params):
      out = module.apply({'params': params}, x, True, rngs={'dropout': jax.random.key(5)})
      return jnp.sum(jnp.square(out) * x)

    return jax.jit(jax.grad(loss))(params)

  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), gradient('none'), gradient('block')
  )
