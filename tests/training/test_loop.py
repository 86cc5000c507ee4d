"""Whole runs on the embedded digits: killed and resumed, stopped, diverged, finished."""

import functools
import io
import json
import pathlib
import re
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest
from PIL import Image

from tests.support import error_line, raises
from tests.training.runs import ROOT, command, options, reports, timeless_rows
from vit_jax import checkpoint, config, evaluate, load, optimizers
from vit_jax.errors import (
  CheckpointError,
  ConfigError,
  DatasetError,
  DivergenceError,
  StorageError,
  WeightsError,
)
from vit_jax.metric_writer import read_metrics
from vit_jax.training import display, loop


def _arrays(workdir, step):
  """Every array of a checkpoint, by name: weights, statistics, optimizer, step."""
  import orbax.checkpoint as ocp

  with ocp.CheckpointManager(
    pathlib.Path(workdir) / 'checkpoints', item_names=('variables', 'training', 'meta', 'metrics')
  ) as manager:
    items = manager.item_metadata(step)
    args = {
      name: ocp.args.StandardRestore(
        jax.tree.map(lambda m: np.broadcast_to(np.zeros((), m.dtype), m.shape), items[name])
      )
      for name in ('variables', 'training')
    }
    found = manager.restore(step, args=ocp.args.Composite(**args, meta=ocp.args.JsonRestore()))
  named = jax.tree_util.tree_flatten_with_path((found.variables, found.training))[0]
  return {jax.tree_util.keystr(k): np.asarray(v) for k, v in named}, found.meta


def _assert_same_run(one, other, step):
  (a, meta_a), (b, meta_b) = _arrays(one, step), _arrays(other, step)
  assert a.keys() == b.keys() and len(a) > 20
  for name, value in a.items():
    assert value.tobytes() == b[name].tobytes(), f'{name} differs'
  assert meta_a['data_state'] == meta_b['data_state']
  assert timeless_rows(one) == timeless_rows(other)


def _kill_when(words, condition, seconds=240):
  """Starts a command and kills it, as a power cut would, when the condition holds."""
  process = subprocess.Popen(words, cwd=ROOT, stdout=subprocess.DEVNULL)
  end = time.monotonic() + seconds
  while time.monotonic() < end and process.poll() is None:
    if condition():
      process.send_signal(signal.SIGKILL)
      process.wait()
      return
    time.sleep(0.001)
  process.kill()
  process.wait()
  raise AssertionError('the moment of the kill never came')


# Each checkpoint costs as much as many steps.
LONG = {'total': '120 steps', 'checkpoint__every': '12 steps', 'evaluation__every': '24 steps'}


@pytest.fixture(scope='module')
def uninterrupted(tmp_path_factory):
  """The long run on a placement, trained once."""

  @functools.cache
  def trained(parallel):
    folder = tmp_path_factory.mktemp('uninterrupted') / parallel
    loop.train(options(**LONG, parallel=parallel), str(folder))
    return folder

  return trained


@pytest.mark.parametrize(
  'parallel, moment',
  [
    ('data', 'between'),
    ('data', 'while a checkpoint is written'),
    # Resuming by pmap is tested in every run by the exact one below, without a process that dies.
    pytest.param('pmap', 'between', marks=pytest.mark.slow),
  ],
)
def test_killed_and_resumed_equals_uninterrupted(tmp_path, uninterrupted, parallel, moment):
  """Byte for byte, with dropout, stochastic depth and random crops, on four devices."""
  whole, broken = uninterrupted(parallel), tmp_path / 'broken'
  named = LONG | {'parallel': parallel}
  checkpoints = broken / 'checkpoints'

  def half_way():
    late = [p.name for p in checkpoints.glob('*') if int(p.name.split('.')[0]) >= 36]
    return any(name.isdigit() == (moment == 'between') for name in late)

  _kill_when(command(broken, **named), half_way)
  kept = checkpoint.load_run(broken, 'last').step
  assert 0 < kept < 120
  loop.train(options(**named), str(broken))
  _assert_same_run(whole, broken, 120)


METHODS = {
  'accumulate': '2',
  'mixing__mixup': '0.8',
  'mixing__cutmix': '1.0',
  'mixing__per_pair': 'true',
  'ema__decay': '0.9',
  'optimizer__sam_rho': '0.05',
  'optimizer__gsam_alpha': '0.3',
  'optimizer__layer_decay': '0.7',
  'plateau__factor': '0.5',
  'plateau__patience': '1',
  'plateau__metric': 'accuracy',
  'plateau__mode': 'max',
  'plateau__delta': '1',
  'early_stopping__patience': '4',
  'early_stopping__metric': 'loss',
  'early_stopping__mode': 'min',
  'early_stopping__delta': '9',
  'fewshot__every': '12 steps',
  'fewshot__shots': '2',
  'fewshot__neighbours': '5',
}


class _PowerCut(BaseException):
  pass


@pytest.mark.parametrize('parallel, rule', [('data', 'adamw'), ('pmap', 'adafactor')])
def test_resuming_is_exact_with_every_method_on(tmp_path, monkeypatch, parallel, rule):
  """The rate is cut at the second, third ... validation and the fifth ends training at step 40."""
  whole, broken = tmp_path / 'whole', tmp_path / 'broken'
  named = METHODS | {
    'optimizer__name': rule,
    'total': '88 steps',
    'parallel': parallel,
    'evaluation__every': '8 steps',
    'checkpoint__every': '14 steps',
  }
  loop.train(options(**named), str(whole))
  step_of = display.Text.step

  def cut(self, step):
    if step == 31:
      raise _PowerCut
    step_of(self, step)

  monkeypatch.setattr(display.Text, 'step', cut)
  with pytest.raises(_PowerCut):
    loop.train(options(**named), str(broken))
  monkeypatch.undo()
  assert checkpoint.load_run(broken, 'last').step == 28
  loop.train(options(**named), str(broken))
  _assert_same_run(whole, broken, 40)
  rows = read_metrics(whole)
  assert {r['split'] for r in rows} == {'train', 'val', 'val_raw', 'test'}
  rates = {r['step']: r['learning_rate'] for r in rows if r['split'] == 'train'}
  assert rates[36] < rates[20] / 3  # two more cuts, and little of the schedule's own decay


def test_a_signal_saves_a_checkpoint_and_the_same_command_resumes(tmp_path):
  whole, broken = tmp_path / 'whole', tmp_path / 'broken'
  run = subprocess.Popen(
    command(broken, total='2000 steps'),
    cwd=ROOT,
    stderr=subprocess.PIPE,
    stdout=subprocess.DEVNULL,
    text=True,
  )
  while not (broken / 'metrics.jsonl').exists() and run.poll() is None:
    time.sleep(0.01)
  run.send_signal(signal.SIGTERM)
  _, stderr = run.communicate(timeout=240)
  stopped = checkpoint.load_run(broken, 'last').step
  assert run.returncode == 128 + signal.SIGTERM and 'error' not in stderr
  assert f'step {stopped},' in stderr.splitlines()[-1]
  end = f'{stopped + 5} steps'
  loop.train(options(total=end, schedule__name='constant'), str(whole))
  with raises(CheckpointError, broken, 'config.schedule.name', "'constant'", "'cosine'"):
    loop.train(options(total=end, schedule__name='constant'), str(broken))
  metrics = loop.train(options(total=end), str(broken))
  assert metrics['examples'] == 300
  assert checkpoint.load_run(broken, 'last').step == stopped + 5


@pytest.fixture(scope='module')
def finished(tmp_path_factory):
  workdir = tmp_path_factory.mktemp('runs') / 'finished'
  with reports(True):
    loop.train(options(total='24 steps', log__tensorboard='true'), str(workdir))
  return workdir


def test_a_run_writes_what_the_readme_lists(finished):
  assert json.loads((finished / 'classes.json').read_text()) == [str(i) for i in range(10)]
  saved = json.loads((finished / 'config.json').read_text())
  assert config.parse(saved) == options(total='24 steps', log__tensorboard='true')
  rows = read_metrics(finished)
  assert [r['step'] for r in rows if r['split'] == 'train'] == [4, 8, 12, 16, 20, 24]
  assert [r['step'] for r in rows if r['split'] == 'val'] == [12, 24]
  assert rows[-1]['split'] == 'test' and rows[-1]['examples'] == 300
  assert {'loss', 'accuracy', 'top3', 'top5', 'img_sec'} <= rows[-1].keys()
  assert list(finished.glob('events.out.tfevents.*'))
  assert 'encoder/block_00/attention/qkv/kernel' in (finished / 'parameters.txt').read_text()


def _events(path):
  """The summaries of an event file: (step, tag, value)."""
  from tensorboardX.proto import event_pb2

  data, found = path.read_bytes(), []
  while data:  # each record: length, its checksum, the event, its checksum
    end = 12 + int.from_bytes(data[:8], 'little')
    event = event_pb2.Event.FromString(data[12:end])
    found += [(event.step, value.tag, value) for value in event.summary.value]
    data = data[end + 4 :]
  return found


def test_validation_puts_images_into_the_event_file(finished):
  events = [e for f in finished.glob('events.out.tfevents.*') for e in _events(f)]
  shown = {(s, tag): value.image for s, tag, value in events if value.HasField('image')}
  assert set(shown) == {(s, f'val/{what}') for s in (12, 24) for what in ('confusion', 'samples')}
  for image in shown.values():
    pixels = np.asarray(Image.open(io.BytesIO(image.encoded_image_string)))
    assert pixels.shape == (image.height, image.width, 3) and np.ptp(pixels) > 200


def test_a_run_writes_its_report(finished):
  metrics = json.loads((finished / 'report/metrics.json').read_text())
  row = read_metrics(finished)[-1]
  assert metrics['accuracy'] == pytest.approx(row['accuracy'])
  assert (finished / 'report/report.html').stat().st_size > 10_000


def test_evaluate_scores_a_run_without_other_flags(finished, capsys):
  for batch_size in ('7', '64'):
    assert evaluate.main([str(finished), f'--batch_size={batch_size}', '--json']) == 0
    scored = json.loads(capsys.readouterr().out)
    row = read_metrics(finished)[-1]
    assert scored['examples'] == row['examples'] == 300
    assert scored['accuracy'] == pytest.approx(row['accuracy'])
  report = finished.parent / 'again'
  with reports(True):
    assert evaluate.main([str(finished), f'--report={report}']) == 0
  printed = capsys.readouterr().out
  assert re.search(r'evaluation images/s +[\d,.]+\n', printed) and 'img_sec' not in printed
  assert str(checkpoint.load_run(finished).step) in (report / 'report.html').read_text()
  with raises(DatasetError, "'tset'", "'test'"):
    evaluate.main([str(finished), '--split=tset'])


def test_the_best_and_the_newest_checkpoints_are_kept(finished):
  steps = sorted(int(p.name) for p in (finished / 'checkpoints').iterdir())
  best = max(
    (r for r in read_metrics(finished) if r['split'] == 'val'),
    key=lambda r: (r['accuracy'], r['step']),
  )
  assert set(steps) == {18, 24} | {best['step']}
  assert checkpoint.load_run(finished).step == best['step']
  assert load(finished).step == best['step']
  run = checkpoint.load_run(finished, 'last')
  assert run.step == 24 and run.classes[3] == '3' and run.preprocess['transform']
  assert checkpoint.load_run(finished / 'checkpoints' / '18').step == 18
  with raises(CheckpointError, "'7'", '18, 24]'):
    checkpoint.load_run(finished, '7')


def test_the_best_checkpoint_is_saved_although_none_is_due(tmp_path):
  named = {'total': '24 steps', 'evaluation__every': '4 steps', 'checkpoint__every': '23 steps'}
  loop.train(options(**named, dataset__test=''), str(tmp_path))
  rows = [r for r in read_metrics(tmp_path) if r['split'] == 'val']
  assert [r['step'] for r in rows] == [4, 8, 12, 16, 20, 24]
  best = max(rows, key=lambda r: (r['accuracy'], r['step']))
  found = checkpoint.load_run(tmp_path)
  assert found.step == best['step'] and found.metrics['accuracy'] == best['accuracy']
  saved = {int(p.name) for p in (tmp_path / 'checkpoints').iterdir()}
  assert {23, 24} <= saved and found.step in saved


def test_a_finished_run_is_not_trained_again(finished, capsys):
  before = _arrays(finished, 24)[0]
  left = [finished / f'{where}.12.tmp' for where in ('.plan.txt', 'report/figures/.confusion.png')]
  for path in left:  # as a kill leaves them
    path.write_text('half')
  loop.train(options(total='24 steps', log__tensorboard='true'), str(finished))
  assert not any(path.exists() for path in left)
  after = _arrays(finished, 24)[0]
  assert all(after[name].tobytes() == value.tobytes() for name, value in before.items())
  assert [r['split'] for r in read_metrics(finished)].count('test') == 1
  said = capsys.readouterr().out
  assert f'{finished}, finished at step 24\n' in said and 'resuming' not in said
  (note,) = [line for line in said.splitlines() if line.startswith('note: ')]
  assert 'tested' in note and note.endswith("--config.total='48 steps'")


@pytest.mark.parametrize(
  'overrides, fact',
  [
    # The first gradient is finite, that of SAM's ascended weights is not.
    ({'optimizer__sam_rho': '0.1', 'total': '2 steps'}, 'sam_grad_norm'),
    # Both the loss and the gradient of the last step are finite; the weights after it are not, by a
    # factor beyond those that the option allows.
    (
      {'optimizer__name': 'sgd', 'optimizer__multipliers': '.*=1e38', 'total': '1 steps'},
      'weights',
    ),
  ],
)
def test_nothing_is_saved_that_is_not_finite(tmp_path, monkeypatch, overrides, fact):
  monkeypatch.setattr(
    optimizers.Sharpness, 'ascend', lambda _, p, *more: jax.tree.map(lambda x: x * np.nan, p)
  )
  monkeypatch.setattr('vit_jax.optimizers.parameter_groups._LARGEST_FACTOR', 1e39)
  more = {'schedule__name': 'constant', 'schedule__warmup': '0 steps', 'dataset__val': ''}
  with raises(DivergenceError, 'none was saved', fact):
    loop.train(options(**more, **overrides), str(tmp_path / 'run'))
  assert not checkpoint.has_checkpoint(tmp_path / 'run')


def test_nan_stops_and_keeps_the_last_good_checkpoint(tmp_path):
  """Every step multiplies the weights by -10,000."""
  diverging = options(
    total='24 steps',
    optimizer__name='sgd',
    optimizer__learning_rate='1e4',
    optimizer__weight_decay='1',
    optimizer__clip_norm='0',
    checkpoint__every='1 steps',
    schedule__warmup='0 steps',
  )
  with raises(DivergenceError, 'nan', 'loss', 'config.optimizer.learning_rate') as caught:
    loop.train(diverging, str(tmp_path))
  run = checkpoint.load_run(tmp_path, 'last')
  assert f'step {run.step + 1}:' in str(caught.value)
  assert f'checkpoint at step {run.step} ' in str(caught.value)
  assert all(np.isfinite(x).all() for x in jax.tree.leaves(run.variables))


@pytest.mark.parametrize(
  'overrides, kind, facts',
  [
    ({'batch_size': '18'}, ConfigError, ['config.batch_size=18', '4 devices', '16 or 20']),
    ({'dataset.name': 'no/such/folder'}, DatasetError, ['no/such/folder']),
    ({'init_from': 'absent.npz'}, WeightsError, ['absent.npz']),
    ({'model.width': '17'}, ConfigError, ['config.model', 'num_heads=2', 'width=17']),
    ({'input.eval_transform': 'decode|resize(12)'}, ConfigError, ['(16, 16)', '(12, 12)']),
    ({'dataset.train': 'trian'}, DatasetError, ["'trian'", "'train'"]),
    ({'dataset.val': '', 'plateau.factor': '0.5'}, ConfigError, ['config.dataset.val']),
  ],
)
def test_mistakes_are_reported_in_one_line(tmp_path, overrides, kind, facts):
  named = {k.replace('.', '__'): v for k, v in overrides.items()}
  with raises(kind, *facts) as caught:
    loop.train(options(total='4 steps', **named), str(tmp_path / 'run'))
  assert '\n' not in str(caught.value)
  assert not (tmp_path / 'run').exists()


def test_repeats_reach_the_loader(tmp_path):
  loop.train(options(total='4 steps', input__repeats='2', dataset__test=''), str(tmp_path))
  assert _arrays(tmp_path, 4)[1]['data_state']['repeats'] == 2


def test_another_model_in_the_same_folder_is_refused(finished):
  with raises(CheckpointError, finished, 'config.model', "'width': 32", "'width': 16"):
    loop.train(options(total='24 steps', model__width='32'), str(finished))


def test_a_workdir_that_cannot_be_written(tmp_path):
  (tmp_path / 'file').write_text('')
  with raises(StorageError, tmp_path / 'file' / 'run', '--workdir'):
    loop.train(options(total='4 steps'), str(tmp_path / 'file' / 'run'))


def test_the_command_reports_mistakes_in_one_line_with_status_1(tmp_path):
  run = subprocess.run(
    [*command(tmp_path / 'run', optimzer__name='sgd'), '--confg=3'],
    cwd=ROOT,
    capture_output=True,
    text=True,
  )
  assert "'--confg=3'" in error_line(run.returncode, run.stderr)
  assert run.stderr.count('\n') == 1
  assert not (tmp_path / 'run').exists()


@pytest.mark.parametrize('module', ['main', 'evaluate'])
def test_help_is_quick(module):
  """In less than two seconds, at the best of a few tries: other processes share the machine."""
  for _ in range(5):
    began = time.monotonic()
    run = subprocess.run(
      [sys.executable, '-m', f'vit_jax.{module}', '--help'],
      cwd=ROOT,
      capture_output=True,
      text=True,
      check=True,
    )
    seconds = time.monotonic() - began
    assert 'example' in run.stdout
    if seconds < 2.0:
      break
  assert seconds < 2.0
