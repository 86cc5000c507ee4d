"""Images with one box each: YOLO text files, COCO json, Pascal VOC xml.

Each example has 'box' float32 `[4]` (centre x, centre y, width, height relative to the image) and
'has_box', False where only the class is known. Of several objects in an image the largest gives the
box and the label; 'all_labels' are the labels of all. An image without any object, and without a
class folder, is excluded.
"""

import dataclasses
import json
import os
import pathlib
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Sequence

import numpy as np

from vit_jax.data import boxes
from vit_jax.data.image_files import list_images
from vit_jax.data.records import FileRecords, Source
from vit_jax.data.sources.folder import SPLITS, subfolders
from vit_jax.data.splits import canonical
from vit_jax.errors import DatasetError

_MAX_PROBLEMS = 20  # reported at once


@dataclasses.dataclass
class _Object:
  """One object: its class by name or number, and its box."""

  class_: str | int
  cxcywh: np.ndarray

  @property
  def area(self) -> float:
    return float(self.cxcywh[2] * self.cxcywh[3])


@dataclasses.dataclass
class _Image:
  """One annotated image.

  Args:
    name: its path below the dataset's folder.
    label: its class.
    largest: its largest object; None where only the class is known.
    all_labels: classes of all its objects.
  """

  name: str
  label: int
  largest: _Object | None
  all_labels: set[int]


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
    DatasetError: every annotation that cannot be read, by file and line.
  """
  read: dict[str, Callable[[str, list[str]], Source]] = {'yolo': _yolo, 'coco': _coco, 'voc': _voc}
  problems: list[str] = []
  source = read[kind](root, problems)
  if problems:
    more = len(problems) - _MAX_PROBLEMS
    raise DatasetError(problems[:_MAX_PROBLEMS] + ([f'and {more} more'] if more > 0 else []))
  if not any(len(r) for r in source.records.values()):
    raise DatasetError(f'dataset {root} ({kind}): no annotated images')
  return source


def _split_tops(root: str) -> dict[str, str]:
  """Folder by split name; {'': ''} where there are no split folders."""
  tops = {canonical(name): name for name in subfolders(root) if canonical(name) in SPLITS}
  return {split: tops[split] for split in SPLITS if split in tops} or {'': ''}


def _records(root: str, images: Sequence[_Image]) -> FileRecords:
  cxcywh = np.zeros((len(images), 4), np.float32)
  all_labels = np.full((len(images), max((len(i.all_labels) for i in images), default=0)), -1)
  for row, image in enumerate(images):
    if image.largest is not None:
      cxcywh[row] = image.largest.cxcywh
    all_labels[row, : len(image.all_labels)] = sorted(image.all_labels)
  extra = {
    'box': cxcywh,
    'has_box': np.array([image.largest is not None for image in images], bool),
    'all_labels': all_labels.astype(np.int32),
  }
  return FileRecords(root, [i.name for i in images], [i.label for i in images], extra)


# YOLO: {split}/images/NAME.jpg and {split}/labels/NAME.txt with lines 'class cx cy w h'.


def _yolo(root: str, problems: list[str]) -> Source:
  classes = _yolo_classes(root)
  records = {}
  for split, top in _split_tops(root).items():
    if not os.path.isdir(os.path.join(root, top, 'images')):
      continue
    images = []
    for name in list_images(root, os.path.join(top, 'images')):
      inside = pathlib.PurePosixPath(name).relative_to(pathlib.PurePosixPath(top, 'images'))
      path = os.path.join(root, top, 'labels', inside.with_suffix('.txt'))
      objects = _yolo_objects(path, len(classes), problems) if os.path.isfile(path) else []
      if objects:
        largest = max(objects, key=lambda o: o.area)
        images.append(_Image(name, int(largest.class_), largest, {int(o.class_) for o in objects}))
    records[split] = _records(root, images)
  return Source('yolo', tuple(classes), records, labels_per_image='both')


def _yolo_classes(root: str) -> list[str]:
  for name in ('data.yaml', 'data.yml', 'dataset.yaml'):
    path = os.path.join(root, name)
    if os.path.isfile(path):
      import yaml  # only these datasets need it

      try:
        with open(path) as f:
          names = yaml.safe_load(f)['names']
      except (yaml.YAMLError, KeyError, TypeError):
        raise DatasetError(f"{path} has no readable list 'names' of classes") from None
      names = [names[k] for k in sorted(names)] if isinstance(names, dict) else names
      return [str(n) for n in names]
  path = os.path.join(root, 'classes.txt')
  if not os.path.isfile(path):
    raise DatasetError(f'dataset {root} (yolo) names no classes; expected data.yaml or classes.txt')
  with open(path) as f:
    return [line.strip() for line in f if line.strip()]


def _yolo_objects(path: str, classes: int, problems: list[str]) -> list[_Object]:
  objects = []
  with open(path) as f:
    for number, line in enumerate(f, start=1):
      if not line.strip():
        continue
      where = f'{path} line {number}'
      try:
        class_, *values = line.split()
        cxcywh = np.array([float(v) for v in values], np.float32)
        label = int(class_)
      except ValueError:
        problems.append(f"{where}: expected 'class cx cy w h', got {line.strip()!r}")
        continue
      if len(cxcywh) != 4 or cxcywh.min() < -1e-3 or cxcywh.max() > 1 + 1e-3:
        problems.append(f'{where}: expected 4 numbers from 0 to 1, got {line.strip()!r}')
      elif not 0 <= label < classes:
        problems.append(f'{where}: class {label}, but there are {classes} classes')
      else:
        objects.append(_Object(label, cxcywh))
  return objects


# COCO: annotations/instances_train2017.json with images in train2017/ or images/, or
# train/_annotations.coco.json beside the images.


def _coco_files(root: str) -> dict[str, tuple[str, list[str]]]:
  """By split: the json file and the folders where its images may be."""
  found = {}
  for split, top in _split_tops(root).items():
    beside = os.path.join(root, top, '_annotations.coco.json')
    if os.path.isfile(beside):
      found[split] = (beside, [top])
  for path in sorted(pathlib.Path(root, 'annotations').glob('*.json')):
    stem = path.stem.removeprefix('instances_')
    split = canonical(stem.rstrip('0123456789'))
    if split in SPLITS:
      found[split] = (str(path), [stem, os.path.join('images', stem), 'images', ''])
    elif len(list(path.parent.glob('*.json'))) == 1:
      found[''] = (str(path), ['images', ''])
  return found


def _coco(root: str, problems: list[str]) -> Source:
  tables = {}
  for split, (path, folders) in _coco_files(root).items():
    try:
      with open(path) as f:
        table = json.load(f)
      names = {c['id']: c['name'] for c in table['categories']}
      tables[split] = (path, folders, table['images'], table['annotations'], names)
    except (ValueError, KeyError, TypeError) as e:
      problems.append(f'{path} is not a COCO file: {type(e).__name__} {e}')
  used = {
    names[a['category_id']]
    for _, _, _, annotations, names in tables.values()
    for a in annotations
    if a.get('category_id') in names
  }
  classes = sorted(used)  # categories without an object, such as a super-category, are no classes
  records = {}
  for split, (path, folders, entries, annotations, names) in tables.items():
    by_id = {entry['id']: entry for entry in entries}
    largest: dict[int, _Object] = {}
    all_labels: dict[int, set[int]] = {}
    for a in annotations:
      entry = by_id.get(a.get('image_id'))
      if entry is None or a.get('category_id') not in names or len(a.get('bbox', ())) != 4:
        problems.append(f'{path}: annotation {a.get("id")} has no known image, category or bbox')
        continue
      x, y, w, h = a['bbox']
      hw = (entry['height'], entry['width'])
      object_ = _Object(
        names[a['category_id']], boxes.from_xyxy(np.array([x, y, x + w, y + h]), hw)
      )
      all_labels.setdefault(entry['id'], set()).add(classes.index(str(object_.class_)))
      if entry['id'] not in largest or object_.area > largest[entry['id']].area:
        largest[entry['id']] = object_
    images = []
    for key, object_ in sorted(largest.items(), key=lambda kv: by_id[kv[0]]['file_name']):
      name = by_id[key]['file_name']
      paths = [os.path.join(folder, name) for folder in folders]
      found = next((p for p in paths if os.path.isfile(os.path.join(root, p))), None)
      if found is None:
        problems.append(f'{path} names image {name}, which is not in {" or ".join(folders)}')
      else:
        label = classes.index(str(object_.class_))
        images.append(_Image(found.replace(os.sep, '/'), label, object_, all_labels[key]))
    records[split] = _records(root, images)
  return Source('coco', tuple(classes), records, labels_per_image='both')


# Pascal VOC: annotations/NAME.xml, images in images/ or images/CLASS/ (the folder is the class).


def _voc(root: str, problems: list[str]) -> Source:
  voc = os.path.isdir(os.path.join(root, 'JPEGImages'))
  top, annotations = ('JPEGImages', 'Annotations') if voc else ('images', 'annotations')
  folders = subfolders(os.path.join(root, top))
  objects: dict[str, list[_Object]] = {}
  for name in list_images(root, top):
    path = os.path.join(root, annotations, pathlib.PurePosixPath(name).stem + '.xml')
    found = _voc_objects(path, problems) if os.path.isfile(path) else []
    if found or folders:
      objects[name] = found
  largest = {name: max(f, key=lambda o: o.area, default=None) for name, f in objects.items()}
  if folders:  # these are the classes, whatever the objects are called
    class_of = {name: name.split('/')[1] for name in objects}
    all_classes = {name: {class_} for name, class_ in class_of.items() if class_ in folders}
  else:
    class_of = {name: str(o.class_) for name, o in largest.items() if o is not None}
    all_classes = {name: {str(o.class_) for o in objects[name]} for name in class_of}
  label_of = {class_: i for i, class_ in enumerate(sorted(set().union(*all_classes.values())))}
  images = [
    _Image(name, label_of[class_of[name]], largest[name], {label_of[c] for c in several})
    for name, several in all_classes.items()
  ]
  per_image = 'one' if folders else 'both'
  return Source('voc', tuple(label_of), {'': _records(root, images)}, labels_per_image=per_image)


def _voc_objects(path: str, problems: list[str]) -> list[_Object]:
  """The objects of a file."""
  objects = []
  try:
    tree = ElementTree.parse(path).getroot()
    h, w = int(tree.findtext('size/height', '')), int(tree.findtext('size/width', ''))
    for node in tree.iter('object'):
      corners = [float(node.findtext(f'bndbox/{k}', '')) for k in ('xmin', 'ymin', 'xmax', 'ymax')]
      corners[0] -= 1  # pixels are counted from 1, and the last one belongs to the box
      corners[1] -= 1
      cxcywh = boxes.from_xyxy(np.array(corners), (h, w))
      objects.append(_Object(node.findtext('name', ''), cxcywh))
  except (ElementTree.ParseError, ValueError, ZeroDivisionError) as e:
    problems.append(f'{path} is not a Pascal VOC file: {e}')
  return objects
