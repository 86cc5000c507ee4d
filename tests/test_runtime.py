"""What a command sets before JAX starts: compilation cache, memory, flags; how to turn it off."""

import json
import os
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]

# A program like a command: it starts, compiles something, and prints the settings.
_PROGRAM = """
import json, sys
from vit_jax import runtime
if len(sys.argv) > 1: import jax
runtime.start()
assert len(sys.argv) > 1 or 'jax' not in sys.modules
import jax, jax.numpy as jnp
jax.config.update('jax_persistent_cache_min_compile_time_secs', 0.0)
jax.jit(lambda x: jnp.linalg.qr(x)[0])(jnp.eye(7)).block_until_ready()
print(json.dumps(runtime.describe()))
"""


def _run(*args, **env):
  return json.loads(_program(*args, **env).stdout.splitlines()[-1])


def _program(*args, warnings='error', program=_PROGRAM, **env):
  keep = {k: v for k, v in os.environ.items() if not k.startswith(('JAX_', 'VIT_JAX_', 'XLA_'))}
  env = {**keep, 'JAX_PLATFORMS': 'cpu', 'PYTHONPATH': str(ROOT), **env}
  return subprocess.run(
    [sys.executable, '-W', warnings, '-c', program, *args],
    env=env,
    text=True,
    capture_output=True,
    check=True,
    timeout=120,
  )


def test_compilations_are_cached_in_the_folder_given(tmp_path):
  found = _run(VIT_JAX_CACHE=str(tmp_path / 'a'))
  folder = pathlib.Path(found['cache'])
  assert folder.parent == tmp_path / 'a'
  before = {p.name for p in folder.iterdir()}
  assert any('qr' in name or name.endswith('-cache') for name in before)
  # The next program, JAX imported first this time, finds all of them and adds none.
  assert _run('jax first', VIT_JAX_CACHE=str(tmp_path / 'a')) == found
  assert {p.name for p in folder.iterdir() if p.name.endswith('-cache')} == {
    name for name in before if name.endswith('-cache')
  }


def test_the_home_folder_is_the_default(tmp_path):
  found = _run(HOME=str(tmp_path), XDG_CACHE_HOME='')
  assert pathlib.Path(found['cache']).parent == tmp_path / '.cache' / 'vit_jax'


def test_it_can_be_turned_off_and_jax_own_variable_comes_first(tmp_path):
  assert _run(HOME=str(tmp_path), JAX_ENABLE_COMPILATION_CACHE='false')['cache'].startswith('off')
  theirs = tmp_path / 'theirs'
  assert _run(HOME=str(tmp_path), JAX_COMPILATION_CACHE_DIR=str(theirs))['cache'].startswith(
    str(theirs)
  )
  assert any(theirs.iterdir())
  assert not (tmp_path / '.cache').exists()


def test_a_folder_that_cannot_be_written_never_fails_a_run(tmp_path):
  file = tmp_path / 'file'
  file.write_text('in the way')
  said = _run(VIT_JAX_CACHE=str(file))['cache']
  assert said.startswith('off (') and str(file) in said


def test_memory_is_kept_unless_turned_off(tmp_path):
  found = _run(JAX_ENABLE_COMPILATION_CACHE='false')['allocator']
  assert found.startswith(('kept from step to step', 'as the C library has it'))
  found = _run(JAX_ENABLE_COMPILATION_CACHE='false', VIT_JAX_KEEP_MEMORY='0')['allocator']
  assert found.startswith('given back')


# A program that calls a long step, and says whether it was over when the call returned.
_STEP = """
import json, sys
import numpy as np
from vit_jax import parallel, runtime
runtime.start(alone='several' not in sys.argv)
placement = parallel.make('data')
import jax
batch = placement.put_batch({'image': np.ones((2, 2000, 2000), np.float32)})
arrived = batch['image'].is_ready()
step = jax.jit(lambda x: x @ x @ x @ x)
step(batch['image']).block_until_ready()
done = step(batch['image']).is_ready()
print(json.dumps(runtime.describe() | {
  'arrived': arrived, 'done': done, 'inline': runtime.computes_inline(placement.devices)}))
"""


def test_a_step_on_one_cpu_is_over_when_it_returns():
  found = _run(program=_STEP)
  assert found['arrived'] and found['done'] and found['inline']
  assert 'thread' in found['dispatch'] and 'arena' not in found['allocator']


@pytest.mark.parametrize('where', ['devices', 'processes'])
def test_steps_in_threads_of_xla_share_an_arena(where):
  devices = '--xla_force_host_platform_device_count=2' if where == 'devices' else ''
  found = _run('several' if where == 'processes' else 'alone', program=_STEP, XLA_FLAGS=devices)
  if found['allocator'].startswith('kept'):
    assert found['allocator'].endswith('in one arena')
  assert found['inline'] is (where == 'processes')  # which has joined no others here


def test_a_flag_of_the_user_stays():
  flag = '--xla_cpu_enable_concurrency_optimized_scheduler=true'
  # XLA would end the program if it did not know the flag.
  assert _run(JAX_ENABLE_COMPILATION_CACHE='false')['scheduler'] == 'little memory'
  assert (
    _run(JAX_ENABLE_COMPILATION_CACHE='false', XLA_FLAGS=flag)['scheduler'] == 'as $XLA_FLAGS says'
  )


def test_a_file_of_flags_is_left_to_xla(tmp_path):
  path = tmp_path / 'flags.txt'
  path.write_text('--xla_cpu_enable_concurrency_optimized_scheduler=true')
  found = _run(JAX_ENABLE_COMPILATION_CACHE='false', XLA_FLAGS=str(path))
  assert found['scheduler'] == 'as XLA or the file of $XLA_FLAGS has it'


def test_damaged_compilations_are_one_warning_and_are_made_anew(tmp_path):
  cache = pathlib.Path(_run(VIT_JAX_CACHE=str(tmp_path))['cache'])
  whole = {path: path.read_bytes() for path in cache.glob('*-cache')}
  for path, data in whole.items():
    path.write_bytes(data[: len(data) // 2])
  found = _program(warnings='default', VIT_JAX_CACHE=str(tmp_path)).stderr.splitlines()
  assert len(found) == 1 and str(cache) in found[0]
  assert {path.name for path in cache.glob('*-cache')} == {path.name for path in whole}
  assert not _program(warnings='default', VIT_JAX_CACHE=str(tmp_path)).stderr
