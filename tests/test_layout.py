"""The layout's rules: imports point one way, files and functions stay small."""

import ast
import pathlib
import subprocess
import sys

import pytest

PACKAGE = pathlib.Path(__file__).resolve().parents[1] / 'vit_jax'
FILES = sorted(PACKAGE.rglob('*.py'))

# From the top down. What stands in one row may not import each other; a part imports from the rows
# below it, wherever in a file the import stands. CONTRIBUTING.md has the same list with words.
LAYERS = [
  ['completion'],
  ['__main__'],
  ['main'],
  [
    'evaluate',
    'compare',
    'diff',
    'probe',
    'bench',
    'convert',
    'features',
    'predict',
    'visualize',
    'export',
    'serve',
    'train',
  ],
  ['benchmark'],
  ['training', 'usage'],
  ['comparison', 'visualization'],
  ['evaluation', 'serving'],
  ['exporting'],
  ['inference'],
  ['weights'],
  ['config'],
  ['optimizers', 'checkpoint', 'tasks'],
  ['report'],
  ['parallel'],
  ['models'],
  ['data'],
  ['metric_writer', 'trackers'],
  ['arguments', 'config_files'],
  ['options'],
  ['command_line', 'remote'],
  ['processes'],
  ['runtime', 'download', 'kernels'],
  ['console', 'files', 'heap', 'interrupts', 'logits', 'machine', 'registry', 'rng', 'tree'],
  ['errors'],
  ['__init__'],
]
LEVEL = {part: -i for i, parts in enumerate(LAYERS) for part in parts}


def _part(path: pathlib.Path) -> str:
  return path.relative_to(PACKAGE).parts[0].removesuffix('.py')


def _imports(path: pathlib.Path) -> set[str]:
  """Dotted names that a file imports anywhere, lazily served names of packages included."""
  found = set()
  for node in ast.walk(ast.parse(path.read_text())):
    if isinstance(node, ast.Import):
      found |= {alias.name for alias in node.names}
    elif isinstance(node, ast.ImportFrom) and node.module:
      found |= {f'{node.module}.{alias.name}' for alias in node.names}
  return found


def test_every_part_has_its_place_and_every_place_its_part():
  there = {_part(path) for path in FILES}
  assert there == set(LEVEL), f'in one alone: {sorted(there ^ set(LEVEL))}'


@pytest.mark.parametrize('path', FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_point_one_way(path):
  part = _part(path)
  used = {name.split('.')[1] for name in _imports(path) if name.startswith('vit_jax.')}
  for other in (used & set(LEVEL)) - {part}:
    assert LEVEL[other] < LEVEL[part], f'vit_jax/{part} imports vit_jax/{other}'


@pytest.mark.parametrize('path', FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_only_the_console_prints(path):
  calls = [n.func for n in ast.walk(ast.parse(path.read_text('utf-8'))) if isinstance(n, ast.Call)]
  prints = [f for f in calls if isinstance(f, ast.Name) and f.id == 'print']
  assert len(prints) == (path.name == 'console.py'), 'console.show escapes control characters'


def test_no_package_imports_in_a_circle():
  graph = {}
  modules = {'.'.join(p.relative_to(PACKAGE.parent).with_suffix('').parts): p for p in FILES}
  for name, path in modules.items():
    used = {u if u in modules else u.rpartition('.')[0] for u in _imports(path)}
    graph[name] = {u for u in used if u in modules and u != name}
  done, active = set(), []

  def visit(name):
    if name in active:
      raise AssertionError(' -> '.join([*active[active.index(name) :], name]))
    if name in done:
      return
    active.append(name)
    for other in sorted(graph[name]):
      visit(other)
    active.pop()
    done.add(name)

  for name in graph:
    visit(name)


def test_data_never_imports_jax_and_models_never_import_data():
  for path in FILES:
    used = _imports(path)
    if _part(path) == 'data':
      assert not {u for u in used if u.split('.')[0] in ('jax', 'flax')}, path
    if _part(path) == 'models':
      assert not {
        u for u in used if u.startswith(('vit_jax.data', 'vit_jax.tasks', 'vit_jax.config'))
      }, path


def test_no_framework_that_is_for_comparison_is_imported():
  for path in FILES:
    roots = {u.split('.')[0] for u in _imports(path)}
    assert not roots & {'torch', 'tensorflow', 'timm', 'transformers', 'keras'}, path


@pytest.mark.parametrize('path', FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_files_and_functions_stay_small(path):
  source = path.read_text()
  assert source.count('\n') <= 500, f'{path} is too long'
  for node in ast.walk(ast.parse(source)):
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
      assert node.end_lineno - node.lineno <= 100, f'{path}: {node.name} is too long'


def test_importing_everything_starts_no_device_and_no_tensorflow():
  code = (
    'import sys, vit_jax.train, vit_jax.main\n'
    'from jax._src import xla_bridge\n'
    'assert not xla_bridge._backends, "a device was started"\n'
    'assert "tensorflow" not in sys.modules\n'
  )
  subprocess.run([sys.executable, '-c', code], check=True, cwd=PACKAGE.parent)


def test_documented_addresses_stay():
  from vit_jax import config, errors, train
  from vit_jax.command_line import run_cli

  assert errors.run_cli is run_cli
  assert callable(config.load) and callable(train.train)
  assert not hasattr(errors, 'run_clj')
