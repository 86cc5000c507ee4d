"""Which files are images, by their names; what a folder holds, and what is left out of it."""

import dataclasses
import functools
import glob
import logging
import os
import pathlib
from collections.abc import Callable, Iterable, Mapping

from vit_jax.errors import DatasetError
from vit_jax.files import refuse_system_folder

log = logging.getLogger(__name__)

# Endings, in any case, of the raster formats that `decode_image` reads in every installation.
SUFFIXES = (
  *('.jpg', '.jpeg', '.jpe', '.jfif', '.png', '.apng', '.webp', '.bmp', '.dib', '.gif'),
  *('.tif', '.tiff', '.ppm', '.pgm', '.pbm', '.pnm', '.tga'),
)


def _words(text: str, *more: str) -> frozenset[str]:
  return frozenset([*text.split(), *more])


# Those that Pillow reads where it was built so, or where a plugin is registered with it.
_OPTIONAL = _words(
  '.avif .avifs .heic .heif .hif .jp2 .j2k .j2c .jpc .jpf .jpx .jxl .jxr .mpo .qoi .psd .pcx .ico '
  '.sgi .ras .dds .exr .hdr'
)
# Files that nobody takes for images; any other ending that is left out is warned of.
_NO_IMAGES = _words(
  '.txt .csv .tsv .json .jsonl .xml .yaml .yml .toml .cfg .ini .md .rst .html .htm .css .js .pdf '
  '.doc .docx .xls .xlsx .py .pyc .ipynb .sh .bat .r .m .log .db .sqlite .zip .tar .gz .tgz .bz2 '
  '.xz .7z .rar .mp4 .mov .avi .mkv .webm .mpg .mpeg .m4v .3gp .wav .mp3 .m4a .ogg .aae .xmp .thm '
  '.lnk .url .pt .pth .onnx .safetensors .pb .names .lst .lock .md5 .sha1 .sha256 .srt .npz .pkl '
  '.license .bib .dvc .torrent'
)
# What other programs leave beside images, hidden names apart; compared in lower case.
_DROPPINGS = _words(
  '@eadir @recycle @recently-snapshot @tmp #recycle #snapshot $recycle.bin __macosx __pycache__ '
  'lost+found recycler thumbs.db ehthumbs.db ehthumbs_vista.db desktop.ini picasa.ini',
  'icon\r',
  'system volume information',
)
_OWN_PAGES = frozenset({'report.html', 'index.html', 'compare.html'})
_RUN = frozenset({'config.json', 'classes.json'})
_MOST_KINDS = 6  # that one line lists
LINKS, OUTPUTS, NOTHING = 'links that lead back', 'folders of runs and reports', 'no ending'


@dataclasses.dataclass
class LeftOut:
  """Files or folders of one kind that are passed over.

  Attributes:
    count: how many.
    folders: of those that were scanned, in which there are any.
    example: the first path by name.
  """

  count: int = 0
  folders: set[str] = dataclasses.field(default_factory=set)
  example: str = ''

  def add(self, path: str, folder: str, count: int = 1) -> None:
    """Counts one more, or several of which `path` is the first."""
    self.count += count
    self.folders.add(folder)
    self.example = min(self.example or path, path)


@dataclasses.dataclass
class Scan:
  """What folders hold.

  Attributes:
    images: paths with '/' between, sorted within each folder that was scanned.
    left_out: by ending ('.txt'), name of a folder ('@eaDir/'), LINKS, OUTPUTS or NOTHING.
    folders: names of the visible folders right within what was scanned.
  """

  images: list[str] = dataclasses.field(default_factory=list)
  left_out: dict[str, LeftOut] = dataclasses.field(default_factory=dict)
  folders: set[str] = dataclasses.field(default_factory=set)

  def leave_out(self, kind: str, path: str, folder: str, count: int = 1) -> None:
    """Counts what is passed over."""
    self.left_out.setdefault(kind, LeftOut()).add(path, folder, count)

  def add(self, other: 'Scan') -> None:
    """Takes in what another folder holds."""
    self.images += other.images
    self.folders |= other.folders
    for kind, found in other.left_out.items():
      for folder in found.folders:
        self.leave_out(kind, found.example, folder, 0)
      self.left_out[kind].count += found.count

  def __str__(self) -> str:
    """What is left out, in words; empty for nothing."""
    return _describe(self.left_out)

  def warn(self, where: str) -> None:
    """Warns of files that are left out and may well be images.

    Args:
      where: the dataset or folder.
    """
    doubtful = {k: v for k, v in self.left_out.items() if k == NOTHING or _may_be_image(k)}
    if doubtful:
      log.warning(
        '%s: left out %s: no image format that is read here by its ending; convert or rename '
        'them, or remove them', where, _describe(doubtful),
      )  # fmt: skip


def _describe(left_out: Mapping[str, LeftOut]) -> str:
  """Kinds with counts, folders and an example, the most frequent first."""
  kinds = sorted(left_out.items(), key=lambda item: (-item[1].count, item[0]))
  words = []
  for kind, found in kinds[:_MOST_KINDS]:
    where = f' in {len(found.folders):,} folders' if len(found.folders) > 1 else ''
    words.append(f'{found.count:,} {kind}{where} (such as {found.example!r})')
  others = sum(found.count for _, found in kinds[_MOST_KINDS:])
  return ', '.join([*words, f'{others:,} of other kinds'] if others else words)


def _may_be_image(kind: str) -> bool:
  return kind.startswith('.') and kind not in _NO_IMAGES


@functools.cache
def _optional_endings(count: int) -> frozenset[str]:
  """Endings of `_OPTIONAL` that Pillow reads, for so many formats that are registered with it."""
  from PIL import Image  # where there are such files at all

  return frozenset(e for e, kind in Image.registered_extensions().items() if kind in Image.OPEN)


def is_image(ending: str) -> bool:
  """Whether files of this ending, in lower case with its dot, are read as images here."""
  if ending in SUFFIXES:
    return True
  if ending not in _OPTIONAL:
    return False
  from PIL import Image

  return ending in _optional_endings(len(Image.EXTENSION))


def ending_of(name: str) -> str:
  """A file name's last dot and what follows, in lower case; empty where there is none."""
  dot = name.rfind('.')
  return name[dot:].lower() if dot > 0 else ''


def kind_of(ending: str) -> str:
  """How a file that is left out is counted: names with other dots have no ending."""
  return ending if 1 < len(ending) < 13 and not ending[1:].isdecimal() else NOTHING


def is_visible(name: str) -> bool:
  """Whether a file or folder is neither hidden nor known to be left by another program."""
  return name[0] != '.' and name.lower() not in _DROPPINGS


def entries(path: str) -> list[os.DirEntry]:
  """What lies in a folder, in the order of the file system.

  Raises:
    DatasetError: the folder cannot be read.
  """
  try:
    with os.scandir(path) as found:
      return list(found)
  except OSError as e:
    raise DatasetError(f'folder {path} cannot be read: {e.strerror or e}') from None


def is_folder(entry: os.DirEntry) -> bool:
  """Whether it is a folder, or a link to one."""
  try:
    return entry.is_dir()
  except OSError:  # a link to itself
    return False


def link_target(entry: os.DirEntry) -> str | None:
  """The real path that a link leads to; None for what is no link."""
  junction = getattr(entry, 'is_junction', bool)  # of Windows, from Python 3.12 on
  return os.path.realpath(entry.path) if entry.is_symlink() or junction() else None


def is_within(path: str, folder: str) -> bool:
  """Whether a real path is a folder's own or lies in it."""
  return path == folder or path.startswith(folder.rstrip(os.sep) + os.sep)


class _Known:
  """Real paths that are read already; nothing is resolved before the first link."""

  def __init__(self, *paths: str):
    self._paths, self._real = paths, list[str]()

  def has(self, entry: os.DirEntry) -> bool:
    """Whether it is a link into, or to a folder around, one of them; other targets are added."""
    target = link_target(entry)
    if target is None:
      return False
    self._real = self._real or [os.path.realpath(path) for path in self._paths]
    if any(is_within(target, r) or is_within(r, target) for r in self._real):
      return True
    self._real.append(target)
    return False


def scan(root: str, folder: str = '', wanted: Callable[[str], bool] = is_image) -> Scan:
  """Finds all images in and below a folder, and says what is left out.

  Hidden files and folders are passed over, and so are what other programs and this one leave (run
  folders, reports) and links to folders that are read anyway. Other links are followed.

  Args:
    root: what the paths are relative to.
    folder: relative to `root`.
    wanted: whether files of an ending are listed as images.

  Raises:
    DatasetError: a folder that cannot be read.
  """
  found = Scan()
  start = os.path.join(root, folder) if folder else root
  known = _Known(start, root)
  prefix = folder.replace(os.sep, '/').rstrip('/')
  waiting = [(start, f'{prefix}/' if prefix else '')]
  while waiting:
    path, prefix = waiting.pop()
    here = entries(path)
    own = is_output(path, here)
    if own and (folder or path != start):
      found.leave_out(OUTPUTS, prefix[:-1], folder)
      continue
    for entry in here:
      name = entry.name
      if name[0] == '.':
        continue
      if is_folder(entry):
        if not is_visible(name):
          found.leave_out(f'{name}/', prefix + name, folder)
        elif own and name == 'checkpoints':
          found.leave_out(OUTPUTS, prefix + name, folder)
        elif known.has(entry):
          found.leave_out(LINKS, prefix + name, folder)
        else:
          if path == start:
            found.folders.add(name)
          waiting.append((entry.path, f'{prefix}{name}/'))
        continue
      ending = ending_of(name)
      if wanted(ending) and _is_file(entry):
        found.images.append(prefix + name)
      elif is_visible(name):
        found.leave_out(kind_of(ending), prefix + name, folder)
  found.images.sort()
  return found


def _is_file(entry: os.DirEntry) -> bool:
  """Whether it is a file, or a link that leads to one or to nothing, which reading it will say."""
  try:
    return entry.is_file() or (entry.is_symlink() and not os.path.exists(entry.path))
  except OSError:  # a link to itself
    return True


def is_output(path: str, here: Iterable[os.DirEntry]) -> bool:
  """Whether a folder is a run's, or holds a page that this program wrote.

  Args:
    path: the folder.
    here: what lies in it.
  """
  names = {e.name for e in here if e.name.endswith(('.json', '.html'))}
  return names >= _RUN or any(_is_own_page(os.path.join(path, p)) for p in names & _OWN_PAGES)


def _is_own_page(path: str) -> bool:
  try:
    with open(path, 'rb') as f:
      start = f.read(1000)
      f.seek(max(0, os.fstat(f.fileno()).st_size - 20_000))
      # Pages of earlier versions say it before their script.
      return b'content="vit_jax"' in start or b'Made by vit_jax' in f.read()
  except OSError:
    return False


def list_files(root: str, folder: str, ending: str) -> list[str]:
  """Sorted paths of all files in and below a folder that have an ending, in any case."""
  return scan(root, folder, ending.__eq__).images


def list_images(root: str, folder: str) -> list[str]:
  """Sorted paths of all images in and below a folder, as `scan` finds them."""
  return scan(root, folder).images


def find_images(patterns: list[str]) -> list[str]:
  """Paths of the images that files, folders and globs name, in order, each once.

  Raises:
    DatasetError: a folder or glob without images. A missing file is kept: it is reported as an
      image that cannot be read.
  """
  found: list[str] = []
  empty = []
  for pattern in patterns:
    path = pathlib.Path(pattern)
    inside = Scan()
    if path.is_dir():
      refuse_system_folder(pattern)
      inside = scan(pattern)
      matches = [str(path / name) for name in inside.images]
    elif path.exists() or not glob.has_magic(pattern):
      matches = [pattern]
    else:
      matches = _matches(pattern, inside)
    if matches:
      inside.warn(pattern)
    else:
      empty.append(no_images(f'no images in {pattern}', inside.left_out))
    found += matches
  if empty:
    raise DatasetError(empty)
  return list(dict.fromkeys(found))


def _matches(pattern: str, inside: Scan) -> list[str]:
  """Images that a glob names; all of its files where none is one by its ending."""
  files = sorted(p for p in glob.glob(pattern, recursive=True) if os.path.isfile(p))
  files = [p for p in files if not _DROPPINGS & {part.lower() for part in pathlib.Path(p).parts}]
  images = [p for p in files if is_image(ending_of(os.path.basename(p)))]
  for path in set(files) - set(images) if images else ():
    inside.leave_out(kind_of(ending_of(os.path.basename(path))), path, pattern)
  return images or files


def no_images(problem: str, left_out: Mapping[str, LeftOut]) -> str:
  """The problem, with what is there instead and the endings that are read."""
  instead = f' but {_describe(left_out)}' if left_out else ''
  return f'{problem}{instead} (endings that are read: {", ".join(SUFFIXES)})'
