"""YOLO: images/NAME.jpg and labels/NAME.txt with lines 'class cx cy w h', classes in data.yaml.

Splits are those that data.yaml names as folders, text files or lists of them, and the folders
{train,val,test}/images or images/{train,val,test}; without both, the lists {train,val,test}.txt.
"""

import os
import posixpath
import reprlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from vit_jax.data.image_files import list_files, list_images
from vit_jax.data.records import Source
from vit_jax.data.sources.annotated.findings import Findings
from vit_jax.data.sources.annotated.objects import (
  Annotated,
  Coordinates,
  Object,
  records_by_split,
  split_tops,
)
from vit_jax.data.sources.annotated.reading import (
  ImageIndex,
  class_name,
  holds,
  number,
  read_text,
  slashed,
  stem,
  warn_of_alike,
  whole,
)
from vit_jax.data.sources.folder import SPLITS, subfolders
from vit_jax.data.splits import canonical

_ENDINGS = ('.yaml', '.yml')
_YAML = tuple(name + ending for name in ('data', 'dataset') for ending in _ENDINGS)
_CLASSES = ('classes.txt', posixpath.join('labels', 'classes.txt'))
_SLACK = 1e-3  # by which numbers may leave 0 to 1
Settings = Mapping[str, Any]


def yolo_source(root: str, findings: Findings) -> Source:
  """Reads all label files of a folder."""
  path = yaml_file(root)
  place = path or root
  settings: Settings = {}
  if path is None:
    name_of = _classes_of_text(root, findings)
  else:
    settings = _settings(path, findings)
    name_of = _classes(settings, path, findings) if settings else {}
  images = ImageIndex(root, findings)
  splits = _splits(root, settings, place, images, findings)
  labels = _LabelFiles(root, name_of, findings)
  annotated = {
    split: [image for name in names if (image := labels.image(name)) is not None]
    for split, names in splits.items()
  }
  labels.warn_of_unused(images.names)
  warn_of_alike(name_of.values(), place, findings)
  classes = tuple(name_of.values())
  records = records_by_split(root, annotated, classes, Coordinates(relative=True), findings)
  return Source('yolo', classes, records, labels_per_image='both')


def yaml_file(root: str) -> str | None:
  """The file that names classes and splits: data.yaml, or the only other one with names."""
  for name in _YAML:
    if os.path.isfile(os.path.join(root, name)):
      return os.path.join(root, name)
  others = [os.path.join(root, n) for n in os.listdir(root) if n.lower().endswith(_ENDINGS)]
  with_names = [p for p in others if os.path.isfile(p) and holds(p, [b'names:'], 1)]
  return with_names[0] if len(with_names) == 1 else None


def _settings(path: str, findings: Findings) -> Settings:
  """What a yaml file says, every scalar as it is written: 'no' is a name. {} if it is refused."""
  text = read_text(path, findings)
  if text is None:
    return {}
  import yaml  # only these datasets need it

  class Loader(yaml.BaseLoader):
    """Refuses a key that stands twice, of which yaml itself takes the last."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict:
      keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
      if len(set(keys)) < len(keys):
        twice = next(key for key in keys if keys.count(key) > 1)
        raise yaml.constructor.ConstructorError(None, None, f'key {twice!r} twice', node.start_mark)
      return super().construct_mapping(node, deep)

  try:
    settings = yaml.load(text, Loader)
  except (yaml.YAMLError, ValueError, TypeError, RecursionError) as e:
    findings.refuse(path, 'is not readable YAML', ' '.join(str(e).split()))
    return {}
  if not isinstance(settings, dict) or not settings:
    findings.refuse(path, "has no readable list 'names' of classes")
    return {}
  return settings


# Classes.


def _classes(settings: Settings, place: str, findings: Findings) -> dict[int, str]:
  """Class name by the number that label files have for it."""
  names = settings.get('names')
  if isinstance(names, dict):
    numbers = [n for key in names if (n := whole(key)) is not None and n >= 0]
    if len(numbers) < len(names):
      findings.refuse(
        place, "'names' must have numbers from 0 on before the names", reprlib.repr(list(names))
      )
      return {}
    pairs = sorted(zip(numbers, names.values()), key=lambda pair: pair[0])
  elif isinstance(names, list) and names:
    pairs = list(enumerate(names))
  else:
    findings.refuse(
      place,
      "has no readable list 'names' of classes; write names: [cat, dog]",
      f'names: {reprlib.repr(names)}' if names else '',
    )
    return {}
  found = _distinct(pairs, place, findings)
  count = whole(settings.get('nc'))
  if count is not None and count != len(pairs):
    findings.refuse(place, f"'nc' is {count}, but 'names' has {len(pairs)} names; correct one")
  return found


def _classes_of_text(root: str, findings: Findings) -> dict[int, str]:
  """Class names of a text file, one a line."""
  path = next((p for name in _CLASSES if os.path.isfile(p := os.path.join(root, name))), None)
  if path is None:
    findings.refuse(
      f'dataset {root} (yolo)', 'names no classes; expected data.yaml or classes.txt in it'
    )
    return {}
  text = read_text(path, findings)
  if text is None:
    return {}
  lines = text.rstrip().splitlines()
  if not lines:
    findings.refuse(path, 'names no classes; expected one a line')
  return _distinct(list(enumerate(lines)), path, findings)


def _distinct(pairs: Sequence[tuple[int, Any]], place: str, findings: Findings) -> dict[int, str]:
  """Class name by number; {} where a name or number stands twice or is none, which is refused."""
  found: dict[int, str] = {}
  for key, value in pairs:
    name = class_name(value, place, findings)
    if name in found.values():
      findings.refuse(place, f'names the class {name!r} twice; give each class one name and number')
    elif key in found:
      findings.refuse(place, f'has two names for the class number {key}')
    elif name is not None:
      found[key] = name
  return found if len(found) == len(pairs) else {}


# Splits.


def _splits(
  root: str, settings: Settings, place: str, images: ImageIndex, findings: Findings
) -> dict[str, list[str]]:
  """Paths of images by split; '' where there are no splits."""
  folders = _split_folders(root)
  entries = {
    canonical(key): value
    for key, value in settings.items()
    if isinstance(key, str) and canonical(key) in SPLITS and value not in ('', 'null', '~')
  }
  if not entries:
    lists = {split: path for split in SPLITS if (path := _list_of(root, split)) is not None}
    if lists and set(folders) <= {''}:
      return {split: _listed(root, path, images, findings) for split, path in lists.items()}
    return {split: _below(root, paths) for split, paths in folders.items()}
  found: dict[str, list[str]] = {}
  for split in (split for split in SPLITS if split in entries):
    names = _named(root, settings, entries[split], images, findings)
    if not names and split in folders:
      cause = (
        f'names no images for {split!r} that are there; those in {folders[split][0]} are taken'
      )
      findings.warn(place, cause)
      names = _below(root, folders[split])
    elif not names:
      cause = f'names no images for {split!r} that are there; correct the path or remove it'
      if split == 'test':  # exports without test images name them nevertheless
        findings.warn(place, cause)
      else:
        findings.refuse(place, cause, reprlib.repr(entries[split]))
    found[split] = names
  by_folder = {s: _below(root, folders[s]) for s in SPLITS if s in folders and s not in entries}
  return found | by_folder


def _split_folders(root: str) -> dict[str, list[str]]:
  """Folders of images by split, by their names alone."""
  if os.path.isdir(os.path.join(root, 'images')):
    within: dict[str, list[str]] = {}
    for name in subfolders(os.path.join(root, 'images')):
      split = canonical(name.rstrip('0123456789'))
      within.setdefault(split, []).append(posixpath.join('images', name))
    return {split: within[split] for split in SPLITS if split in within} or {'': ['images']}
  tops = split_tops(root).items()
  found = {split: [posixpath.join(top, 'images')] for split, top in tops if top}
  return {s: p for s, p in found.items() if os.path.isdir(os.path.join(root, p[0]))}


def _below(root: str, folders: Sequence[str]) -> list[str]:
  return [name for folder in folders for name in list_images(root, folder)]


def _list_of(root: str, split: str) -> str | None:
  """A list of a split's images, beside the folders."""
  others = {'val': ('valid', 'validation')}.get(split, ())
  for name in (split, *others):
    for path in (f'{name}.txt', f'autosplit_{name}.txt'):
      if os.path.isfile(os.path.join(root, path)):
        return path
  return None


def _named(
  root: str, settings: Settings, value: Any, images: ImageIndex, findings: Findings
) -> list[str]:
  """Images that an entry of the yaml file names; none where one of its paths is not there."""
  found: list[str] = []
  for path in value if isinstance(value, list) else [value]:
    inside = _inside(root, settings.get('path'), path) if isinstance(path, str) else None
    if inside is None:
      return []
    if os.path.isdir(os.path.join(root, inside)):
      found += list_images(root, inside)
    else:
      found += _listed(root, inside, images, findings)
  return list(dict.fromkeys(found))


def _inside(root: str, base: Any, path: str) -> str | None:
  """Where a path of the yaml file, perhaps of another machine, lies below the dataset's folder."""
  if isinstance(base, str) and not slashed(path).startswith(slashed(base)):
    path = posixpath.join(slashed(base), slashed(path))
  parts = slashed(path).split('/')
  for start in range(len(parts)):
    tail = '/'.join(parts[start:])
    whole_path = os.path.join(root, tail)
    if tail and (os.path.isdir(whole_path) or tail.endswith('.txt') and os.path.isfile(whole_path)):
      return tail
  return None


def _listed(root: str, path: str, images: ImageIndex, findings: Findings) -> list[str]:
  """Images that the lines of a text file name."""
  place = os.path.join(root, path)
  found = []
  for row, line in enumerate((read_text(place, findings) or '').splitlines(), start=1):
    if line.strip():
      where = f'{place} line {row}'
      name = images.find(line.strip(), ['', posixpath.dirname(path), 'images'], where)
      if name is None:
        findings.warn(where, 'names an image that is not there; left out')
      else:
        found.append(name)
  return list(dict.fromkeys(found))


# Label files.


class _LabelFiles:
  """The label files of a dataset, each of the image with its path and 'labels' for 'images'.

  Args:
    root: the dataset's folder.
    name_of: class name by number.
    findings: collects all that is wrong.
  """

  def __init__(self, root: str, name_of: Mapping[int, str], findings: Findings):
    self._root, self._name_of, self._findings = root, name_of, findings
    self._files = {
      stem(path): path
      for path in list_files(root, '', '.txt')
      if 'labels' in path.split('/')[:-1] and posixpath.basename(path) != 'classes.txt'
    }
    self._image_of: dict[str, str] = {}
    self._read: dict[str, Annotated | None] = {}

  def image(self, name: str) -> Annotated | None:
    """An image with its objects; None without any."""
    if name not in self._read:
      self._read[name] = self._annotated(name)
    return self._read[name]

  def _annotated(self, name: str) -> Annotated | None:
    key = _label_stem(name)
    path = self._files.get(key)
    image_path = os.path.join(self._root, name)
    if path is None:
      self._findings.warn(image_path, 'has no label file and counts as without object; left out')
      return None
    if self._image_of.setdefault(key, name) != name:
      self._findings.refuse(
        os.path.join(self._root, path),
        'could be of several images of the same name; rename one of them with its labels',
        f'{self._image_of[key]} and {name}',
      )
    objects = self._objects(os.path.join(self._root, path))
    if not objects:
      self._findings.inform(image_path, 'has no object in its label file; left out')
      return None
    return Annotated(name, objects, place=os.path.join(self._root, path))

  def _objects(self, path: str) -> list[Object]:
    objects = []
    for row, line in enumerate((read_text(path, self._findings) or '').splitlines(), start=1):
      if line.strip():
        object_ = self._object(line, f'{path} line {row}')
        if object_ is not None:
          objects.append(object_)
    return objects

  def _object(self, line: str, place: str) -> Object | None:
    first, *rest = line.split()
    label, values = whole(first), [number(text) for text in rest]
    numbers = [v for v in values if v is not None]
    if label is None or len(numbers) < len(values) or ',' in line:
      cause = "expected 'class cx cy w h' with spaces between and decimal points"
    elif len(numbers) != 4:
      cause = f'expected 4 numbers from 0 to 1 after the class{_other_content(len(numbers))}'
    elif min(numbers) < -_SLACK or max(numbers) > 1 + _SLACK:
      cause = 'expected 4 numbers from 0 to 1, as fractions of width and height, not pixels'
    elif label not in self._name_of:
      known = sorted(self._name_of)
      if not known:
        return None  # the classes are refused already
      there = f'are {len(known)} classes, from {known[0]} to {known[-1]}'
      cause = f'class {label}, but there {there if len(known) > 1 else f"is 1 class, {known[0]}"}'
    else:
      cx, cy, w, h = numbers
      corners = (cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2)
      return Object(self._name_of[label], corners, place)
    self._findings.refuse(place, cause, repr(line.strip()))
    return None

  def warn_of_unused(self, names: Iterable[str]) -> None:
    """Tells of label files that no split has used, given all images that are there."""
    there = {_label_stem(name): name for name in names}
    for key in sorted(self._files.keys() - self._image_of.keys()):
      if key in there:
        path, cause = there[key], 'is in none of the splits although it has a label file; left out'
      else:
        path, cause = self._files[key], 'has no image of its name; left out'
      self._findings.warn(os.path.join(self._root, path), cause)


def _label_stem(image_name: str) -> str:
  return stem(_swapped(image_name, 'images', 'labels'))


def _swapped(path: str, old: str, new: str) -> str:
  """The path with the last folder of one name replaced by another's."""
  parts = path.split('/')
  at = max((i for i, part in enumerate(parts[:-1]) if part == old), default=None)
  return path if at is None else '/'.join([*parts[:at], new, *parts[at + 1 :]])


def _other_content(count: int) -> str:
  """What a line with so many numbers may be instead."""
  if count == 5:
    return '; a fifth may be a confidence: remove it'
  if count >= 6:
    return '; more may be a polygon or keypoints: write boxes'
  return ''
