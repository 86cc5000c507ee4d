"""Whatever lies in a store and is only read, as a path on this machine."""

import pathlib
import re

from vit_jax import processes
from vit_jax.console import phase
from vit_jax.errors import StorageError
from vit_jax.files import is_remote
from vit_jax.remote.copying import Place, Record, fetch
from vit_jax.remote.store import Entry, Store

# What nobody reads of a run but whoever resumes it: two thirds of its bytes, and event files.
_OF_TRAINING = re.compile(r'(^|/)checkpoints/\d+/training/|(^|/)events\.out\.tfevents\.[^/]*$')


def local(text: str) -> str:
  """The path here of a dataset, a run or a weights file: a path as it is, a URL once copied.

  The copy lies in the cache folder, and what has changed in the store since the last call is
  fetched again. Of a run all is copied but what resuming alone needs; beside a file the JSON files
  that describe it. Hidden files are left out.

  Args:
    text: a path, a name or a URL.

  Raises:
    UserError: the store cannot be reached, nothing is there, or no room is here.
  """
  return _copied(text, missing='refused') if is_remote(text) else text


def copy_of(text: str) -> pathlib.Path:
  """As `local`, for a run that may not have begun: then a folder that is not there."""
  return pathlib.Path(_copied(text, missing='allowed') if is_remote(text) else text)


def address(path: str | pathlib.Path) -> str:
  """What the user calls a folder or a file: of what lies in a local copy, its URL.

  Args:
    path: as `local`, `copy_of` and `workdir` give it, or anything in it.
  """
  place = Place.around(pathlib.Path(path))
  if place is None:
    return str(path)
  return '/'.join([place.url, *pathlib.Path(path).absolute().relative_to(place.folder).parts])


def output_beside(path: str | pathlib.Path, name: str) -> str:
  """A folder for what a command on a run writes: in the run's own, or here for one in a store.

  Args:
    path: the run's folder.
    name: of the new folder.
  """
  if Place.around(pathlib.Path(path)) is None:
    return str(pathlib.Path(path) / name)
  return f'{pathlib.Path(path).name}_{name}'


def _copied(url: str, missing: str) -> str:
  place = Place(url, 'read')
  store = Store(place.url)
  with processes.busy(), place.locked():
    with phase(f'looking at {place.url}'):
      kind = store.kind()
      path = place.folder
      if kind == 'file':
        store, entries = _file_and_json(store)
        place.folder = path.parent
        path = path.with_name(place.url.rpartition('/')[2])
      else:
        entries = {name: e for name, e in store.listing().items() if _is_read(name, place.url)}
    if not entries and missing == 'refused':
      raise StorageError(f'{url}: there is nothing at this address')
    fetch(store, place, entries, Record(place.base / 'files.jsonl', place.folder))
  return str(path)


def _file_and_json(store: Store) -> tuple[Store, dict[str, Entry]]:
  """The folder of a file, and what is copied of it: the file and what may describe it."""
  folder, _, name = store.url.rpartition('/')
  beside = Store(folder)
  wanted = re.compile(rf'{re.escape(name)}(\.json)?|[a-z_]*config\.json')
  return beside, {n: e for n, e in beside.beside().items() if wanted.fullmatch(n)}


def _is_read(name: str, url: str) -> bool:
  hidden = any(part.startswith('.') for part in name.split('/'))
  return not hidden and not _OF_TRAINING.search(f'{url}/{name}')
