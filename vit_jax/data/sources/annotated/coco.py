"""COCO: annotations/instances_train2017.json with images in train2017/ or images/, or
train/_annotations.coco.json beside the images."""

import dataclasses
import json
import os
import pathlib
import posixpath
import re
import reprlib
from collections.abc import Mapping, Sequence
from typing import Any

from vit_jax.data.image_files import list_files
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
  image_size,
  number,
  read_text,
  slashed,
  stem,
  warn_of_alike,
  whole,
)
from vit_jax.data.sources.folder import SPLITS, subfolders
from vit_jax.data.splits import canonical

_BESIDE = '_annotations.coco.json'
_OTHERS = ('captions', 'keypoints', 'panoptic', 'stuff', 'image_info')  # published beside these
_LISTS = ('images', 'annotations', 'categories')


@dataclasses.dataclass(frozen=True)
class _File:
  """A json file, and the folders where its images may be."""

  path: str
  folders: tuple[str, ...]


def coco_files(root: str) -> dict[str, list[_File]]:
  """The json files of each split, '' for a file of no split; several leave open which is meant."""
  found: dict[str, list[_File]] = {}
  for split, top in split_tops(root).items():
    beside = os.path.join(root, top, _BESIDE)
    if os.path.isfile(beside):
      found[split] = [_File(beside, (top,))]
  if found:
    return found
  for path in _candidates(root):
    words = re.split(r'[_\-. ]', path.stem)
    splits = {w: name for w in words if (name := canonical(w.rstrip('0123456789'))) in SPLITS}
    split = next(iter(splits.values())) if len(splits) == 1 else ''
    names = (path.stem.removeprefix('instances_'), *splits, *splits.values())
    folders = tuple(dict.fromkeys(f for n in names for f in (n, posixpath.join('images', n))))
    folders += ('images', '')
    found.setdefault(split, []).append(_File(str(path), folders))
  best = {split: _likeliest(files) for split, files in found.items()}
  return {s: f for s, f in best.items() if s} or best


def _candidates(root: str) -> list[pathlib.Path]:
  """Json files in annotations/; else those at the top that look like COCO's."""
  within = sorted(pathlib.Path(root, 'annotations').glob('*.json'))
  if within and list_files(root, 'annotations', '.xml'):  # Pascal VOC, unless they are COCO's
    return [path for path in within if _looks_like_coco(path)]
  if within:
    return within
  inside = subfolders(root)
  tops = [os.path.join(root, name) for name in inside if canonical(name) in SPLITS]
  if 'images' not in inside and (not tops or any(map(subfolders, tops))):
    return []  # class folders, whatever the files beside them say
  return [p for p in sorted(pathlib.Path(root).glob('*.json')) if _looks_like_coco(p)]


def _looks_like_coco(path: pathlib.Path) -> bool:
  return path.is_file() and holds(path, [f'"{name}"'.encode() for name in _LISTS], least=2)


def _likeliest(files: list[_File]) -> list[_File]:
  """The files of instances where others lie beside them."""
  names = [(file, os.path.basename(file.path)) for file in files]
  instances = [file for file, name in names if name.startswith('instances')]
  return instances or [f for f, name in names if not any(o in name for o in _OTHERS)] or files


def coco_source(root: str, findings: Findings) -> Source:
  """Reads the json files of a folder."""
  images = ImageIndex(root, findings)
  splits: dict[str, list[Annotated]] = {}
  listed: set[str] = set()
  for split, (file, *others) in coco_files(root).items():
    if others:
      several = ' and '.join(os.path.basename(other.path) for other in others)
      findings.refuse(
        file.path, f'is one of several files of one split, beside {several}; leave one there'
      )
    tables = _tables(file.path, findings)
    if tables is not None:
      table = _Table(file, tables, images, findings)
      splits[split] = table.annotated()
      listed |= table.listed
  _warn_of_unlisted(root, splits, listed, images, findings)
  # Categories without an object, such as a super-category, are no classes.
  classes = sorted({o.class_ for found in splits.values() for i in found for o in i.objects})
  warn_of_alike(classes, root, findings)
  records = records_by_split(root, splits, classes, Coordinates(), findings)
  return Source('coco', tuple(classes), records, labels_per_image='both')


def _warn_of_unlisted(
  root: str,
  splits: Mapping[str, Sequence[Annotated]],
  listed: set[str],
  images: ImageIndex,
  findings: Findings,
) -> None:
  """Tells of images that lie beside annotated ones and are in no json file.

  Args:
    root: the dataset's folder.
    splits: annotated images.
    listed: stems of all images in json files.
    images: that are there.
    findings: collects what is wrong.
  """
  annotated = {image.name for found in splits.values() for image in found}
  folders = {posixpath.dirname(name) for name in annotated}
  for name in sorted(images.names - annotated):
    if posixpath.dirname(name) in folders and stem(posixpath.basename(name)) not in listed:
      findings.warn(os.path.join(root, name), 'is in no JSON file; left out')


def _tables(path: str, findings: Findings) -> dict[str, list[dict]] | None:
  """The three lists of a json file; None where it has them not, which is refused."""
  text = read_text(path, findings)
  if text is None:
    return None
  try:
    content = json.loads(text)
  except (ValueError, RecursionError) as e:
    findings.refuse(path, 'is not a COCO file: no readable JSON', str(e))
    return None
  missing = [
    name
    for name in _LISTS
    if not isinstance(content, dict)
    or not isinstance(content.get(name), list)
    or not all(isinstance(row, dict) for row in content[name])
  ]
  if missing:
    findings.refuse(
      path, f'is not a COCO file of objects: it has no list of {" and ".join(map(repr, missing))}'
    )
    return None
  return content


def _key(value: Any) -> str | None:
  """An id as it is compared: 1, 1.0 and '1' are the same."""
  if isinstance(value, str) and value.strip():
    number_ = whole(value)
    return value.strip() if number_ is None else str(number_)
  number_ = whole(value)
  return None if number_ is None else str(number_)


class _Table:
  """One json file.

  Args:
    file: its path and where its images may be.
    content: its three lists.
    images: that are there.
    findings: collects all that is wrong.

  Attributes:
    listed: stems of the files of all its images.
  """

  def __init__(
    self,
    file: _File,
    content: Mapping[str, Sequence[dict]],
    images: ImageIndex,
    findings: Findings,
  ):
    self._file, self._content, self._images, self._findings = file, content, images, findings
    self._path = file.path
    self.listed: set[str] = set()

  def annotated(self) -> list[Annotated]:
    """The images with objects, by path."""
    name_of = self._categories()
    entries = self._entries()
    found: dict[str, Annotated] = {}
    entry_of: dict[str, str] = {}
    for row in self._content['annotations']:
      place = f'{self._path} annotation {reprlib.repr(row.get("id"))}'
      if whole(row.get('iscrowd', 0)) == 1 or row.get('iscrowd') is True:
        self._findings.inform(place, 'is of a crowd, which is no object; left out')
        continue
      key, class_ = _key(row.get('image_id')), name_of.get(_key(row.get('category_id')) or '')
      if key not in entries or class_ is None:
        self._findings.refuse(
          place,
          'has no known image or category; correct its image_id and category_id or remove it',
          f'{reprlib.repr(row.get("image_id"))} and {reprlib.repr(row.get("category_id"))}',
        )
        continue
      xyxy = self._xyxy(row, place)
      name = self._image(entries[key], entry_of)
      if xyxy is None or name is None:
        continue
      entry = entries[key]
      size = image_size(entry.get('height'), entry.get('width'))
      image = found.setdefault(name, Annotated(name, [], size, place=self._place(entry)))
      image.objects.append(Object(class_, xyxy, place))
    with_objects = {_key(row.get('image_id')) for row in self._content['annotations']}
    for key, entry in entries.items():
      self.listed.add(stem(posixpath.basename(slashed(entry['file_name']))))
      if key not in with_objects:
        self._findings.inform(self._place(entry), 'has no annotated object; left out')
    return sorted(found.values(), key=lambda image: image.name)

  def _place(self, entry: Mapping[str, Any]) -> str:
    return f'{self._path} image {reprlib.repr(entry.get("id"))}'

  def _categories(self) -> dict[str, str]:
    """Class name by id."""
    found: dict[str, str] = {}
    for row in self._content['categories']:
      place = f'{self._path} category {reprlib.repr(row.get("id"))}'
      key, name = _key(row.get('id')), class_name(row.get('name'), place, self._findings)
      if key is None:
        self._findings.refuse(place, 'has no id')
      elif name is not None and found.setdefault(key, name) != name:
        self._findings.refuse(
          place, 'is there twice with different names', f'{found[key]!r} and {name!r}'
        )
    names = list(found.values())
    for name in sorted({name for name in names if names.count(name) > 1}):
      self._findings.warn(self._path, f'has two categories {name!r}; they are one class')
    return found

  def _entries(self) -> dict[str, dict]:
    """Images by id."""
    found: dict[str, dict] = {}
    for row in self._content['images']:
      key, name = _key(row.get('id')), row.get('file_name')
      if key is None or not isinstance(name, str) or not name.strip():
        self._findings.refuse(self._place(row), 'has no id or no file_name')
      elif found.setdefault(key, row)['file_name'] != name:
        self._findings.refuse(
          self._place(row),
          'is there twice with different files, so that its annotations may be of either',
          f'{found[key]["file_name"]!r} and {name!r}',
        )
    return found

  def _image(self, entry: dict, entry_of: dict[str, str]) -> str | None:
    """The path of an entry's image, looked for once; None where there is none, which is refused."""
    name = entry['file_name']
    if 'found' not in entry:
      entry['found'] = self._images.find(name, self._file.folders, self._place(entry))
      if entry['found'] is None:
        folders = ' or '.join(folder or 'the top' for folder in self._file.folders)
        self._findings.refuse(
          self._path, f'names images that are not in {folders}; add or remove them', name
        )
      elif entry_of.setdefault(entry['found'], name) != name:
        self._findings.refuse(
          self._path,
          'names two images where there is one; keep their folders',
          f'{entry_of[entry["found"]]!r} and {name!r} for {entry["found"]}',
        )
    return entry['found']

  def _xyxy(self, row: Mapping[str, Any], place: str) -> tuple[float, float, float, float] | None:
    """Corners of an object's bbox, or else of its polygons; None is refused."""
    box = row.get('bbox')
    values = [number(v) for v in box] if isinstance(box, list) else []
    numbers = [v for v in values if v is not None]
    if len(numbers) == len(values) == 4:
      x, y, w, h = numbers
      return x, y, x + w, y + h
    corners = None if box else _around(row.get('segmentation'))
    if corners is None:
      self._findings.refuse(
        place,
        'expected a bbox of 4 numbers, or polygons as segmentation; correct or remove it',
        f'bbox {reprlib.repr(box)}',
      )
    return corners


def _around(polygons: Any) -> tuple[float, float, float, float] | None:
  """Corners of the box around polygons [[x, y, x, y, ...], ...]; None where they are none."""
  if not isinstance(polygons, list) or not all(isinstance(p, list) for p in polygons):
    return None
  values = [number(v) for polygon in polygons for v in polygon]
  numbers = [v for v in values if v is not None]
  if len(numbers) < max(len(values), 6) or any(len(p) % 2 for p in polygons):
    return None
  xs = [x for p in polygons for x in map(float, p[::2])]
  ys = [y for p in polygons for y in map(float, p[1::2])]
  return min(xs), min(ys), max(xs), max(ys)
