"""Runs of several processes: equal to one, whatever ends them."""

import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import time

import numpy as np
import pytest

from tests.support import error_line
from tests.training.runs import command, timeless_rows
from vit_jax import checkpoint

STEPS = 60
RUN = {
  'total': f'{STEPS} steps',
  'checkpoint__every': '20 steps',
  'evaluation__every': '30 steps',
  'log__every': '10 steps',
  'dataset__val': 'val[:101]',
  'dataset__test': 'test[:51]',
}
# What sums over all examples, or needs the features of all.
METHODS = {
  'total': '20 steps',
  'fewshot__every': '10 steps',
  'fewshot__shots': '2',
  'ema__decay': '0.9',
  'mixing__mixup': '0.8',
}
# Sums over the batch are added in another order.
TOLERANCE = dict(rtol=1e-5, atol=1e-6)


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
  step = max(checkpoint_steps(workdir))
  return checkpoint.Saved.read(workdir / 'checkpoints' / str(step))


def checkpoint_steps(workdir):
  folder = workdir / 'checkpoints'
  return {int(p.name) for p in folder.iterdir() if p.name.isdecimal()} if folder.is_dir() else set()


def assert_close(a, b):
  """Two runs are equal but for rounding: rows and weights."""
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
    np.testing.assert_allclose(value, b.variables[name], rtol=0, atol=2e-4, err_msg=name)


def assert_equal(a, b):
  """Two runs ended with the same bytes."""
  assert timeless_rows(a) == timeless_rows(b)
  a, b = last(a), last(b)
  assert a.step == b.step and a.meta['data_state'] == b.meta['data_state']
  for item in ('variables', 'training'):
    for name, value in getattr(a, item).items():
      assert value.tobytes() == getattr(b, item)[name].tobytes(), name


def files(workdir):
  """Names of all that a run leaves."""
  found = {str(p.relative_to(workdir)) for p in workdir.rglob('*') if 'checkpoints' not in p.parts}
  return {name for name in found if 'tfevents' not in name}


def wait_for(process, workdir, step):
  """Returns when a run has saved a step."""
  until = time.monotonic() + 240
  while step not in checkpoint_steps(workdir):
    assert process.poll() is None, process.communicate()
    assert time.monotonic() < until
    time.sleep(0.01)


def members(launcher):
  """Process ids of the processes that a launcher started, by their number."""
  path = pathlib.Path(f'/proc/{launcher.pid}/task/{launcher.pid}/children')
  return [int(word) for word in path.read_text().split()]


def reports(*workdirs):
  return [json.loads((w / 'report/metrics.json').read_text()) for w in workdirs]


@pytest.fixture(scope='module')
def one(tmp_path_factory):
  """A run of one process."""
  workdir = tmp_path_factory.mktemp('one') / 'run'
  run(workdir)
  return workdir


@pytest.fixture(scope='module')
def two(tmp_path_factory):
  """A run of two."""
  workdir = tmp_path_factory.mktemp('two') / 'run'
  out = run(workdir, 2)
  assert len([line for line in out.splitlines() if line.startswith('test accuracy')]) == 1
  return workdir


def assert_survives(workdir, **changes):
  """Kills one of two processes, and asks one of those that resume to stop."""
  killed = start(workdir, 2, **changes)
  wait_for(killed, workdir, 20)
  os.kill(members(killed)[1], signal.SIGKILL)
  began = time.monotonic()
  status, _, err = end(killed)
  assert 'process 1' in error_line(status, err) and 'SIGKILL' in err
  assert time.monotonic() - began < 60
  asked = start(workdir, 2, **changes)
  wait_for(asked, workdir, 40)
  os.kill(members(asked)[1], signal.SIGTERM)
  status, _, err = end(asked)
  assert status == 128 + signal.SIGTERM, err
  step = int(re.search(r'interrupted at step (\d+)', err)[1])
  assert step in checkpoint_steps(workdir) and '--processes=2' in err


def test_ends_of_one_of_two_processes_change_nothing(tmp_path):
  brief = {'dataset__test': ''}
  one, several = tmp_path / 'one', tmp_path / 'several'
  run(one, **brief)
  assert_survives(several, **brief)
  run(several, **brief)  # what two began one process ends
  assert_close(one, several)
  assert files(one) == files(several)


@pytest.mark.slow
def test_two_processes_equal_one(one, two):
  assert_close(one, two)
  assert files(one) == files(two)
  a, b = reports(one, two)
  assert a['examples'] == b['examples'] == 51


@pytest.mark.slow
def test_ends_of_one_of_two_processes_change_no_byte(two, tmp_path):
  assert_survives(tmp_path / 'run')
  run(tmp_path / 'run', 2)
  assert_equal(two, tmp_path / 'run')


@pytest.mark.slow
@pytest.mark.parametrize('placement', ['data', 'pmap'])
def test_methods_of_training_equal_those_of_one_process(tmp_path, placement):
  a, b = tmp_path / 'one', tmp_path / 'two'
  run(a, 1, parallel=placement, **METHODS)
  run(b, 2, parallel=placement, **METHODS)
  assert_close(a, b)


@pytest.mark.slow
@pytest.mark.parametrize('before, after', [(1, 2), (2, 1), (2, 4), (4, 1), (1, 4)])
def test_a_checkpoint_resumes_on_another_number_of_processes(one, tmp_path, before, after):
  workdir = tmp_path / 'run'
  first = start(workdir, before)
  wait_for(first, workdir, 20)
  first.send_signal(signal.SIGTERM)
  status, _, err = end(first)
  assert status == 128 + signal.SIGTERM, err
  run(workdir, after)
  assert_close(one, workdir)


@pytest.mark.slow
def test_a_damaged_checkpoint_is_passed_over_by_all(two, tmp_path):
  workdir = tmp_path / 'run'
  shutil.copytree(two, workdir)
  shutil.rmtree(workdir / 'checkpoints' / str(STEPS))
  run(workdir, 2)  # which resumes from there
  assert_equal(two, workdir)
  newest = workdir / 'checkpoints' / str(STEPS)
  victim = max((newest / 'variables').rglob('*'), key=lambda p: p.is_file() and p.stat().st_size)
  victim.write_bytes(victim.read_bytes()[:-1])
  status, _, err = end(start(workdir, 2))
  assert status == 0 and err.count('is damaged') == 1, err
  assert_equal(two, workdir)
  assert (workdir / 'checkpoints' / f'damaged-{STEPS}').is_dir()


@pytest.mark.slow
def test_of_two_starts_the_second_is_refused_in_all_its_processes(two, tmp_path):
  workdir = tmp_path / 'run'
  first = start(workdir, 2)
  wait_for(first, workdir, 20)
  status, _, err = end(start(workdir, 2))
  assert 'another run works in' in error_line(status, err)
  assert end(first)[0] == 0
  assert_equal(two, workdir)


@pytest.mark.slow
@pytest.mark.parametrize('number', [0, 1])
def test_a_frozen_process_ends_the_others(two, tmp_path, number):
  workdir = tmp_path / 'run'
  started = start(workdir, 2, '--process_timeout=5')
  wait_for(started, workdir, 20)
  os.kill(members(started)[number], signal.SIGSTOP)
  began = time.monotonic()
  status, _, err = end(started)
  assert time.monotonic() - began < 60
  assert status == 1 and f'process {number} (' in err and '5 s' in err and err.count('\n') == 1, err
  run(workdir, 2)
  assert_equal(two, workdir)


@pytest.mark.slow
def test_the_end_of_the_launcher_ends_all(two, tmp_path):
  workdir = tmp_path / 'run'
  started = start(workdir, 2)
  wait_for(started, workdir, 20)
  left = members(started)
  started.kill()
  started.communicate()
  until = time.monotonic() + 30
  while any(pathlib.Path(f'/proc/{pid}').exists() for pid in left):
    assert time.monotonic() < until
    time.sleep(0.1)
  run(workdir, 2)
  assert_equal(two, workdir)
