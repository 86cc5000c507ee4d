"""Named weights: what they are, where they lie, and bringing them here."""

import csv
import dataclasses
import functools
import json
import os
import pathlib
import re
import shutil
from collections.abc import Iterator, Mapping

from vit_jax.errors import UserError
from vit_jax.registry import Registry
from vit_jax.weights import download
from vit_jax.weights.download import Patience, Source

# The beginnings of sources in zoo.csv.
_PLACES = {
  'vit': 'https://storage.googleapis.com/vit_models/',
  'mixer': 'https://storage.googleapis.com/mixer_models/',
  'bit': 'https://storage.googleapis.com/bit_models/',
  'fb': 'https://dl.fbaipublicfiles.com/',
  't2t': 'https://github.com/yitu-opensource/T2T-ViT/releases/download/main/',
  'pytorch': 'https://download.pytorch.org/models/',
}
_HUB = 'https://huggingface.co/{repo}/resolve/main/{file}'
_REPOSITORY_FILES = {
  'hf': ('config.json', 'preprocessor_config.json', 'model.safetensors'),
  'timm': ('config.json', 'model.safetensors'),
}


@dataclasses.dataclass(frozen=True)
class Entry:
  """Named weights.

  Args:
    name: such as 'vit_b16.i21k': a model and what it was trained on.
    model: of `vit_jax.models`.
    params_m: parameters in millions.
    classes: outputs of the head, 0 without one.
    resolution: side in pixels of the pictures, 0 where the source does not say.
    mib: size of the first source in MiB, 0 where unknown.
    accuracy: ImageNet top-1 in percent as the source states it, '' where it states none.
    licence: of the weights.
    sources: 'place:path', tried in order; hf and timm are repositories.
  """

  name: str
  model: str
  params_m: float
  classes: int
  resolution: int
  mib: int
  accuracy: str
  licence: str
  sources: tuple[str, ...]

  def record(self) -> dict:
    """What is known of the weights where a file does not say it itself."""
    from vit_jax.weights import preprocessing

    record: dict = {}
    if self.resolution:
      size = (self.resolution,) * 2
      record['preprocess'] = preprocessing.usual(self.model, '', size).to_json()
    if self.name in ('t2t_vit_7.i1k', 't2t_vit_10.i1k', 't2t_vit_12.i1k'):
      # Trained with 1 / sqrt(width) instead of 1 / sqrt(width of a head).
      record['known'] = {'query_scale': 256**-0.5}
    return record


class _Zoo(Mapping[str, Entry]):
  """The entries of zoo.csv, read when they are first needed."""

  @functools.cached_property
  def _entries(self) -> Registry[Entry]:
    registry: Registry[Entry] = Registry('weights')
    text = pathlib.Path(__file__).with_name('hub.csv').read_text()
    for row in csv.DictReader(text.splitlines()):
      numbers = {k: int(row[k] or 0) for k in ('classes', 'resolution', 'mib')}
      numbers['params_m'] = float(row['params_m'])
      sources = tuple(row['sources'].split())
      registry.add(row['name'], Entry(**{**row, **numbers, 'sources': sources}))
    return registry

  def __getitem__(self, name: str) -> Entry:
    return self._entries[name]

  def __contains__(self, name: object) -> bool:
    return name in self._entries

  def __iter__(self) -> Iterator[str]:
    return iter(self._entries)

  def __len__(self) -> int:
    return len(self._entries)


ZOO = _Zoo()


def fetch(
  name: str,
  *,
  pretrained_dir: str | pathlib.Path = '',
  cache_dir: str | pathlib.Path = '',
  patience: Patience = Patience(),
) -> pathlib.Path:
  """The local path of named weights, downloaded where they are not here yet.

  Args:
    name: one of `ZOO`.
    pretrained_dir: a folder that is searched first, for the sources' own file names.
    cache_dir: where downloads are kept; '' for the usual place.
    patience: how long to try.

  Raises:
    UserError: unknown name, or no source gave the file.
  """
  entry = ZOO[name]
  here = _search(entry, pathlib.Path(pretrained_dir)) if pretrained_dir else None
  cache = download.cache_dir(cache_dir)
  here = here or _cached(entry, cache)
  if here is not None:
    return here
  problems = []
  for source in entry.sources:
    target = cache / _local_name(entry, source)
    try:
      if _is_repository(source):
        return _fetch_repository(source, target, patience)
      return download.fetch([_source(source)], target, patience)
    except UserError as e:
      problems += e.problems
  raise UserError(
    f'{name}: no source gave the weights ({"; ".join(problems)}); put '
    f'{" or ".join(_own_name(s) for s in entry.sources)} into a folder and name it as '
    'pretrained_dir'
  )


def _is_repository(source: str) -> bool:
  return source.split(':', 1)[0] in _REPOSITORY_FILES


def _own_name(source: str) -> str:
  return source.split(':', 1)[1].rsplit('/', 1)[-1]


def _local_name(entry: Entry, source: str) -> str:
  base = entry.name.replace('/', '--')
  if _is_repository(source):
    return f'{base}.{source.split(":", 1)[0]}'
  own = _own_name(source)
  return base + next(e for e in ('.pth.tar', pathlib.Path(own).suffix) if own.endswith(e))


def _source(source: str) -> Source:
  place, path = source.split(':', 1)
  # torch.hub's file names end with the first digits of their checksum.
  digits = re.search(r'-([0-9a-f]{8})\.pth$', path)
  return Source(_PLACES[place] + path.replace('+', '%2B'), digits[1] if digits else '')


def _search(entry: Entry, folder: pathlib.Path) -> pathlib.Path | None:
  if not folder.is_dir():
    raise UserError(f'pretrained_dir {folder} is no folder')
  names = [entry.name + ending for ending in ('.npz', '.safetensors', '.pth', '')]
  for source in entry.sources:
    path = source.split(':', 1)[1]
    names += [path, _own_name(source), _local_name(entry, source)]
  return next((folder / name for name in names if (folder / name).exists()), None)


def _cached(entry: Entry, cache: pathlib.Path) -> pathlib.Path | None:
  for source in entry.sources:
    path = cache / _local_name(entry, source)
    if path.is_dir() or download.is_whole(path):
      return path
  return None


def _fetch_repository(source: str, target: pathlib.Path, patience: Patience) -> pathlib.Path:
  """Brings the files of a repository into a folder that appears when all of them are there."""
  place, repo = source.split(':', 1)
  repo = f'timm/{repo}' if place == 'timm' else repo
  making = target.with_name(f'.{target.name}.partial')
  try:
    for file in _REPOSITORY_FILES[place]:
      if not download.is_whole(making / file):
        url = _HUB.format(repo=repo, file=file)
        download.fetch([Source(url)], making / file, patience)
    json.loads((making / 'config.json').read_text())
    os.replace(making, target)
  except (UserError, ValueError) as e:
    shutil.rmtree(making, ignore_errors=True)
    raise e if isinstance(e, UserError) else UserError(f'{repo} has a broken config.json') from e
  except OSError as e:
    if not target.is_dir():  # another program was quicker otherwise
      raise UserError(f'cannot write {target}: {e.strerror or e}') from e
  return target


def table() -> str:
  """All named weights as text for a terminal."""
  rows = [('name', 'params', 'pixels', 'classes', 'MiB', 'ImageNet top-1', 'licence')]
  for entry in ZOO.values():
    rows.append(
      (
        entry.name,
        f'{entry.params_m:.1f}M',
        str(entry.resolution or ''),
        str(entry.classes or 'none'),
        str(entry.mib or ''),
        f'{entry.accuracy}%' if entry.accuracy else '',
        entry.licence,
      )
    )
  widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
  lines = ['  '.join(cell.ljust(w) for cell, w in zip(row, widths)).rstrip() for row in rows]
  return '\n'.join(lines)
