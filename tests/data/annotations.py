"""Small datasets with boxes in every format, written as strangers write them, and what is read."""

import dataclasses
import json
import logging
import pathlib

import numpy as np
from PIL import Image

from vit_jax.data import boxes, open_dataset
from vit_jax.data.decode import decode_image

HW = (40, 80)
BOX = (10, 10, 30, 30)  # left, top, right, bottom in pixels
LINE = '0 0.25 0.5 0.25 0.5'  # BOX as YOLO has it


def image(path, hw=HW, box=BOX, orientation=1):
  """A black image as stored, white in the box."""
  pixels = np.zeros((*hw, 3), np.uint8)
  pixels[box[1] : box[3], box[0] : box[2]] = 255
  exif = Image.Exif()
  exif[0x0112] = orientation
  path.parent.mkdir(parents=True, exist_ok=True)
  Image.fromarray(pixels).save(path, **({'exif': exif} if orientation > 1 else {}))


def text(path, content):
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_bytes(content if isinstance(content, bytes) else content.encode())


def thing(name='cat', box=(11, 11, 30, 30)):
  """An object of Pascal VOC; pixels count from 1."""
  corners = ''.join(f'<{k}>{v}</{k}>' for k, v in zip(('xmin', 'ymin', 'xmax', 'ymax'), box))
  return f'<object><name>{name}</name><bndbox>{corners}</bndbox></object>'


def size(h=HW[0], w=HW[1]):
  return f'<size><width>{w}</width><height>{h}</height></size>'


def xml(*things, head=None):
  return f'<annotation>{size() if head is None else head}{"".join(things)}</annotation>'


def voc(root, files=None, names=('a',), ending='png', **save):
  """images/a.png and annotations/a.xml; `files` are texts by name."""
  for name in names:
    image(root / 'images' / f'{name}.{ending}', **save)
  (root / 'annotations').mkdir(parents=True, exist_ok=True)
  for name, content in ({n: xml(thing()) for n in names} if files is None else files).items():
    text(root / 'annotations' / f'{name}.xml', content)


def yolo(root, labels=None, yaml='names: [cat, dog]\n', **save):
  """images/a.png and labels/a.txt; names may hold folders."""
  for name, content in ({'a': LINE} if labels is None else labels).items():
    image(root / 'images' / f'{name}.png', **save)
    if content is not None:
      text(root / 'labels' / f'{name}.txt', content)
  if yaml is not None:
    text(root / 'data.yaml', yaml)


def table(
  annotations=({},), images=({},), categories=({'id': 1, 'name': 'cat'}, {'id': 2, 'name': 'dog'})
):
  """COCO's lists; rows say only what is not usual, and 'DROP' leaves a key out."""

  def complete(rows, usual):
    whole = [{**usual(i), **row} for i, row in enumerate(rows)]
    return [{k: v for k, v in row.items() if v != 'DROP'} for row in whole]

  return {
    'images': complete(
      images, lambda i: {'id': i, 'file_name': f'{"abc"[i]}.png', 'height': 40, 'width': 80}
    ),
    'annotations': complete(
      annotations,
      lambda i: {'id': i, 'image_id': 0, 'category_id': 1, 'bbox': [10, 10, 20, 20]},
    ),
    'categories': list(categories),
  }


def coco(root, content=None, names=('a',), path='annotations/all.json', **save):
  """images/a.png and a json file."""
  for name in names:
    image(root / 'images' / f'{name}.png', **save)
  content = table() if content is None else content
  text(root / path, content if isinstance(content, str | bytes) else json.dumps(content))


@dataclasses.dataclass
class Read:
  """What became of a dataset.

  Args:
    splits: sorted names of images by split.
    found: class, and box in pixels or None, by name.
    told: warnings.
    said: information.
  """

  splits: dict
  found: dict
  told: list
  said: list


class _Lines(logging.Handler):
  def __init__(self):
    super().__init__(logging.INFO)
    self.records = []

  def emit(self, record):
    self.records.append(record)


def read(root, classes=None):
  """Opens a dataset; one split is made where there are none.

  Args:
    root: its folder.
    classes: that it must have.
  """
  own, lines = logging.getLogger('vit_jax'), _Lines()
  before = own.level
  own.addHandler(lines)
  own.setLevel(logging.INFO)
  try:
    dataset = open_dataset(str(root), split_fractions=(1, 0, 0))
  finally:
    own.removeHandler(lines)
    own.setLevel(before)
  assert classes is None or dataset.classes == classes
  splits, found = {}, {}
  for split in dataset.splits:
    examples = dataset.split(split)
    for i in range(len(examples)):
      example = examples[i]
      name = pathlib.PurePosixPath(examples.id(i)).stem
      splits.setdefault(split, []).append(name)
      hw = decode_image(example['image']).shape[:2]
      box = tuple(round(float(v)) for v in boxes.to_xyxy(example['box'], hw))
      found[name] = dataset.classes[example['label']], box if example['has_box'] else None
  told = [r.getMessage() for r in lines.records if r.levelno >= logging.WARNING]
  said = [r.getMessage() for r in lines.records if r.levelno < logging.WARNING]
  return Read({k: sorted(v) for k, v in splits.items()}, found, told, said)


def assert_told(what, *facts):
  """One warning has all the facts, and there is no other; without facts there is none."""
  if not facts:
    assert what.told == []
  else:
    (line,) = what.told
    assert not [f for f in facts if f not in line], line
    assert '\n' not in line
