"""The console: what is printed where, and that nothing stays attached."""

import errno
import io
import logging
import os
import pickle
import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vit_jax import interrupts
from vit_jax.command_line import run_cli
from vit_jax.console import (
  Console,
  format_seconds,
  phase,
  show,
  warnings_so_far,
)
from vit_jax.errors import DatasetError, InterruptedRunError, counted, one_line, visible

log = logging.getLogger('vit_jax.made_up')


def test_information_and_warnings_are_printed_while_it_is_attached(capsys):
  with Console() as console:
    log.info('loaded %d', 7)
    log.warning('be careful')
    log.warning('be careful')
    console.repeat_warnings()
  log.info('unheard')
  out, err = capsys.readouterr()
  assert out.splitlines()[0] == 'loaded 7' and err == 'warning: be careful\n'
  assert console.warnings == ['be careful'] and out.count('be careful') == 1
  assert 'unheard' not in out


def test_other_processes_print_nothing_and_keep_the_warnings(capsys):
  with Console(active=False) as console:
    log.warning('be careful')
    console.show_status('step 5')
    with phase('compiling', told_after=0):
      pass
    console.repeat_warnings()
  assert capsys.readouterr() == ('', '') and console.warnings == ['be careful']


def test_loggers_are_as_before():
  own, absl = logging.getLogger('vit_jax'), logging.getLogger('absl')
  before = own.level, own.propagate, list(own.handlers), absl.level
  with pytest.raises(ZeroDivisionError), Console():
    raise ZeroDivisionError
  assert (own.level, own.propagate, list(own.handlers), absl.level) == before


@pytest.mark.parametrize('information, lines', [(True, 2), (False, 0)])
def test_a_file_is_told_what_takes_long_before_and_after_it(capsys, information, lines):
  with Console(information=information):
    with phase('compiling the step', 'a minute', told_after=0):
      before = capsys.readouterr().out
    assert ('a minute' in before) == information
    with phase('opening the dataset'):
      pass
    with phase('validating', told_after=None):
      pass
  told = (before + capsys.readouterr().out).splitlines()
  assert len(told) == lines and all('compiling the step' in line for line in told)


def test_a_phase_that_turns_out_long_is_told_while_it_lasts(capsys):
  with Console(), phase('reading', told_after=0.01):
    began = time.monotonic()
    while 'reading' not in capsys.readouterr().out:
      assert time.monotonic() - began < 30
      time.sleep(0.01)
  assert 'reading' in capsys.readouterr().out  # with the seconds
  with phase('unheard'):  # no console
    pass


class _Terminal(io.StringIO):
  def isatty(self):
    return True


def test_a_terminal_has_a_live_line_that_lines_do_not_break(monkeypatch):
  out, err = io.StringIO(), _Terminal()
  monkeypatch.setattr(sys, 'stdout', out)
  monkeypatch.setattr(sys, 'stderr', err)
  monkeypatch.setenv('TERM', 'xterm')
  monkeypatch.setenv('COLUMNS', '30')
  with Console() as console:
    console.show_status('step 5 \x1b[2J' + 40 * 'x')
    log.info('a line')
    with phase('compiling', told_after=0):
      pass
  assert out.getvalue() == 'a line\n'
  assert 'step 5' in err.getvalue() and 'compiling' in err.getvalue()
  assert '\x1b' not in err.getvalue() and '\n' not in err.getvalue()
  assert all(len(line) < 30 for line in err.getvalue().split('\r'))
  assert not err.getvalue().split('\r')[-1].strip()  # it is gone at the end


def test_seconds_are_formatted():
  assert [format_seconds(s) for s in (3, 62.4, 3725)] == ['0:03', '1:02', '1:02:05']


def test_the_inner_of_two_consoles_prints(capsys):
  with Console(information=False) as outer:
    log.info('unheard')
    with Console() as inner:
      log.info('heard')
      log.warning('be careful')
      assert warnings_so_far() == ('be careful',)
    log.warning('again')
    assert warnings_so_far() == ('again',)
  assert capsys.readouterr() == ('heard\n', 'warning: be careful\nwarning: again\n')
  assert (outer.warnings, inner.warnings) == (['again'], ['be careful'])
  assert warnings_so_far() == ()


@pytest.mark.parametrize('encoding, text', [('cp1252', 'cat 🐱'), ('utf-8', 'caf\udce9.png')])
def test_what_a_stream_cannot_encode_is_escaped(monkeypatch, encoding, text):
  raw = io.BytesIO()
  monkeypatch.setattr(sys, 'stdout', io.TextIOWrapper(raw, encoding=encoding, write_through=True))
  with Console():
    log.info(text)
    print(text)
  first, second = raw.getvalue().decode(encoding).splitlines()
  assert first == second and first.startswith('ca') and '\\U0001f431' in first or 'udce9' in first


# Clears the screen, hides what stands before it, rings, escapes in C1, turns the letters after it.
NASTY = 'a\x1b[2Jb\rc\x07d\x9b2Je\u202ef\u2066g\u2028h'
PLAIN = 'a\\x1b[2Jb\\rc\\x07d\\x9b2Je\\u202ef\\u2066g\\u2028h'


def test_control_characters_are_escaped_and_letters_kept():
  assert visible(f'{NASTY}\n\tx') == f'{PLAIN}\n\tx'
  assert one_line(f'{NASTY}\n\tx') == PLAIN + '\\n\\tx'
  for text in ('Ærøskøbing', '日本語', 'العربية\u200f', '👩\u200d🔬', 'caf\udce9', 'C:\\x1b'):
    assert visible(text) == one_line(text) == text


def test_nothing_that_a_command_prints_moves_the_cursor(capsys):
  with Console() as console:
    log.info('%s', NASTY)
    log.warning('%s\nerror: forged', NASTY)
    show(f'{NASTY}\nsecond')
    console.repeat_warnings()

  def fail():
    raise DatasetError([NASTY, 'two\nlines'])

  with pytest.raises(SystemExit):
    run_cli(fail)
  out, err = capsys.readouterr()
  assert out.splitlines()[:3] == [PLAIN, PLAIN, 'second']
  assert out.splitlines()[-1] == f'  {PLAIN}\\nerror: forged'
  assert err.splitlines() == [
    f'warning: {PLAIN}\\nerror: forged',
    f'error: {PLAIN} | two\\nlines',
  ]


def _of_xla(text):
  """A command that fails in XLA."""

  def fail():
    raise jax.errors.JaxRuntimeError(text)

  return fail


@pytest.mark.parametrize(
  'fail, said',
  [
    (lambda: jnp.ones(2**45), 'Out of memory allocating 140737488355328 bytes'),
    (lambda: np.ones(2**47), 'Unable to allocate'),
    (_of_xla('RESOURCE_EXHAUSTED: XLA:TPU compile error. Ran out of memory in hbm.\nMore.'), 'hbm'),
  ],
)
def test_memory_that_runs_out_is_one_line(capsys, fail, said):
  with pytest.raises(SystemExit) as end:
    run_cli(fail)
  err = capsys.readouterr().err
  assert end.value.code == 1 and err.count('\n') == 1
  assert err.startswith('error: out of memory (') and said in err and 'remat=block' in err


def test_other_errors_of_xla_keep_their_traceback():
  for text in ('INTERNAL: out of memory', 'RESOURCE_EXHAUSTED: message larger than max'):
    with pytest.raises(jax.errors.JaxRuntimeError):
      run_cli(_of_xla(text))


class _Full(io.StringIO):
  """A file on a full disk, or a terminal that is gone."""

  def __init__(self, number):
    super().__init__()
    self.number = number

  def write(self, text):
    raise OSError(self.number, os.strerror(self.number))


@pytest.mark.parametrize('number', [errno.ENOSPC, errno.EIO, errno.EPIPE])
def test_a_run_goes_on_where_what_it_prints_is_lost(monkeypatch, capsys, number):
  monkeypatch.setattr(sys, 'stdout', _Full(number))
  with Console() as console:
    for _ in range(3):
      log.info('a line')
    assert len(console.warnings) == len(warnings_so_far()) == 1
  err = capsys.readouterr().err
  assert err.count('\n') == 1 and 'standard output' in err and os.strerror(number) in err
  monkeypatch.setattr(sys, 'stderr', _Full(number))
  with Console():
    log.warning('nobody sees it')


@pytest.mark.parametrize('number, status', [(errno.ENOSPC, 1), (errno.EIO, 1), (errno.EPIPE, 0)])
def test_an_answer_that_is_lost_is_an_error_unless_nobody_reads_on(
  monkeypatch, capsys, number, status
):
  monkeypatch.setattr(sys, 'stdout', _Full(number))
  with pytest.raises(SystemExit) as end:
    run_cli(lambda: show('an answer'))
  assert end.value.code == status
  assert capsys.readouterr().err.count('standard output') == status


@pytest.mark.skipif(not os.path.exists('/dev/full'), reason='this system has no /dev/full')
def test_a_command_on_a_full_disk_is_one_line():
  with open('/dev/full', 'w') as full:
    words = [sys.executable, '-m', 'vit_jax', '--version']
    found = subprocess.run(words, stdout=full, stderr=subprocess.PIPE, text=True)
  assert found.returncode == 1 and found.stderr.count('\n') == 1, found.stderr


def _at(code):
  """What `interrupts` says of a frame of some code that calls it."""
  found = []
  space = {'look': lambda: found.append(interrupts._must_wait(sys._getframe(1)))}
  exec(code, space)
  return found


def test_ctrl_c_waits_for_an_import_and_for_a_callback_of_jax(tmp_path, monkeypatch):
  assert _at('look()') == [False]
  assert _at('def _xla_gc_callback(): look()\n_xla_gc_callback()') == [True]
  (tmp_path / 'looks_when_imported.py').write_text('from builtins import look\nlook()')
  monkeypatch.syspath_prepend(tmp_path)
  look: list[bool] = []
  say = lambda: look.append(interrupts._must_wait(sys._getframe(1)))  # noqa: E731
  monkeypatch.setattr('builtins.look', say, raising=False)
  import looks_when_imported  # noqa: F401

  assert look == [True]


SLEEPS = """
import signal, sys, threading, time
sys.path.insert(0, {folder!r})
from vit_jax import interrupts
from vit_jax.command_line import run_cli

def main():
  threading.Timer(0.3, interrupts._send, (signal.SIGINT,)).start()
  import sleeps
  time.sleep(30)

run_cli(main)
"""


@pytest.mark.parametrize('seconds', [0.6, 30])
def test_ctrl_c_in_an_import(tmp_path, seconds):
  text = f'import time\ntry:\n  time.sleep({seconds})\nexcept BaseException:\n  raise ImportError'
  (tmp_path / 'sleeps.py').write_text(text)
  words = [sys.executable, '-c', SLEEPS.format(folder=str(tmp_path))]
  found = subprocess.run(words, capture_output=True, text=True, timeout=20)
  assert found.returncode == 130 and found.stderr == 'interrupted\n', found.stderr


@pytest.mark.parametrize(
  'error',
  [InterruptedRunError(['one', 'two'], 15), DatasetError('one'), InterruptedRunError('x', 2)],
)
def test_errors_cross_process_borders_whole(error):
  copy = pickle.loads(pickle.dumps(error))
  assert type(copy) is type(error) and vars(copy) == vars(error) and copy.args == error.args
  assert str(copy) == str(error) and copy.status == error.status


def test_one_thing_is_no_plural():
  for words, text in (
    ((1, 'image'), '1 image'),
    ((0, 'image'), '0 images'),
    ((1234, 'class', 'classes'), '1,234 classes'),
    ((1, 'class', 'classes'), '1 class'),
    ((1.0, 'epoch'), '1 epoch'),
    ((0.099, 'epoch'), '0.099 epochs'),
  ):
    assert counted(*words) == text


def test_devices_that_are_not_there_are_one_line(tmp_path):
  words = [sys.executable, '-m', 'vit_jax.bench', 'vit_ti16', '--only=infer']
  environment = {**os.environ, 'JAX_PLATFORMS': 'nonsense'}
  found = subprocess.run(
    words, capture_output=True, text=True, env=environment, cwd=tmp_path, timeout=300
  )
  (line,) = found.stderr.splitlines()
  assert found.returncode == 1 and line.startswith('error: JAX finds no device of JAX_PLATFORMS')
