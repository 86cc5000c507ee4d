"""One program for all commands: `vit_jax COMMAND ...`, or `python -m vit_jax COMMAND ...`.

A command is a file at the top of this package with a function `main(argv)`; so is a file that
$VIT_JAX_PLUGINS names. Its docstring's first line is what the list of commands shows.
"""

import ast
import importlib
import os
import pathlib
import sys

from vit_jax.command_line import run_cli
from vit_jax.console import show
from vit_jax.errors import ConfigError, did_you_mean
from vit_jax.machine import versions
from vit_jax.registry import load_plugins

# The command that trains has a name that fits in a row with the others.
_NAMES = {'main': 'train'}


def commands() -> dict[str, tuple[str, str]]:
  """The commands: {name: (module, first line of its docstring)}; nothing is imported."""
  here = pathlib.Path(__file__).parent
  files = [(f'vit_jax.{p.stem}', p) for p in sorted(here.glob('[a-z]*.py'))]
  words = filter(None, os.environ.get('VIT_JAX_PLUGINS', '').split(os.pathsep))
  files += [(path.stem, path) for path in map(pathlib.Path, words) if path.suffix == '.py']
  found = {}
  for module, path in files:
    tree = ast.parse(path.read_text('utf-8')) if path.is_file() else ast.Module([], [])
    if any(isinstance(node, ast.FunctionDef) and node.name == 'main' for node in tree.body):
      first = (ast.get_docstring(tree) or '').split('\n', 1)[0].split(': `', 1)[0]
      found[_NAMES.get(path.stem, path.stem)] = (module, first)
  return found


def main() -> int:
  """Runs the command that the first argument names."""
  known = commands()
  name = sys.argv[1] if len(sys.argv) > 1 else '--help'
  if name in ('-h', '--help'):
    width = max(map(len, known))
    lines = [f'  {command:{width}}  {text}' for command, (_, text) in known.items()]
    show('\n'.join(['usage: vit_jax COMMAND ...', '', *lines, '']))
    show('vit_jax COMMAND --help describes a command, vit_jax --version says what is installed.')
    return 0
  if name == '--version':
    found = versions()
    show(f'vit_jax {found.pop("vit_jax")}')
    show(', '.join(f'{name} {version}' for name, version in found.items()))
    return 0
  if name not in known:
    raise ConfigError(f'unknown command {name!r}: {did_you_mean(name, known)}')
  load_plugins()
  return importlib.import_module(known[name][0]).main(sys.argv[2:])


def run() -> None:
  """The console script."""
  run_cli(main)


if __name__ == '__main__':
  run()
