"""What only Linux has is not needed: names, modules, encodings and paths of other systems."""

import ast
import io
import json
import locale
import ntpath
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from tests.support import raises
from vit_jax import bench, files, heap, machine, runtime
from vit_jax.command_line import run_cli
from vit_jax.config import loading
from vit_jax.console import Console
from vit_jax.errors import ConfigError, StorageError

ROOT = pathlib.Path(__file__).resolve().parents[1]
FILES = sorted([*ROOT.glob('vit_jax/**/*.py'), *ROOT.glob('configs/*.py'), ROOT / 'setup.py'])

# Found by Python at its start: what Windows or macOS lack is gone for this project's files. For its
# dependencies, which know that they run on Linux, it stays.
ELSEWHERE = """
import builtins, os, pathlib, signal, sys

def is_ours(frame):
  return frame.f_globals.get('__name__', '').split('.')[0] == 'vit_jax'

def hide(module, names):
  hidden = {name: module.__dict__.pop(name) for name in names.split() if hasattr(module, name)}
  def __getattr__(name):
    if name not in hidden or is_ours(sys._getframe(1)):
      raise AttributeError(name)
    return hidden[name]
  module.__getattr__ = __getattr__

hide(os, 'sched_getaffinity sched_setaffinity uname fork forkpty wait4 getuid geteuid getgid '
         'getegid setsid killpg getpgid nice sync mkfifo getloadavg statvfs fchmod chown')
hide(signal, 'SIGHUP SIGALRM SIGUSR1 SIGUSR2 SIGQUIT SIGKILL setitimer alarm pthread_sigmask')

def __import__(name, globals=None, locals=None, fromlist=(), level=0, original=builtins.__import__):
  if name in ('resource', 'fcntl', 'termios', 'grp', 'pwd') and is_ours(sys._getframe(1)):
    raise ModuleNotFoundError(f'No module named {name!r}', name=name)
  return original(name, globals, locals, fromlist, level)
builtins.__import__ = __import__

def read_text(self, *args, original=pathlib.Path.read_text, **kwargs):
  if str(self).startswith('/proc'):
    raise FileNotFoundError(2, 'No such file or directory', str(self))
  return original(self, *args, **kwargs)
pathlib.Path.read_text = read_text
"""

COMMANDS = """
import sys
from vit_jax import evaluate, main, predict, runtime
runtime.start()
data, run, config = sys.argv[1:]
tiny = {'model.name': 'vit_ti16', 'model.width': 16, 'model.depth': 1, 'model.num_heads': 1,
        'model.mlp_dim': 16, 'input.image_size': 32, 'batch_size': 4, 'total': '1 steps',
        'schedule.warmup': '0 steps', 'optimizer.name': 'sgd', 'optimizer.clip_norm': 0,
        'dataset.test': 'train', 'log.tensorboard': 'false', 'dataset.name': data}
words = [f'--config.{name}={value}' for name, value in tiny.items()]
main.main([f'--config={config}', f'--workdir={run}', *words])
assert not evaluate.main([run, f'--dataset={data}', '--split=all'])
assert not predict.main([run, data])
from vit_jax import machine
assert machine.peak_memory_bytes() is None and machine.cores() > 0
print('done')
"""


def test_training_with_a_report_evaluate_and_predict_run_elsewhere(tmp_path):
  for name in ('a cat', 'a döner'):
    (tmp_path / 'my data' / name).mkdir(parents=True)
    for i in range(4):
      pixels = np.random.default_rng(i).integers(0, 256, (32, 32, 3), np.uint8)
      Image.fromarray(pixels).save(tmp_path / 'my data' / name / f'{i}.png')
  (tmp_path / 'site').mkdir()
  (tmp_path / 'site' / 'sitecustomize.py').write_text(ELSEWHERE, 'utf-8')
  path = os.pathsep.join([str(tmp_path / 'site'), str(ROOT)])
  config = str(ROOT / 'configs' / 'digits.py')
  words = [str(tmp_path / 'my data'), str(tmp_path / 'my run'), config]
  done = subprocess.run(
    [sys.executable, '-c', COMMANDS, *words],
    env={**os.environ, 'PYTHONPATH': path, 'LC_ALL': 'C', 'TZ': 'Asia/Kathmandu'},
    capture_output=True,
    text=True,
    encoding='utf-8',
  )
  assert done.returncode == 0, done.stderr[-3000:]
  assert done.stdout.endswith('done\n') and 'a döner' in done.stdout
  metrics = json.loads((tmp_path / 'my run' / 'report' / 'metrics.json').read_text('utf-8'))
  assert metrics['accuracy'] >= 0


def test_every_text_file_is_opened_with_its_encoding():
  unsaid = []
  for path in FILES:
    for node in ast.walk(ast.parse(path.read_text('utf-8'))):
      if isinstance(node, ast.Call) and _opens_text(node):
        unsaid.append(f'{path.relative_to(ROOT)}:{node.lineno}')
  assert not unsaid


def _opens_text(call: ast.Call) -> bool:
  """Whether a call opens a file as text without an encoding, which then differs by system."""
  name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, 'id', '')
  texts = [a.value for a in call.args if isinstance(a, ast.Constant) and isinstance(a.value, str)]
  said = any(k.arg in ('encoding', None) for k in call.keywords)
  if name in ('read_text', 'write_text'):
    ours = isinstance(call.func, ast.Name) or ast.unparse(call.func) == 'files.write_text'
    return not (said or ours or any(text.startswith('utf-8') for text in texts))
  builtin = isinstance(call.func, ast.Name) and name == 'open'
  modes = [*call.args[1:2], *(k.value for k in call.keywords if k.arg == 'mode')]
  return builtin and not (said or any('b' in ast.unparse(mode) for mode in modes))


@pytest.mark.parametrize('encoding', ['cp1252', 'ascii', 'cp437', 'utf-8'])
def test_a_console_prints_a_stand_in_for_what_it_lacks(encoding, monkeypatch):
  raw = io.BytesIO()
  for name in ('stdout', 'stderr'):
    monkeypatch.setattr(sys, name, io.TextIOWrapper(raw, encoding, write_through=True))

  def main() -> int:
    print('猫🐱 cat caf\udce9')
    return 0

  monkeypatch.setattr(runtime, 'start', lambda alone: None)
  with pytest.raises(SystemExit) as end:
    run_cli(main)
  assert end.value.code == 0
  text = raw.getvalue().decode(encoding)
  assert 'cat caf\\udce9' in text and ('🐱' if encoding == 'utf-8' else '\\U0001f431') in text


def test_a_python_without_the_packages_is_named(monkeypatch, capsys):
  def main() -> int:
    raise ModuleNotFoundError("No module named 'jax'", name='jax')

  monkeypatch.setattr(runtime, 'start', lambda alone: None)
  with pytest.raises(SystemExit) as end:
    run_cli(main)
  (line,) = capsys.readouterr().err.splitlines()
  assert end.value.code == 1 and "No module named 'jax'" in line and sys.executable in line


@pytest.mark.parametrize('stream', [io.StringIO(), None])
def test_streams_that_take_any_text_or_none_are_left_alone(stream, monkeypatch):
  monkeypatch.setattr(sys, 'stdout', stream)
  monkeypatch.setattr(sys, 'stderr', stream)
  with Console():
    pass


def test_a_file_that_a_reader_holds_open_is_replaced_once_it_is_closed(tmp_path, monkeypatch):
  path, replace, refused = tmp_path / 'a.txt', os.replace, [PermissionError(13, 'in use')] * 2

  def busy(source, target):
    if refused:
      raise refused.pop()
    replace(source, target)

  monkeypatch.setattr(files, '_WAIT_SECONDS', 0)
  monkeypatch.setattr(os, 'replace', busy)
  files.write_text(path, 'new')
  assert path.read_text('utf-8') == 'new'
  refused += [PermissionError(13, 'in use')] * 100
  with raises(StorageError, path, 'in use'):
    files.write_text(path, 'newer')
  assert path.read_text('utf-8') == 'new' and os.listdir(tmp_path) == ['a.txt']


def test_a_drive_letter_is_no_argument_of_a_config_file(monkeypatch):
  monkeypatch.setattr(os.path, 'splitdrive', ntpath.splitdrive)
  with raises(ConfigError, r"'C:\\configs\\none.py'"):
    loading.run_function('C:\\configs\\none.py', 'get_config')
  with raises(ConfigError, "'C:none.py'"):
    loading.run_function('C:none.py:argument', 'get_config')


def test_no_c_library_by_the_name_none(monkeypatch):
  def windows(name):
    raise TypeError('expected str')

  monkeypatch.delenv('VIT_JAX_KEEP_MEMORY', raising=False)
  monkeypatch.setattr(heap.ctypes, 'CDLL', windows)
  assert 'glibc' in heap.keep()


def test_peak_memory_is_bytes_everywhere(monkeypatch):
  here = machine.peak_memory_bytes()
  assert here is None or 1 << 24 < here < 1 << 40
  monkeypatch.setattr(sys, 'platform', 'darwin')  # which counts in bytes
  assert here is None or machine.peak_memory_bytes() in range(here // 1024, here // 512)
  monkeypatch.setitem(sys.modules, 'resource', None)
  assert machine.peak_memory_bytes() is None


def test_a_processor_without_proc_has_a_name(monkeypatch):
  assert machine.processor() == machine.processor()

  def no_file(*unused):
    raise FileNotFoundError

  monkeypatch.setattr(pathlib.Path, 'read_text', no_file)
  assert len(machine.processor()) == 12


def test_bench_prints_what_it_knows_of_memory():
  row = {'model': 'm', 'batch_size': 1, 'image_size': 8, 'device': 'd', 'cores': 2, 'runtime': {}}
  text = bench.table({**row, 'peak_tflops': None})
  assert 'unknown' in text


def test_numbers_are_written_alike_in_every_locale(tmp_path):
  before = locale.setlocale(locale.LC_ALL)
  for name in ('de_DE.UTF-8', 'C'):
    try:
      locale.setlocale(locale.LC_ALL, name)
    except locale.Error:
      continue
    try:
      files.write_csv(tmp_path / 'x.csv', ['a'], [[1234.5]])
    finally:
      locale.setlocale(locale.LC_ALL, before)
    assert (tmp_path / 'x.csv').read_text('utf-8').splitlines() == ['a', '1234.5']
