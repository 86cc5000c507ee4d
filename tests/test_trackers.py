"""Trackers: each row once, over resumptions; failures that stop nothing; the packages' APIs."""

import json
import logging
import sys
import threading
import types

import pytest

from tests.support import raises
from vit_jax.errors import ConfigError, InterruptedRunError
from vit_jax.metric_writer import MetricWriter
from vit_jax.trackers import TRACKERS, Tracker, Tracking, check_installed, tracking

CONFIG = {'total': '9 steps', 'optimizer': {'learning_rate': 0.5}, 'freeze': ('head', 'stem')}


class Recorder(Tracker):
  """Keeps all calls of all its runs."""

  calls = []

  def start(self, run):
    self.calls.append(('start', run))
    return run.id or 'one'

  def log(self, metrics, step):
    self.calls.append((step, dict(metrics)))

  def finish(self, ending, report):
    self.calls.append((ending, report))


@pytest.fixture
def recorder(monkeypatch):
  """A registered tracker, whose class it is."""
  dict(TRACKERS)  # loads the others first
  fresh = type('Fresh', (Recorder,), {'calls': []})
  monkeypatch.setitem(TRACKERS._entries, 'recorder', fresh)
  return fresh


def _track(folder, rows, names=('recorder',), resuming=False, error=None):
  with Tracking(names, folder, CONFIG, '', resuming) as tracked:
    for step, split, metrics in rows:
      tracked.log({'step': step, 'split': split, **metrics})
    if error:
      raise error


ROWS = [
  (3, 'train', {'loss': 0.7, 'bad': None}),
  (3, 'val', {'loss': 0.5}),
  (5, 'train', {'loss': 0.3}),
]


def test_rows_come_once_and_a_resumed_run_keeps_its_id(recorder, tmp_path):
  (tmp_path / 'run/report').mkdir(parents=True)
  with pytest.raises(InterruptedRunError):
    _track(tmp_path / 'run', ROWS[:2], error=InterruptedRunError('at step 3', 15))
  (_, run), *rest = recorder.calls
  assert (run.name, run.project, run.id) == ('run', 'vit_jax', '')
  assert json.loads(json.dumps(CONFIG)) == run.config
  assert rest == [(3, {'train/loss': 0.7}), (3, {'val/loss': 0.5}), ('interrupted', None)]
  recorder.calls.clear()
  (page := tmp_path / 'run/report/report.html').touch()
  _track(tmp_path / 'run', [*ROWS, (3, 'test', {'loss': 0.2})], resuming=True)
  assert recorder.calls[0][1].id == 'one'
  assert recorder.calls[1:] == [
    (5, {'train/loss': 0.3}),
    (3, {'test/loss': 0.2}),
    ('finished', page),
  ]
  recorder.calls.clear()
  _track(tmp_path / 'run', ROWS[:1])  # anew
  assert recorder.calls[0][1].id == '' and len(recorder.calls) == 3


@pytest.fixture(params=[0.0, 600.0])
def lag(request, recorder):
  recorder.lag_seconds = request.param
  return request.param


def test_rows_that_a_kill_may_have_lost_are_sent_again(recorder, lag, tmp_path, monkeypatch):
  monkeypatch.setattr(recorder, 'finish', lambda *_: 1 / 0)  # as if killed there
  _track(tmp_path, ROWS[:2])
  recorder.calls.clear()
  _track(tmp_path, ROWS, resuming=True)
  assert [call[0] for call in recorder.calls] == ['start', *([3, 3, 5] if lag else [5])]


@pytest.mark.parametrize('method', ['start', 'log', 'finish'])
@pytest.mark.parametrize(
  'error', [RuntimeError('no\nnetwork'), SystemExit(3)], ids=['error', 'exit']
)
def test_one_that_fails_is_one_warning_and_stops_no_other(
  recorder, method, error, tmp_path, monkeypatch, caplog
):
  def fail(*_):
    raise error

  monkeypatch.setitem(TRACKERS._entries, 'bad', type('Bad', (Recorder,), {method: fail}))
  with caplog.at_level(logging.WARNING):
    _track(tmp_path, ROWS, names=('bad', 'recorder', 'bad'))
  assert len(recorder.calls) == 5
  (line,) = [r.getMessage() for r in caplog.records]
  assert ' bad ' in line and type(error).__name__ in line and '\n' not in line
  caplog.clear()
  monkeypatch.setitem(TRACKERS._entries, 'bad', type('Mended', (Recorder,), {'calls': []}))
  _track(tmp_path, ROWS, names=('bad',), resuming=True)  # it gets what it lacks
  rows = [call for call in TRACKERS['bad'].calls if isinstance(call[0], int)]
  assert len(rows) == (0 if method == 'finish' else 3) and not caplog.records


def test_one_that_hangs_delays_nothing(recorder, tmp_path, monkeypatch, caplog):
  never = threading.Event()
  monkeypatch.setattr(tracking, '_START_SECONDS', 0.01)
  monkeypatch.setattr(tracking, '_FINISH_SECONDS', dict.fromkeys(tracking._FINISH_SECONDS, 0.01))
  monkeypatch.setattr(recorder, 'start', lambda *_: never.wait() and 'x')
  _track(tmp_path, ROWS)
  (line,) = [r.getMessage() for r in caplog.records]
  assert 'recorder' in line
  never.set()


def test_the_writer_hands_over_earlier_rows_first(tmp_path):
  first = MetricWriter(tmp_path, tensorboard=False)
  first.write(3, 'train', {'loss': 0.7})
  first.write(5, 'train', {'loss': float('nan')})
  rows = []
  again = MetricWriter(
    tmp_path, False, 3, first.get_state() | {'count': 1, 'last': []}, also=rows.append
  )
  again.write(4, 'val', {'loss': 0.2})
  assert [(row['step'], row['loss']) for row in rows] == [(3, 0.7), (4, 0.2)]


def test_a_missing_package_names_what_installs_it(monkeypatch):
  for name in ('wandb', 'mlflow', 'trackio', 'aim'):
    monkeypatch.setattr(TRACKERS[name], 'package', f'no_{name}')
    with raises(ConfigError, f'log.to={name}', f'pip install no_{name}'):
      check_installed([name])
  check_installed([])


class Fake(types.ModuleType):
  """A package in which everything can be called, and calls are kept."""

  def __init__(self, name, calls):
    super().__init__(name)
    self._calls = calls

  def __getattr__(self, name):
    if name.startswith('__'):
      raise AttributeError(name)

    def call(*args, **kwargs):
      self._calls.append((name, args, kwargs))
      return self

    return call

  def __setitem__(self, name, value):
    self._calls.append((name, (value,), {}))


def _fake(monkeypatch, name, **values):
  calls = []
  fake = Fake(name, calls)
  fake.__dict__.update(values)
  monkeypatch.setitem(sys.modules, name, fake)
  return fake, calls


@pytest.fixture
def page(tmp_path):
  (tmp_path / 'report').mkdir()
  (tmp_path / 'report/report.html').write_text('<p>')


def test_wandb(monkeypatch, tmp_path, page):
  settings = types.SimpleNamespace(mode='online')
  _, calls = _fake(monkeypatch, 'wandb', id='abc', offline=False, url='https://', settings=settings)
  monkeypatch.setenv('WANDB_PROJECT', 'pets')
  _track(tmp_path, ROWS[:1], ('wandb',))
  found = {name: kwargs for name, _, kwargs in calls}
  assert found['init']['resume'] == 'allow' and found['init']['project'] == 'pets'
  assert found['login'] == {'prompt': False} and found['finish'] == {'exit_code': 0}
  logged = [args[0] for name, args, _ in calls if name == 'log']
  assert logged[0] == {'train/loss': 0.7, 'step': 3} and 'report' in logged[1]
  calls.clear()
  _track(tmp_path, ROWS[:1], ('wandb',), resuming=True)
  assert [kwargs['id'] for name, _, kwargs in calls if name == 'init'] == ['abc']


def test_mlflow(monkeypatch, tmp_path, page):
  fake, calls = _fake(monkeypatch, 'mlflow', run_id='r1', experiment_id='7')
  fake.info = fake
  entities, _ = _fake(monkeypatch, 'mlflow.entities')
  entities.__dict__.update(Param=lambda *a: a, Metric=lambda *a: a)
  _track(tmp_path, ROWS[:1], ('mlflow',))
  found = {name: (args, kwargs) for name, args, kwargs in calls}
  assert found['create_run'] == (('7',), {'run_name': tmp_path.name})
  batches = [(args, kwargs) for name, args, kwargs in calls if name == 'log_batch']
  assert ('optimizer.learning_rate', '0.5') in batches[0][1]['params']
  ((name, value, _, step),) = batches[1][0][1]
  assert (name, value, step) == ('train/loss', 0.7, 3)
  assert found['set_terminated'][0] == ('r1', 'FINISHED')
  calls.clear()
  _track(tmp_path, ROWS[:1], ('mlflow',), resuming=True)
  assert ('update_run', ('r1',), {'status': 'RUNNING'}) in calls
  assert not [call for call in calls if call[0] in ('create_run', 'log_batch')]


def test_trackio(monkeypatch, tmp_path, page):
  _, calls = _fake(monkeypatch, 'trackio')
  for resuming in (False, True):
    _track(tmp_path, ROWS[:1], ('trackio',), resuming)
  first, second = [kwargs for name, _, kwargs in calls if name == 'init']
  assert first['name'] == second['name'] and first['name'].startswith(f'{tmp_path.name}-')
  assert first['resume'] == second['resume'] == 'allow'
  assert ('log', ({'train/loss': 0.7}, 3), {}) in calls


def test_aim(monkeypatch, tmp_path, page):
  _, calls = _fake(monkeypatch, 'aim', hash='h1')
  for resuming in (False, True):
    _track(tmp_path, ROWS[:1], ('aim',), resuming)
  assert [args for name, args, _ in calls if name == 'Run'] == [(None,), ('h1',)]
  tracked = [(args, kwargs) for name, args, kwargs in calls if name == 'track']
  assert tracked == [((0.7, 'loss', 3), {'context': {'subset': 'train'}})]


@pytest.mark.parametrize('name', ['wandb', 'mlflow', 'trackio', 'aim'])
@pytest.mark.filterwarnings('default')
def test_the_package_itself_without_a_network(name, tmp_path, page, monkeypatch, caplog):
  pytest.importorskip(name)
  for variable, value in {
    'WANDB_MODE': 'offline',
    'MLFLOW_TRACKING_URI': f'sqlite:///{tmp_path}/mlflow.db',
    'TRACKIO_DIR': str(tmp_path / 'trackio'),
    'AIM_REPO': str(tmp_path),
  }.items():
    monkeypatch.setenv(variable, value)
  monkeypatch.chdir(tmp_path)
  ids = []
  for resuming in (False, True):
    with caplog.at_level(logging.WARNING, 'vit_jax'):
      _track(tmp_path, ROWS, (name,), resuming)
    assert not [r for r in caplog.records if r.name.startswith('vit_jax')]
    kept = json.loads((tmp_path / 'trackers.json').read_text())[name]
    assert kept['sent'] == {'train/loss': 5, 'val/loss': 3}
    ids.append(kept['id'])
  assert ids[0] == ids[1]
