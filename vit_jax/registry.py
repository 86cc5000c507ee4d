"""Tables from names to things: a new thing is one file that registers itself."""

import importlib
import os
import pathlib
import pkgutil
import sys
import threading
import traceback
import types
from collections.abc import Callable, Iterator, Mapping
from typing import Generic, TypeVar

from vit_jax.errors import ConfigError, did_you_mean

T = TypeVar('T')
Entry = TypeVar('Entry')

_plugins_loaded = False
_loading = threading.RLock()


class Registry(Mapping[str, T], Generic[T]):
  """Names to entries; a lookup that fails says the nearest names.

  The files of a package register their entries when they are imported, which the first lookup
  sees to; so do the files that $VIT_JAX_PLUGINS names (paths or modules, separated as in $PATH).

  Args:
    kind: what the entries are, for messages ('model', 'optimizer').
    package: whose files hold entries, such as 'vit_jax.models'; '' for none.
    ours: makes of another program's name the one that it may have here, for messages.
  """

  def __init__(self, kind: str, package: str = '', ours: Callable[[str], str] = str):
    self.kind = kind
    self._ours = ours
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
    with _loading:  # other threads wait for all of it; the files themselves may look things up
      if not self._loaded:
        self._loaded = True
        package = importlib.import_module(self._package)
        for module in sorted(pkgutil.iter_modules(package.__path__), key=lambda m: m.name):
          importlib.import_module(f'{self._package}.{module.name}')
      load_plugins()

  def __getitem__(self, name: str) -> T:
    self._load()
    if name not in self._entries:
      meant = ours if (ours := self._ours(name)) in self._entries else name
      raise ConfigError(f'unknown {self.kind} {name!r}: {did_you_mean(meant, self._entries)}')
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
    path, name = pathlib.Path(word).expanduser().resolve(), word
    if path.suffix == '.py':
      if not path.is_file():
        raise ConfigError(f'$VIT_JAX_PLUGINS names {word}, which is not there')
      # Importable by name, so that worker processes can unpickle what it defines.
      sys.path.append(str(path.parent))
      name = path.stem
    found = getattr(_import_plugin(word, name), '__file__', None)
    if found is None or (name != word and pathlib.Path(found).resolve() != path):
      other = found or 'built in, or a folder'
      raise ConfigError(f'plugin {word}: Python has another module {name!r} ({other}): rename it')


def _import_plugin(word: str, name: str) -> types.ModuleType:
  try:
    return importlib.import_module(name)
  except ConfigError:
    raise
  except Exception as e:  # whatever a user's file does wrong is reported with its line
    line = _line_of(e)
    where = f'{word}, line {line}' if line else word
    reason = ' '.join(str(e).split())
    raise ConfigError(f'plugin {where}: {type(e).__name__}: {reason}') from e


def _line_of(error: Exception) -> int | None:
  """Where the imported file failed: the innermost of its lines."""
  frames = [
    frame
    for frame in traceback.extract_tb(error.__traceback__)
    if frame.filename not in (__file__, importlib.__file__) and frame.filename[0] != '<'
  ]
  if frames:
    return next(f.lineno for f in reversed(frames) if f.filename == frames[0].filename)
  return error.lineno if isinstance(error, SyntaxError) else None
