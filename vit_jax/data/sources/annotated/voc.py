"""Pascal VOC: annotations/NAME.xml for images/NAME.jpg, or images/CLASS/NAME.jpg.

The official names JPEGImages, Annotations and ImageSets/Main/{train,val,test}.txt are known too.
Where images lie in folders, these are the classes whatever the objects are called, and an image
without annotation has its class alone.
"""

import dataclasses
import os
import posixpath
import xml.etree.ElementTree as ElementTree
from collections.abc import Mapping, Sequence

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
  below,
  class_name,
  image_size,
  number,
  read_bytes,
  read_text,
  slashed,
  stem,
  warn_of_alike,
)
from vit_jax.data.sources.folder import SPLITS, subfolders
from vit_jax.data.splits import canonical

_CORNERS = ('xmin', 'ymin', 'xmax', 'ymax')
_SETS = posixpath.join('ImageSets', 'Main')


@dataclasses.dataclass
class _File:
  """One xml file.

  Args:
    path: the file.
    filename: of the image, as stated.
    stated_hw: size of the image, as stated.
    objects: in it.
  """

  path: str
  filename: str
  stated_hw: tuple[int, int] | None
  objects: list[Object]


def voc_folders(root: str, top: str) -> tuple[str, str] | None:
  """The folders of images and annotations within a folder; None where there are none."""
  inside = subfolders(os.path.join(root, top))
  images = next((name for name in ('JPEGImages', 'images') if name in inside), None)
  annotations = next((name for name in ('Annotations', 'annotations') if name in inside), None)
  if images is None or annotations is None:
    return None
  return posixpath.join(top, images), posixpath.join(top, annotations)


def voc_source(root: str, findings: Findings) -> Source:
  """Reads all xml files of a folder."""
  splits: dict[str, list[Annotated]] = {}
  with_folders = False
  tops = {'': ''} if voc_folders(root, '') else split_tops(root)
  for split, top in tops.items():
    folders = voc_folders(root, top)
    if folders is None:
      continue
    annotated = _annotated(root, *folders, findings)
    within = subfolders(os.path.join(root, folders[0]))
    if within and {canonical(name) for name in within} <= set(SPLITS):
      by_folder = _by_folder(root, annotated, folders[0], findings)
      splits |= {canonical(name): by_folder.get(name, []) for name in within}
      continue
    if within:
      with_folders = True
      annotated = _with_class(root, annotated, folders[0], within, findings)
    sets = os.path.join(root, top, _SETS)
    splits |= _image_sets(root, sets, annotated, folders[0], findings) or {split: annotated}
  splits = {split: _known(root, images, findings) for split, images in splits.items()}
  classes = sorted(
    {image.class_ for images in splits.values() for image in images if image.class_ is not None}
    | {
      o.class_
      for images in splits.values()
      for image in images
      for o in image.objects
      if image.class_ is None
    }
  )
  warn_of_alike(classes, root, findings)
  records = records_by_split(root, splits, classes, Coordinates(first=1), findings)
  return Source('voc', tuple(classes), records, labels_per_image='one' if with_folders else 'both')


def _annotated(root: str, images: str, annotations: str, findings: Findings) -> list[Annotated]:
  """Every image of a folder with what its xml file says."""
  names = list_images(root, images)
  file_of = _match(root, names, images, annotations, findings)
  found = []
  for name in names:
    file = file_of.get(name)
    if file is None:
      found.append(Annotated(name, []))
    else:
      found.append(Annotated(name, file.objects, file.stated_hw, place=file.path))
  return found


def _match(
  root: str, names: Sequence[str], images: str, annotations: str, findings: Findings
) -> dict[str, _File]:
  """The xml file of each image: of the same path, else of the same name, else as the file states.

  Refused is what could be of several images.
  """
  by_path: dict[str, list[str]] = {}
  by_stem: dict[str, list[str]] = {}
  by_name: dict[str, list[str]] = {}
  for name in names:
    inside = below(name, images)
    by_path.setdefault(stem(inside), []).append(name)
    by_stem.setdefault(stem(posixpath.basename(inside)), []).append(name)
    by_name.setdefault(posixpath.basename(inside).casefold(), []).append(name)
  found: dict[str, _File] = {}
  insides = {stem(below(p, annotations)): p for p in list_files(root, annotations, '.xml')}
  for inside, path in insides.items():
    file = _read(os.path.join(root, path), findings)
    if file is None:
      continue
    base = posixpath.basename(slashed(file.filename))
    same_stem = [
      name
      for name in by_stem.get(posixpath.basename(inside), [])
      if stem(below(name, images)) not in insides
    ]
    fitting = by_path.get(inside) or same_stem or by_name.get(base.casefold(), [])
    fitting = fitting or by_stem.get(stem(base), [])
    if len(fitting) > 1:
      fitting = [n for n in fitting if posixpath.basename(n) == base] or fitting
    if not fitting:
      findings.warn(file.path, 'has no image of its name; left out')
    elif len(fitting) > 1:
      findings.refuse(
        file.path,
        'could be of several images of the same name; rename them, or put each annotation into a '
        'folder as its image is',
        ' and '.join(fitting[:3]),
      )
    elif fitting[0] in found:
      findings.refuse(
        file.path, 'is of the same image as another file; remove one', found[fitting[0]].path
      )
    else:
      other = by_name.get(base.casefold(), []) if base else []
      if other and fitting[0] not in other:
        findings.warn(
          file.path, "states the name of another image than its own; the file's own name counts"
        )
      found[fitting[0]] = file
  return found


def _read(path: str, findings: Findings) -> _File | None:
  """One xml file; None where it cannot be read, which is refused."""
  data = read_bytes(path, findings)
  if data is None:
    return None
  try:
    tree = ElementTree.fromstring(data)
  except (ElementTree.ParseError, ValueError, LookupError, RecursionError) as e:
    findings.refuse(path, 'is not a Pascal VOC file: mend or remove it', str(e))
    return None
  if tree.tag != 'annotation':
    findings.refuse(path, 'is not a Pascal VOC file: its root must be <annotation>', tree.tag)
    return None
  objects = []
  for node in tree.iter('object'):
    name = class_name(node.findtext('name', ''), path, findings)
    texts = [node.findtext(f'bndbox/{corner}') for corner in _CORNERS]
    x0, y0, x1, y1 = (number(text) for text in texts)
    if x0 is None or y0 is None or x1 is None or y1 is None:
      findings.refuse(
        path,
        f'an object has no bndbox with the numbers {", ".join(_CORNERS)}; add it or remove the '
        'object',
        ', '.join(map(str, texts)),
      )
    elif name is not None:
      objects.append(Object(name, (x0, y0, x1, y1), path))
  size = image_size(tree.findtext('size/height'), tree.findtext('size/width'))
  return _File(path, tree.findtext('filename', ''), size, objects)


def _by_folder(
  root: str, images: Sequence[Annotated], top: str, findings: Findings
) -> dict[str, list[Annotated]]:
  """Images by the folder within `top` that they lie in; those in none are left out."""
  found: dict[str, list[Annotated]] = {}
  for image in images:
    folder, _, inside = below(image.name, top).partition('/')
    if inside:
      found.setdefault(folder, []).append(image)
    else:
      findings.warn(
        os.path.join(root, image.name), 'lies outside of the split folders beside it; left out'
      )
  return found


def _with_class(
  root: str, images: Sequence[Annotated], top: str, folders: Sequence[str], findings: Findings
) -> list[Annotated]:
  """The images in class folders, each with its class."""
  found = []
  for image in images:
    folder = below(image.name, top).split('/')[0]
    if folder in folders:
      found.append(dataclasses.replace(image, class_=folder))
    else:
      findings.warn(
        os.path.join(root, image.name), 'lies outside of the class folders beside it; left out'
      )
  return found


def _known(root: str, images: Sequence[Annotated], findings: Findings) -> list[Annotated]:
  """The images of which a class is known."""
  for image in images:
    if image.class_ is None and not image.objects:
      path = os.path.join(root, image.name)
      if image.place:
        findings.inform(path, 'has no object in its annotation; left out')
      else:
        findings.warn(path, 'has no annotation; left out')
  return [image for image in images if image.class_ is not None or image.objects]


def _image_sets(
  root: str, folder: str, images: Sequence[Annotated], top: str, findings: Findings
) -> dict[str, list[Annotated]]:
  """Images by split as the lists in ImageSets/Main have them; {} where there are none.

  'trainval' is train where there is no list 'train', without what is in 'val'.
  """
  lists = {
    canonical(name): path
    for name in (*SPLITS, 'valid', 'trainval')
    if os.path.isfile(path := os.path.join(folder, f'{name}.txt'))
  }
  rows = {split: _listed(path, findings) for split, path in lists.items()}
  both = rows.pop('trainval', None)
  if both is not None and 'train' not in rows:
    held_out = rows.get('val', {})
    rows['train'] = {row: place for row, place in both.items() if row not in held_out}
  if not rows:
    return {}
  by_id: dict[str, Annotated | None] = {}  # None where a short name is that of several images
  inside_of = {below(image.name, top): image for image in images}
  for inside, known in inside_of.items():
    base = posixpath.basename(inside)
    for key in {stem(inside), base, stem(base)} - {inside}:
      by_id[key] = None if key in by_id else known
  by_id |= inside_of
  found: dict[str, list[Annotated]] = {}
  for split in (name for name in SPLITS if name in rows):
    chosen: dict[str, Annotated] = {}
    for row, place in rows[split].items():
      # Lists of one class have a second word: 1, 0 or -1.
      image = by_id.get(row) or by_id.get(slashed(row)) or by_id.get(row.split()[0])
      if image is None:
        findings.warn(place, f'names no image in {top}, or several; left out')
      else:
        chosen[image.name] = image
    found[split] = list(chosen.values())
  _warn_of_unlisted(root, folder, images, found, findings)
  return found


def _warn_of_unlisted(
  root: str,
  folder: str,
  images: Sequence[Annotated],
  splits: Mapping[str, Sequence[Annotated]],
  findings: Findings,
) -> None:
  listed = {image.name for chosen in splits.values() for image in chosen}
  for image in images:
    if image.name not in listed and (image.objects or image.class_ is not None):
      findings.warn(os.path.join(root, image.name), f'is in no list of {folder}; left out')


def _listed(path: str, findings: Findings) -> dict[str, str]:
  """The non-empty lines of a list, each once, and where it stands."""
  rows: dict[str, str] = {}
  for number_, line in enumerate((read_text(path, findings) or '').splitlines(), start=1):
    if line.strip():
      rows.setdefault(line.strip(), f'{path} line {number_}')
  return rows
