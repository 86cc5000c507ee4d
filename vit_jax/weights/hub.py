"""Pretrained models by name: what they are, where their files are, and fetching them."""

import csv
import dataclasses
import functools
import json
import logging
import os
import pathlib
import re
import shutil

from vit_jax import download
from vit_jax.download import RetryPolicy, Source
from vit_jax.errors import ConfigError, DownloadError, StorageError, UserError, some
from vit_jax.files import cache_folder
from vit_jax.registry import Registry

log = logging.getLogger(__name__)

# The beginnings of sources in hub.csv.
_PLACES = {
  'vit': 'https://storage.googleapis.com/vit_models/',
  'mixer': 'https://storage.googleapis.com/mixer_models/',
  'bit': 'https://storage.googleapis.com/bit_models/',
  'fb': 'https://dl.fbaipublicfiles.com/',
  't2t': 'https://github.com/yitu-opensource/T2T-ViT/releases/download/main/',
  'pytorch': 'https://download.pytorch.org/models/',
}
_REPOSITORY_URL = 'https://huggingface.co/{repo}/resolve/{revision}/{file}'
_REPOSITORY_FILES = {
  'hf': ('config.json', 'preprocessor_config.json', 'model.safetensors'),
  'timm': ('config.json', 'model.safetensors'),
}


@dataclasses.dataclass(frozen=True)
class PretrainedModel:
  """A row of hub.csv.

  Args:
    name: such as 'vit_b16.i21k': a model and what it was trained on.
    model: of `vit_jax.models`.
    params_m: parameters in millions.
    classes: outputs of the head, 0 without one.
    resolution: side in pixels of the images, 0 where the source does not state it.
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


@functools.cache
def pretrained_models() -> Registry[PretrainedModel]:
  """The rows of hub.csv by name."""
  registry: Registry[PretrainedModel] = Registry('pretrained model')
  text = pathlib.Path(__file__).with_name('hub.csv').read_text('utf-8')
  for row in csv.DictReader(text.splitlines()):
    entry = PretrainedModel(
      name=row['name'],
      model=row['model'],
      params_m=float(row['params_m']),
      classes=int(row['classes'] or 0),
      resolution=int(row['resolution'] or 0),
      mib=int(row['mib'] or 0),
      accuracy=row['accuracy'],
      licence=row['licence'],
      sources=tuple(row['sources'].split()),
    )
    registry.add(entry.name, entry)
  return registry


def fetch(
  name: str,
  *,
  pretrained_dir: str | pathlib.Path = '',
  cache_dir: str | pathlib.Path = '',
  retry: RetryPolicy = RetryPolicy(),
) -> pathlib.Path:
  """The local path of a pretrained model, downloaded where it is not here yet.

  Args:
    name: one of `pretrained_models()`.
    pretrained_dir: a folder that is searched first, for the sources' own file names.
    cache_dir: where downloads are kept; '' for the usual place.
    retry: how long to try.

  Raises:
    ConfigError: unknown name, or no such folder.
    DownloadError: no source gave the file.
  """
  here = local(name, pretrained_dir=pretrained_dir, cache_dir=cache_dir)
  if here is not None:
    return here
  entry, cache = pretrained_models()[name], cache_folder(cache_dir)
  if pretrained_dir:
    log.warning(
      'pretrained_dir=%s has none of the files of %s (%s): it is downloaded; another file of that '
      'folder is given by its own name', pretrained_dir, name, some(map(_own_name, entry.sources)),
    )  # fmt: skip
  problems = []
  for source in entry.sources:
    target = cache / _local_name(entry, source)
    log.info('downloading %s into %s', name, target)
    try:
      if _is_repository(source):
        return _fetch_repository(source, target, retry)
      return download.fetch([_source(source)], target, retry)
    except DownloadError as e:
      problems += e.problems
  raise DownloadError(
    f'{name}: no source gave the weights ({"; ".join(problems)}); put '
    f'{" or ".join(_own_name(s) for s in entry.sources)} into a folder and give it as '
    'pretrained_dir'
  )


def local(
  name: str, *, pretrained_dir: str | pathlib.Path = '', cache_dir: str | pathlib.Path = ''
) -> pathlib.Path | None:
  """The path of a pretrained model that takes no download, None where it takes one.

  Args and raises as `fetch`.
  """
  entry = pretrained_models()[name]
  here = _search(entry, folder(pretrained_dir)) if pretrained_dir else None
  return here or _cached(entry, cache_folder(cache_dir))


def folder(pretrained_dir: str | pathlib.Path) -> pathlib.Path:
  """The folder that is searched before any download.

  Raises:
    ConfigError: there is no such folder.
  """
  path = pathlib.Path(pretrained_dir)
  if not path.is_dir():
    raise ConfigError(f'pretrained_dir={path} is no folder')
  return path


def _is_repository(source: str) -> bool:
  return source.split(':', 1)[0] in _REPOSITORY_FILES


def _own_name(source: str) -> str:
  return source.split(':', 1)[1].rsplit('/', 1)[-1]


def _local_name(entry: PretrainedModel, source: str) -> str:
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


def _search(entry: PretrainedModel, folder: pathlib.Path) -> pathlib.Path | None:
  names = [entry.name + ending for ending in ('.npz', '.safetensors', '.pth', '')]
  for source in entry.sources:
    path = source.split(':', 1)[1]
    names += [path, _own_name(source), _local_name(entry, source)]
  return next((folder / name for name in names if (folder / name).exists()), None)


def _cached(entry: PretrainedModel, cache: pathlib.Path) -> pathlib.Path | None:
  for source in entry.sources:
    path = cache / _local_name(entry, source)
    if _is_repository(source) and path.is_dir():
      changed = [p.name for p in sorted(path.iterdir()) if not download.is_whole(p)]
      if changed:
        log.warning('%s: %s changed since the download: remove the folder to fetch it again',
                    path, ', '.join(changed))  # fmt: skip
      return path
    if download.is_whole(path):
      return path
  return None


def _fetch_repository(source: str, target: pathlib.Path, retry: RetryPolicy) -> pathlib.Path:
  """Fetches the files of a repository into a folder that appears when all of them are there."""
  place, repo = source.split(':', 1)
  repo = f'timm/{repo}' if place == 'timm' else repo
  partial = target.with_name(f'.{target.name}.partial')
  revision = 'main'
  try:
    for file in _REPOSITORY_FILES[place]:
      if not download.is_whole(partial / file):
        url = _REPOSITORY_URL.format(repo=repo, file=file, revision=revision)
        download.fetch([Source(url)], partial / file, retry)
      # All files are of the revision that 'main' was when the first one came.
      revision = download.recorded(partial / file).get('revision') or revision
    json.loads((partial / 'config.json').read_text('utf-8'))
    os.replace(partial, target)
  except UserError:
    shutil.rmtree(partial, ignore_errors=True)
    raise
  except ValueError as e:
    shutil.rmtree(partial, ignore_errors=True)
    raise DownloadError(f'{repo} has a broken config.json') from e
  except OSError as e:
    if not target.is_dir():  # otherwise another program was quicker
      raise StorageError(f'cannot write {target}: {e.strerror or e}') from e
  return target


_COLUMNS = ('name', 'params', 'pixels', 'classes', 'MiB', 'ImageNet top-1', 'licence')


def _cells(entry: PretrainedModel) -> tuple[str, ...]:
  return (
    entry.name,
    f'{entry.params_m:.1f}M',
    str(entry.resolution or ''),
    str(entry.classes or 'none'),
    str(entry.mib or ''),
    f'{entry.accuracy}%' if entry.accuracy else '',
    entry.licence,
  )


def table() -> str:
  """All pretrained models as text for a terminal."""
  rows = [_COLUMNS, *map(_cells, pretrained_models().values())]
  widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
  lines = ['  '.join(cell.ljust(w) for cell, w in zip(row, widths)).rstrip() for row in rows]
  return '\n'.join(lines)


# Families of models by the beginning of their names; the first that fits.
_FAMILIES = {
  'deit3_': 'DeiT III',
  'deit_': 'DeiT',
  'cait_': 'CaiT',
  't2t_vit_': 'T2T-ViT',
  'mixer_': 'MLP-Mixer',
  'bit_': 'BiT',
  'resnet': 'ResNet',
  'mobilenet': 'MobileNetV2',
  'vit_': 'ViT',
  'r': 'Hybrids: a ResNet before a ViT',
}
_HEADING = """\
# Model zoo

Pretrained models by name, for `--config.init_from=NAME` and wherever a command takes MODEL:
`python -m vit_jax.predict vit_s16.augreg_i21k_i1k_224 photo.jpg`. A name is a model and what it
was trained on, in order: `i21k` ImageNet-21k, `i1k` ImageNet-1k, then the side of the images where
several were published.

Downloads are kept in `$VIT_JAX_CACHE` (default `~/.cache/vit_jax`) and verified;
`--config.pretrained_dir=FOLDER`, or `--pretrained_dir=FOLDER` of the commands, is searched first.
Top-1 accuracy on ImageNet and size are as the source states them; an empty cell was not stated.
Licences are of the weights. Parameters include the head of the given number of classes. [How to
choose](choosing.md); models without pretrained weights are in [the options](options.md#model).

This page is made by `python -m vit_jax.convert --list=markdown > docs/models.md`, not by hand.
"""


def markdown() -> str:
  """All pretrained models as a page, by family, each with the first of its sources."""
  parts = [_HEADING]
  rows: dict[str, list[str]] = {title: [] for title in ('ViT', *_FAMILIES.values())}
  for entry in pretrained_models().values():
    family = next(t for start, t in _FAMILIES.items() if entry.model.startswith(start))
    name, *cells = _cells(entry)
    source = f'[{entry.sources[0].split(":")[0]}]({_address(entry.sources[0])})'
    rows[family].append(f'| `{name}` | {source} | {" | ".join(cells)} |')
  for family, lines in rows.items():
    head = f'| name | source | {" | ".join(_COLUMNS[1:])} |\n|---|---|---:|---:|---:|---:|---:|---|'
    parts.append('\n'.join([f'## {family}', '', head, *lines, '']))
  return '\n'.join(parts).rstrip('\n')


def _address(source: str) -> str:
  """Where a source may be looked at: a file, or the page of a repository."""
  if not _is_repository(source):
    return _source(source).url
  place, repo = source.split(':', 1)
  return f'https://huggingface.co/{"timm/" if place == "timm" else ""}{repo}'
