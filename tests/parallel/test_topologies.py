"""A checkpoint of one topology resumes on any other: same data, equal losses; on its own the same
bytes."""

import json
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest

from tests.parallel import topologies

ROOT = pathlib.Path(__file__).resolve().parents[2]
TOLERANCE = 1e-3  # of a loss, after 4 steps with sums in another order


def _check(found):
  names = found['one'], found['others']
  np.testing.assert_allclose(found['losses'], found['alone'], rtol=TOLERANCE, err_msg=str(names))
  assert found['same_data'], names
  if set(found['others']) == {found['one']}:
    assert found['same_bytes'] and found['losses'] == found['alone'], names


def test_checkpoints_resume_on_other_devices(tmp_path):
  topologies.begin(tmp_path, 'fsdp 2 x 2')
  _check(topologies.resumed(tmp_path, 'fsdp 2 x 2', 'fsdp 2 x 2'))
  _check(topologies.resumed(tmp_path, 'fsdp 2 x 2', 'pmap 2', 'fsdp 4', 'data 1'))


@pytest.mark.slow
def test_every_topology_resumes_on_every_other(tmp_path):
  environment = {**os.environ, 'PYTHONPATH': str(ROOT)}
  run = [sys.executable, '-m', 'tests.parallel.topologies', str(tmp_path)]
  done = subprocess.run(run, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True)
  assert done.returncode == 0
  pairs = [json.loads(line) for line in done.stdout.splitlines() if line.startswith('{"one"')]
  for found in pairs:
    difference = np.abs(np.divide(found['losses'], found['alone']) - 1).max()
    print(f'{found["one"]:20} -> {found["others"][0]:20} {difference:.1e}')
  assert {(found['one'], *found['others']) for found in pairs} >= set(topologies.TABLE)
  assert len(topologies.TABLE) == 25
  for found in pairs:
    _check(found)
