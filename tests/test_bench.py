"""The benchmark's numbers, JSON and table."""

import json

import pytest

from tests.support import raises
from vit_jax import bench
from vit_jax.errors import ConfigError, ModelError


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
  forward, training = row['forward_gflop_per_image'], row['training_gflop_per_image']
  for part, needed in (('infer', forward), ('train', training)):
    mfu = 1e9 * needed * row[f'{part}_img_sec'] / (1e12 * row['peak_tflops'])
    assert row[f'{part}_mfu'] == pytest.approx(mfu)
  assert 2 * forward < training < 3 * forward  # no gradient of the images
  assert row['input_img_sec'] > 0 and row['host_memory_peak_mib'] > 50
  assert row['fields'] == {'dtype': 'float32', 'depth': 1}
  shown = capsys.readouterr().out
  assert 'images/s' in shown and 'matmul of 1024 x 1024' in shown


@pytest.mark.parametrize(
  'words, kind, facts',
  [
    (['--steps=0'], ConfigError, ['--steps', '0']),
    (['--set', 'depth'], ConfigError, ['FIELD=VALUE', "'depth'"]),
    (['--only=infer', '--set', 'dept=1'], ModelError, ["'dept'", "'depth'"]),
    (['--only=infer', '--dtype=float16'], ModelError, ["'float16'", "'bfloat16'"]),
  ],
)
def test_mistakes_are_reported(words, kind, facts):
  with raises(kind, *facts):
    bench.main(['vit_ti16', *words])
