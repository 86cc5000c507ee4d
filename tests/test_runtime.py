"""What a command sets before JAX starts: where compilations are kept, and what turns it off."""

import json
import os
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[1]

# A program like a command: it starts, compiles something slow enough to be kept, and says so.
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
  keep = {k: v for k, v in os.environ.items() if not k.startswith(('JAX_', 'VIT_JAX_', 'XLA_'))}
  env = {**keep, 'JAX_PLATFORMS': 'cpu', 'PYTHONPATH': str(ROOT), **env}
  done = subprocess.run(
    [sys.executable, '-W', 'error', '-c', _PROGRAM, *args],
    env=env,
    text=True,
    capture_output=True,
    check=True,
    timeout=120,
  )
  return json.loads(done.stdout.splitlines()[-1])


def test_compilations_are_kept_in_the_folder_that_is_named(tmp_path):
  said = _run(VIT_JAX_CACHE_DIR=str(tmp_path / 'a'))
  folder = pathlib.Path(said['cache'])
  assert folder.parent == tmp_path / 'a'
  before = {p.name for p in folder.iterdir()}
  assert any('qr' in name or name.endswith('-cache') for name in before)
  # The next program, JAX imported first this time, finds all of them and adds none.
  assert _run('jax first', VIT_JAX_CACHE_DIR=str(tmp_path / 'a')) == said
  assert {p.name for p in folder.iterdir() if p.name.endswith('-cache')} == {
    name for name in before if name.endswith('-cache')
  }


def test_the_home_folder_is_the_default(tmp_path):
  said = _run(HOME=str(tmp_path), XDG_CACHE_HOME='')
  assert pathlib.Path(said['cache']).parent == tmp_path / '.cache' / 'vit_jax'


def test_it_can_be_turned_off_and_gives_way_to_jax_own_variable(tmp_path):
  assert _run(HOME=str(tmp_path), VIT_JAX_CACHE_DIR='off')['cache'].startswith('off')
  theirs = tmp_path / 'theirs'
  assert _run(HOME=str(tmp_path), JAX_COMPILATION_CACHE_DIR=str(theirs))['cache'].startswith(
    str(theirs)
  )
  assert any(theirs.iterdir())
  assert not (tmp_path / '.cache').exists()


def test_a_folder_that_cannot_be_written_never_fails_a_run(tmp_path):
  file = tmp_path / 'file'
  file.write_text('in the way')
  assert _run(VIT_JAX_CACHE_DIR=str(file))['cache'].startswith('off (cannot write')


def test_memory_is_kept_unless_refused(tmp_path):
  said = _run(VIT_JAX_CACHE_DIR='off')['allocator']
  assert said.startswith(('kept from step to step', 'as the C library has it'))
  said = _run(VIT_JAX_CACHE_DIR='off', VIT_JAX_KEEP_MEMORY='0')['allocator']
  assert said.startswith('given back')


def test_a_flag_of_the_user_stays_and_none_is_set_where_it_is_not_known():
  flag = '--xla_cpu_enable_concurrency_optimized_scheduler=true'
  # That the program ends well says that XLA knows the flag.
  assert _run(VIT_JAX_CACHE_DIR='off')['scheduler'] == 'little memory'
  assert _run(VIT_JAX_CACHE_DIR='off', XLA_FLAGS=flag)['scheduler'] == 'as $XLA_FLAGS says'
