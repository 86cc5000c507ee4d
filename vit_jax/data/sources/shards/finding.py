"""Which tar files make up a dataset, and which of them lie in which split."""

import contextlib
import glob
import itertools
import logging
import os
import pathlib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence

from vit_jax.data.image_files import Scan, ending_of, is_folder, is_image, is_visible, scan
from vit_jax.data.sources.layout import SPLITS
from vit_jax.data.splits import canonical
from vit_jax.errors import DatasetError, counted, some
from vit_jax.files import read_json

log = logging.getLogger(__name__)

TAR = '.tar'
_BRACES = re.compile(r'\{(?:(\d+)\.\.(\d+)|([^{}]*,[^{}]*))\}', re.ASCII)
_MOST_FILES = 100_000  # that a pattern stands for
_NUMBERED = re.compile(r'(.*?)(\d+)(-of-\d+)?(\D*)', re.ASCII)
_NAMED = 3
_DEPTH, _FOLDERS, _ENTRIES = 3, 10, 5000  # how much is looked at to tell what a folder is
_LOOSE = 3  # so many images beside tar files are no dataset of images


def holds_tar_files(root: str, depth: int = _DEPTH) -> bool:
  """Whether a folder is a dataset of tar files: it or its folders hold some, and few images.

  Images in one folder beside tar files are samples of them; in several they are classes or splits.
  """
  folders, tars, images = _glance(root)
  if images > max(tars, _LOOSE if tars else 0):
    return False
  below = [os.path.join(root, folder) for folder in folders]
  if not tars:
    splits = [path for path in below if canonical(os.path.basename(path)) in SPLITS]
    holding = [path for path in splits or below if depth > 0 and holds_tar_files(path, depth - 1)]
    if not holding:
      return False
    below = [path for path in below if path not in holding]
  return sum(_holds_images(path, depth) for path in below) < 2


def _holds_images(path: str, depth: int) -> bool:
  folders, _, images = _glance(path)
  below = (os.path.join(path, folder) for folder in folders)
  return bool(images) or (depth > 0 and any(_holds_images(f, depth - 1) for f in below))


def _glance(path: str) -> tuple[list[str], int, int]:
  """The first folders in a folder, and how many tar files and images are among its first files."""
  try:
    with os.scandir(path) as found:
      here = [e for e in itertools.islice(found, _ENTRIES) if is_visible(e.name)]
  except OSError:
    return [], 0, 0
  folders = sorted(entry.name for entry in here if is_folder(entry))
  files = [ending_of(entry.name) for entry in here if not is_folder(entry)]
  return folders[:_FOLDERS], files.count(TAR), sum(map(is_image, files))


def tar_files(root: str) -> Scan:
  """All tar files in and below a folder as a scan's images, and what else lies there."""
  return scan(root, '', TAR.__eq__)


def is_pattern(name: str) -> bool:
  """Whether a name is a pattern of tar files, such as 'data/train-{0000..0146}.tar'."""
  return ending_of(name) == TAR and bool(_BRACES.search(name) or glob.has_magic(name))


def expand(pattern: str) -> tuple[str, list[str]] | None:
  """The tar files that a pattern such as 'data/train-{0000..0146}.tar' or 'data/*.tar' names.

  Braces hold a range or a list ('{train,val}').

  Returns:
    Their folder and their names in it; None for what is no such pattern.

  Raises:
    DatasetError: files of a range that are missing, a pattern without files or with too many.
  """
  pattern = os.path.expanduser(pattern)
  if not is_pattern(pattern):
    return None
  names = _expanded(pattern)
  found = {name: _files(name) for name in names}
  missing = [name for name in names if not found[name]]
  if missing:
    count = counted(len(names), 'file')
    raise DatasetError(
      f'dataset {pattern}: {len(missing):,} of {count} missing: {some(missing, 3)}'
      if len(names) > 1
      else f'dataset {pattern}: there is no such file'
    )
  paths = list(dict.fromkeys(itertools.chain.from_iterable(found.values())))
  try:
    root = os.path.commonpath([os.path.dirname(path) for path in paths]) or '.'
  except ValueError:
    raise DatasetError(f'dataset {pattern}: expected files below one folder') from None
  return root, [pathlib.Path(os.path.relpath(path, root)).as_posix() for path in paths]


def _files(name: str) -> list[str]:
  if os.path.isfile(name) or not glob.has_magic(name):
    return [name] * os.path.isfile(name)
  return sorted(path for path in glob.glob(name, recursive=True) if os.path.isfile(path))


def _expanded(pattern: str) -> list[str]:
  """The pattern for each number of its ranges and each name of its lists, as a shell does."""
  names = ['']
  end = 0
  for match in _BRACES.finditer(pattern):
    first, last, listed = match.groups()
    parts: Iterable[str] = listed.split(',') if listed else _numbers(first, last)
    count = listed.count(',') + 1 if listed else abs(int(last) - int(first)) + 1
    if len(names) * count > _MOST_FILES:
      raise DatasetError(f'dataset {pattern} stands for more than {_MOST_FILES:,} files')
    before, end = pattern[end : match.start()], match.end()
    names = [f'{name}{before}{part}' for name, part in itertools.product(names, parts)]
  return list(dict.fromkeys(name + pattern[end:] for name in names))


def _numbers(first: str, last: str) -> Iterator[str]:
  """The numbers from one to another, with as many digits as these where one begins with a zero."""
  padded = any(len(text) > 1 and text[0] == '0' for text in (first, last))
  width = max(len(first), len(last)) if padded else 0
  step = 1 if int(first) <= int(last) else -1
  return (f'{number:0{width}}' for number in range(int(first), int(last) + step, step))


def splits_of(root: str, files: Sequence[str]) -> list[str]:
  """The split of each tar file, which a folder names, or a word of its name or of a folder's.

  Args:
    root: the dataset's folder.
    files: paths with '/' between.

  Returns:
    The splits; '' for all where none is named, or by a word of some alone ('bullet_train.tar').

  Raises:
    DatasetError: some name a split and others do not.
  """
  splits = [split_of(file) for file in files]
  without = [file for file, split in zip(files, splits, strict=True) if not split]
  named = [f for f, split in zip(files, splits, strict=True) if split and _is_clear(f)]
  if not without or not named:
    return [''] * len(files) if without else splits
  raise DatasetError(
    f'dataset {root}: {named[0]} names its split and {some(without, 3)} '
    f'{"does" if len(without) == 1 else "do"} not; expected names such as train-0000.tar and '
    'val-0000.tar, or the folders train/ and val/'
  )


def split_of(file: str) -> str:
  """The split that a tar file's path names; '' for none, or several."""
  *folders, name = file.split('/')
  for folder in reversed(folders):
    if canonical(folder) in SPLITS:
      return canonical(folder)
  for part in (name[: -len(TAR)], *reversed(folders)):
    named = {canonical(word) for word in re.findall('[A-Za-z]+', part)}.intersection(SPLITS)
    if named:
      return named.pop() if len(named) == 1 else ''
  return ''


def _is_clear(file: str) -> bool:
  """Whether a path that names a split could name nothing else, as a class's name could."""
  *folders, name = file.split('/')
  words = {canonical(word) for word in re.findall('[A-Za-z]+', name)} - {'tar', 'of'}
  return bool(words <= {*SPLITS} or re.search(r'\d', name) or split_of(name) == '')


def warn_of_missing(root: str, files: Sequence[str]) -> None:
  """Warns where numbers of tar files have gaps, or a list beside them has more than are there."""
  series: dict[tuple[str, str], dict[int, str]] = {}
  stated: dict[tuple[str, str], int] = {}
  for file in files:
    match = _NUMBERED.fullmatch(file)
    if match:
      before, number, total, after = match.groups()
      series.setdefault((before, f'{total or ""}{after}'), {})[int(number)] = file
      told = int(total.rpartition('-')[2]) if total else _stated(root, before)
      stated[before, f'{total or ""}{after}'] = told
  count, missing = 0, list[str]()
  for (before, after), found in series.items():
    told, first = stated[before, after], min(found)
    last = max([*found, told - 1])
    gaps = last + 1 - first - len(found)
    if gaps > 0 and (told or gaps <= len(found)):  # dates and the like are no series
      width = len(next(iter(found.values()))) - len(before) - len(after)
      absent = (k for k in range(first, last + 1) if k not in found)
      missing += [f'{before}{k:0{width}}{after}' for k in itertools.islice(absent, _NAMED)]
      count += gaps
  listed = [name for name in _listed(root) if name not in {*files, *missing}]
  if count or listed:
    log.warning(
      'dataset %s: %s may be missing: %s', root,
      counted(max(count, len(listed)), 'tar file'), some([*missing, *listed], _NAMED),
    )  # fmt: skip


def _stated(root: str, before: str) -> int:
  """How many tar files there are of a folder, which nshards.txt says beside them; else 0."""
  with contextlib.suppress(OSError, ValueError):
    return int(pathlib.Path(root, os.path.dirname(before), 'nshards.txt').read_text('utf-8'))
  return 0


def _listed(root: str) -> list[str]:
  """The tar files that a list of timm's names, _info.json."""
  info = read_json(os.path.join(root, '_info.json'))
  splits = info.get('splits') if isinstance(info, Mapping) else None
  values = splits.values() if isinstance(splits, Mapping) else ()
  lists = [value.get('filenames') for value in values if isinstance(value, Mapping)]
  return [str(name) for names in lists if isinstance(names, list) for name in names]
