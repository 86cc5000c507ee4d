"""Whole runs on the embedded digits: killed and resumed, stopped, broken, finished."""

import io
import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest
from PIL import Image

from vit_jax import checkpoint, config, evaluate
from vit_jax.data import class_names
from vit_jax.errors import UserError
from vit_jax.metric_writer import read_metrics
from vit_jax.training import loop

ROOT = pathlib.Path(__file__).resolve().parents[2]
TINY = {
  'model.width': '16',
  'model.depth': '1',
  'model.num_heads': '2',
  'model.mlp_dim': '24',
  'model.dropout': '0.1',
  'model.drop_path_rate': '0.2',
  'batch_size': '16',
  'log.every': '4 steps',
  'checkpoint.every': '6 steps',
  'evaluation.every': '12 steps',
  'schedule.warmup': '4 steps',
  'log.tensorboard': 'false',
}


def _config(**overrides):
  named = {name.replace('__', '.'): value for name, value in overrides.items()}
  return config.load(str(ROOT / 'configs/vit_digits.py'), TINY | named)


def _command(workdir, **overrides):
  named = TINY | {name.replace('__', '.'): value for name, value in overrides.items()}
  words = [f'--config.{name}={value}' for name, value in named.items()]
  return [
    sys.executable,
    '-m',
    'vit_jax.main',
    f'--config={ROOT}/configs/vit_digits.py',
    f'--workdir={workdir}',
    *words,
  ]


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
  timeless = [
    [
      {k: v for k, v in row.items() if k not in ('img_sec', 'input_wait', 'mfu', 'seconds')}
      for row in read_metrics(path)
    ]
    for path in (one, other)
  ]
  assert timeless[0] == timeless[1]


def _kill_when(command, condition, seconds=240):
  """Starts a command and kills it, as an empty battery would, when the condition holds."""
  process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL)
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


@pytest.mark.parametrize(
  'parallel, moment',
  [
    ('data', 'between'),
    ('pmap', 'between'),
    ('data', 'while a checkpoint is written'),
  ],
)
def test_killed_and_resumed_equals_uninterrupted(tmp_path, parallel, moment):
  """Byte for byte, with dropout, stochastic depth and random crops, on four devices."""
  whole, broken = tmp_path / 'whole', tmp_path / 'broken'
  options = {'parallel': parallel, 'total': '240 steps'}
  loop.train(_config(**options), str(whole))
  checkpoints = broken / 'checkpoints'

  def half_way():
    late = [p.name for p in checkpoints.glob('*') if int(p.name.split('.')[0]) >= 60]
    return any(name.isdigit() == (moment == 'between') for name in late)

  _kill_when(_command(broken, **options), half_way)
  kept = checkpoint.load_run(broken, 'last').step
  assert 0 < kept < 240
  loop.train(_config(**options), str(broken))
  _assert_same_run(whole, broken, 240)


METHODS = {
  'accumulate': '2',
  'mixing.mixup': '0.8',
  'mixing.cutmix': '1.0',
  'mixing.per_pair': 'true',
  'ema.decay': '0.9',
  'optimizer.sam_rho': '0.05',
  'optimizer.gsam_alpha': '0.3',
  'optimizer.layer_decay': '0.7',
  'plateau.factor': '0.5',
  'plateau.patience': '1',
  'plateau.metric': 'accuracy',
  'plateau.mode': 'max',
  'plateau.delta': '1',
  'early_stopping.patience': '4',
  'early_stopping.metric': 'loss',
  'early_stopping.mode': 'max',
  'early_stopping.delta': '9',
  'fewshot.every': '12 steps',
  'fewshot.shots': '2',
  'fewshot.neighbours': '5',
}


class _PowerCut(BaseException):
  pass


@pytest.mark.parametrize('parallel, rule', [('data', 'adamw'), ('pmap', 'adafactor')])
def test_resumption_is_exact_with_every_method_on(tmp_path, monkeypatch, parallel, rule):
  """The rate is cut at the second, third ... validation and the fifth ends training at step 40."""
  whole, broken = tmp_path / 'whole', tmp_path / 'broken'
  options = METHODS | {
    'optimizer.name': rule,
    'total': '88 steps',
    'parallel': parallel,
    'evaluation.every': '8 steps',
    'checkpoint.every': '4 steps',
  }
  options = {name.replace('.', '__'): value for name, value in options.items()}
  loop.train(_config(**options), str(whole))
  whole_step = loop.Progress.step

  def cut(self, step):
    if step == 31:
      raise _PowerCut
    whole_step(self, step)

  monkeypatch.setattr(loop.Progress, 'step', cut)
  with pytest.raises(_PowerCut):
    loop.train(_config(**options), str(broken))
  monkeypatch.undo()
  assert checkpoint.load_run(broken, 'last').step == 28
  loop.train(_config(**options), str(broken))
  _assert_same_run(whole, broken, 40)
  rows = read_metrics(whole)
  assert {r['split'] for r in rows} == {'train', 'val', 'val_raw', 'test'}
  scales = {r['step']: r['learning_rate'] for r in rows if r['split'] == 'train'}
  assert scales[36] < scales[20] / 3  # two more cuts, and little of the schedule's own fall


def test_a_signal_saves_and_the_same_command_goes_on(tmp_path):
  whole, broken = tmp_path / 'whole', tmp_path / 'broken'
  run = subprocess.Popen(
    _command(broken, total='2000 steps'),
    cwd=ROOT,
    stderr=subprocess.PIPE,
    stdout=subprocess.DEVNULL,
  )
  while not (broken / 'metrics.jsonl').exists() and run.poll() is None:
    time.sleep(0.01)
  run.send_signal(signal.SIGTERM)
  _, error = run.communicate(timeout=240)
  assert run.returncode == 1
  assert b'the same command goes on from there' in error
  stopped = checkpoint.load_run(broken, 'last').step
  end = f'{stopped + 5} steps'
  loop.train(_config(total=end, schedule__name='constant'), str(whole))
  with pytest.raises(UserError, match='schedule.name'):
    loop.train(_config(total=end, schedule__name='constant'), str(broken))
  metrics = loop.train(_config(total=end), str(broken))
  assert metrics['examples'] == 300
  assert checkpoint.load_run(broken, 'last').step == stopped + 5


@pytest.fixture(scope='module')
def finished(tmp_path_factory):
  workdir = tmp_path_factory.mktemp('runs') / 'finished'
  loop.train(_config(total='24 steps', log__tensorboard='true'), str(workdir))
  return workdir


def test_a_run_leaves_what_the_readme_lists(finished):
  assert json.loads((finished / 'classes.json').read_text()) == [str(i) for i in range(10)]
  saved = json.loads((finished / 'config.json').read_text())
  assert config.parse(saved) == _config(total='24 steps', log__tensorboard='true')
  rows = read_metrics(finished)
  assert [r['step'] for r in rows if r['split'] == 'train'] == [4, 6, 8, 12, 16, 18, 20, 24]
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


def test_validation_puts_pictures_into_the_event_file(finished):
  events = _events(next(finished.glob('events.out.tfevents.*')))
  shown = {(s, tag): value.image for s, tag, value in events if value.HasField('image')}
  assert set(shown) == {(s, f'val/{what}') for s in (12, 24) for what in ('confusion', 'samples')}
  for image in shown.values():
    pixels = np.asarray(Image.open(io.BytesIO(image.encoded_image_string)))
    assert pixels.shape == (image.height, image.width, 3) and np.ptp(pixels) > 200


def test_a_run_reports_itself(finished):
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
  assert evaluate.main([str(finished), f'--report={report}']) == 0
  assert str(checkpoint.load_run(finished).step) in (report / 'report.html').read_text()
  with pytest.raises(UserError, match='tset'):
    evaluate.main([str(finished), '--split=tset'])


def test_labels_are_matched_by_name():
  model = ('cat', 'dog', 'sea_horse')
  np.testing.assert_array_equal(class_names.align(('Sea horse', 'cat'), model), [2, 0])
  with pytest.raises(UserError, match="does not know 1 of the dataset's 2, such as 'cta'"):
    class_names.align(('cta', 'dog'), model)


def test_the_best_and_the_newest_checkpoints_stay(finished):
  steps = sorted(int(p.name) for p in (finished / 'checkpoints').iterdir())
  best = max(
    (r for r in read_metrics(finished) if r['split'] == 'val'),
    key=lambda r: (r['accuracy'], r['step']),
  )
  assert set(steps) == {18, 24} | {best['step']}
  assert checkpoint.load_run(finished).step == best['step']
  assert checkpoint.chosen_step(finished) == best['step']
  run = checkpoint.load_run(finished, 'last')
  assert run.step == 24 and run.classes[3] == '3' and run.preprocess['transform']
  assert checkpoint.load_run(finished / 'checkpoints' / '18').step == 18
  with pytest.raises(UserError, match=r"no checkpoint '7': it has \[.*18, 24\]"):
    checkpoint.load_run(finished, '7')


def test_a_finished_run_is_not_trained_again(finished):
  before = _arrays(finished, 24)[0]
  loop.train(_config(total='24 steps', log__tensorboard='true'), str(finished))
  after = _arrays(finished, 24)[0]
  assert all(after[name].tobytes() == value.tobytes() for name, value in before.items())
  assert [r['split'] for r in read_metrics(finished)].count('test') == 1


def test_nan_stops_and_keeps_the_last_good_checkpoint(tmp_path):
  options = _config(
    total='24 steps',
    optimizer__learning_rate='1e30',
    optimizer__name='sgd',
    optimizer__clip_norm='0',
    checkpoint__every='1 steps',
    schedule__warmup='0 steps',
  )
  with pytest.raises(UserError, match=r'step \d+: .*loss.* became nan; the checkpoint at step \d+'):
    loop.train(options, str(tmp_path))
  run = checkpoint.load_run(tmp_path, 'last')
  assert all(np.isfinite(x).all() for x in jax.tree.leaves(run.variables))


@pytest.mark.parametrize(
  'overrides, words',
  [
    ({'batch_size': '18'}, 'config.batch_size=18 cannot be divided by 4'),
    ({'dataset.name': 'no/such/folder'}, 'no/such/folder'),
    ({'init_from': 'absent.npz'}, 'absent.npz'),
    ({'model.width': '17'}, 'does not divide'),
    ({'input.eval_transform': 'decode|resize(12)'}, 'name one size in both'),
    ({'dataset.train': 'trian'}, 'trian'),
  ],
)
def test_mistakes_are_one_line(tmp_path, overrides, words):
  options = {k.replace('.', '__'): v for k, v in overrides.items()}
  with pytest.raises(UserError) as caught:
    loop.train(_config(total='4 steps', **options), str(tmp_path / 'run'))
  assert words in str(caught.value) and '\n' not in str(caught.value)


def test_repeats_reach_the_pictures(tmp_path):
  loop.train(_config(total='4 steps', input__repeats='2', dataset__test=''), str(tmp_path))
  assert _arrays(tmp_path, 4)[1]['data_state']['repeats'] == 2


def test_another_model_in_the_same_folder_is_refused(finished):
  with pytest.raises(UserError, match='holds another run.*model') as caught:
    loop.train(_config(total='24 steps', model__width='32'), str(finished))
  assert '32' in str(caught.value)


def test_a_workdir_that_cannot_be_written(tmp_path):
  (tmp_path / 'file').write_text('')
  with pytest.raises(UserError, match='cannot write to --workdir'):
    loop.train(_config(total='4 steps'), str(tmp_path / 'file' / 'run'))


def test_commands_answer_mistakes_with_one_line_and_a_status(tmp_path):
  run = subprocess.run(
    _command(tmp_path / 'run', optimzer__name='sgd') + ['--confg=3'],
    cwd=ROOT,
    capture_output=True,
    text=True,
  )
  assert run.returncode == 1
  assert run.stderr.startswith('error: ') and run.stderr.count('\n') == 1
  assert "unknown argument '--confg=3'" in run.stderr
  assert not (tmp_path / 'run').exists()


@pytest.mark.parametrize('module', ['main', 'evaluate'])
def test_help_is_quick(module):
  began = time.monotonic()
  run = subprocess.run(
    [sys.executable, '-m', f'vit_jax.{module}', '--help'],
    cwd=ROOT,
    capture_output=True,
    text=True,
    check=True,
    env=dict(os.environ),
  )
  assert 'example' in run.stdout
  assert time.monotonic() - began < 2.0
