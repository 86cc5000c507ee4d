"""Fully sharded training on 8 simulated devices: equal to one device, an eighth of the bytes, and
what the devices send each other is what docs/scaling.md says."""

import functools
import json
import math
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest

from benchmarks import scaling
from vit_jax.parallel.sharding import SMALL

ROOT = pathlib.Path(__file__).resolve().parents[2]


@functools.cache
def _compared(*words):
  environment = {**os.environ, 'PYTHONPATH': str(ROOT)}
  run = [sys.executable, '-m', 'tests.parallel.eight', *words]
  done = subprocess.run(run, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=900)
  assert done.returncode == 0, done.stderr
  return {found['case']: found for found in map(json.loads, done.stdout.splitlines())}


# Groups of devices x devices of a group: both axes of the mesh are seen.
QUICK = ('vit:2x4', 'scanned:1x8', 'hybrid:2x4', 'resnet:1x8')


def case(name):
  return _compared(*QUICK)[name]


def _check_equal(found):
  """Sums in another order; the tolerance is ten times what was seen."""
  np.testing.assert_allclose(found['losses'], found['losses_of_one'], rtol=1e-4)
  assert found['losses'][-1] < 0.9 * found['losses'][0]  # it learns
  for name, difference in found['differences'].items():
    assert difference <= 1e-3 * max(found['largest'][name], 0.1), name


def _check_bytes(found):
  """State, optimizer and EMA fall by the mesh within 5 %, and are what the plan says."""
  fsdp = found['mesh'][1]
  for name, whole in found['bytes'].items():
    assert found['share'][name] == found['predicted'][name]
    assert whole / fsdp <= found['share'][name] <= 1.05 * whole / fsdp, name


@pytest.mark.parametrize('name', ['vit', 'scanned', 'hybrid', 'resnet'])
def test_twenty_steps_equal_those_of_one_device(name):
  found = case(name)
  _check_equal(found)
  if name == 'resnet':
    assert any(n.startswith('batch_stats/') for n in found['differences'])
  assert found['programs'] == 1 and found['donated'] and found['where_it_was']


@pytest.mark.parametrize('name', ['vit', 'scanned', 'hybrid', 'resnet'])
def test_bytes_a_device_fall_by_the_mesh(name):
  _check_bytes(case(name))


@pytest.mark.parametrize('name', ['vit', 'scanned', 'hybrid', 'resnet'])
def test_the_program_sends_what_the_formulas_say(name):
  _check_sent(case(name))


def _check_sent(found):
  """Weights once in each pass that needs them anew, gradients once, and nothing else of size."""
  data, fsdp = found['mesh']
  sizes = {n: 4 * math.prod(shape) for n, shape in found['params'].items()}
  divided = {n: size for n, size in sizes.items() if _divides(found['params'][n], fsdp)}
  blocks = sum(size for n, size in divided.items() if '/block_' in n)
  remat = 'block' if found['case'] in ('scanned', 'unscanned') else 'none'
  sent = {}
  for kind, nbytes, devices, times, _ in found['collectives']:
    sent[kind, devices] = sent.get((kind, devices), 0) + nbytes * times
  total = sum(sizes.values())
  expected = scaling.gathered(sum(divided.values()) / 4, blocks / 4, remat, 4)
  assert sent.pop(('all-gather', fsdp)) == pytest.approx(expected, rel=0.02)
  # On CPU XLA writes reduce-scatter as all-reduce, of which each device keeps its part.
  reduced = sent.pop(('all-reduce', fsdp))
  if data > 1:
    whole = total - sum(divided.values())
    reduced += sent.pop(('all-reduce', data)) * fsdp  # of a group's parts
    assert reduced == pytest.approx(2 * sum(divided.values()), rel=0.02)
    assert sent.pop(('all-reduce', 8)) == pytest.approx(whole, abs=0.02 * total)
  else:
    assert reduced == pytest.approx(total, rel=0.02)
  assert sum(sent.values()) < 0.02 * total, sent


def _divides(shape, fsdp):
  return math.prod(shape) >= SMALL and any(n % fsdp == 0 for n in shape)


@pytest.mark.slow
def test_a_whole_resnet50_and_blocks_that_are_computed_again():
  found = _compared('resnet50:1x8', 'unscanned:1x8')
  for each in found.values():
    _check_equal(each)
    _check_bytes(each)
    _check_sent(each)
