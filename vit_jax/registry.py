"""Tables from names to things: a new thing is one file that registers itself."""

import importlib
import os
import pathlib
import pkgutil
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from typing import Generic, TypeVar

from vit_jax.errors import ConfigError, did_you_mean

T = TypeVar('T')
Entry = TypeVar('Entry')

_plugins_loaded = False


class Registry(Mapping[str, T], Generic[T]):
  """Names to entries; a lookup that fails says the nearest names.

  The files of a package register their entries when they are imported, which the first lookup
  sees to; so do the files that $VIT_JAX_PLUGINS names (paths or modules, separated as in $PATH).

  Args:
    kind: what the entries are, for messages ('model', 'optimizer').
    package: whose files hold entries, such as 'vit_jax.models'; '' for none.
  """

  def __init__(self, kind: str, package: str = ''):
    self.kind = kind
    self._package = package
    self._loaded = not package
    self._entries: dict[str, T] = {}

  def add(self, name: str, entry: T) -> T:
    """Gives a name to an entry."""
    if name in self._entries:
      raise ValueError(f'{self.kind} {name!r} is registered twice')
    self._entries[name] = entry
    return entry

  def register(self, name: str) -> Callable[[Entry], Entry]:
    """`add` as a decorator."""

    def decorate(entry: Entry) -> Entry:
      self.add(name, entry)  # type: ignore[arg-type]
      return entry

    return decorate

  def _load(self) -> None:
    if not self._loaded:
      self._loaded = True  # first: the files may look things up themselves
      package = importlib.import_module(self._package)
      for module in sorted(pkgutil.iter_modules(package.__path__), key=lambda m: m.name):
        importlib.import_module(f'{self._package}.{module.name}')
    load_plugins()

  def __getitem__(self, name: str) -> T:
    self._load()
    if name not in self._entries:
      raise ConfigError(f'unknown {self.kind} {name!r}: {did_you_mean(name, self._entries)}')
    return self._entries[name]

  def __contains__(self, name: object) -> bool:
    self._load()
    return name in self._entries

  def __iter__(self) -> Iterator[str]:
    self._load()
    return iter(self._entries)

  def __len__(self) -> int:
    self._load()
    return len(self._entries)


def load_plugins() -> None:
  """Imports the files and modules of $VIT_JAX_PLUGINS, once.

  Raises:
    ConfigError: one of them is missing or fails, naming it and the line.
  """
  global _plugins_loaded
  if _plugins_loaded:
    return
  _plugins_loaded = True
  for word in filter(None, os.environ.get('VIT_JAX_PLUGINS', '').split(os.pathsep)):
    path = pathlib.Path(word).expanduser()
    try:
      if path.suffix == '.py':
        if not path.is_file():
          raise ConfigError(f'$VIT_JAX_PLUGINS names {word}, which is not there')
        # Importable by name, so that worker processes can unpickle what it defines.
        sys.path.append(str(path.resolve().parent))
        importlib.import_module(path.stem)
      else:
        importlib.import_module(word)
    except ConfigError:
      raise
    except Exception as e:  # whatever a user's file does wrong is reported with its line
      frames = traceback.extract_tb(e.__traceback__)
      line = next((f.lineno for f in reversed(frames) if f.filename == str(path)), None)
      where = f'{word}, line {line}' if line else word
      reason = ' '.join(str(e).split())
      raise ConfigError(f'plugin {where}: {type(e).__name__}: {reason}') from e
