"""Help, the table behind it, completion, and what the program says of itself."""

import importlib
import os
import pathlib
import re
import shutil
import subprocess
import sys

import pytest

from tests.support import raises
from vit_jax import __main__ as program
from vit_jax import config_files, files, main
from vit_jax.arguments import parser_of
from vit_jax.errors import ConfigError
from vit_jax.options import from_text, to_text
from vit_jax.usage import pages, table

ROOT = pathlib.Path(__file__).resolve().parents[1]


def _run(*words, shell=(), **environment):
  done = subprocess.run(
    [*(shell or (sys.executable, '-m', 'vit_jax')), *words],
    cwd=ROOT,
    env={**os.environ, **environment},
    capture_output=True,
    text=True,
    encoding='utf-8',
  )
  assert done.returncode == 0, done.stderr
  return done.stdout


def _help(capsys, *words):
  assert main.main([*words]) == 0
  return capsys.readouterr().out


def test_the_first_screen_fits_and_names_every_group(capsys):
  lines = _help(capsys, '--help').splitlines()
  assert len(lines) <= 45 and max(map(len, lines)) <= 80
  for group in table.load().groups:
    assert any(line.split()[:1] == [group] for line in lines), group


def test_the_first_screen_says_how_several_processes_are_started(capsys):
  assert '--processes=N' in _help(capsys, '--help')


@pytest.mark.parametrize('command', [name for name in program.commands() if name != 'train'])
def test_the_help_of_each_command_fits_and_shows_one(command):
  parser = parser_of(importlib.import_module(program.commands()[command][0]).main)
  usage, _, text = parser.format_help().partition('\n\n')
  assert max(map(len, [*usage.splitlines(), *text.splitlines()])) <= 100
  assert re.search(rf'vit_jax[. ]{command} \w', text), 'no example'


def test_a_group_shows_all_of_its_options_with_defaults_and_ranges(capsys):
  text = _help(capsys, '--help=optimizer')
  for row in table.load().groups['optimizer'].rows:
    assert f'--config.{row.name}=' in text
  assert 'learning_rate=0.01' in text and 'above 0 and at most 10000' in text
  assert 'dataset' not in text


def test_every_topic_has_a_page(capsys):
  assert '--config.model.patch_size=8,8' in _help(capsys, '--help=vit_s8')
  assert 'mobilenet_v2' in _help(capsys, '--help', 'model')
  assert '--sweep=list' in _help(capsys, '--help=sweeps')
  assert '--coordinator' in _help(capsys, '--help=processes')
  assert 'vit_b16_dogs' in _help(capsys, '--help=configs')
  assert '--config.optimizer.b2=0.999' in _help(capsys, '--help=config.optimizer.b2')
  assert '--config.dataset.seed=0' in _help(capsys, '-h', 'seed')
  with raises(ConfigError, "'optimizer'"):
    main.main(['--help=optimzer'])
  with raises(ConfigError, 'unknown', "'--workdri"):
    main.main(['--help', '--workdri=x'])


def test_help_of_a_config_shows_its_values_beside_the_defaults(capsys):
  words = [f'--config={ROOT}/configs/vit_digits.py', '--config.total=7 steps', '--help']
  shown = {tuple(line.split()[:3]) for line in _help(capsys, *words).splitlines()}
  assert {('total', '7', 'steps'), ('optimizer.name', 'adamw', 'sgd')} <= shown
  assert ('model.width', '64', '192') in shown
  assert not {row[0] for row in shown if row} & {'ema.decay', 'seed', 'model.name'}
  text = _help(capsys, *words[:-1], '--help=optimizer')
  assert '* --config.optimizer.name=adamw  (default: sgd)' in text
  assert '  --config.optimizer.eps=1e-08\n' in text
  assert '* --config.model.width=64  (default: 192)' in _help(capsys, *words[:-1], '--help=model')


def test_the_options_page_is_what_the_program_says():
  """Made again by `python -m vit_jax.main --help=markdown > docs/options.md`."""
  made = _run('train', '--help=markdown', VIT_JAX_PLUGINS='')
  assert made == (ROOT / 'docs' / 'options.md').read_text('utf-8')


@pytest.mark.parametrize('broken', ['', '{"key": 3}', '[]', 'stale'])
def test_the_kept_table_is_used_only_where_it_is_of_this_program(tmp_path, monkeypatch, broken):
  monkeypatch.setenv('VIT_JAX_CACHE', str(tmp_path))
  kept = tmp_path / 'options.json'
  made = table.load()
  if broken == 'stale':
    monkeypatch.setattr(table, '_key', lambda: 'another')
  else:
    kept.write_text(broken)
  called = []
  monkeypatch.setattr(table, '_gather', lambda: called.append(1) or made)
  assert table.load() == made and called == [1]
  assert table.load() == made and called == [1]  # kept again
  monkeypatch.setenv('VIT_JAX_PLUGINS', 'mine.py')
  assert table.load() == made and called == [1, 1]


def test_a_cache_that_cannot_be_written_stops_no_help(tmp_path, monkeypatch):
  (tmp_path / 'file').write_text('')
  monkeypatch.setenv('VIT_JAX_CACHE', str(tmp_path / 'file' / 'x'))
  assert table.load().groups

  def homeless():
    raise files.StorageError('no home')

  monkeypatch.setattr(files, 'cache_folder', homeless)
  assert table.load().models


def test_a_value_as_one_types_it_is_read_back():
  for value, kind in [
    ((0.8, 0.1, 0.1), tuple[float, ...]),
    ((224,), tuple[int, ...]),
    (('a{1,2}=3', 'b'), tuple[str, ...]),
    (('[ab]=1',), tuple[str, ...]),
    ((), tuple[str, ...]),
    (None, float | None),
    (True, bool),
    ('none', str),
    (1e-8, float),
  ]:
    assert from_text(to_text(value), kind) == value


def test_version_starts_no_jax():
  code = 'import sys, vit_jax.__main__ as m; sys.argv[1:] = ["--version"]; m.main()'
  out = _run('-c', f'{code}; assert "jax" not in sys.modules', shell=[sys.executable])
  assert out.startswith('vit_jax 0') and 'jaxlib' in out


@pytest.fixture
def place(tmp_path, monkeypatch):
  """A folder to be in, with a config file of the user's."""
  monkeypatch.chdir(tmp_path)
  (tmp_path / 'configs').mkdir()
  (tmp_path / 'configs' / 'mine.py').write_text('"""My own."""\n')
  return tmp_path


def test_config_files_go_by_path_and_by_name(place):
  ours = str(config_files.packaged() / 'vit_digits.py')
  for word in (ours, ours[:-3], 'vit_digits', 'vit_digits.py', 'configs/vit_digits.py'):
    assert config_files.find(word) == (ours, '')
    assert config_files.find(f'{word}:a:b') == (ours, 'a:b')
    assert not config_files.is_foreign(word)
  mine = os.path.join('configs', 'mine.py')
  for word in ('mine', './configs/mine', mine):
    assert config_files.find(word) == (mine, '') and config_files.is_foreign(word)
  (place / 'vit_digits').mkdir()  # a run's folder hides no config file
  assert config_files.find('vit_digits')[0] == ours
  assert config_files.known()['mine'] == pathlib.Path(mine)
  assert config_files.summary(place / 'configs' / 'mine.py') == 'My own.'


def test_the_users_file_goes_before_the_packages(place):
  (place / 'configs' / 'vit_digits.py').write_text('')
  assert config_files.find('vit_digits') == (os.path.join('configs', 'vit_digits.py'), '')
  assert config_files.is_foreign('vit_digits')


def test_an_unknown_name_is_answered_by_those_that_exist(place):
  with raises(ConfigError, "'vit_digit'", "'vit_digits'"):
    config_files.find('vit_digit')
  with raises(ConfigError, 'mine', 'finetune', 'vit_s16_i1k'):
    config_files.find('q')
  (place / 'q').write_text('')
  with raises(ConfigError, 'q', '.py'):
    config_files.find('q')
  with raises(ConfigError, 'elsewhere/vit_digits.py'):
    config_files.find('elsewhere/vit_digits.py')
  with raises(ConfigError):
    config_files.find('a' * 254)  # with '.py', no file can have this name


_BASH = """
eval "$(cat "$1")"
COMP_LINE=$2 COMP_POINT=${#2}
read -ra COMP_WORDS <<< "$2"
COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
[[ $2 == *' ' ]] && ((COMP_CWORD++))
_vit_jax 2> /dev/null
printf '%s\\n' "${COMPREPLY[@]}"
"""


@pytest.mark.parametrize('shell', ['bash', 'zsh', 'fish'])
def test_completion(shell, tmp_path):
  script = tmp_path / 'script'
  script.write_text(_run('completion', shell), 'utf-8')
  if not shutil.which(shell):
    pytest.skip(f'no {shell} here')
  _run('-n', str(script), shell=[shell])
  for line, expected in {
    'vit_jax comp': {'compare', 'completion'},
    'vit_jax train --config=vit_d': {'vit_digits'},
    'vit_jax train --config.optimizer.name=ad': {'adamw', 'adafactor'},
    'vit_jax evaluate --parallel=': {'data', 'pmap', 'fsdp'},
  }.items():
    if shell == 'bash':
      found = _run('-c', _BASH, '', str(script), line, shell=['bash']).splitlines()
    elif shell == 'fish':
      found = _run('-c', f'source {script}; complete -C "{line}"', shell=['fish']).splitlines()
      found = [word.partition('\t')[0].rpartition('=')[2] for word in found]
    else:
      continue  # zsh completes on a terminal alone
    assert set(found) == expected, line


def test_markdown_escapes_what_it_would_read_otherwise():
  row = table.Row('a', 'x|y', 'of a*b and <b>_c', (), '')
  line = pages._markdown_rows([row]).splitlines()[-1]
  assert '`x\\|y`' in line and 'a\\*b and \\<b>\\_c' in line
