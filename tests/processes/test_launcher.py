"""Commands of several processes on this machine: how they find each other and end."""

import signal
import subprocess
import sys
import time
import types

import pytest

from tests.support import error_line, raises
from vit_jax import machine, runtime
from vit_jax.errors import ConfigError
from vit_jax.processes import launcher

COUNT = 2


def joined(do, *words, count=COUNT):
  """(status, what is printed, errors, seconds)."""
  began = time.monotonic()
  ended = subprocess.run(
    [sys.executable, '-m', 'tests.processes.joined', f'--processes={count}', f'--do={do}', *words],
    capture_output=True,
    text=True,
    timeout=200,
  )
  assert '***' not in ended.stderr, ended.stderr  # of a C++ stack trace
  return ended.returncode, ended.stdout, ended.stderr, time.monotonic() - began


def test_process_0_speaks_for_all():
  assert joined('none:0')[:3] == (0, 'all: [0, 1]\nfirst: 0\n', '')


@pytest.mark.parametrize('number', [0, pytest.param(1, marks=pytest.mark.slow)])
def test_a_killed_process_ends_the_others_with_one_line(number):
  status, out, err, seconds = joined(f'kill:{number}')
  line = error_line(status, err)
  assert f'process {number} of 2' in line and 'SIGKILL' in line and err.count('\n') == 1
  assert out == '' and seconds < 60


def test_an_error_of_one_is_the_error_of_all():
  status, out, err, _ = joined('fail:1')
  line = error_line(status, err)
  assert 'process 1 (pid' in line and 'image 3 cannot be decoded' in line and err.count('\n') == 1


@pytest.mark.slow
@pytest.mark.parametrize('number', [0, 1])
def test_a_frozen_process_is_named(number):
  status, _, err, seconds = joined(f'stop:{number}', '--process_timeout=5')
  assert status == 1 and err.count('\n') == 1 and seconds < 60
  assert f'process {number} (pid' in err and 'not been heard of for 5 s' in err


@pytest.mark.slow
@pytest.mark.parametrize('number', [0, 1])
def test_a_signal_to_one_ends_all_with_its_status(number):
  status, _, err, _ = joined(f'ask:{number}')
  assert status == 143 and err.count('\n') == 1 and 'interrupted' in err


@pytest.mark.slow
@pytest.mark.parametrize('number', [0, 1])
def test_a_crash_shows_its_traceback_with_its_number(number):
  status, _, err, _ = joined(f'crash:{number}')
  assert status == 1 and err.count('Traceback') == 1
  assert ('process 1: ' in err) == (number == 1)


def test_each_process_has_a_gpu_of_its_own(monkeypatch):
  monkeypatch.setattr(runtime, 'has_accelerator', lambda: True)
  monkeypatch.setenv('CUDA_VISIBLE_DEVICES', '3,5,7')
  assert [s['CUDA_VISIBLE_DEVICES'] for s in launcher._shares(2)] == ['3', '5']
  with raises(ConfigError, '--processes=4', 'there are 3'):
    launcher._shares(4)
  monkeypatch.setenv('CUDA_VISIBLE_DEVICES', '')
  assert machine.gpus() == []


def test_simulated_devices_are_shared(monkeypatch):
  monkeypatch.setattr(runtime, 'has_accelerator', lambda: False)
  monkeypatch.delenv('JAX_NUM_CPU_DEVICES', raising=False)
  monkeypatch.setenv('XLA_FLAGS', '--a=1 --xla_force_host_platform_device_count=6 --b=2')
  expected = '--a=1 --xla_force_host_platform_device_count=2 --b=2'
  assert launcher._shares(3) == [{'XLA_FLAGS': expected}] * 3
  with raises(ConfigError, '--processes=4', '6 simulated devices'):
    launcher._shares(4)
  monkeypatch.setenv('XLA_FLAGS', '')
  monkeypatch.setenv('JAX_NUM_CPU_DEVICES', '8')
  assert launcher._shares(2) == [{'JAX_NUM_CPU_DEVICES': '4'}] * 2


@pytest.mark.slow
def test_processes_that_were_told_of_other_numbers_end_at_once():
  where = f'--coordinator=127.0.0.1:{launcher._free_port()}'
  run = [sys.executable, '-m', 'tests.processes.joined', '--do=none:0', where]
  started = [
    subprocess.Popen(
      [*run, f'--process_id={i}', f'--process_count={count}'], stderr=subprocess.PIPE, text=True
    )
    for i, count in enumerate((2, 3))
  ]
  (_, err), _ = (process.communicate(timeout=200) for process in started)
  line = error_line(started[0].returncode, err)
  assert '--process_count=3' in line and 'process 0 with 2' in line and err.count('\n') == 1
  assert started[1].returncode == 1


def test_an_abort_beside_a_kill_is_not_the_cause(capsys):
  """JAX's runtime may abort where its peer was killed, within the same turn of the launcher."""

  def ended(index, status):
    process = types.SimpleNamespace(pid=100 + index)
    return types.SimpleNamespace(
      index=index, status=status, process=process, killed=False, ended=7.0, lines=[]
    )

  assert launcher._outcome([ended(0, -signal.SIGABRT), ended(1, -signal.SIGKILL)], []) == 1
  assert 'process 1 of 2 (pid 101) was ended by SIGKILL' in capsys.readouterr().err
  assert launcher._outcome([ended(0, -signal.SIGABRT), ended(1, 1)], []) == 1
  assert 'process 0 of 2 (pid 100) was ended by SIGABRT' in capsys.readouterr().err
