"""Config files by path or by name: the user's `configs/`, then those that come with this package.

Never imports JAX, nor any config file.
"""

import ast
import os
import pathlib

from vit_jax.errors import ConfigError, did_you_mean, shown
from vit_jax.files import path_of

_PACKAGE = pathlib.Path(__file__).parent
_USERS = pathlib.Path('configs')


def packaged() -> pathlib.Path:
  """The folder of the config files that come with this package."""
  installed = _PACKAGE / 'configs'
  return installed if installed.is_dir() else _PACKAGE.parent / 'configs'  # a checkout's


def known() -> dict[str, pathlib.Path]:
  """Every config file that has a name: {name: path}; the user's go before the package's."""
  return _in(packaged()) | _in(_USERS)


def names() -> list[str]:
  """The names of the config files that come with this package."""
  return list(_in(packaged()))


def _in(folder: pathlib.Path) -> dict[str, pathlib.Path]:
  return {path.stem: path for path in sorted(folder.glob('[!_.]*.py'))}


def find(word: str) -> tuple[str, str]:
  """The file and the argument of what --config was given.

  Args:
    word: 'FILE' or 'FILE:ARGUMENT'; the file is a path, with or without '.py', or a name: of a file
      in ./configs or of one that comes with this package, which 'configs/NAME.py' means too.

  Raises:
    ConfigError: there is no such file, or it is none of Python's.
  """
  drive, path = os.path.splitdrive(word)  # the colon of 'C:' is no separator
  stem, _, argument = path.partition(':')
  file = path_of('--config', drive + stem)
  name = pathlib.PurePath(file if file.endswith('.py') else f'{file}.py')
  candidates = [pathlib.Path(file), pathlib.Path(name)]
  if name.parent in (pathlib.PurePath(), pathlib.PurePath(_USERS)):
    candidates += [_USERS / name.name, packaged() / name.name]
  for candidate in candidates:
    if candidate.suffix == '.py' and os.path.isfile(candidate):
      return str(candidate), argument
  if os.path.isfile(file):
    raise ConfigError(f'--config={file}: a config file is Python code, whose name ends in .py')
  near = did_you_mean(name.stem, known(), every_up_to=100)
  raise ConfigError(f'--config: no config file {shown(file)}: {near}')


def is_foreign(word: str) -> bool:
  """Whether there is such a config file, and it is none of those that come with this package."""
  try:
    file = pathlib.Path(find(word)[0])
  except ConfigError:
    return False
  return not file.resolve().is_relative_to(packaged().resolve())


def summary(path: pathlib.Path) -> str:
  """The first line of a file's docstring; '' where it has none or cannot be read."""
  try:
    text = ast.get_docstring(ast.parse(path.read_text('utf-8')))
  except (OSError, ValueError, SyntaxError):
    return ''
  return (text or '').partition('\n')[0]
