"""Pictures with one box each: YOLO text files, COCO json, Pascal VOC xml.

Each example has 'box' float32 `[4]` (centre x, centre y, width, height as shares of the picture)
and 'has_box', False where only the class is known. Of several objects in a picture the largest
counts for the box and the class; 'kinds' are the classes of all. A picture without any object, and
without a class folder, is left out.
"""

import dataclasses
import json
import os
import pathlib
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable

import numpy as np

from vit_jax.data import boxes
from vit_jax.data.image_files import list_images
from vit_jax.data.records import FileRecords, Source
from vit_jax.data.sources.folder import SPLITS, subfolders
from vit_jax.data.splits import canonical
from vit_jax.errors import UserError

_MOST = 20  # problems told at once


@dataclasses.dataclass
class _Object:
  """One object: its class by name or number, and its box."""

  kind: str | int
  cxcywh: np.ndarray

  @property
  def area(self) -> float:
    return float(self.cxcywh[2] * self.cxcywh[3])


def annotated_kind(root: str) -> str | None:
  """'yolo', 'coco' or 'voc' for a folder with boxes; None for any other."""
  names = set(os.listdir(root))
  tops = _split_tops(root)
  if any({'images', 'labels'} <= set(os.listdir(os.path.join(root, t))) for t in tops.values()):
    return 'yolo'
  if _coco_files(root):
    return 'coco'
  if {'annotations', 'images'} <= names or {'Annotations', 'JPEGImages'} <= names:
    return 'voc'
  return None


def annotated_source(root: str, kind: str) -> Source:
  """Reads all annotations of a folder with boxes.

  Raises:
    UserError: every annotation that cannot be read, by file and line.
  """
  read: dict[str, Callable[[str, list[str]], Source | None]] = {
    'yolo': _yolo,
    'coco': _coco,
    'voc': _voc,
  }
  problems: list[str] = []
  source = read[kind](root, problems)
  if problems:
    more = [f'and {len(problems) - _MOST} more'] if len(problems) > _MOST else []
    raise UserError(problems[:_MOST] + more)
  if source is None or not any(len(r) for r in source.records.values()):
    raise UserError(f'dataset {root} ({kind}): no annotated pictures')
  return source


def _split_tops(root: str) -> dict[str, str]:
  """Folder by split name; {'': ''} where there are no split folders."""
  tops = {canonical(name): name for name in subfolders(root) if canonical(name) in SPLITS}
  return {split: tops[split] for split in SPLITS if split in tops} or {'': ''}


def _records(root: str, found: list[tuple[str, int, _Object | None, set[int]]]) -> FileRecords:
  """Records of (file, label, largest object, labels of all objects)."""
  cxcywh = np.zeros((len(found), 4), np.float32)
  kinds = np.full((len(found), max((len(k) for *_, k in found), default=0)), -1, np.int32)
  for row, (_, _, thing, labels) in enumerate(found):
    if thing is not None:
      cxcywh[row] = thing.cxcywh
    kinds[row, : len(labels)] = sorted(labels)
  has_box = np.array([thing is not None for _, _, thing, _ in found], bool)
  extra = {'box': cxcywh, 'has_box': has_box, 'kinds': kinds}
  return FileRecords(root, [name for name, *_ in found], [label for _, label, *_ in found], extra)


# YOLO: {split}/images/NAME.jpg and {split}/labels/NAME.txt with lines 'class cx cy w h'.


def _yolo(root: str, problems: list[str]) -> Source | None:
  classes = _yolo_classes(root)
  records = {}
  for split, top in _split_tops(root).items():
    if not os.path.isdir(os.path.join(root, top, 'images')):
      continue
    found = []
    for name in list_images(root, os.path.join(top, 'images')):
      inside = pathlib.PurePosixPath(name).relative_to(pathlib.PurePosixPath(top, 'images'))
      path = os.path.join(root, top, 'labels', inside.with_suffix('.txt'))
      things = _yolo_objects(path, len(classes), problems) if os.path.isfile(path) else []
      if things:
        largest = max(things, key=lambda t: t.area)
        found.append((name, int(largest.kind), largest, {int(t.kind) for t in things}))
    records[split] = _records(root, found)
  return Source('yolo', tuple(classes), records, classes_each='both')


def _yolo_classes(root: str) -> list[str]:
  for name in ('data.yaml', 'data.yml', 'dataset.yaml'):
    path = os.path.join(root, name)
    if os.path.isfile(path):
      import yaml

      try:
        with open(path) as f:
          names = yaml.safe_load(f)['names']
      except (yaml.YAMLError, KeyError, TypeError):
        raise UserError(f"{path} has no readable list 'names' of classes") from None
      names = [names[k] for k in sorted(names)] if isinstance(names, dict) else names
      return [str(n) for n in names]
  path = os.path.join(root, 'classes.txt')
  if not os.path.isfile(path):
    raise UserError(f'dataset {root} (yolo) names no classes; expected data.yaml or classes.txt')
  with open(path) as f:
    return [line.strip() for line in f if line.strip()]


def _yolo_objects(path: str, classes: int, problems: list[str]) -> list[_Object]:
  things = []
  with open(path) as f:
    for number, line in enumerate(f, start=1):
      if not line.strip():
        continue
      try:
        kind, *values = line.split()
        cxcywh = np.array([float(v) for v in values], np.float32)
        label = int(kind)
      except ValueError:
        problems.append(f"{path} line {number}: expected 'class cx cy w h', got {line.strip()!r}")
        continue
      said = f'{path} line {number}'
      if len(cxcywh) != 4 or cxcywh.min() < -1e-3 or cxcywh.max() > 1 + 1e-3:
        problems.append(f'{said}: expected 4 numbers from 0 to 1, got {line.strip()!r}')
      elif not 0 <= label < classes:
        problems.append(f'{said}: class {label}, but there are {classes} classes')
      else:
        things.append(_Object(label, cxcywh))
  return things


# COCO: annotations/instances_train2017.json with pictures in train2017/ or images/, or
# train/_annotations.coco.json beside the pictures.


def _coco_files(root: str) -> dict[str, tuple[str, list[str]]]:
  """By split: the json file and the folders where its pictures may lie."""
  found = {}
  for split, top in _split_tops(root).items():
    path = os.path.join(root, top, '_annotations.coco.json')
    if os.path.isfile(path):
      found[split] = (path, [top])
  for path in sorted(pathlib.Path(root, 'annotations').glob('*.json')):
    stem = path.stem.removeprefix('instances_')
    split = canonical(stem.rstrip('0123456789'))
    if split in SPLITS:
      found[split] = (str(path), [stem, os.path.join('images', stem), 'images', ''])
    elif len(list(path.parent.glob('*.json'))) == 1:
      found[''] = (str(path), ['images', ''])
  return found


def _coco(root: str, problems: list[str]) -> Source | None:
  tables = {}
  for split, (path, folders) in _coco_files(root).items():
    try:
      with open(path) as f:
        table = json.load(f)
      names = {c['id']: c['name'] for c in table['categories']}
      tables[split] = (path, folders, table['images'], table['annotations'], names)
    except (ValueError, KeyError, TypeError) as e:
      problems.append(f'{path} is no COCO file: {type(e).__name__} {e}')
  used = {
    names[a['category_id']]
    for _, _, _, annotations, names in tables.values()
    for a in annotations
    if a.get('category_id') in names
  }
  classes = sorted(used)  # categories without an object, such as a super-category, are no classes
  records = {}
  for split, (path, folders, images, annotations, names) in tables.items():
    sizes = {i['id']: i for i in images}
    best: dict[int, _Object] = {}
    kinds: dict[int, set[int]] = {}
    for a in annotations:
      image = sizes.get(a.get('image_id'))
      if image is None or a.get('category_id') not in names or len(a.get('bbox', ())) != 4:
        problems.append(f'{path}: annotation {a.get("id")} has no known image, category or bbox')
        continue
      x, y, w, h = a['bbox']
      thing = _Object(
        names[a['category_id']],
        boxes.from_xyxy(np.array([x, y, x + w, y + h]), (image['height'], image['width'])),
      )
      kinds.setdefault(a['image_id'], set()).add(classes.index(str(thing.kind)))
      if a['image_id'] not in best or thing.area > best[a['image_id']].area:
        best[a['image_id']] = thing
    found = []
    for key, thing in sorted(best.items(), key=lambda kv: sizes[kv[0]]['file_name']):
      name = sizes[key]['file_name']
      places = [os.path.join(f, name) for f in folders]
      place = next((p for p in places if os.path.isfile(os.path.join(root, p))), None)
      if place is None:
        problems.append(f'{path} names picture {name}, which is not in {" or ".join(folders)}')
      else:
        label = classes.index(str(thing.kind))
        found.append((place.replace(os.sep, '/'), label, thing, kinds[key]))
    records[split] = _records(root, found)
  return Source('coco', tuple(classes), records, classes_each='both')


# Pascal VOC: annotations/NAME.xml, pictures in images/ or images/CLASS/ (then the folder counts).


def _voc(root: str, problems: list[str]) -> Source | None:
  voc = os.path.isdir(os.path.join(root, 'JPEGImages'))
  pictures, notes = ('JPEGImages', 'Annotations') if voc else ('images', 'annotations')
  folders = subfolders(os.path.join(root, pictures))
  things: dict[str, list[_Object]] = {}
  for name in list_images(root, pictures):
    path = os.path.join(root, notes, pathlib.PurePosixPath(name).stem + '.xml')
    objects = _voc_objects(path, problems) if os.path.isfile(path) else []
    if objects or folders:
      things[name] = objects
  largest = {name: max(found, key=lambda t: t.area, default=None) for name, found in things.items()}
  if folders:  # then they say the class, whatever the objects are called
    kinds = {name: name.split('/')[1] for name in things}
    sets = {name: {kind} for name, kind in kinds.items() if kind in folders}
  else:
    kinds = {name: str(thing.kind) for name, thing in largest.items() if thing is not None}
    sets = {name: {str(thing.kind) for thing in things[name]} for name in kinds}
  index = {kind: i for i, kind in enumerate(sorted(set().union(*sets.values())))}
  found = [
    (name, index[kinds[name]], largest[name], {index[kind] for kind in those})
    for name, those in sets.items()
  ]
  each = 'one' if folders else 'both'
  return Source('voc', tuple(index), {'': _records(root, found)}, classes_each=each)


def _voc_objects(path: str, problems: list[str]) -> list[_Object]:
  """The objects of a file."""
  things = []
  try:
    tree = ElementTree.parse(path).getroot()
    h, w = int(tree.findtext('size/height', '')), int(tree.findtext('size/width', ''))
    for node in tree.iter('object'):
      corners = [float(node.findtext(f'bndbox/{k}', '')) for k in ('xmin', 'ymin', 'xmax', 'ymax')]
      corners[0] -= 1  # pixels are counted from 1, and the last one belongs to the box
      corners[1] -= 1
      things.append(_Object(node.findtext('name', ''), boxes.from_xyxy(np.array(corners), (h, w))))
  except (ElementTree.ParseError, ValueError, ZeroDivisionError) as e:
    problems.append(f'{path} is no Pascal VOC file: {e}')
  return things
