"""Convolutional networks: padding, standardised kernels, and batch statistics."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.models import small
from tests.support import raises
from vit_jax import models, tree
from vit_jax.errors import ModelError
from vit_jax.models import batch_norm, convs, group_norm, mobilenet


def _ones(options, x, **kwargs):
  """A 3x3 convolution of ones: the sum of each window."""
  module = convs.Conv(options, 1, 3, **kwargs)
  return module.apply({'params': {'kernel': jnp.ones((3, 3, 1, 1))}}, x)[0, :, :, 0]


def test_paddings_differ_where_the_stride_leaves_a_remainder():
  x = jnp.arange(16.0).reshape(1, 4, 4, 1)
  # 'same' pads one row below and one column right; 'symmetric' one on every side.
  same = _ones(convs.ConvOptions(padding='same'), x, stride=2)
  symmetric = _ones(convs.ConvOptions(padding='symmetric'), x, stride=2)
  np.testing.assert_array_equal(same, [[45, 39], [66, 50]])
  np.testing.assert_array_equal(symmetric, [[10, 24], [51, 90]])


def test_depthwise_convolutions_keep_channels_apart():
  x = jnp.stack([jnp.ones((1, 3, 3)), 10 * jnp.ones((1, 3, 3))], axis=-1)
  module = convs.Conv(convs.ConvOptions(), 2, 3, depthwise=True)
  y = module.apply({'params': {'kernel': jnp.ones((3, 3, 1, 2))}}, x)
  np.testing.assert_array_equal(y[0, 1, 1], [9, 90])


def _with_gradients(function, *args):
  """What a function returns, and the gradients of its sum with random weights."""

  @jax.jit
  def computed(*args):
    y, backward = jax.vjp(function, *args)
    weights = np.random.default_rng(9).standard_normal(y.shape).astype(y.dtype)
    return y, *backward(jnp.asarray(weights))

  return computed(*args)


@pytest.mark.parametrize(
  ('height', 'width', 'channels', 'features', 'size', 'stride', 'padding'),
  [
    (7, 9, 5, 5, 3, 1, 'same'),
    (9, 11, 3, 3, 3, 2, 'same'),
    (13, 10, 3, 3, 3, 2, 'symmetric'),
    (17, 5, 2, 2, 5, 2, 'same'),
    (8, 3, 7, 7, 5, 1, 'symmetric'),
    (1, 1, 3, 3, 3, 1, 'same'),
    (6, 5, 2, 2, 2, 2, 'same'),
    (4, 5, 3, 3, 3, 4, 'symmetric'),
    (5, 7, 3, 11, 1, 1, 'same'),
    (5, 7, 3, 11, 1, 2, 'symmetric'),
    (6, 7, 3, 11, 3, 2, 'same'),
  ],
)
def test_every_form_of_a_convolution_gives_its_values_and_gradients(
  height, width, channels, features, size, stride, padding
):
  draw = np.random.default_rng(0)
  depthwise = channels == features
  x = jnp.asarray(draw.standard_normal((2, height, width, channels)), jnp.float32)
  shape = (size, size, 1 if depthwise else channels, features)
  kernel = jnp.asarray(draw.standard_normal(shape), jnp.float32)
  pads = 'SAME' if padding == 'same' else [(size // 2, size // 2)] * 2

  def expected(x, kernel):
    return jax.lax.conv_general_dilated(
      x,
      kernel,
      (stride, stride),
      pads,
      dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
      feature_group_count=channels if depthwise else 1,
    )

  def ours(x, kernel):
    return convs.convolve(x, kernel, stride, padding)

  for a, b in zip(
    _with_gradients(expected, x, kernel), _with_gradients(ours, x, kernel), strict=True
  ):
    assert a.shape == b.shape and a.dtype == b.dtype
    np.testing.assert_allclose(a, b, atol=3e-5)


def test_of_no_images_there_are_no_features():
  kernel = jnp.ones((1, 1, 3, 5))
  y, backward = jax.vjp(lambda k: convs.convolve(jnp.ones((0, 4, 4, 3)), k, 1, 'same'), kernel)
  assert y.shape == (0, 4, 4, 5) and not backward(y)[0].any()


def test_depthwise_gradients_are_the_same_with_integers_of_64_bits():
  random = np.random.default_rng(0)
  x, kernel = (random.standard_normal(s, np.float32) for s in ((2, 5, 4, 3), (3, 3, 1, 3)))

  def gradient():
    y, backward = jax.vjp(lambda k: convs.depthwise.convolve(x, k, 2, ((1, 1), (0, 1))), kernel)
    return backward(jnp.ones_like(y))[0]

  plain = gradient()
  with jax.enable_x64(True):
    wide = gradient()
  np.testing.assert_allclose(wide, plain, rtol=1e-6)


def test_depthwise_sums_of_bfloat16_are_float32():
  # 256 + 1 rounds to 256 in bfloat16, so that sums in it would never pass 256.
  x = jnp.ones((2, 20, 20, 1), jnp.bfloat16)
  kernel = jnp.ones((1, 1, 1, 1), jnp.bfloat16)
  _, backward = jax.vjp(lambda k: convs.depthwise.convolve(x, k, 1, ((0, 0), (0, 0))), kernel)
  (gradient,) = backward(x)
  assert gradient.dtype == jnp.bfloat16 and float(gradient.squeeze()) == 800


@pytest.mark.parametrize('in_variance', [True, False])
def test_standardised_kernels_do_not_depend_on_scale_and_shift(in_variance):
  options = convs.ConvOptions(standardise=1e-8, epsilon_in_variance=in_variance)
  x = jnp.asarray(np.random.default_rng(0).standard_normal((1, 5, 5, 2)), jnp.float32)
  kernel = np.random.default_rng(1).standard_normal((3, 3, 2, 7)).astype(np.float32)
  module = convs.Conv(options, 7, 3)
  plain = module.apply({'params': {'kernel': kernel}}, x)
  moved = module.apply({'params': {'kernel': 3 * kernel + 5}}, x)
  np.testing.assert_allclose(plain, moved, atol=1e-4)


def test_where_the_epsilon_is_added():
  # A kernel of +1 and -1 has deviation 1: 1 / (1 + 3) outside, 1 / sqrt(1 + 3) inside the root.
  kernel = jnp.asarray([1.0, -1.0]).reshape(1, 1, 2, 1)
  for in_variance, expected in ((False, 0.25), (True, 0.5)):
    options = convs.ConvOptions(standardise=3.0, epsilon_in_variance=in_variance)
    y = convs.Conv(options, 1, 1).apply(
      {'params': {'kernel': kernel}}, jnp.asarray([1.0, 0.0]).reshape(1, 1, 1, 2)
    )
    assert float(y.squeeze()) == pytest.approx(expected)


def test_pooling_over_zeros_differs_for_negative_borders():
  x = -jnp.ones((1, 4, 4, 1))
  np.testing.assert_array_equal(convs.max_pool(x, 'symmetric')[0, :, :, 0], -np.ones((2, 2)))
  zeros = convs.max_pool(x, 'symmetric', fill_zero=True)[0, :, :, 0]
  np.testing.assert_array_equal(zeros, [[0, 0], [0, -1]])


class _Norm(nn.Module):
  options: convs.ConvOptions

  @nn.compact
  def __call__(self, x, train):
    return convs.norm(self.options, 'norm', train)(x)


def _statistics(options, x):
  module = _Norm(options)
  variables = module.init(jax.random.key(0), x, False)
  y, state = module.apply(variables, x, True, mutable=['batch_stats'])
  return y, state['batch_stats']['norm']


def test_running_statistics_move_by_their_momentum():
  x = jnp.asarray([1.0, 5.0]).reshape(2, 1, 1, 1)  # mean 3, variance 4
  y, statistics = _statistics(convs.ConvOptions(norm_momentum=0.75), x)
  np.testing.assert_allclose(y.ravel(), [-1, 1], rtol=1e-5)
  np.testing.assert_allclose(statistics['mean'], [0.25 * 3])
  np.testing.assert_allclose(statistics['var'], [0.75 + 0.25 * 4])


def test_frozen_norms_use_and_keep_their_statistics():
  x = jnp.asarray([1.0, 5.0]).reshape(2, 1, 1, 1)
  y, statistics = _statistics(convs.ConvOptions(norm_frozen=True), x)
  np.testing.assert_allclose(y, x, rtol=1e-4)  # mean 0 and variance 1 from the start
  np.testing.assert_array_equal(statistics['mean'], [0])


@pytest.mark.parametrize('axis_name', [None, 'batch'])
def test_batch_norm_has_flaxs_values_and_gradients(axis_name):
  draw = np.random.default_rng(0)
  x = jnp.asarray(3 + 2 * draw.standard_normal((2, 3, 5, 7, 11)), jnp.float32)
  weights = jnp.asarray(draw.standard_normal(x.shape), jnp.float32)
  options = {'momentum': 0.75, 'epsilon': 1e-3, 'axis_name': axis_name}
  flaxs = nn.BatchNorm(use_running_average=False, **options)
  ours = batch_norm.BatchNorm(use_running_average=False, **options)
  variables = ours.init(jax.random.key(0), x[0])
  params = {'scale': jnp.linspace(0.5, 2, 11), 'bias': jnp.linspace(-1, 1, 11)}

  def loss(module, params, x, weights):
    y, state = module.apply({**variables, 'params': params}, x, mutable=['batch_stats'])
    return (y * weights).sum(), (y, state)

  def everything(module):
    graded = jax.value_and_grad(loss, argnums=(1, 2), has_aux=True)
    mapped = jax.vmap(
      lambda x, w: graded(module, params, x, w), axis_name='batch' if axis_name else None
    )
    return jax.jit(mapped)(x, weights)

  expected, got = everything(flaxs), everything(ours)
  assert jax.tree.structure(expected) == jax.tree.structure(got)
  for a, b in zip(jax.tree.leaves(expected), jax.tree.leaves(got), strict=True):
    np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize('dtype', ['float32', 'bfloat16'])
def test_group_norm_has_flaxs_values_and_gradients(dtype):
  draw = np.random.default_rng(0)
  x = jnp.asarray(3 + 2 * draw.standard_normal((3, 5, 7, 12)), dtype)
  weights = jnp.asarray(draw.standard_normal(x.shape), jnp.float32)
  options = {'num_groups': 4, 'epsilon': 1e-3, 'dtype': jnp.dtype(dtype)}
  flaxs = nn.GroupNorm(use_fast_variance=False, **options)
  ours = group_norm.GroupNorm(**options)
  params = {'scale': jnp.linspace(0.5, 2, 12), 'bias': jnp.linspace(-1, 1, 12)}
  made = ours.init(jax.random.key(0), x)['params']
  assert jax.tree.map(jnp.shape, made) == jax.tree.map(jnp.shape, params)

  def loss(module, params, x):
    y = module.apply({'params': params}, x)
    return (y * weights).sum(), y

  expected, got = (
    jax.jit(jax.value_and_grad(functools.partial(loss, module), argnums=(0, 1), has_aux=True))(
      params, x
    )
    for module in (flaxs, ours)
  )
  assert jax.tree.map(lambda a: a.dtype, expected) == jax.tree.map(lambda a: a.dtype, got)
  step = {'float32': 1e-5, 'bfloat16': 0.02}[dtype]
  for a, b in zip(jax.tree.leaves(expected), jax.tree.leaves(got), strict=True):
    a, b = (np.asarray(v, np.float32) for v in (a, b))
    np.testing.assert_allclose(a, b, rtol=step, atol=step * np.abs(a).max())


def test_group_norm_keeps_its_digits_where_activations_are_large():
  x = 1000 + np.random.default_rng(0).standard_normal((2, 8, 8, 64)).astype(np.float32)
  groups = x.astype(np.float64).reshape(2, 64, 32, 2)
  exact = (groups - groups.mean((1, 3), keepdims=True)) / groups.std((1, 3), keepdims=True)
  got = group_norm.GroupNorm(epsilon=0.0).apply(
    {'params': {'scale': np.ones(64, np.float32), 'bias': np.zeros(64, np.float32)}}, x
  )
  np.testing.assert_allclose(got, exact.reshape(x.shape), atol=5e-4)  # half a step of 1000 is 3e-5


def test_statistics_are_averaged_over_a_named_axis():
  x = jnp.asarray([1.0, 5.0, 7.0, 11.0]).reshape(2, 2, 1, 1, 1)  # two devices of two images
  options = convs.ConvOptions(axis_name='batch', norm_momentum=0.0)
  _, statistics = jax.vmap(lambda x: _statistics(options, x), axis_name='batch')(x)
  np.testing.assert_allclose(statistics['mean'].ravel(), [6, 6])
  np.testing.assert_allclose(statistics['var'].ravel(), [13, 13], rtol=1e-5)


@pytest.mark.parametrize('name', ['resnet50', 'mobilenet_v2'])
def test_training_changes_statistics_and_evaluation_reads_them(name):
  module = small.build(name)
  x, variables = small.images(module), small.variables(module)
  _, state = small.apply(module, variables, x, train=True, mutable=['batch_stats'])
  before, after = tree.flatten(variables['batch_stats']), tree.flatten(state['batch_stats'])
  assert before.keys() == after.keys()
  assert all(not np.allclose(before[key], after[key]) for key in before)


def test_keras_and_torch_variants_share_their_parameters_but_biases():
  torch, keras = small.build('resnet50'), small.build('resnet50', conv_bias=True, stride_in_conv=1)
  x = small.images(torch)
  shapes = [
    set(tree.flatten(jax.eval_shape(m.init, jax.random.key(0), x)['params']))
    for m in (torch, keras)
  ]
  assert shapes[0] < shapes[1]
  assert all(key.endswith('/bias') for key in shapes[1] - shapes[0])


def test_channels_are_rounded_to_eights_but_not_down_by_more_than_a_tenth():
  channels = mobilenet.MobileNetV2(0, width_multiplier=0.35)._channels
  assert [channels(c) for c in (16, 24, 32, 64)] == [8, 8, 16, 24]  # 5.6, 8.4, 11.2 and 22.4


@pytest.mark.parametrize(
  'name, options, facts',
  [
    ('mobilenet_v2', {'padding': 'valid'}, ["'padding'", "'valid'", 'same, symmetric']),
    ('mobilenet_v2', {'repeats': [1, 2]}, ['repeats', '7 stages', '(1, 2)']),
    ('mobilenet_v2', {'width_multiplier': 0}, ["'width_multiplier'", 'above 0']),
    ('bit_r50x1', {'width': 40}, ['width=40', '32']),
    ('resnet50', {'stride_in_conv': 3}, ["'stride_in_conv'", '1, 2']),
    ('resnet50', {'blocks': (3, 0)}, ["'blocks'", 'at least 1', '(3, 0)']),
  ],
)
def test_mistakes_are_reported(name, options, facts):
  with raises(ModelError, *facts):
    models.build(name, 3, **options)


@pytest.mark.skipif(jax.default_backend() != 'cpu', reason="it is XLA's workspace on CPU")
def test_a_norm_keeps_its_input_alone_for_its_gradient():
  def workspace(layers):
    norm = group_norm.GroupNorm(8)
    shape, kernels = (4, 32, 32, 64), (layers, 1, 1, 64, 64)
    variables = norm.init(jax.random.key(0), jnp.zeros(shape))

    def loss(kernels, x):
      for kernel in kernels:
        x = nn.relu(norm.apply(variables, convs.convolve(x, kernel, 1, 'same')))
      return x.sum()

    arguments = (jax.ShapeDtypeStruct(s, jnp.float32) for s in (kernels, shape))
    compiled = jax.jit(jax.grad(loss)).lower(*arguments).compile()
    return compiled.memory_analysis().temp_size_in_bytes

  activations = (workspace(6) - workspace(3)) / 3 / (4 * 32 * 32 * 64 * 4)
  assert 2 <= activations < 2.5  # its input, and that of the next layer
