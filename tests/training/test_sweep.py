"""Sweeps: members, their names and their validation, and whole sweeps on the digits."""

import csv
import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import time

import pytest

from tests.report import fakes
from tests.support import raises
from vit_jax import config, main
from vit_jax.errors import ConfigError
from vit_jax.tasks import metric_text
from vit_jax.training import sweep

ROOT = pathlib.Path(__file__).resolve().parents[2]
HEAD = """
from vit_jax import config as options

def get_config(argument='4 steps'):
  config = options.default()
  config.total = argument
  config.batch_size = 16
  config.optimizer.weight_decay = 1.0
  config.model.update(dict(name='vit_ti16', patch_size=(4, 4), width=16, depth=1, num_heads=2,
                           mlp_dim=24, position_embedding='sincos_2d', pool='gap'))
  config.dataset.per_class = 20
  config.input.image_size = (8,)
  config.input.train_transform = config.input.eval_transform = 'decode|resize'
  config.schedule.warmup = '0 steps'
  config.log.tensorboard = False
  return config
"""


@pytest.fixture
def config_file(tmp_path):
  def write(body):
    path = tmp_path / 'mine.py'
    path.write_text(f'{HEAD}\ndef get_sweep():\n  return {body}\n')
    return str(path)

  return write


def test_product_and_names():
  members = config.product({'optimizer.learning_rate': (1e-3, 0.03), 'seed': (0, 1)})
  assert members == [
    {'optimizer.learning_rate': 1e-3, 'seed': 0},
    {'optimizer.learning_rate': 1e-3, 'seed': 1},
    {'optimizer.learning_rate': 0.03, 'seed': 0},
    {'optimizer.learning_rate': 0.03, 'seed': 1},
  ]
  assert config.member_names(members)[1:3] == [
    'learning_rate=0.001,seed=1',
    'learning_rate=0.03,seed=0',
  ]


def test_names_are_folders_and_tell_members_apart():
  members = [
    {'optimizer.name': 'sgd', 'model.name': 'vit_ti16'},
    {'input.image_size': (8, 12)},
    {'input.train_transform': 'decode|resize(8)'},
    {'input.train_transform': 'decode/resize(8)'},
    {'input.train_transform': 'decode|' + '|'.join(['flip_lr'] * 99)},
    {},
  ]
  names = config.member_names(members)
  assert names[:2] == ['optimizer.name=sgd,model.name=vit_ti16', 'image_size=8x12']
  assert names[2].startswith('train_transform=decode_resize_8_-') and names[2] != names[3]
  assert len(names[4]) < 120 and names[5] == 'base'
  assert not any(set(name) & set('/| ()') for name in names)
  with raises(ConfigError, "'seed=0'"):
    config.member_names([{'seed': 0}, {'seed': 0}])


def test_members_are_checked_options(config_file):
  path = config_file("options.product({'seed': (3, 5)}) + [{'model.width': 24, 'batch_size': 8}]")
  members = config.load_sweep(path + ':9 steps', {'model.depth': '2'})
  assert list(members) == ['seed=3', 'seed=5', 'width=24,batch_size=8']
  parsed = [options for _, options in members.values()]
  assert [p.seed for p in parsed] == [3, 5, 0] and [p.batch_size for p in parsed] == [16, 16, 8]
  assert {p.total for p in parsed} == {'9 steps'} and {p.model['depth'] for p in parsed} == {2}
  member = {'model.name': 'mixer_s32', 'model.depth': 3, 'model.patch_size': (4, 4)}
  ((name, (_, other)),) = config.load_sweep(config_file(f'[{member}]'), {}).items()
  assert name == 'name=mixer_s32,depth=3,patch_size=4x4'
  assert other.model == {'name': 'mixer_s32', 'depth': 3, 'patch_size': (4, 4)}


@pytest.mark.parametrize(
  'body, overrides, facts',
  [
    (
      "options.product({'optimizer.lerning_rate': (0, 1)})",
      {},
      ["'optimizer.lerning_rate'", "'optimizer.learning_rate'"],
    ),
    (
      "[{'seed': 0}, {'seed': 1, 'batch_size': 'many'}]",
      {},
      ["config.batch_size must be an integer, got 'many'", '(seed=1,batch_size=many)'],
    ),
    ("[{'seed': 0}, {'model.width': 17}]", {}, ['width=17 ', '(width=17)']),
    ("[{'seed': 0}]", {'seed': '1'}, ['config.seed', 'command line']),
    ('[]', {}, ['get_sweep', '[]']),
    ('[3]', {}, ['get_sweep', '[3]']),
    ("[{3: 'seed'}]", {}, ['get_sweep', "{3: 'seed'}"]),
    ('options.prodct({})', {}, ['mine.py, line ', 'prodct']),
  ],
)
def test_mistakes_are_reported_before_any_run(config_file, body, overrides, facts):
  with raises(ConfigError, *facts):
    config.load_sweep(config_file(body), overrides)


def test_a_problem_of_all_members_names_none(config_file):
  with raises(ConfigError, 'config.total', "'long'") as caught:
    config.load_sweep(config_file("[{'seed': 0}, {'seed': 1}]"), {'total': 'long'})
  assert len(caught.value.problems) == 1 and 'seed' not in str(caught.value)


def test_a_file_without_a_sweep_shows_an_example():
  with raises(ConfigError, 'configs/vit_digits.py', 'def get_sweep()'):
    config.load_sweep(str(ROOT / 'configs/vit_digits.py'), {})


def test_list_and_index(config_file, capsys):
  words = [f'--config={config_file("[dict(seed=7), dict(seed=11)]")}', '--workdir=no/such']
  assert main.main([*words, '--sweep=list']) == 0
  assert capsys.readouterr().out.split() == ['0', 'seed=7', '1', 'seed=11']
  for wrong in ('2', '-1', 'last'):
    with raises(ConfigError, f'--sweep={wrong}', '0 to 1', '--sweep=list'):
      main.main([*words, f'--sweep={wrong}'])
  assert not pathlib.Path('no').exists()


@pytest.mark.parametrize(
  'words, expected',
  [
    (
      ['optimizer.learning_rate=1e-4,3e-4; seed=0,1'],
      [{'optimizer.learning_rate': r, 'seed': s} for r in (1e-4, 3e-4) for s in (0, 1)],
    ),
    (
      ['seed=0', 'total=5 epochs,7 steps'],
      [{'seed': 0, 'total': t} for t in ('5 epochs', '7 steps')],
    ),
    (
      ['input.train_transform=decode|resize(8, 9),"decode,x;y"', 'log.tensorboard=true'],
      [
        {'input.train_transform': t, 'log.tensorboard': True}
        for t in ('decode|resize(8, 9)', 'decode,x;y')
      ],
    ),
    (
      ["input.image_size=8,(8,16);dataset.train=train[:9%],it's"],
      [
        {'input.image_size': size, 'dataset.train': t}
        for size in ((8,), (8, 16))
        for t in ('train[:9%]', "it's")
      ],
    ),
    (['model.width=16,24'], [{'model.width': 16}, {'model.width': 24}]),
  ],
)
def test_the_command_line_names_members(config_file, words, expected, monkeypatch):
  monkeypatch.setattr('vit_jax.config.sweep.load', lambda path, overrides, member: member)
  found = config.load_sweep('none.py', {}, words)
  assert [dict(member) for member, _ in found.values()] == expected
  assert list(found) == config.member_names(expected)


@pytest.mark.parametrize(
  'words, facts',
  [
    (['seed=0,x'], ['config.seed', "'x'", 'seed=x']),
    (['seed=-1,0', 'batch_size=0,0.5'], ['config.seed', '-1', 'batch_size', '0.5']),
    (['sed=0,1', 'totl=1'], ["'sed'", "'seed'", "'totl'", "'total'"]),
    (['seed=0', 'seed=1'], ['seed twice']),
    (['seed=0,0'], ["'seed=0' more than once"]),
    (['seed=0,1;batch_size'], ["'batch_size'", 'NAME=VALUE']),
    (['seed=,1'], ['config.seed', "''"]),
  ],
)
def test_mistakes_in_members_of_the_command_line_are_named(config_file, words, facts):
  with raises(ConfigError, *facts):
    config.load_sweep(config_file('[]'), {}, words)


def test_the_command_line_names_values_and_chooses_runs(config_file, capsys, monkeypatch):
  file = config_file('[dict(batch_size=7)]')
  words = [f'--config={file}', '--workdir=w', '--config.total=9 steps']
  swept = ['--sweep=seed=3,5', '--sweep', 'optimizer.learning_rate=1e-4;model.depth=1,2']
  assert main.main([*words, *swept, '--sweep=list']) == 0
  assert capsys.readouterr().out.splitlines()[3].split() == [
    '3',
    'seed=5,learning_rate=0.0001,depth=2',
  ]
  calls = []
  monkeypatch.setattr(sweep, 'run_one', lambda members, name, *_: calls.append(name))
  monkeypatch.setattr(
    sweep, 'run_all', lambda members, workdir, command, hours: calls.append(command)
  )
  assert main.main([*words, *swept, '--sweep=2']) == 0
  assert main.main([*words, *swept]) == main.main([*words, *swept, '--sweep']) == 0
  name, *commands = calls
  assert name == 'seed=5,learning_rate=0.0001,depth=1' and commands[0] == commands[1]
  # What it calls for each member names the same members.
  assert main.main([*commands[0][3:], '--sweep=2']) == 0 and calls[-1] == name
  for wrong, facts in {
    '--sweep=4': ['0 to 3'],
    '--sweep=seed': ['--sweep=seed=VALUE'],
    '--sweep=seed=1': ['seed twice'],
    '--config.seed=1': ['config.seed', 'command line'],
  }.items():
    with raises(ConfigError, *facts):
      main.main([*words, *swept, wrong])
  with raises(ConfigError, "'list'", "'1'"):
    main.main([*words, '--sweep=list', '--sweep=1'])


ROWS = [
  {'run': 'a', 'rate': 1, 'seed': 0, 'state': 'finished', 'step': 4, 'test_accuracy': 0.5},
  {'run': 'b', 'rate': 1, 'seed': 1, 'state': 'finished', 'step': 4, 'test_accuracy': 0.7},
  {'run': 'c', 'rate': 2, 'seed': 0, 'state': 'failed (1)', 'step': 0, 'test_accuracy': None},
]


def test_means_over_seeds_by_hand():
  first, second = sweep.over_seeds(ROWS)
  assert first == {
    'rate': 1,
    'seeds': 2,
    'test_accuracy': pytest.approx(0.6),
    'test_accuracy_std': pytest.approx(0.02**0.5),
  }
  assert second == {'rate': 2, 'seeds': 1, 'test_accuracy': None, 'test_accuracy_std': None}
  assert sweep.over_seeds([{k: v for k, v in row.items() if k != 'seed'} for row in ROWS]) == []


@pytest.mark.parametrize(
  'mode, values, won',
  [
    ('max', (0.5, 0.7, 0.7), 1),
    ('min', (0.5, 0.3, 0.3), 1),
    ('max', (None, None, None), None),
  ],
)
def test_the_winner_is_the_first_best_of_the_finished_by_validation(mode, values, won):
  options = config.default()
  options.checkpoint.best = 'accuracy' if mode == 'max' else 'loss'
  options.checkpoint.best_mode = mode
  checked = config.parse(options)
  members = {name: ({}, checked) for name in 'abcd'}
  rows = [
    {'run': n, 'state': 'finished', f'val_{checked.checkpoint.best}': v, 'test_accuracy': 0.1}
    for n, v in zip('abc', values)
  ]
  failed = {'run': 'd', 'state': 'failed (1)', f'val_{checked.checkpoint.best}': 0.99}
  assert sweep.winner(members, [*rows, failed]) == won


def test_the_table_is_aligned():
  lines = sweep.format_table(ROWS).splitlines()
  assert lines[0].split() == list(ROWS[0])
  assert lines[3].split() == ['c', '2', '0', 'failed', '(1)', '0', '-']
  assert (
    len(
      {line.index(word) for line, word in zip(lines[1:], ('finished', 'finished', 'failed'))}
      | {lines[0].index('state')}
    )
    == 1
  )


def _run(path, workdir, *words):
  return subprocess.run(
    [sys.executable, '-m', 'vit_jax.main', f'--config={path}', f'--workdir={workdir}', *words],
    cwd=ROOT,
    capture_output=True,
    text=True,
  )


def test_a_sweep_trains_all_skips_the_finished_and_continues_after_a_failure(config_file, tmp_path):
  """The middle member diverges; the last is trained alone before, as in a job array."""
  path = config_file(
    "options.product({'optimizer.learning_rate': (0.01, 1e4), 'seed': (0,)}) + [{'seed': 1}]"
  )
  path, folder = f'{path}:12 steps', tmp_path / 'runs'
  alone = _run(path, folder, '--sweep=2')
  assert alone.returncode == 0, alone.stderr
  assert [p.name for p in folder.iterdir()] == ['seed=1']
  before = (folder / 'seed=1/metrics.jsonl').stat().st_mtime_ns
  again = _run(path, folder, '--sweep=2')
  assert again.returncode == 0 and 'seed=1' in again.stdout

  done = _run(path, folder, '--sweep')
  line = done.stderr.splitlines()[-1]
  assert done.returncode == 1 and line.startswith('error:')
  assert '1 of 3' in line and 'learning_rate=10000.0,seed=0' in line
  assert 'seed=1' not in line.replace('10000.0,seed', '')
  assert (folder / 'seed=1/metrics.jsonl').stat().st_mtime_ns == before
  with open(folder / 'sweep.csv') as f:
    rows = list(csv.DictReader(f))
  assert [row['state'] for row in rows] == ['finished', 'failed (1)', 'finished']
  assert [row['seed'] for row in rows] == ['0', '0', '1']
  assert [bool(row['test_accuracy']) for row in rows] == [True, False, True]
  metrics = (folder / 'learning_rate=0.01,seed=0/metrics.jsonl').read_text().splitlines()
  tested = json.loads(metrics[-1])
  assert tested['split'] == 'test'
  assert float(rows[0]['test_accuracy']) == pytest.approx(tested['accuracy'], rel=1e-5)
  assert (folder / 'comparison/compare.json').exists()
  page = fakes.read(folder / 'comparison/compare.html')
  fakes.check_self_contained(page, folder / 'comparison')
  assert '../sweep.csv' in page.addresses and 'Best of 3 members' in page.text
  assert re.search(r'--sweep=[02]\n', page.text)  # the command of the winner; the second failed
  # And what it is for, beside shares in percent.
  for text in (page.text.replace('\u00a0', ' '), done.stdout):
    assert 'With another --workdir' in text and 'longer:' in text
    shown = metric_text('accuracy', tested['accuracy'])
    assert shown in text and f'{tested["accuracy"]:.4g}' not in text
  assert (folder / 'sweep_means.csv').exists() and str(folder / 'sweep.csv') in done.stdout


def test_a_run_of_other_options_is_not_finished(tmp_path):
  options = config.default()
  parsed = config.parse(options)
  assert not sweep.is_finished(tmp_path, parsed)
  (tmp_path / 'finished.json').write_text(json.dumps(parsed.to_json()))
  assert sweep.is_finished(tmp_path, parsed)
  options.total = '99 epochs'
  assert not sweep.is_finished(tmp_path, config.parse(options))


def test_a_signal_stops_the_member_and_the_sweep(config_file, tmp_path):
  path = config_file("options.product({'seed': (0, 1)})")
  folder = tmp_path / 'runs'
  process = subprocess.Popen(
    [
      sys.executable,
      '-m',
      'vit_jax.main',
      f'--config={path}:100000 steps',
      f'--workdir={folder}',
      '--sweep',
      '--config.log.every=5 steps',
    ],
    cwd=ROOT,
    stderr=subprocess.PIPE,
    stdout=subprocess.DEVNULL,
    text=True,
    env=dict(os.environ),
  )
  end = time.monotonic() + 240
  while not (folder / 'seed=0/metrics.jsonl').exists() and time.monotonic() < end:
    assert process.poll() is None
    time.sleep(0.05)
  process.send_signal(signal.SIGTERM)
  _, stderr = process.communicate(timeout=240)
  assert process.returncode == 128 + signal.SIGTERM
  # The member's own line, then the sweep's.
  lines = [line for line in stderr.splitlines() if line.startswith('interrupted')]
  assert len(lines) == 2 and 'seed=0' in lines[1] and 'resume' in lines[1]
  assert list((folder / 'seed=0/checkpoints').glob('[0-9]*'))
  assert not (folder / 'seed=1').exists()
