"""FLOPs against sums by hand and published figures, and peaks of devices."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest

from tests.models import small
from vit_jax import models, optimizers
from vit_jax.training import flops


def _shapes(module, size):
  x = jax.ShapeDtypeStruct((1, size, size, 3), jnp.float32)
  return jax.eval_shape(lambda x: module.init(jax.random.key(0), x), x)


def _flops(name, size, **fields):
  module = models.build(name, 5, **fields)
  return flops.forward_flops(module, _shapes(module, size), (1, size, size, 3))


def test_flops_of_a_transformer_by_hand():
  # 3 x 3 patches of 7 pixels and a class token: n = 10 tokens of 6 channels, MLP of 11, 2 blocks.
  n, d, m = 10, 6, 11
  block = n * d * 3 * d + 2 * n * n * d + n * d * d + 2 * n * d * m
  by_hand = 2 * (9 * 7 * 7 * 3 * d + 2 * block + d * 5)
  fields = {'patch_size': 7, 'width': d, 'depth': 2, 'num_heads': 3, 'mlp_dim': m}
  assert _flops('vit_ti16', 21, **fields) == by_hand
  assert _flops('vit_ti16', 21, attention='einsum', **fields) == by_hand


def test_flops_of_published_models():
  # Multiplications of one 224-pixel image, in units of 1e9: DeiT (2012.12877) table 5 counts
  # ViT-B as 17.6, attention's products included; ResNet-50 (1512.03385) table 1 as 3.8, without
  # the stride in the 3 x 3 convolution that later versions have: 4.1.
  assert _flops('vit_b16', 224) / 2e9 == pytest.approx(17.6, abs=0.1)
  assert _flops('resnet50', 224) / 2e9 == pytest.approx(4.1, abs=0.1)
  # MobileNetV2 (1801.04381) table 4, depthwise convolutions included: 300 million.
  assert _flops('mobilenet_v2', 224) / 2e6 == pytest.approx(300, abs=3)


def test_peaks_are_known_or_measured():
  assert flops.peak('NVIDIA H100 80GB HBM3', 'bfloat16') == (989e12, 'data sheet of H100')
  assert flops.peak('NVIDIA H100 PCIe', 'bfloat16')[0] == 756e12
  assert flops.peak('NVIDIA A100-SXM4-40GB', 'bfloat16')[0] == 312e12
  assert flops.peak('a device of tomorrow') is None
  rate, source = flops.peak('cpu')
  assert rate > 1e6 and source.startswith('measured')


@pytest.mark.parametrize(
  'kind, dtype, teraflops',
  [
    ('NVIDIA L40S', 'bfloat16', 362),  # not those of the L40, 181
    ('NVIDIA L40', 'bfloat16', 181),
    ('NVIDIA H100 NVL', 'bfloat16', 835),
    ('NVIDIA A10G', 'bfloat16', 70),
    ('NVIDIA RTX A1000', 'bfloat16', None),  # no A100
    ('NVIDIA L4', 'float32', 60.5),  # TF32
    ('Tesla V100-SXM2-16GB', 'float32', 15.7),  # has no TF32
    ('Tesla T4', 'float32', 8.1),
    ('TPU v4', 'float32', 275),  # XLA rounds the operands of matmuls to bfloat16
    ('TPU v3', 'bfloat16', 61.5),  # a device is one of the two cores of a chip
    ('TPU v5p', 'bfloat16', 459),
    ('TPU v5 lite', 'bfloat16', 197),
  ],
)
def test_peaks_of_devices_that_are_easily_mistaken(kind, dtype, teraflops):
  found = flops.peak(kind, dtype)
  assert (found and found[0] / 1e12) == (teraflops and pytest.approx(teraflops))


def test_training_flops_of_a_transformer_by_hand():
  """Three forward passes, but for the gradient of the images, which nobody computes."""
  n, d, m = 10, 6, 11
  patches = 9 * 7 * 7 * 3 * d
  block = n * d * 3 * d + 2 * n * n * d + n * d * d + 2 * n * d * m
  fields = {'patch_size': 7, 'width': d, 'depth': 2, 'num_heads': 3, 'mlp_dim': m}
  for more in ({}, {'scan': True}, {'remat': 'block'}):
    module = models.build('vit_ti16', 5, **fields, **more)
    found = flops.training_flops(module, _shapes(module, 21), (1, 21, 21, 3))
    assert found == 2 * (2 * patches + 3 * (2 * block + d * 5)), more


@pytest.mark.parametrize('trained', [0, 1, 2])
def test_training_flops_of_frozen_blocks_by_hand(trained):
  """The gradient stops where nothing below is trained; a linear probe needs none of the trunk."""
  n, d, m, depth = 10, 6, 11, 2
  patches, head = 9 * 7 * 7 * 3 * d, d * 5
  linear, products = n * d * 3 * d + n * d * d + 2 * n * d * m, 2 * n * n * d
  fields = {'patch_size': 7, 'width': d, 'depth': depth, 'num_heads': 3, 'mlp_dim': m}
  module = models.build('vit_ti16', 5, **fields)
  shapes = _shapes(module, 21)
  words = ('embeddings', f'blocks:{depth - trained}', 'encoder/norm') if trained < 2 else ()
  frozen = optimizers.frozen_names(shapes['params'], words or ('embeddings',))
  found = flops.training_flops(module, shapes, (1, 21, 21, 3), frozen)
  forward = patches + depth * (linear + products) + head
  backward = trained * 2 * (linear + products) + head + (head if trained else 0)
  assert found == 2 * (forward + backward)


class _Two(nn.Module):
  """A layer of 12 x 7 on 12 numbers, then one of 7 x 5."""

  num_classes: int = 5

  @nn.compact
  def __call__(self, images, train=False):
    x = images.reshape(len(images), 12)
    return nn.Dense(5, name='head')(nn.relu(nn.Dense(7, name='body')(x)))


@pytest.mark.parametrize(
  'frozen, matmuls',
  [
    # Forward both; backward the kernels' gradients, and the activations' between the layers.
    (set(), 12 * 7 + 7 * 5 + 12 * 7 + 7 * 5 + 7 * 5),
    ({'head/bias'}, 12 * 7 + 7 * 5 + 12 * 7 + 7 * 5 + 7 * 5),
    ({'body/kernel', 'body/bias'}, 12 * 7 + 7 * 5 + 7 * 5),
    ({'head/kernel'}, 12 * 7 + 7 * 5 + 12 * 7 + 7 * 5),
    ({'body/kernel', 'body/bias', 'head/kernel'}, 12 * 7 + 7 * 5),
  ],
)
def test_gradients_that_frozen_parameters_make_unnecessary_are_not_counted(frozen, matmuls):
  module, shape = _Two(), (1, 2, 2, 3)
  shapes = jax.eval_shape(lambda: module.init(jax.random.key(0), jnp.zeros(shape)))
  assert flops.training_flops(module, shapes, shape, frozenset(frozen)) == 2 * matmuls


@pytest.mark.parametrize('name', ['vit_ti16', 'resnet50', 'cait_xxs24', 't2t_vit_7'])
def test_a_frozen_backbone_leaves_little_but_the_forward_pass(name):
  """With one bias frozen the count is near the rule of three forward passes."""
  module = small.build(name)
  shapes = jax.eval_shape(lambda: module.init(jax.random.key(0), small.images(module)))
  shape = (1, *small.images(module).shape[1:])
  forward = flops.forward_flops(module, shapes, shape)

  def training(words):
    frozen = optimizers.frozen_names(shapes['params'], words)
    return flops.training_flops(module, shapes, shape, frozen)

  assert 2.4 * forward < training(('head/bias',)) < 3.2 * forward
  assert forward < training(('backbone',)) < 1.2 * forward


def test_mfu_at_one_image_per_second():
  """SAM takes two passes; the CPU devices of a process share one peak."""
  module = models.build('vit_ti16', 5, depth=1)
  shapes, devices = _shapes(module, 32), jax.devices()
  one = flops.mfu_of_rate(module, shapes, (32, 32, 3), devices)
  needed = flops.training_flops(module, shapes, (1, 32, 32, 3))
  assert one == pytest.approx(needed / flops.peak('cpu', 'float32')[0])
  assert flops.mfu_of_rate(module, shapes, (32, 32, 3), devices, passes=2) == pytest.approx(2 * one)
  with_teacher = flops.mfu_of_rate(module, shapes, (32, 32, 3), devices, teacher=3 * needed)
  assert with_teacher == pytest.approx(4 * one)
