"""Trials of runs of two processes, replicated or sharded: one or all are killed or asked to stop.

Each attempt ends in one line or in nothing, with a status that says why, and the same command then
ends as a run that nobody stopped, byte for byte and row for row. How many of each is said by
$VIT_JAX_TRIALS ('processes=100'), and where they start by $VIT_JAX_TRIALS_SEED.
"""

import os
import shutil
import signal
import time

import numpy as np
import pytest

from tests.training.test_many_processes import (
  assert_equal,
  checkpoint_steps,
  end,
  files,
  members,
  run,
  start,
)

pytestmark = pytest.mark.slow

_WORDS = [w.split('=') for w in os.environ.get('VIT_JAX_TRIALS', '').split()]
COUNT = {'processes': 12, **{name: int(count) for name, count in _WORDS}}['processes']
SEED = int(os.environ.get('VIT_JAX_TRIALS_SEED', '0'))
PROCESSES = 2
IN_A_RUN = 4  # attempts, before it is let go to its end

# What an attempt is watched for, until it changes; seconds of which a random share is added.
MOMENTS = {
  'start-up': (lambda w: time.monotonic(), 6.0),
  'step': (lambda w: checkpoint_steps(w), 0.2),
  'save': (lambda w: {p.name for p in (w / 'checkpoints').glob('*tmp*')}, 0.03),
  'validation': (lambda w: _text(w / 'metrics.jsonl').count('"val"'), 0.1),
  'report': (lambda w: (w / 'report').exists() and (w / 'report').stat().st_mtime, 1.0),
}


def _text(path):
  return path.read_text() if path.exists() else ''


def _wait(process, workdir, moment, share):
  seen, seconds = MOMENTS[moment]
  before = seen(workdir)
  while process.poll() is None and (not members(process) or seen(workdir) == before):
    time.sleep(0.005)
  time.sleep(share * seconds)


@pytest.mark.parametrize('parallel', ['data', 'fsdp'])
def test_ends_at_any_moment_change_nothing(tmp_path, parallel):
  whole = tmp_path / 'whole'
  run(whole, PROCESSES, parallel=parallel)
  generator = np.random.default_rng((SEED, parallel == 'fsdp'))
  moments, told = list(MOMENTS), []
  for count in range(COUNT):
    workdir = tmp_path / str(count // IN_A_RUN)
    moment = moments[int(generator.integers(len(moments)))]
    number = signal.Signals(int(generator.choice([signal.SIGKILL, signal.SIGTERM])))
    victim, share = int(generator.integers(PROCESSES + 1)), generator.uniform()
    process = start(workdir, PROCESSES, parallel=parallel)
    _wait(process, workdir, moment, share)
    began, status = time.monotonic(), process.poll()
    if status is None and victim == PROCESSES and number == signal.SIGTERM:
      process.send_signal(number)  # which the launcher passes on
    elif status is None:
      them = members(process)
      for pid in them if victim == PROCESSES else them[victim : victim + 1]:
        os.kill(pid, number)
    status, _, err = end(process)
    seconds = time.monotonic() - began
    told.append(
      f'{moment} {number.name} {victim}: {status}, {seconds:.1f} s, {err.strip()[-90:]!r}'
    )
    print(told[-1], flush=True)
    expected = 1 if number == signal.SIGKILL else 128 + number
    assert status in (0, expected), told[-1]
    lines = err.splitlines()
    if count % IN_A_RUN and 'metrics and no checkpoint' in err:
      lines = lines[1:]  # the attempt before was killed between its first row and checkpoint
    assert len(lines) <= 2, err  # that it saves, and where it stopped
    assert seconds < 60 or status == 0
    if count % IN_A_RUN == IN_A_RUN - 1 or count == COUNT - 1:
      run(workdir, PROCESSES, parallel=parallel)
      assert_equal(whole, workdir)
      assert files(whole) == files(workdir)
      print(f'equal after {count + 1} ends', flush=True)
      shutil.rmtree(workdir)
