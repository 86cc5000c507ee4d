"""The training step is compiled once, in a thread, before its first call."""

import logging
import threading

import jax
import pytest

from tests.training.runs import options
from vit_jax.training import loop


@pytest.fixture
def compilations(caplog):
  """The threads in which each training step was compiled, so far."""
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
  assert compilations() == ['compile']


def test_of_a_resumed_run_too(tmp_path, compilations):
  run = str(tmp_path / 'run')
  loop.train(options(total='1 steps'), run)
  loop.train(options(total='2 steps'), run)
  assert compilations() == ['compile', 'compile']


def test_what_cannot_be_compiled_is_said_by_the_first_step(tmp_path, monkeypatch):
  compilers = []

  def fail(lowered, *args, **kwargs):
    compilers.append(threading.current_thread().name)
    raise MemoryError('no room to compile')

  monkeypatch.setattr(jax.stages.Lowered, 'compile', fail)
  metrics = loop.train(options(total='1 steps'), str(tmp_path / 'run'))
  assert compilers == ['compile'] and metrics['loss'] > 0
