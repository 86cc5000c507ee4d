"""The training step is compiled once, in a thread, before its first call."""

import logging
import signal
import subprocess
import sys
import threading
import time

import jax
import pytest

from tests.training.runs import ROOT, command, options
from vit_jax import runtime
from vit_jax.training import loop


@pytest.fixture
def compilations(caplog):
  """The threads in which each training step was compiled, so far."""
  for thread in runtime._background:  # of runs of other tests, which ended early
    thread.join()
  before = jax.config.jax_log_compiles
  jax.config.update('jax_log_compiles', True)
  with caplog.at_level(logging.WARNING, logger='jax'):
    yield lambda: [
      record.threadName
      for record in caplog.records
      if record.getMessage().startswith('Finished XLA compilation of jit(train_step)')
    ]
  jax.config.update('jax_log_compiles', before)


@pytest.mark.parametrize(
  'overrides',
  [
    {'parallel': 'data'},
    {'parallel': 'fsdp'},
    {'ema__decay': '0.9', 'optimizer__sam_rho': '0.05', 'accumulate': '2'},
    {
      'freeze': 'backbone',
      'input__cache': 'features',
      'input__train_transform': 'decode|resize(16)',
      'model__dropout': '0',
      'model__drop_path_rate': '0',
    },
  ],
  ids=lambda overrides: overrides.get('parallel', next(iter(overrides))),
)
def test_the_step_is_compiled_once_in_a_thread(tmp_path, compilations, overrides):
  loop.train(options(total='2 steps', **overrides), str(tmp_path / 'run'))
  (thread,) = compilations()
  assert thread != 'MainThread'


def test_of_a_resumed_run_too(tmp_path, compilations):
  run = str(tmp_path / 'run')
  loop.train(options(total='1 steps'), run)
  loop.train(options(total='2 steps'), run)
  assert len(compilations()) == 2 and 'MainThread' not in compilations()


def test_what_cannot_be_compiled_is_said_by_the_first_step(tmp_path, monkeypatch):
  compilers = []

  def fail(lowered, *args, **kwargs):
    compilers.append(threading.current_thread().name)
    raise MemoryError('no room to compile')

  monkeypatch.setattr(jax.stages.Lowered, 'compile', fail)
  metrics = loop.train(options(total='1 steps'), str(tmp_path / 'run'))
  (thread,) = compilers
  assert thread != 'MainThread' and metrics['loss'] > 0


def test_a_finished_run_compiles_no_step(tmp_path, compilations):
  run = str(tmp_path / 'run')
  loop.train(options(total='1 steps'), run)
  loop.train(options(total='1 steps'), run)
  assert len(compilations()) == 1


# The command, with a compiler that takes a minute.
_SLOW = """
import sys, threading, time
import jax

def slow(*args, **kwargs):
  assert threading.current_thread() is not threading.main_thread()
  print('compiling', flush=True)
  time.sleep(60)

jax.stages.Lowered.compile = slow
from vit_jax import main
from vit_jax.command_line import run_cli
from vit_jax.errors import DatasetError
from vit_jax.training import loop

seconds = float(sys.argv.pop())

def fail(*args):
  time.sleep(seconds)
  raise DatasetError('it cannot be read')

loop.first_state = fail
run_cli(main.main)
"""


@pytest.mark.parametrize('seconds, status', [(1, 1), (40, 130)], ids=['fails', 'is interrupted'])
def test_nothing_waits_for_the_compiler_of_a_run_that_ends(tmp_path, seconds, status):
  words = [sys.executable, '-c', _SLOW, *command(tmp_path / 'run')[3:], str(seconds)]
  began = time.monotonic()
  with subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as run:
    assert b'compiling\n' in iter(run.stdout.readline, b'')
    if seconds > 1:
      run.send_signal(signal.SIGINT)
    errors = run.communicate()[1].decode()
  assert time.monotonic() - began < 35
  assert run.returncode == status and 'Traceback' not in errors
  assert errors.endswith('error: it cannot be read\n') or 'interrupted' in errors.splitlines()[-1]
