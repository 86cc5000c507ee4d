"""Registries, and the files and modules that $VIT_JAX_PLUGINS names."""

import functools
import json
import os
import pathlib
import re
import subprocess
import sys

import pytest

from tests.support import error_line, raises
from vit_jax.errors import ConfigError
from vit_jax.models.base import MODELS
from vit_jax.registry import Registry

ROOT = pathlib.Path(__file__).resolve().parents[1]


def test_entries_are_found_by_name_in_order():
  shapes = Registry('shape')
  shapes.add('square', 4)

  @shapes.register('circle')
  def circle():
    return 0

  assert list(shapes) == ['square', 'circle'] and len(shapes) == 2
  assert shapes['square'] == 4 and shapes['circle'] is circle
  assert 'circle' in shapes and 'oval' not in shapes


def test_an_unknown_name_is_refused_with_the_nearest():
  shapes = Registry('shape')
  shapes.add('square', 4)
  with raises(ConfigError, 'shape', "'sqare'", "'square'"):
    shapes['sqare']


def test_a_name_is_registered_once():
  shapes = Registry('shape')
  shapes.add('square', 4)
  with pytest.raises(ValueError, match='square'):
    shapes.add('square', 5)


OPTIMIZER = """
import dataclasses

from vit_jax.optimizers import OPTIMIZERS, UpdateRule


@OPTIMIZERS.register('{name}')
@dataclasses.dataclass(frozen=True)
class Made(UpdateRule):
  pass
"""

# For each line of input a fork that prints the names of optimizers: JAX is imported once.
NAMES = """
import json
import os
import sys
import warnings

from vit_jax.command_line import run_cli
from vit_jax.optimizers import OPTIMIZERS

warnings.simplefilter('ignore')  # of forking: no backend of JAX has started here
for line in sys.stdin:
  plugins, folder = json.loads(line)
  child = os.fork()
  if not child:
    break
  print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
else:
  sys.exit()
for number, name in ((0, os.devnull), (1, folder + '/.out'), (2, folder + '/.err')):
  os.dup2(os.open(name, os.O_RDWR | os.O_CREAT | os.O_TRUNC), number)
os.chdir(folder)
os.environ['VIT_JAX_PLUGINS'] = plugins
sys.path.insert(1, folder + '/path')
run_cli(lambda: print(*OPTIMIZERS))
"""


@functools.cache
def _server():
  """Started by the first test that asks it."""
  return subprocess.Popen(
    [sys.executable, '-c', NAMES],
    env={**os.environ, 'PYTHONPATH': str(ROOT)},
    stdin=subprocess.PIPE,
    stdout=subprocess.PIPE,
    text=True,
  )


@pytest.fixture(scope='module', autouse=True)
def server_ends():
  yield
  if _server.cache_info().currsize:
    with _server() as server:
      server.stdin.close()
    _server.cache_clear()


def _run(plugins, folder):
  """(status, standard output, standard error) of a fork with plugins."""
  server = _server()
  server.stdin.write(json.dumps([plugins, str(folder)]) + '\n')
  server.stdin.flush()
  status = int(server.stdout.readline())
  return status, (folder / '.out').read_text(), (folder / '.err').read_text()


@pytest.fixture
def files(tmp_path):
  """Writes files below a folder; 'path/' in it is where Python finds modules."""

  def write(**texts):
    for name, text in texts.items():
      path = tmp_path / f'{name.replace("__", "/")}.py'
      path.parent.mkdir(exist_ok=True)
      path.write_text(text)
    return tmp_path

  return write


def _names(plugins, folder):
  status, out, err = _run(plugins, folder)
  assert status == 0, err
  return out.split()


def _error(plugins, folder):
  status, _, err = _run(plugins, folder)
  return error_line(status, err)


def test_files_and_modules_register_entries(files):
  folder = files(
    deep__one=OPTIMIZER.format(name='first'),
    path__my_second=OPTIMIZER.format(name='second'),
  )
  (folder / 'path/pack').mkdir()
  (folder / 'path/pack/inner.py').write_text(OPTIMIZER.format(name='third'))
  plugins = os.pathsep.join(['deep/one.py', '', 'my_second', 'pack.inner'])
  assert _names(plugins, folder)[-3:] == ['first', 'second', 'third']
  absolute = str(folder / 'deep' / 'one.py')
  assert _names(absolute, folder)[-1] == 'first'
  assert 'first' not in _names('', folder)


@pytest.mark.parametrize('word', ['gone.py', 'deep/gone.py', 'no_such_module', 'deep'])
def test_a_plugin_that_is_not_there_is_named(files, word):
  assert word in _error(word, files(deep__one='1'))


@pytest.mark.parametrize('place', ['relative', 'absolute', 'module'])
@pytest.mark.parametrize(
  'text, line, facts',
  [
    ('x = 1\n\ny = x / 0\n', 3, ['ZeroDivisionError']),
    ('def f():\n  raise KeyError("blue")\n\n\nf()\n', 2, ['KeyError', 'blue']),
    ('x = 1\ny = (x +\n', 2, ['SyntaxError']),
    ('import json\n\njson.loads("{")\n', 3, ['JSONDecodeError']),
    ('import os\nimport no_such_module\n', 2, ['ModuleNotFoundError', 'no_such_module']),
    (OPTIMIZER.format(name='sgd'), 7, ["'sgd'", 'twice']),
  ],
)
def test_a_plugin_that_fails_is_named_with_its_line(files, place, text, line, facts):
  folder = files(path__failing=text)
  word = {
    'relative': 'path/failing.py',
    'absolute': str(folder / 'path' / 'failing.py'),
    'module': 'failing',
  }[place]
  error = _error(word, folder)
  assert f'{word}, line {line}' in error
  assert [fact for fact in facts if fact not in error] == []


def test_a_plugin_may_refuse_with_words_of_its_own(files):
  text = 'from vit_jax.errors import ConfigError\nraise ConfigError("set MY_FOLDER")\n'
  assert _error('mine.py', files(mine=text)) == 'error: set MY_FOLDER'


@pytest.mark.parametrize('name', ['statistics', 'sys', 'numpy'])
def test_a_file_with_the_name_of_another_module_is_refused(files, name):
  """It would not be imported, and its names would be unknown."""
  error = _error(f'deep/{name}.py', files(**{f'deep__{name}': OPTIMIZER.format(name='first')}))
  assert f'deep/{name}.py' in error and repr(name) in error


def test_two_files_of_one_name_are_refused(files):
  texts = {f'{folder}__same': OPTIMIZER.format(name=folder) for folder in ('one', 'two')}
  error = _error(os.pathsep.join(['one/same.py', 'two/same.py']), files(**texts))
  assert 'two/same.py' in error and 'one/same.py' in error.replace('plugin two/same.py', '')


WORKER = """
import multiprocessing

from vit_jax.optimizers import OPTIMIZERS, build


def name_of(rule):
  return type(rule).__module__, type(rule).__name__


if __name__ == '__main__':
  rule = build('first', {})
  with multiprocessing.get_context('spawn').Pool(1) as pool:
    print(*pool.apply(name_of, (rule,)))
"""


def test_a_worker_process_finds_the_class_of_a_plugin(files):
  """What is sent to it is pickled by the module's name."""
  folder = files(deep__one=OPTIMIZER.format(name='first'), worker=WORKER)
  done = subprocess.run(
    [sys.executable, 'worker.py'],
    env={**os.environ, 'VIT_JAX_PLUGINS': 'deep/one.py', 'PYTHONPATH': str(ROOT)},
    cwd=folder,
    capture_output=True,
    text=True,
    timeout=120,
  )
  assert done.returncode == 0, done.stderr
  assert done.stdout.split() == ['one', 'Made']


def test_a_model_is_found_by_the_names_of_other_programs():
  theirs = {
    'vit_tiny_patch16_224': 'vit_ti16',
    'google/vit-base-patch16-224-in21k': 'vit_b16',
    'ViT-L_16': 'vit_l16',
    'B/16': 'vit_b16',
    'facebook/deit-tiny-patch16-224': 'deit_ti16',
    'deit_small_distilled_patch16_224': 'deit_s16_distilled',
  }
  for name, ours in theirs.items():
    with pytest.raises(ConfigError, match=f"{re.escape(repr(name))}: did you mean '{ours}'"):
      MODELS[name]
