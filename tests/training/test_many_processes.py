"""Runs of several processes: equal to one, whatever ends them."""

import json
import os
import shutil
import signal
import subprocess
import time

import numpy as np
import pytest

from tests.support import error_line
from tests.training.runs import command, timeless_rows
from vit_jax import checkpoint

STEPS = 20
RUN = {
  'total': f'{STEPS} steps',
  'evaluation__every': '10 steps',
  'fewshot__every': '10 steps',
  'fewshot__shots': '2',
  'ema__decay': '0.9',
  'mixing__mixup': '0.8',
  'dataset__val': 'val[:101]',
}
# Sums over the batch are added in another order.
TOLERANCE = dict(rtol=2e-4, atol=2e-5)


def start(workdir, processes=1, *words, **changes):
  """Starts a run."""
  return subprocess.Popen(
    [*command(workdir, **RUN | changes), f'--processes={processes}', *words],
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
  )


def end(process):
  """(status, what it printed, its errors)."""
  out, err = process.communicate(timeout=300)
  assert 'Traceback' not in err and '***' not in err, err
  return process.returncode, out, err


def run(workdir, processes=1, *words, **changes):
  """Runs to the end."""
  status, out, err = end(start(workdir, processes, *words, **changes))
  assert status == 0, err
  return out


def last(workdir):
  return checkpoint.Saved.read(workdir / 'checkpoints' / str(STEPS))


def assert_close(a, b):
  """Two runs are equal but for rounding: rows, report and weights."""
  for row, other in zip(timeless_rows(a), timeless_rows(b), strict=True):
    assert list(row) == list(other)
    for name, value in row.items():
      if isinstance(value, float):
        np.testing.assert_allclose(value, other[name], **TOLERANCE, err_msg=f'{row} {name}')
      else:
        assert value == other[name], (name, row, other)
  a, b = last(a), last(b)
  assert a.meta['data_state'] == b.meta['data_state']
  for name, value in a.variables.items():
    np.testing.assert_allclose(value, b.variables[name], rtol=1e-2, atol=2e-4, err_msg=name)


def assert_equal(a, b):
  """Two runs ended with the same bytes."""
  assert timeless_rows(a) == timeless_rows(b)
  a, b = last(a), last(b)
  for item in ('variables', 'training'):
    for name, value in getattr(a, item).items():
      assert value.tobytes() == getattr(b, item)[name].tobytes(), name
  assert a.meta['data_state'] == b.meta['data_state']


def files(workdir):
  """Names of all that a run leaves."""
  found = {str(p.relative_to(workdir)) for p in workdir.rglob('*') if 'checkpoints' not in p.parts}
  return {name for name in found if 'tfevents' not in name}


@pytest.fixture(scope='module')
def one(tmp_path_factory):
  """A run of one process, and what it printed."""
  workdir = tmp_path_factory.mktemp('one') / 'run'
  return workdir, run(workdir)


@pytest.fixture(scope='module')
def two(tmp_path_factory):
  workdir = tmp_path_factory.mktemp('two') / 'run'
  return workdir, run(workdir, 2)


def test_two_processes_equal_one(one, two):
  assert_close(one[0], two[0])
  assert files(one[0]) == files(two[0])
  reports = [json.loads((w / 'report/metrics.json').read_text()) for w, _ in (one, two)]
  assert reports[0]['examples'] == reports[1]['examples']
  rows = [line for line in two[1].splitlines() if 'test accuracy' in line]
  assert len(rows) == 1  # process 0 alone prints
