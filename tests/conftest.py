"""Four simulated devices and one compilation cache for the whole suite, set before JAX starts."""

import os
import tempfile

os.environ.setdefault('JAX_PLATFORMS', 'cpu')
os.environ['XLA_FLAGS'] = (
  os.environ.get('XLA_FLAGS', '') + ' --xla_force_host_platform_device_count=4'
)
# Runs that a test starts, kills and starts again compile the same programs.
_CACHE = tempfile.TemporaryDirectory(prefix='vit_jax_xla_')
os.environ['JAX_COMPILATION_CACHE_DIR'] = _CACHE.name
os.environ['JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS'] = '0.5'
