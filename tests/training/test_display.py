"""What a run shows: on a terminal, in a file, quietly, as JSON, and when it is interrupted."""

import contextlib
import importlib
import io
import json
import logging
import os
import pathlib
import re
import shlex
import signal
import subprocess
import sys

import pytest

from tests.support import raises
from tests.training.runs import ROOT, command, reports
from vit_jax import command_line, evaluate, main
from vit_jax.arguments import parser_of
from vit_jax.console import Console
from vit_jax.errors import ConfigError, InterruptedRunError
from vit_jax.metric_writer import read_metrics
from vit_jax.training import display, outline
from vit_jax.training.events import Course, EstimateEvent, PlanEvent, Scored, SummaryEvent
from vit_jax.training.table import Table

NAMES = ('loss', 'accuracy', 'top3', 'top5')


def course(**changes):
  values = {'total': 2027, 'start': 0, 'batch_size': 64, 'examples': 1297, 'validates': True}
  values |= {'metrics': NAMES, 'best': 'accuracy', 'best_mode': 'max'}
  return Course(**values | changes)


TRAIN = {'loss': 1.9729, 'accuracy': 0.31, 'img_sec': 2872.4}
VAL = {'accuracy': 0.485, 'loss': 1.4494, 'top3': 0.845, 'top5': 0.93, 'examples': 200}


@pytest.mark.parametrize('width', [20, 40, 60, 80, 100, 160])
def test_columns_stay_aligned_and_fit(width):
  table = Table(course(), width, repeats=True)
  lines = []
  for i in range(60):
    val = VAL | {'loss': 10.0 ** (i % 7), 'accuracy': i / 100}
    lines += table.lines(34 * i, 99.0 * i, TRAIN if i % 5 else {}, val, best=not i % 3)
  filled = [line for line in lines if line]
  headers = [line for line in filled if 'accuracy' in line]
  assert len(headers) == 3 and len(set(headers)) == 1 and lines[1] == headers[0]
  assert {len(line) for line in filled} == {len(headers[0])} and len(headers[0]) <= width
  ends = {title.end() for title in re.finditer(r'\S+( \S+)*', headers[0])}
  for line in filled:
    if line != headers[0]:
      cells = [cell.end() for cell in re.finditer(r'\S+( \S+)*', line.replace('*', ' '))]
      assert set(cells) == ends
  assert 'val accuracy' in headers[0] and ('top5' in headers[0]) == (width >= 100)


def test_a_row_has_the_numbers_and_marks_the_best():
  table = Table(course(), 200, repeats=False)
  _, header, row = table.lines(102, 72.0, TRAIN, VAL, best=True)
  titles = re.findall(r'\S+(?: \S+)*', header)
  cells = dict(zip(titles, re.split(' {2,}', row.strip()), strict=True))
  assert cells == {
    'epoch': '5.0',
    'step': '102',
    'train loss': '1.9729',
    'val loss': '1.4494',
    'val accuracy': '48.5 %*',
    'val top3': '84.5 %',
    'val top5': '93.0 %',
    'images/s': '2,872',
    'time': '1:12',
  }
  assert table.others(VAL | {'fewshot_5': 0.5}) == {'fewshot_5': 0.5}


def text(capsys, **changes):
  console = Console()
  shown = display.Text(console)
  shown.begin(course(**changes))
  return shown, lambda: capsys.readouterr().out.splitlines()


def test_the_best_goes_on_from_earlier_attempts(capsys):
  before = [{'step': 41, 'split': 'val', 'accuracy': 0.5}]
  shown, read = text(capsys, start=41, before=before, seconds_before=3600.0)
  for step, accuracy in ((61, 0.4), (81, 0.5), (101, 0.6)):
    shown.row(step, 'val', VAL | {'accuracy': accuracy})
  _, _, worse, equal, better = read()
  assert '*' not in worse and '50.0 %*' in equal and '60.0 %*' in better and '1:00:0' in better


def test_what_has_no_column_stands_below_the_row(capsys):
  shown, read = text(capsys)
  shown.row(21, 'val', VAL)
  shown.row(21, 'val_raw', {'loss': 2.5, 'accuracy': 0.25, 'examples': 200})
  shown.row(21, 'val', {'fewshot_5': 0.75, 'knn_20': 0.625})
  raw, frozen = read()[-2:]
  assert 'EMA' in raw and '2.5' in raw and '200' not in raw
  assert 'fewshot_5 75.0 %' in frozen and 'knn_20 62.5 %' in frozen


def test_a_file_gets_a_line_a_minute_between_validations(capsys, monkeypatch):
  now = [1000.0]
  monkeypatch.setattr('vit_jax.training.display.time.monotonic', lambda: now[0])
  shown, read = text(capsys, total=60, start=20, examples=9999)
  for step in range(21, 31):
    now[0] += 8
    shown.step(step)
    shown.row(step, 'train', TRAIN | {'input_wait': 0.43})
  (line,) = read()  # at 64 seconds; a step takes 8, and 32 are to come
  for fact in ('step 28/60', 'ETA 4:16', 'loss 1.9729', '2,872 images/s', '43% '):
    assert fact in line


def test_without_validation_there_is_a_row_an_epoch(capsys):
  shown, read = text(capsys, validates=False, total=60, examples=640)
  for step in range(5, 61, 5):
    shown.row(step, 'train', TRAIN)
  rows = [line.split() for line in read()[2:]]
  assert [row[1] for row in rows] == ['10', '20', '30', '40', '50', '60']
  assert all('1.9729' in row and '31.0' in row for row in rows)


def summary(**changes):
  scores = [Scored('test', 'accuracy', 0.9333, (0.8991, 0.9565), 300, percent=True)]
  values = {'workdir': 'runs/a', 'steps': 2027, 'seconds': 108.0, 'best_step': 1318}
  values |= {'best_epoch': 65.0, 'scores': scores, 'report': pathlib.Path('runs/a/report.html')}
  return SummaryEvent(**values | {'commands': ['predict runs/a'], 'warnings': ['w']} | changes)


def test_the_end_is_told_in_full_in_a_line_or_as_json(capsys):
  for kind in ('text', 'quiet', 'json'):
    display.DISPLAYS[kind](Console()).summary(summary())
  lines = capsys.readouterr().out.splitlines()
  full, (line, last) = '\n'.join(lines[:-2]), lines[-2:]
  for fact in ('93.3 %', '89.9 to 95.7 %', '1,318', '1:48', 'runs/a/report.html', 'predict runs/a'):
    assert fact in full
  assert '93.3 %' in line and '95 %' in line
  found = json.loads(last)
  assert found['event'] == 'summary' and found['best_step'] == 1318 and found['warnings'] == ['w']
  assert found['scores'][0]['interval'] == [0.8991, 0.9565]
  display.Quiet(Console()).summary(summary(scores=[], best_step=None))
  assert '2,027 steps' in capsys.readouterr().out


def argv(workdir, *words, **overrides):
  return [*command(workdir, **overrides)[3:], *words]


@pytest.fixture(scope='module')
def shown(tmp_path_factory):
  """What a run prints in each way: (its folder, standard output, standard error)."""
  found = {}
  for kind in ('text', 'json'):
    workdir = tmp_path_factory.mktemp('runs') / kind
    words = [f'--{kind}'] if kind != 'text' else []
    words += ['--config.dataset.test=train[:30]']  # which is warned of
    with reports(kind == 'text'):
      found[kind] = workdir, _printed(argv(workdir, *words, total='30 steps', ema__decay='0.5'))
  return found


def _printed(words):
  """Standard output and error of main, which are no terminal."""
  out, err = io.StringIO(), io.StringIO()
  with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
    assert main.main(words) == 0
  return out.getvalue(), err.getvalue()


def test_a_file_receives_plain_lines_and_the_plan_is_short(shown):
  workdir, (out, err) = shown['text']
  assert not re.search(r'[^\n -~]', out + err)  # no \r, no escapes
  lines = out.splitlines()
  plan = lines[: lines.index(next(line for line in lines if outline.FILE in line)) + 1]
  assert len(plan) <= 13 and str(workdir) in plan[-1]
  for fact in ('vit_ti16', '1,297 train, 200 val', '10 classes', '30 steps', 'adamw', 'ema.decay'):
    assert fact in '\n'.join(plan)
  whole = (workdir / outline.FILE).read_text()
  assert 'LR x 1, WD x 1' in whole and 'encoder/block_00' in whole and 'activations' in whole
  starts = [line.split()[1] for line in lines if re.match(r' +\d+\.\d +\d+ ', line)]
  assert starts == ['12', '24', '30']
  assert 'overlap' in err or err.startswith('warning:')
  assert lines[-1].strip().startswith('python -m vit_jax.serve')


def test_json_is_a_line_an_object_and_nothing_else(shown):
  workdir, (out, err) = shown['json']
  events = [json.loads(line) for line in out.splitlines()]
  kinds = [event.pop('event') for event in events]
  assert kinds == ['plan', *['row'] * (len(kinds) - 2), 'summary']
  assert events[1:-1] == read_metrics(workdir)
  plan, end = events[0], events[-1]
  assert plan['images']['train'] == 1297 and plan['steps'] == 30 and plan['parameters'] > 0
  assert plan['memory_bytes']['EMA'] >= plan['memory_bytes']['parameters'] > 0
  assert [s['split'] for s in end['scores']] == ['test', 'val'] and end['steps'] == 30
  assert err.startswith('warning: ') and end['warnings'][0] in err


def test_quiet_prints_warnings_and_one_line(capsys):
  with display.console_for('quiet') as console:
    logging.getLogger('vit_jax.made_up').info('loaded')
    logging.getLogger('vit_jax.made_up').warning('be careful')
    quiet = display.Quiet(console)
    quiet.begin(course())
    quiet.row(21, 'val', VAL)
    quiet.summary(summary())
  out, err = capsys.readouterr()
  assert len(out.splitlines()) == 1 and '93.3 %' in out and err == 'warning: be careful\n'
  with raises(ConfigError, '--quiet', '--json'):
    main.main(argv('unused', '--quiet', '--json'))


def test_its_last_lines_are_commands_that_work(shown, capsys):
  workdir, (out, _) = shown['text']
  lines = out.partition('next:\n')[2].splitlines()
  named = [shlex.split(line)[2].removeprefix('vit_jax.') for line in lines]
  assert named == ['evaluate', 'predict', 'visualize', 'compare', 'export', 'serve']
  for name, line in zip(named, lines):
    words = shlex.split(line)[3:]
    assert words[0] == str(workdir)
    parser_of(importlib.import_module(f'vit_jax.{name}').main).parse_args(words)  # all are valid
  words = next(shlex.split(line) for line in out.splitlines() if 'vit_jax.evaluate' in line)
  assert words[:3] == ['python', '-m', 'vit_jax.evaluate']
  assert evaluate.main([*words[3:], '--json']) == 0
  assert json.loads(capsys.readouterr().out)['accuracy'] == read_metrics(workdir)[-1]['accuracy']


@pytest.mark.parametrize(
  'original, expected',
  [
    (['python3', '-m', 'vit_jax.main', '--x=a b'], ['python3', '-m', 'vit_jax.predict']),
    (['py', '-u', '-m', 'vit_jax', 'train', '--x=a b'], ['py', '-u', '-m', 'vit_jax', 'predict']),
    (['python3', '/b/vit_jax', 'train', '--x=a b'], ['/b/vit_jax', 'predict']),
    (['python3', '-m', 'pytest'], ['python', '-m', 'vit_jax.predict']),
  ],
)
def test_commands_are_named_as_this_one_was(monkeypatch, original, expected):
  monkeypatch.setattr(sys, 'orig_argv', original)
  line = command_line.beside('predict', "it's a run")
  assert shlex.split(line) == [*expected, "it's a run"]
  given = ['--x=a b']
  again = shlex.split(command_line.typed('main', given))
  started = original[1:] if expected[0] == '/b/vit_jax' else original
  assert again == (started if given[0] in original else ['python', '-m', 'vit_jax.main', *given])


def test_an_interruption_of_another_program_names_the_command(monkeypatch, tmp_path):
  def interrupted(*_):
    raise InterruptedRunError('interrupted at step 3', 15)

  monkeypatch.setattr('vit_jax.train.train', interrupted)
  with raises(InterruptedRunError, 'step 3', shlex.join(argv(tmp_path / 'a b'))) as caught:
    main.main(argv(tmp_path / 'a b'))
  assert caught.value.status == 128 + 15


@pytest.mark.skipif(sys.platform == 'win32', reason='a terminal of POSIX')
def test_ctrl_c_at_a_terminal_names_the_command_that_resumes(tmp_path):
  import pty

  workdir = tmp_path / "it's a run"
  words = argv(workdir, total='3000 steps')
  ours, theirs = pty.openpty()
  environment = os.environ | {'COLUMNS': '60', 'TERM': 'xterm', 'NO_COLOR': '1'}
  run = subprocess.Popen(
    command(workdir, total='3000 steps'),
    cwd=ROOT,
    env=environment,
    stdin=theirs,
    stdout=theirs,
    stderr=theirs,
  )
  os.close(theirs)
  seen, sent = b'', False
  with contextlib.suppress(OSError):  # the end of the program
    while True:
      seen += os.read(ours, 1 << 16)
      if b'val loss' in seen and not sent:
        sent = True
        run.send_signal(signal.SIGINT)
  assert run.wait() == 130 and b'\x1b' not in seen and b'error' not in seen
  lines = seen.replace(b'\r', b'\n').decode().split('\n')
  moving = [line.rstrip() for line in lines if re.match(r' *(epoch|step|compiling|\d)', line)]
  assert moving and all(len(line) < 60 for line in moving)
  last = seen.decode().strip().splitlines()[-1]
  resume = shlex.split(last.rpartition(': ')[2])
  assert resume == [sys.executable, '-m', 'vit_jax.main', *words]
  stopped = int(re.search(r'step (\d+)', last)[1])
  resumed = [word for word in resume if 'config.total' not in word]
  out, _ = _printed([*resumed[3:], f'--config.total={stopped + 1} steps', '--json'])
  plan, *_, end = map(json.loads, out.splitlines())
  assert plan['start_step'] == stopped and end['steps'] == stopped + 1


def test_names_with_line_breaks_stay_in_their_line(capsys):
  odd = pathlib.Path('a\nb\x1b[2J')
  event = SummaryEvent(odd, 5, 1.0, None, None, [], odd / 'report.html', ['x'], [])
  shown, read = text(capsys)
  shown.plan(PlanEvent({'results': str(odd)}, [f'note {odd}'], '', {}), odd / 'plan.txt')
  shown.estimate(EstimateEvent({'time': 'long'}, {}, odd / 'dry_run.html'))
  shown.summary(event)
  lines = read()
  assert [line for line in lines if 'a\\nb\\x1b[2J' in line] == [
    line for line in lines if 'a' in line and '[2J' in line
  ]
  assert sum('[2J' in line for line in lines) == 6
  display.Quiet(Console()).estimate(EstimateEvent({'time': 'long'}, {}, odd))
  assert len(read()) == 1
