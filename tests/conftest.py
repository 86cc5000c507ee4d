"""Four simulated devices, quick compilation and one cache of it, set before JAX starts."""

import os
import pathlib
import signal

import pytest

from vit_jax import machine

os.environ.setdefault('JAX_PLATFORMS', 'cpu')
os.environ['XLA_FLAGS'] = (
  os.environ.get('XLA_FLAGS', '') + ' --xla_force_host_platform_device_count=4'
)
# Half of the suite's time would be XLA's and LLVM's work on programs that run a few times each.
# JAX_DISABLE_MOST_OPTIMIZATIONS=0 lets them work as they do for users.
os.environ.setdefault('JAX_DISABLE_MOST_OPTIMIZATIONS', '1')
if os.environ['JAX_DISABLE_MOST_OPTIMIZATIONS'] == '1':
  os.environ['XLA_FLAGS'] += ' --xla_cpu_use_fusion_emitters=false'
# All test processes, and the runs that tests start, kill and start again, compile the same
# programs; so does the next run of the suite on the same kind of processor.
_CACHE = pathlib.Path(__file__).parents[1] / '.pytest_cache' / f'xla-{machine.processor()}'
_CACHE.mkdir(parents=True, exist_ok=True)
os.environ['JAX_COMPILATION_CACHE_DIR'] = str(_CACHE)
os.environ['JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS'] = '0'  # a run has a hundred small ones


@pytest.fixture(autouse=True)
def ctrl_c():
  """Stays with the tests after one that ran a command in this process."""
  yield
  if signal.getsignal(signal.SIGINT) is signal.SIG_DFL:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def server():
  """A loopback server that can misbehave."""
  from tests import loopback  # after the settings above

  with loopback.running_server() as running:
    yield running
