"""What a wheel and an sdist hold, and what the program says about installing."""

import pathlib
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / 'pyproject.toml').read_text('utf-8'))['project']
_BUILD = """
import sys
from setuptools import build_meta
folder = sys.argv[1]  # setuptools sets others
build_meta.build_wheel(folder)
build_meta.build_sdist(folder)
"""
_FOLDERS = ('vit_jax', 'configs', 'docs', 'tests', 'benchmarks', 'colabs', '.github')
_NOT_CODE = ('__pycache__', '.pytest_cache', '.ipynb_checkpoints')


def _files(folder):
  found = (p for p in (ROOT / folder).rglob('*') if p.is_file() and not p.name.startswith('.'))
  return {str(p.relative_to(ROOT)) for p in found if not set(p.parts) & {*_NOT_CODE}}


@pytest.fixture(scope='module')
def built(tmp_path_factory):
  """A folder with a wheel and an sdist of a copy of this tree: nothing is left in the tree."""
  pytest.importorskip('setuptools', '77')
  folder = tmp_path_factory.mktemp('built')
  copy = folder / 'copy'
  copy.mkdir()
  for path in ROOT.iterdir():
    if path.is_file():
      shutil.copy(path, copy)
  for name in _FOLDERS:
    shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns(*_NOT_CODE))
  subprocess.run(
    [sys.executable, '-c', _BUILD, str(folder)], cwd=copy, check=True, capture_output=True
  )
  shutil.rmtree(copy)
  return folder


def test_a_wheel_holds_the_program_with_its_configs_and_runs_anywhere(built, tmp_path):
  (wheel,) = built.glob('*.whl')
  with zipfile.ZipFile(wheel) as opened:
    names = set(opened.namelist())
    opened.extractall(tmp_path / 'site')
  configs = {f'vit_jax/{name}' for name in _files('configs')}
  inside = {name for name in names if '.dist-info/' not in name}
  assert inside == _files('vit_jax') | configs
  code = (
    'from vit_jax import config, config_files as c; c.is_foreign("vit_digits") and exit("foreign");'
    'print(c.find("configs/vit_digits.py")[0], config.load("vit_digits").model["width"])'
  )
  out = subprocess.run(
    [sys.executable, '-c', code],
    cwd=tmp_path,
    env={'PYTHONPATH': str(tmp_path / 'site'), 'JAX_PLATFORMS': 'cpu', 'HOME': str(tmp_path)},
    check=True,
    capture_output=True,
    text=True,
  ).stdout
  assert out.split() == [str(tmp_path / 'site' / 'vit_jax' / 'configs' / 'vit_digits.py'), '64']


def test_an_sdist_holds_what_make_needs(built):
  (sdist,) = built.glob('*.tar.gz')
  with tarfile.open(sdist) as opened:
    names = {name.partition('/')[2] for name in opened.getnames()}
  needed = 'Makefile constraints.txt pyproject.toml setup.py LICENSE release.py CITATION.cff'
  missing = {*needed.split(), '.pre-commit-config.yaml'} - names
  for folder in _FOLDERS:
    missing |= _files(folder) - names
  assert not missing


def test_extras():
  extras = PROJECT['optional-dependencies']
  assert {'gpu', 'tpu', 'figures', 'tfds', 'keras', 'test', 'docs'} <= set(extras)
  core = {_name(line) for line in PROJECT['dependencies']}
  assert {'matplotlib', 'jax'} <= core and not core & {'tensorflow', 'torch', 'timm'}


def test_every_package_that_we_say_to_install_is_one_that_is_published():
  """Nothing of this project is: a message names the package of others that is missing."""
  extras = PROJECT['optional-dependencies']
  lines = [*PROJECT['dependencies'], *(line for extra in extras.values() for line in extra)]
  known = {_name(line) for line in lines}
  said = {}
  for path in [ROOT / 'README.md', *(ROOT / name for name in sorted(_texts()))]:
    text = path.read_text('utf-8')
    assert not re.search(r'vit_jax\[\w', text), path
    for words in re.findall(r'pip install((?: [-\w.\[\]]+)+)', text):
      said |= {
        word: path for word in words.split() if word[0] not in '-.' and word != 'constraints.txt'
      }
  wrong = {word: str(path) for word, path in said.items() if word not in known}
  assert 'matplotlib' in said and not wrong


def _texts():
  folders = ('vit_jax', 'docs', 'colabs', 'configs')
  names = {name for folder in folders for name in _files(folder)}
  return {name for name in names if name.endswith(('.py', '.md', '.ipynb'))}


def _name(requirement):
  return re.match(r'[\w.-]+', requirement)[0]
