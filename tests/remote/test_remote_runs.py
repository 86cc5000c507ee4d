"""Real runs in a store: a folder of this machine, as `file://`, which separate processes see."""

import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time

import pytest

from tests.training.runs import ROOT, command, options, timeless_rows
from vit_jax import remote
from vit_jax.checkpoint import Saved
from vit_jax.remote import lease
from vit_jax.training import loop

STEPS = '60 steps'


def _arrays(workdir):
  """Bytes of all arrays of the newest checkpoint."""
  newest = max((workdir / 'checkpoints').iterdir(), key=lambda p: int(p.name))
  saved = Saved.read(newest)
  found = {f'variables/{name}': array.tobytes() for name, array in saved.variables.items()}
  return found | {f'training/{name}': array.tobytes() for name, array in saved.training.items()}


def _start(url, cache, *more, total=STEPS):
  words = [*command(url, total=total), *more]
  environment = os.environ | {'VIT_JAX_CACHE': str(cache)}
  return subprocess.Popen(
    words, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
  )


def _until_sent(run, store):
  """Waits until a checkpoint is in the store."""
  while not list(store.glob('checkpoints/*/checksums.json')):
    assert run.poll() is None, run.communicate()
    time.sleep(0.01)


@pytest.mark.slow
@pytest.mark.parametrize('processes', [1, 2])
def test_a_killed_run_resumes_with_an_empty_cache_and_ends_byte_for_byte_the_same(
  tmp_path, processes
):
  more = [f'--processes={processes}', '--quiet']
  whole, store = tmp_path / 'whole', tmp_path / 'store'
  first = _start(whole, tmp_path / 'first', *more)
  said = first.communicate()
  assert first.returncode == 0, said
  run = _start(f'file://{store}', tmp_path / 'killed', *more)
  _until_sent(run, store)
  run.kill()
  run.communicate()
  _wait_for_the_end_of_members(tmp_path / 'killed')
  (store / lease.FILE).unlink()  # or the next run waits for a sign of life
  begun = max(int(p.parent.name) for p in store.glob('checkpoints/*/checksums.json'))
  again = _start(f'file://{store}', tmp_path / 'resumed', *more)
  _, stderr = again.communicate()
  assert again.returncode == 0, stderr
  assert begun < 60 and not (store / lease.FILE).exists()
  assert _arrays(store) == _arrays(whole)
  assert timeless_rows(store) == timeless_rows(whole)
  assert (store / 'report/report.html').exists()


def _wait_for_the_end_of_members(cache):
  """Of several processes, which end when the one that has started them is killed."""
  from vit_jax.files import try_lock

  lock = next(cache.glob('remote/workdirs/*/lock'))
  end = time.monotonic() + 60
  while time.monotonic() < end:
    with open(lock, 'a') as file:
      if try_lock(file.fileno()):
        return
    time.sleep(0.1)
  pytest.fail('the members go on')


@pytest.mark.slow
def test_sigterm_sends_the_last_checkpoint_and_the_model_is_used_by_its_url(tmp_path):
  store = tmp_path / 'store'
  run = _start(f'file://{store}', tmp_path / 'cache', total='3000 steps')
  _until_sent(run, store)
  run.send_signal(signal.SIGTERM)
  _, stderr = run.communicate()
  assert run.returncode == 128 + signal.SIGTERM, stderr
  newest = max(int(p.parent.name) for p in store.glob('checkpoints/*/checksums.json'))
  assert f'step {newest},' in stderr.splitlines()[-1]
  shutil.rmtree(tmp_path / 'cache')
  environment = os.environ | {'VIT_JAX_CACHE': str(tmp_path / 'cache')}
  found = subprocess.run(
    [sys.executable, '-m', 'vit_jax.evaluate', f'file://{store}'],
    cwd=ROOT,
    env=environment,
    capture_output=True,
    text=True,
  )
  assert found.returncode == 0 and f'file://{store} on digits test' in found.stdout, found.stderr


@pytest.mark.slow
def test_a_run_in_this_process_leaves_the_store_as_a_local_run_leaves_its_folder(store, tmp_path):
  local = tmp_path / 'local'
  config = options(total='12 steps')
  loop.train(config, str(local))
  loop.train(config, 'flaky://bucket/run')
  copy = pathlib.Path(remote.local('flaky://bucket/run'))
  assert timeless_rows(copy) == timeless_rows(local)
  wanted = {name for name in _names(local) if '/training/' not in name and name != '.lock'}
  assert _names(copy) == wanted


def _names(folder):
  """The files of a run, without the data of arrays, whose names are random."""
  names = {p.relative_to(folder).as_posix() for p in folder.rglob('*') if p.is_file()}
  return {name for name in names if '/d/' not in name}
