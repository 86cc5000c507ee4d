"""Counted arithmetic against sums by hand, and the benchmark's numbers and JSON."""

import json

import jax
import jax.numpy as jnp
import pytest

from vit_jax import bench, models
from vit_jax.errors import UserError
from vit_jax.training import flops


def _flops(name, size, **fields):
  module = models.build(name, 5, **fields)
  x = jax.ShapeDtypeStruct((1, size, size, 3), jnp.float32)
  variables = jax.eval_shape(lambda x: module.init(jax.random.key(0), x), x)
  return flops.forward_flops(module, variables, (1, size, size, 3))


def test_the_arithmetic_of_a_transformer_by_hand():
  # 3 x 3 patches of 7 pixels and a class token: n = 10 tokens of 6 channels, MLP of 11, 2 blocks.
  n, d, m = 10, 6, 11
  block = n * d * 3 * d + 2 * n * n * d + n * d * d + 2 * n * d * m
  by_hand = 2 * (9 * 7 * 7 * 3 * d + 2 * block + d * 5)
  fields = {'patch_size': 7, 'width': d, 'depth': 2, 'num_heads': 3, 'mlp_dim': m}
  assert _flops('vit_ti16', 21, **fields) == by_hand
  assert _flops('vit_ti16', 21, attention='einsum', **fields) == by_hand


def test_the_arithmetic_of_published_models():
  # Multiplications of one 224-pixel picture, in units of 1e9: DeiT (2012.12877) table 5 counts
  # ViT-B as 17.6, attention's products included; ResNet-50 (1512.03385) table 1 as 3.8, without
  # the stride in the 3 x 3 convolution that later versions have: 4.1.
  assert _flops('vit_b16', 224) / 2e9 == pytest.approx(17.6, abs=0.1)
  assert _flops('resnet50', 224) / 2e9 == pytest.approx(4.1, abs=0.1)


def test_peaks_are_known_or_measured():
  assert flops.peak('NVIDIA H100 80GB HBM3', 'bfloat16') == (989e12, 'data sheet of H100')
  assert flops.peak('NVIDIA H100 PCIe', 'bfloat16')[0] == 756e12
  assert flops.peak('NVIDIA A100-SXM4-40GB', 'bfloat16')[0] == 312e12
  assert flops.peak('a device of tomorrow') is None
  rate, source = flops.peak('cpu')
  assert rate > 1e6 and source.startswith('measured')


def test_a_measurement_as_json_and_table(tmp_path, capsys):
  path = tmp_path / 'bench.json'
  words = [
    'vit_ti16',
    '--batch_size=2',
    '--image_size=16',
    '--classes=3',
    '--steps=2',
    '--set',
    'depth=1',
    f'--json={path}',
  ]
  assert bench.main(words) == 0
  (row,) = json.loads(path.read_text())
  for part in ('train', 'infer'):
    assert row[f'{part}_img_sec'] == pytest.approx(2 / row[f'{part}_step_s'])
    assert row[f'{part}_first_step_s'] > row[f'{part}_step_best_s'] > 0
  per_image = 1e9 * row['forward_gflop_per_image']
  mfu = 3 * per_image * row['train_img_sec'] / (1e12 * row['peak_tflops'])
  assert row['train_mfu'] == pytest.approx(mfu)
  assert row['input_img_sec'] > 0 and row['host_memory_peak_mib'] > 50
  assert row['fields'] == {'dtype': 'float32', 'depth': 1}
  shown = capsys.readouterr().out
  assert 'pictures/s' in shown and 'matmul of 1024 x 1024' in shown


def test_mistakes_are_told(capsys):
  with pytest.raises(UserError, match='--steps must be positive'):
    bench.main(['vit_ti16', '--steps=0'])
  with pytest.raises(UserError, match='FIELD=VALUE'):
    bench.main(['vit_ti16', '--set', 'depth'])
  with pytest.raises(UserError, match="no field 'dept'"):
    bench.main(['vit_ti16', '--only=infer', '--set', 'dept=1'])
