"""A run in a store: sent as it goes, resumed elsewhere, never mixed up and never lost."""

import json
import logging
import pathlib
import shlex
import shutil
import sys
import types

import pytest

from tests.remote.stores import tree, until, write_checkpoint
from tests.support import raises
from vit_jax import remote
from vit_jax.checkpoint import read_metas
from vit_jax.errors import ConfigError, DependencyError, StorageError
from vit_jax.remote import lease, mirror
from vit_jax.training import ending

URL = 'flaky://bucket/runs/a'


def there(store, below='/bucket/runs/a'):
  """{path: content} of the files in the store, without hidden ones."""
  return {
    name.removeprefix(f'{below}/'): file.getvalue()
    for name, file in store.store.items()
    if name.startswith(f'{below}/') and '/.' not in name
  }


def is_locked(store):
  return f'/bucket/runs/a/{lease.FILE}' in store.store


def elsewhere(monkeypatch, tmp_path, name='other'):
  """Another machine, with an empty cache."""
  monkeypatch.setenv('VIT_JAX_CACHE', str(tmp_path / name))


def run(*steps, url=URL):
  """A run that saves so many checkpoints."""
  with remote.workdir(url) as path:
    path.mkdir(parents=True, exist_ok=True)
    for step in steps:
      (path / 'metrics.jsonl').write_text(f'{step}\n')
      write_checkpoint(path, step)
  return path


def kill(monkeypatch):
  """Has what follows end as a killed run does: it sends nothing more and unlocks nothing."""
  monkeypatch.setattr(mirror.Mirror, '_work', lambda self: None)
  monkeypatch.setattr(lease.Lease, 'check', lambda self: setattr(self, 'lost', True))


def test_what_lies_in_a_copy_is_called_as_the_user_did(store, tmp_path):
  config = types.SimpleNamespace(dataset=types.SimpleNamespace(test='test', train='train'))
  examples = types.SimpleNamespace(path=lambda i: "it's a dog?.jpg")
  task = types.SimpleNamespace(labels_per_image='one')
  experiment = types.SimpleNamespace(held_out={'test': examples}, train=examples, task=task)
  plan = types.SimpleNamespace(experiment=experiment)
  url = 'flaky://bucket/runs/my dogs'
  with remote.workdir(url) as path:
    path.mkdir(parents=True, exist_ok=True)
    assert remote.address(path) == url and remote.address(path / 'a' / 'b') == f'{url}/a/b'
    lines = [shlex.split(line) for line in ending._commands(config, plan, path)]
  assert [words[3] for words in lines] == [url] * 6
  assert not any(str(tmp_path) in word for words in lines for word in words)
  assert [words[-1] for words in lines if '--out=' in words[-1]] == [
    '--out=my dogs_visualize',
    '--out=my dogs_comparison',
    '--out=my dogs_export',
  ]
  assert lines[1][4] == "it's a dog?.jpg"
  local = tmp_path / 'a b'
  lines = [shlex.split(line) for line in ending._commands(config, plan, local)]
  assert remote.address(local) == str(local) == lines[0][3]
  assert lines[2][-1] == f'--out={local / "visualize"}'
  task.labels_per_image = 'several'  # which `compare` refuses
  assert not any('.compare' in line for line in ending._commands(config, plan, local))


def test_a_path_stays_a_path(tmp_path):
  with remote.workdir(str(tmp_path)) as path:
    assert path == tmp_path
  assert remote.local('C:\\runs\\a') == 'C:\\runs\\a'
  assert remote.local('https://a.b/c.npz') == 'https://a.b/c.npz'


def test_a_run_is_sent_and_resumed_with_an_empty_cache(store, tmp_path, monkeypatch):
  path = run(5)
  before = tree(path)
  assert there(store) == before
  elsewhere(monkeypatch, tmp_path)
  with remote.workdir(URL) as other:
    assert other != path and tree(other) == before
    assert read_metas(other / 'checkpoints')[0].keys() == {5}


def test_each_checkpoint_is_sent_while_the_run_goes_on_and_its_checksums_last(store):
  with remote.workdir(URL) as path:
    path.mkdir(parents=True)
    (path / 'config.json').write_text('{}')
    for step in (5, 10):
      write_checkpoint(path, step)
      until(lambda step=step: f'checkpoints/{step}/checksums.json' in there(store))
    (path / 'report').mkdir()
    (path / 'report' / 'report.html').write_text('<html>')
    assert 'report/report.html' not in there(store)
  sent = [name.removeprefix('/bucket/runs/a/') for what, name in store.log if what == 'put']
  first = sent.index('config.json')
  five, ten = (sent.index(f'checkpoints/{step}/checksums.json') for step in (5, 10))
  assert first < five < ten < sent.index('report/report.html')
  assert not [name for name in sent[five + 1 :] if name.startswith('checkpoints/5/')]


def test_what_the_run_drops_is_removed_after_what_it_keeps_is_sent(store):
  with remote.workdir(URL) as path:
    write_checkpoint(path, 5)
    until(lambda: 'checkpoints/5/checksums.json' in there(store))
    write_checkpoint(path, 10)
    shutil.rmtree(path / 'checkpoints' / '5')
  assert {name.split('/')[1] for name in there(store) if '/' in name} == {'10'}
  removed = [name for what, name in store.log if what == 'rm' and '/5/' in name]
  assert removed[0].endswith('/5/checksums.json')
  last = ('put', '/bucket/runs/a/checkpoints/10/checksums.json')
  assert store.log.index(last) < store.log.index(('rm', removed[0]))


def test_a_checkpoint_that_is_being_dropped_is_not_sent(store):
  with remote.workdir(URL) as path:
    write_checkpoint(path, 10)
    until(lambda: 'checkpoints/10/checksums.json' in there(store))
    write_checkpoint(path / 'apart', 5)
    (path / 'apart/checkpoints/5/training/d/data').unlink()
    (path / 'apart/checkpoints/5').rename(path / 'checkpoints/5')
    (path / 'apart/checkpoints').rmdir()
  assert not [name for name in there(store) if name.startswith('checkpoints/5/')]


def test_a_local_copy_that_is_lost_removes_nothing(store):
  run(5)
  before = there(store)
  with remote.workdir(URL) as path:
    shutil.rmtree(path)
  assert there(store) == before


@pytest.mark.parametrize('lacking', ['meta/metadata', 'checksums.json'])
def test_an_incomplete_checkpoint_is_passed_over(store, tmp_path, monkeypatch, caplog, lacking):
  run(5, 10)
  del store.store[f'/bucket/runs/a/checkpoints/10/{lacking}']
  elsewhere(monkeypatch, tmp_path)
  with remote.workdir(URL) as path:
    metas, damaged = read_metas(path / 'checkpoints')
    assert list(metas) == [5]
    if lacking == 'checksums.json':
      assert 'checksums.json' in str(damaged[10])
      (path / 'checkpoints/10').rename(path / 'checkpoints/damaged-10')  # as the run does
    else:
      assert not damaged and 'checkpoints/10' in caplog.text
    write_checkpoint(path, 10)
  assert read_metas(pathlib.Path(remote.local(URL)) / 'checkpoints')[0].keys() == {5, 10}
  assert not [name for name in there(store) if 'damaged' in name]


def test_a_store_that_fails_for_a_while_has_everything_in_the_end(store, monkeypatch):
  failures = iter(range(2))
  monkeypatch.setattr(store, 'refuses', lambda what, path: next(failures, None) is not None)
  path = run(5)
  assert there(store) == tree(path)


def test_what_could_not_be_sent_is_one_line_and_the_same_command_sends_it(
  store, tmp_path, monkeypatch, caplog
):
  run(5)
  monkeypatch.setattr(store, 'refuses', lambda what, path: '/10/' in path)
  with raises(StorageError, URL, 'checkpoints/10', 'network is down', tmp_path, 'same command'):
    run(10)
  assert 'checkpoints/10/checksums.json' not in there(store)
  with pytest.raises(KeyError), remote.workdir(URL) as path:
    raise KeyError  # of the run, which is not hidden by what could not be sent
  assert 'not sent' in caplog.text and URL in caplog.text
  monkeypatch.undo()
  monkeypatch.setenv('VIT_JAX_CACHE', str(tmp_path / 'cache'))
  with remote.workdir(URL):
    pass
  assert there(store) == tree(path)


def test_the_copy_of_a_killed_run_goes_on_where_it_is_further(store, tmp_path, monkeypatch, caplog):
  run(5)
  with monkeypatch.context() as killed:
    kill(killed)
    run(10)
  assert not [name for name in there(store) if '/10/' in name]
  with remote.workdir(URL) as path:
    assert {p.name for p in (path / 'checkpoints').iterdir()} == {'5', '10'}
  assert 'step 10' in caplog.text and there(store) == tree(path)


def killed_at_5_and_resumed_elsewhere(monkeypatch, tmp_path):
  """The copy of the machine that resumed, to step 10."""
  with monkeypatch.context() as killed:
    kill(killed)
    run(5)
  with monkeypatch.context() as other:
    elsewhere(other, tmp_path)
    return run(10)


def test_the_copy_of_a_killed_run_is_given_up_where_another_went_further(
  store, tmp_path, monkeypatch
):
  path = killed_at_5_and_resumed_elsewhere(monkeypatch, tmp_path)
  with remote.workdir(URL) as mine:
    assert tree(mine) == tree(path)


@pytest.mark.parametrize('steps', [(), (5,)])
def test_a_run_that_began_anew_in_the_store_is_left_as_it_is(
  store, tmp_path, monkeypatch, caplog, steps
):
  with monkeypatch.context() as killed:
    kill(killed)
    run(10)
  store.store.clear()  # by the user, who begins another run, here or elsewhere
  if steps:
    with monkeypatch.context() as other:
      elsewhere(other, tmp_path)
      run(*steps)
  before = there(store)
  with remote.workdir(URL) as path:
    assert tree(path) == before
  assert there(store) == before
  aside = next((tmp_path / 'cache/remote/workdirs').glob('*/aside-*'))
  assert list(aside.rglob('checkpoints/10/checksums.json')) and str(aside) in caplog.text


def test_a_copy_that_was_killed_while_it_was_fetched_is_not_ahead(store, tmp_path, monkeypatch):
  path = killed_at_5_and_resumed_elsewhere(monkeypatch, tmp_path)
  with monkeypatch.context() as broken:
    broken.setattr(store, 'refuses', lambda what, path: path.endswith('training/d/data'))
    with pytest.raises(StorageError), remote.workdir(URL):
      pytest.fail('it was not fetched')
  with remote.workdir(URL) as mine:
    assert tree(mine) == tree(path)
  assert there(store) == tree(path)


def test_a_run_that_ended_well_is_what_the_store_says(store, tmp_path, monkeypatch):
  run(5, 10)
  store.store.clear()  # the user begins anew
  with remote.workdir(URL) as path:
    assert not list(path.rglob('*'))


def test_one_run_at_a_time(store, tmp_path, monkeypatch):
  with remote.workdir(URL):
    with raises(StorageError, URL, 'this machine', '--workdir'), remote.workdir(URL):
      pytest.fail('two runs in one copy')
    elsewhere(monkeypatch, tmp_path)
    with raises(StorageError, URL, 'process', '--workdir'), remote.workdir(URL):
      pytest.fail('two runs at one URL')
  assert not is_locked(store)
  with remote.workdir(URL):
    pass


def test_the_lock_of_a_killed_run_is_taken_over(store, tmp_path, monkeypatch, caplog):
  with monkeypatch.context() as killed:
    kill(killed)
    run(5)
  assert is_locked(store)
  monkeypatch.setattr(lease, 'GONE_SECONDS', 1000.0)
  with remote.workdir(URL):  # of the same copy: at once
    pass
  store.store[f'/bucket/runs/a/{lease.FILE}'] = store().open('/x', 'wb')
  elsewhere(monkeypatch, tmp_path)
  monkeypatch.setattr(lease, 'GONE_SECONDS', 0.1)
  with remote.workdir(URL):
    assert 'was taken over' in caplog.text
  assert not is_locked(store)


def test_a_run_that_has_lost_its_lock_writes_no_more(store):
  with raises(StorageError, URL, 'another run', 'metrics.jsonl'), remote.workdir(URL) as path:
    path.mkdir(parents=True)
    theirs = json.dumps({'id': 'another'}).encode()
    store().pipe_file(f'/bucket/runs/a/{lease.FILE}', theirs)
    (path / 'metrics.jsonl').write_text('')
    write_checkpoint(path, 5)
  assert not there(store) and store().cat_file(f'/bucket/runs/a/{lease.FILE}') == theirs


def test_a_sweep_and_its_members_are_runs_of_their_own(store, tmp_path, monkeypatch):
  run(5, url=remote.join(URL, 'seed=0'))
  with remote.workdir(URL) as path:
    assert (path / 'seed=0/checkpoints/5/checksums.json').exists()
    write_checkpoint(path / 'seed=1', 7)
    until(lambda: 'seed=1/checkpoints/7/checksums.json' in there(store))
    (path / 'sweep.csv').write_text('run')
  assert there(store) == tree(path)
  assert remote.join('runs', 'a') == str(pathlib.Path('runs/a'))


def test_a_process_without_the_copy_is_named(store, tmp_path, monkeypatch):
  with remote.workdir(URL):
    mirror.Mirror(URL).check_shared((mirror.Mirror(URL)._token).read_text())
    elsewhere(monkeypatch, tmp_path)
    with raises(ConfigError, URL, 'VIT_JAX_CACHE'):
      mirror.Mirror(URL).check_shared('word')


def test_training_works_in_the_copy(store, monkeypatch, caplog):
  from tests.training.runs import options
  from vit_jax.training import loop, sweep

  def train(config, path, *_):
    path.mkdir(parents=True)
    write_checkpoint(path, 5)
    return {'loss': 0.0}

  caplog.set_level(logging.INFO)
  monkeypatch.setattr(loop, '_train', train)
  assert loop.train(options(), URL) == {'loss': 0.0}
  assert 'checkpoints/5/checksums.json' in there(store)
  with raises(ConfigError, URL, 'flaky://bucket/runs', 'outside'):
    loop.train(options(dataset__name='flaky://bucket/runs'), URL)
  sweep.run_one({'m': ({}, options())}, 'm', URL)
  assert {'m/finished.json', 'm/checkpoints/5/checksums.json'} <= there(store).keys()
  sweep.run_one({'m': ({}, options())}, 'm', URL)  # it is finished, and `train` would fail


@pytest.mark.parametrize('kind, package', [('gs', 'gcsfs'), ('s3', 's3fs')])
def test_the_package_that_a_store_needs_is_named(monkeypatch, kind, package):
  monkeypatch.setitem(sys.modules, package, None)
  with raises(DependencyError, f'{kind}://bucket/run', f'pip install {package}'):
    remote.check(f'{kind}://bucket/run')
