"""Four simulated devices and one compilation cache for the whole suite, set before JAX starts."""

import gc
import os
import pathlib
import signal

import pytest

from tests.support import xla_flags
from vit_jax import machine, runtime

os.environ.setdefault('JAX_PLATFORMS', 'cpu')
# With the scheduler of commands, all in the environment: a run in this process and one in a command
# that it starts are the same programs, equal byte for byte.
os.environ['XLA_FLAGS'] = f'{os.environ.get("XLA_FLAGS", "")} {xla_flags(4)}'
runtime._spare_memory()
# All test processes, and the runs that tests start, kill and start again, compile the same
# programs; so does the next run of the suite on the same kind of processor.
_CACHE = pathlib.Path(__file__).parents[1] / '.pytest_cache' / f'xla-{machine.processor()}'
_CACHE.mkdir(parents=True, exist_ok=True)
os.environ['JAX_COMPILATION_CACHE_DIR'] = str(_CACHE)
os.environ['JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS'] = '0'  # a run has a hundred small ones

# As in commands; a test process has more objects than any of them.
gc.set_threshold(*runtime._GC_THRESHOLDS)

# A shell that starts the tests in the background has them, and all that they start, ignore Ctrl-C.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def ctrl_c():
  """Stays with the tests after one that ran a command in this process."""
  yield
  if signal.getsignal(signal.SIGINT) is signal.SIG_DFL:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def one_device(monkeypatch):
  """For forms that are taken on one device alone, and tests have several."""
  import jax  # after the settings above

  monkeypatch.setattr(jax, 'device_count', lambda: 1)


@pytest.fixture
def server():
  """A loopback server that can misbehave."""
  from tests import loopback  # after the settings above

  with loopback.running_server() as running:
    yield running
