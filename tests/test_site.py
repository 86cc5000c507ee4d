"""The site of docs/: it builds without a warning, and what is made for it is current."""

import importlib.util
import os
import pathlib
import re
import subprocess
import sys

import pytest

from tests import imports_drawing
from vit_jax.weights import hub

ROOT = pathlib.Path(__file__).resolve().parents[1]


@pytest.fixture(scope='module')
def site(tmp_path_factory):
  for package in ('mkdocs', 'material', 'mkdocstrings_handlers'):
    if importlib.util.find_spec(package) is None:
      pytest.skip(f"no {package} here: pip install -e '.[docs]'")
  folder = tmp_path_factory.mktemp('site')
  done = subprocess.run(
    [sys.executable, '-m', 'mkdocs', 'build', '--strict', '--site-dir', str(folder)],
    cwd=ROOT,
    env={**os.environ, 'NO_MKDOCS_2_WARNING': '1'},
    capture_output=True,
    text=True,
    encoding='utf-8',
  )
  assert done.returncode == 0 and 'WARNING' not in done.stderr, done.stderr
  return folder


def test_the_site_builds_and_has_every_page(site):
  pages = {path.relative_to(site).as_posix() for path in site.rglob('*.html')}
  written = {f'{path.stem}.html' for path in (ROOT / 'docs').glob('*.md')}
  assert written | {'index.html', 'contributing.html', 'changelog.html'} <= pages
  assert 'source/configs/deit.py.html' in pages
  navigation = (site / 'index.html').read_text('utf-8')
  for page in written:
    assert f'href="{page}"' in navigation, f'mkdocs.yml has no place for {page} in nav'


def test_pages_fetch_nothing_from_elsewhere(site):
  fetched = re.compile(
    r'<(?:script|img|link|iframe|source)\b[^>]*?\b(?:src|href)="((?:https?:)?//[^"]+)"'
  )
  for path in site.rglob('*.html'):
    assert not fetched.findall(path.read_text('utf-8')), path.name


def test_commands_break_between_options_alone_and_the_search_has_a_name(site):
  page = (site / 'own_data.html').read_text('utf-8')
  assert '<span class="word">--config.dataset.name=</span>images' in page
  assert '<pre class="columns">' in page  # two layouts beside each other
  for path in site.glob('*.html'):
    text = path.read_text('utf-8')
    assert text.count('role="dialog"') == text.count('role="dialog" aria-label="Search"')


def test_the_model_zoo_is_what_the_program_says():
  """Made again by `python -m vit_jax.convert --list=markdown > docs/models.md`."""
  page = (ROOT / 'docs' / 'models.md').read_text('utf-8')
  assert page == hub.markdown() + '\n'
  for name in hub.pretrained_models():
    assert f'\n| `{name}` | ' in page


def test_the_drawing_of_imports_is_true():
  """Made again by `python -m tests.imports_drawing > docs/images/imports.svg`."""
  written = (ROOT / 'docs' / 'images' / 'imports.svg').read_text('utf-8')
  assert written == imports_drawing.drawing()
  assert '<title>training imports data</title>' in written
  assert '<title>data imports training</title>' not in written
