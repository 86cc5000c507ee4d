"""The layout's rules: imports point one way, files and functions stay small."""

import ast
import pathlib
import subprocess
import sys

import pytest

PACKAGE = pathlib.Path(__file__).resolve().parents[1] / 'vit_jax'
FILES = sorted(PACKAGE.rglob('*.py'))

# From the bottom up; a module may import from its own layer's package and from layers below.
LAYERS = [
  {'errors', 'runtime'},
  {'registry', 'tree', 'rng', '__init__'},
  {'config'},
  {'models', 'optim', 'data'},
  {'tasks'},
  {'train_state'},
  {'train_step', 'checkpoint', 'parallel', 'writer', 'clock', 'watch'},
  {'convert', 'plan', 'flops'},
  {'loaded'},
  {'report', 'evaluate', 'prepare', 'frozen'},
  {'examine', 'teacher'},
  {'train'},
  {'predict', 'probe', 'bench', 'export', 'serve'},
  # Commands that share another command's reading of pictures or runs.
  {'features', 'visualize', 'compare'},
  {'sweep'},
  {'main'},
]


def _part(path: pathlib.Path) -> str:
  return path.relative_to(PACKAGE).parts[0].removesuffix('.py')


def _imports(path: pathlib.Path, everywhere: bool = True) -> set[str]:
  tree = ast.parse(path.read_text())
  nodes = ast.walk(tree) if everywhere else tree.body
  found = set()
  for node in nodes:
    if isinstance(node, ast.Import):
      found |= {alias.name for alias in node.names}
    elif isinstance(node, ast.ImportFrom) and node.module:
      found |= {f'{node.module}.{alias.name}' for alias in node.names}
  return found


def _level(part: str) -> int:
  for level, parts in enumerate(LAYERS):
    if part in parts:
      return level
  raise AssertionError(f'vit_jax/{part} has no place in the layers: give it one')


@pytest.mark.parametrize('path', FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_point_one_way(path):
  part = _part(path)
  used = {
    name.split('.')[1] for name in _imports(path, everywhere=False) if name.startswith('vit_jax.')
  }
  names = {p.name.removesuffix('.py') for p in PACKAGE.iterdir()}
  for other in (used & names) - {part, '__init__'}:
    assert _level(other) < _level(part), f'vit_jax/{part} imports vit_jax/{other}'


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
