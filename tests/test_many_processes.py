"""evaluate, probe and features by several processes: as by one."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest

from tests.training.runs import ROOT, options
from vit_jax.training import loop

pytestmark = pytest.mark.slow


@pytest.fixture(scope='module')
def run(tmp_path_factory):
  """A run's workdir."""
  workdir = tmp_path_factory.mktemp('run') / 'run'
  loop.train(options(total='8 steps', dataset__test=''), str(workdir))
  return workdir


def both(name, *words, folder, out=''):
  """What a command prints by one process and by two, with caches of their own."""
  found = []
  for processes in (1, 2):
    more = [f'{out}{folder / str(processes)}.npz'] if out else []
    ended = subprocess.run(
      [sys.executable, '-m', f'vit_jax.{name}', *words, *more, f'--processes={processes}'],
      env={**os.environ, 'VIT_JAX_CACHE': str(folder / f'cache{processes}')},
      cwd=ROOT,
      capture_output=True,
      text=True,
    )
    assert ended.returncode in (0, 1) and 'Traceback' not in ended.stderr, ended.stderr
    found.append(ended)
  return found


def test_evaluate_counts_each_example_once(run, tmp_path):
  words = [str(run), '--split=test[:101]', '--batch_size=24', '--json']
  one, two = (json.loads(e.stdout) for e in both('evaluate', *words, folder=tmp_path))
  assert one['examples'] == two['examples'] == 101
  for name in ('accuracy', 'loss', 'top3'):
    assert one[name] == pytest.approx(two[name], rel=1e-6), name


@pytest.mark.parametrize('method', ['linear', 'fewshot'])
def test_probe_scores_the_same_features(run, tmp_path, method):
  words = [str(run), '--dataset=digits', '--train=train[:201]', '--val=val[:51]']
  words += ['--test=test[:101]', f'--method={method}', '--json']
  words += ['--shots=1,5'] if method == 'fewshot' else []
  one, two = (json.loads(e.stdout) for e in both('probe', *words, folder=tmp_path))
  for name, value in one.items():
    if not name.endswith('seconds'):
      assert two[name] == (pytest.approx(value, rel=1e-6) if name == 'loss' else value), name
  assert one['examples'] == 101


def test_features_are_in_order_and_what_cannot_be_read_is_left_out(run, tmp_path):
  from PIL import Image

  generator = np.random.default_rng(0)
  paths = []
  for i in range(5):
    paths.append(str(tmp_path / f'{i}.png'))
    Image.fromarray(generator.integers(0, 255, (16, 16, 3), np.uint8)).save(paths[-1])
  (tmp_path / '3.png').write_bytes(b'no image')
  ended = both('features', str(run), *paths, folder=tmp_path, out='--out=')
  assert [e.returncode for e in ended] == [1, 1]
  assert ended[0].stderr == ended[1].stderr
  one, two = (np.load(tmp_path / f'{i}.npz') for i in (1, 2))
  assert one['paths'].tolist() == two['paths'].tolist() == paths[:3] + paths[4:]
  np.testing.assert_allclose(one['features'], two['features'], rtol=1e-5, atol=1e-6)
