"""Damage to the files of a checkpoint is noticed, and the one before is taken."""

import pathlib
import shutil

import numpy as np
import pytest

from tests.support import raises
from tests.training.runs import options, timeless_rows
from vit_jax import checkpoint, tree
from vit_jax.errors import CheckpointError, StorageError
from vit_jax.training import loop

# Of constant rate, so that a run's length does not change its steps.
BRIEF = {
  'schedule__name': 'constant',
  'schedule__warmup': '0 steps',
  'checkpoint__every': '3 steps',
  'evaluation__every': '3 steps',
  'log__every': '3 steps',
}


@pytest.fixture(scope='module')
def runs(tmp_path_factory):
  """(a run of 6 steps, the same run of 9 steps, options of 9 steps)."""
  folder = tmp_path_factory.mktemp('damage')
  for steps in (6, 9):
    long = options(total=f'{steps} steps', **BRIEF)
    loop.train(long, str(folder / str(steps)))
  return folder / '6', folder / '9', long


@pytest.fixture(scope='module')
def run_with_ema(tmp_path_factory):
  """A run of 6 steps."""
  folder = tmp_path_factory.mktemp('damage_ema') / '6'
  loop.train(options(total='6 steps', ema__decay='0.9', **BRIEF), str(folder))
  return folder


@pytest.fixture(params=['plain', 'ema'])
def run(request):
  """A run of 6 steps."""
  if request.param == 'ema':
    return request.getfixturevalue('run_with_ema')
  return request.getfixturevalue('runs')[0]


def damages(seed, flips):
  """(name, function of a file's path) of every kind of damage."""

  def flip(number):
    def change(path):
      data = bytearray(path.read_bytes())
      if data:
        bit = np.random.default_rng((seed, number)).integers(8 * len(data))
        data[bit // 8] ^= 1 << bit % 8
      path.write_bytes(bytes(data))

    return change

  return [
    ('truncated', lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])),
    ('emptied', lambda path: path.write_bytes(b'')),
    ('zeroed', lambda path: path.write_bytes(bytes(path.stat().st_size))),
    ('deleted', lambda path: path.unlink()),
    *((f'flip {n}', flip(n)) for n in range(flips)),
  ]


def _same(a, b):
  return a.keys() == b.keys() and all(
    a[k].dtype == b[k].dtype and a[k].tobytes() == b[k].tobytes() for k in a
  )


def _try_all(run, tmp_path, flips, every=1):
  """Damages each file of the newest checkpoint; counts what became of it."""
  whole = checkpoint.Saved.read(run / 'checkpoints/6')
  files = sorted(p for p in (run / 'checkpoints/6').rglob('*') if p.is_file())
  counts = {'noticed': 0, 'unharmed': 0}
  trials = [(f, d) for f in files for d in damages(0, flips)]
  for file, (name, damage) in trials[::every]:
    copy = tmp_path / 'copy' / '6'
    shutil.copytree(run / 'checkpoints/6', copy)
    damage(copy / file.relative_to(run / 'checkpoints/6'))
    try:
      found = checkpoint.Saved.read(copy)
    except checkpoint.DamagedCheckpointError as e:
      assert str(copy) in str(e)
      counts['noticed'] += 1
    else:
      where = f'{file.name} {name}'
      assert found.meta == whole.meta, where
      assert _same(found.variables, whole.variables), where
      assert _same(found.training, whole.training), where
      counts['unharmed'] += 1
    shutil.rmtree(copy)
  return counts


def test_no_damage_gives_other_arrays(run, tmp_path):
  counts = _try_all(run, tmp_path, flips=1, every=7)
  assert counts['noticed'] > 10


@pytest.mark.slow
def test_no_damage_of_any_file_gives_other_arrays(run, tmp_path):
  counts = _try_all(run, tmp_path, flips=20)
  print(counts)
  assert counts['noticed'] > 100


def _largest(folder):
  return max((p for p in folder.rglob('*') if p.is_file()), key=lambda p: p.stat().st_size)


def _change_step(folder):
  folder.rename(folder.with_name('8'))


DAMAGES = {
  'training': lambda f: damages(1, 1)[-1][1](_largest(f / 'training')),
  'variables': lambda f: damages(1, 1)[-1][1](_largest(f / 'variables')),
  'meta': lambda f: (f / 'meta/metadata').write_text('{"step": 6}'),
  'empty': lambda f: shutil.rmtree(f) or f.mkdir(),
  'renamed': _change_step,
}
each_damage = pytest.mark.parametrize('damage', DAMAGES.values(), ids=DAMAGES)


@each_damage
def test_the_checkpoint_before_is_read_with_an_ema_too(run_with_ema, tmp_path, damage, caplog):
  shutil.copytree(run_with_ema, tmp_path / 'run')
  folder = tmp_path / 'run/checkpoints'
  damage(folder / '6')
  damaged = max(int(p.name) for p in folder.iterdir())
  assert checkpoint.load_run(str(tmp_path / 'run'), 'last').step in (3, 6)
  found = checkpoint.Checkpointer(tmp_path / 'run', 2, 'accuracy', 'max').read_newest()
  assert f'checkpoints/{damaged}' in caplog.text and 'step 3' in caplog.text
  assert (folder / f'damaged-{damaged}').is_dir()
  whole = checkpoint.Saved.read(run_with_ema / 'checkpoints/3')
  assert found.meta == whole.meta
  assert _same(found.variables, whole.variables) and _same(found.training, whole.training)


@each_damage
def test_a_run_goes_on_from_the_checkpoint_before(runs, tmp_path, damage, capsys):
  run, longer, config = runs
  shutil.copytree(run, tmp_path / 'run')
  damage(tmp_path / 'run/checkpoints/6')
  damaged = max(int(p.name) for p in (tmp_path / 'run/checkpoints').iterdir())
  assert checkpoint.load_run(str(tmp_path / 'run'), 'last').step in (3, 6)
  loop.train(config, str(tmp_path / 'run'))
  said = capsys.readouterr().err
  assert f'checkpoints/{damaged}' in said and 'step 3' in said
  assert (tmp_path / f'run/checkpoints/damaged-{damaged}').is_dir()
  a, b = (checkpoint.Saved.read(p / 'checkpoints/9') for p in (tmp_path / 'run', longer))
  assert _same(a.variables, b.variables) and _same(a.training, b.training)
  assert timeless_rows(tmp_path / 'run') == timeless_rows(longer)


def test_what_opens_a_run_passes_over_a_damaged_checkpoint(runs, tmp_path, caplog):
  shutil.copytree(runs[0], tmp_path / 'run')
  whole = checkpoint.load_run(str(tmp_path / 'run/checkpoints/3'))
  damages(1, 1)[-1][1](_largest(tmp_path / 'run/checkpoints/6/variables'))
  found = checkpoint.load_run(str(tmp_path / 'run'), 'last')
  assert found.step == 3 and _same(tree.flatten(found.variables), tree.flatten(whole.variables))
  assert 'checkpoints/6' in caplog.text
  with raises(checkpoint.DamagedCheckpointError, 'checkpoints/6'):
    checkpoint.load_run(str(tmp_path / 'run/checkpoints/6'))
  shutil.rmtree(tmp_path / 'run/checkpoints/3')
  with raises(CheckpointError, 'checkpoints/6'):
    checkpoint.load_run(str(tmp_path / 'run'))
  with raises(CheckpointError, 'checkpoints/6'):
    loop.train(runs[2], str(tmp_path / 'run'))
  assert (tmp_path / 'run/checkpoints/6').is_dir()  # nothing is lost


def test_a_full_disk_is_said_before_anything_is_written(runs, tmp_path, monkeypatch):
  run, longer, config = runs
  shutil.copytree(run, tmp_path / 'run')
  usage = shutil.disk_usage(tmp_path)
  monkeypatch.setattr(shutil, 'disk_usage', lambda path: usage._replace(free=1 << 20))
  with raises(StorageError, 'step 9', 'step 6', str(tmp_path)):
    loop.train(config, str(tmp_path / 'run'))
  monkeypatch.undo()
  loop.train(config, str(tmp_path / 'run'))
  assert timeless_rows(tmp_path / 'run') == timeless_rows(longer)


def test_a_vanished_folder_is_one_line(runs, tmp_path):
  saver = checkpoint.Checkpointer(tmp_path / 'run', 2, 'accuracy', 'max')
  saved = checkpoint.Saved.read(runs[0] / 'checkpoints/6')
  pathlib.Path(tmp_path / 'run').mkdir()
  saver.save(1, saved.variables, saved.training, saved.meta, {})
  saver.wait()
  shutil.rmtree(tmp_path / 'run')
  with raises(StorageError, str(tmp_path)):
    saver.save(2, saved.variables, saved.training, saved.meta, {})
    saver.wait()
  saver.close()
