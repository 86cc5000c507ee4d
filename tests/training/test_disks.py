"""Trials of hundreds of runs: disks that fail, two starts at once, kills, signals.

Each ends in one line or in nothing, loses nothing that was saved, and the same command then ends
where an uninterrupted run ends, byte for byte and row for row. How many of each is said by
$VIT_JAX_TRIALS ('kills=300 signals=60', say), and where they start by $VIT_JAX_TRIALS_SEED.
"""

import os
import re
import shutil
import signal
import subprocess

import numpy as np
import pytest

from tests.support import xla_flags
from tests.training.forked import Attempt, Forker
from tests.training.runs import command, timeless_rows
from vit_jax import checkpoint

pytestmark = pytest.mark.slow

COUNTS = {'fill': 12, 'read-only': 6, 'remove': 6, 'starts': 10, 'kills': 300, 'signals': 60}
COUNTS |= {
  name: int(count)
  for name, count in (w.split('=') for w in os.environ.get('VIT_JAX_TRIALS', '').split())
}
SEED = int(os.environ.get('VIT_JAX_TRIALS_SEED', '0'))
STEPS = 18
METHODS = {
  'total': f'{STEPS} steps',
  'log__tensorboard': 'true',
  'ema__decay': '0.9',
  'fewshot__every': '6 steps',
  'fewshot__shots': '2',
  'mixing__mixup': '0.8',
}
DISK_BYTES = 24 << 20


@pytest.fixture(scope='module')
def trials(tmp_path_factory):
  """(Forker, an uninterrupted run, how it ended, variables of the environment)."""
  scratch = tmp_path_factory.mktemp('trials')
  environment = {
    'VIT_JAX_CACHE': str(scratch / 'cache'),
    'JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS': '0',
    'JAX_PLATFORMS': 'cpu',
    'XLA_FLAGS': xla_flags(),
  }
  with Forker(scratch) as forker:
    whole = scratch / 'whole' / 'run'
    (ended,) = forker.run(Attempt(_words(whole), str(whole), environment=environment))
    assert ended.status == 0, ended.err
    shutil.rmtree(whole)
    (ended,) = forker.run(Attempt(_words(whole), str(whole), environment=environment))
    assert ended.status == 0 and ended.err == '', ended.err
    yield forker, whole, ended, environment


def _words(workdir):
  return command(workdir, **METHODS)[3:]


@pytest.fixture
def disk(tmp_path):
  """A folder on a small disk of its own."""
  folder = tmp_path / 'disk'
  folder.mkdir()
  size = f'size={DISK_BYTES}'
  mounting = ['mount', '-t', 'tmpfs', '-o', size, 'tmpfs', str(folder)]
  try:
    subprocess.run(mounting, check=True, capture_output=True)
  except (OSError, subprocess.CalledProcessError):
    pytest.skip('only root of Linux mounts a disk')
  yield folder
  for _ in range(2):  # one is bound over it where it was read-only
    subprocess.run(['umount', str(folder)], capture_output=True)


def _assert_same_ends(workdir, whole):
  a, b = (checkpoint.Saved.read(p / 'checkpoints' / str(STEPS)) for p in (workdir, whole))
  assert _bytes(a.variables) == _bytes(b.variables)
  assert _bytes(a.training) == _bytes(b.training)
  assert a.meta['data_state'] == b.meta['data_state']
  assert timeless_rows(workdir) == timeless_rows(whole)
  for name in ('config.json', 'classes.json', 'report/report.html'):
    assert (workdir / name).exists(), name


def _bytes(arrays):
  return {name: (a.dtype, a.shape, a.tobytes()) for name, a in arrays.items()}


def _line(ended, *facts):
  """The one line that an attempt ended with; before it there are warnings alone."""
  lines = ended.err.splitlines()
  errors = [line for line in lines if not line.startswith('warning: ')]
  assert len(errors) <= 1, ended.err
  line = errors[0] if errors else lines[-1]
  assert ended.status == (1 if errors else 0), ended.err
  assert not errors or line.startswith('error: '), ended.err
  assert errors or 'no report' in line, ended.err
  for fact in facts:
    assert fact in ended.err, ended.err
  return line


def _moments(moments, count):
  """Numbers of moments: of each kind of file one, then any."""
  kinds = {}
  for number, moment in enumerate(moments):
    name = re.sub(r'[0-9]+|\.tmp', '', moment.rsplit('/', 1)[-1])
    kinds.setdefault(name.split('_')[0] if 'figures/' in moment else name, []).append(number)
  generator = np.random.default_rng(SEED)
  order = [kinds[k] for k in generator.permutation(sorted(kinds))]
  return [int(generator.choice(order[i % len(order)])) for i in range(count)]


@pytest.mark.parametrize(
  'harm, number', [(h, n) for h in ('fill', 'read-only', 'remove') for n in range(COUNTS[h])]
)
def test_a_disk_that_fails_is_one_line_and_loses_nothing(trials, disk, harm, number):
  forker, whole, clean, environment = trials
  moment = _moments(clean.moments, COUNTS[harm])[number]
  workdir = disk / 'run'
  harmed = Attempt(_words(workdir), str(workdir), moment, harm, environment=environment)
  (ended,) = forker.run(harmed)
  where = ended.moments[moment].split('/run', 1)[-1] if moment < len(ended.moments) else '?'
  print(f'{harm} {moment} {where}: {ended.status} {ended.err}')
  if ended.err:
    _line(ended, str(disk))
  else:  # harm at the last rename, which needs no room, or after it
    assert ended.status == 0 and moment >= len(ended.moments) - 1, ended
  if harm == 'read-only':
    subprocess.run(['umount', str(disk)], check=bool(ended.err))
  (disk / 'ballast').unlink(missing_ok=True)
  (again,) = forker.run(Attempt(_words(workdir), str(workdir), environment=environment))
  assert again.status == 0 and 'Traceback' not in again.err, again.err
  _assert_same_ends(workdir, whole)
  damaged = [p.name for p in (workdir / 'checkpoints').glob('damaged-*')]
  assert not damaged


@pytest.mark.parametrize('number', range(COUNTS['starts']))
def test_of_two_starts_at_once_one_ends_the_run(trials, tmp_path, number):
  forker, whole, clean, environment = trials
  workdir = tmp_path / 'run'
  gap = float(np.random.default_rng((SEED, number)).uniform(0, clean.seconds))
  attempt = Attempt(_words(workdir), str(workdir), environment=environment)
  both = forker.run(attempt, attempt, gap=gap if number else 0.0)
  print(f'{gap:.2f} s', [(e.status, e.err) for e in both])
  assert 0 in [e.status for e in both], both
  for ended in both:
    if ended.status:
      _line(ended, str(workdir))
  _assert_same_ends(workdir, whole)


@pytest.mark.parametrize('kind', ['kills', 'signals'])
def test_ends_at_any_moment_change_nothing(trials, tmp_path, kind):
  forker, whole, clean, environment = trials
  left, runs = COUNTS[kind], 0
  generator = np.random.default_rng((SEED, kind == 'kills'))
  while left > 0:
    workdir = tmp_path / str(runs)
    for _ in range(12):
      number = signal.SIGKILL
      if kind == 'signals':
        number = generator.choice([signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
      after = float(generator.uniform(0.05, clean.seconds))
      (ended,) = forker.run(
        Attempt(
          _words(workdir),
          str(workdir),
          number=int(number),
          after=after,
          environment=environment,
        )
      )
      left -= 1
      assert 'Traceback' not in ended.err and 'Exception' not in ended.err, ended.err
      expected = (0, -number) if kind == 'kills' else (0, 128 + number, -number)
      assert ended.status in expected, ended
      if kind == 'signals' and ended.status == -number:
        # Before the command had begun, or after the last line of its summary.
        assert not ended.out or 'visualize' in ended.out.splitlines()[-1], ended
      if ended.status == 0 or left <= 0:
        break
    (ended,) = forker.run(Attempt(_words(workdir), str(workdir), environment=environment))
    assert ended.status == 0, ended.err
    _assert_same_ends(workdir, whole)
    shutil.rmtree(workdir)
    runs += 1
  print(f'{COUNTS[kind] - left} {kind} in {runs} runs')
