"""Images with one box each: YOLO text files, COCO json, Pascal VOC xml.

Each example has 'box' float32 `[4]` (centre x, centre y, width, height relative to the image) and
'has_box', False where only the class is known. Of several objects in an image the largest gives the
box and the label; 'all_labels' are the labels of all. An image without any object, and without a
class folder, is excluded.

Boxes are those of the image as decoded, upright. What can be read in one way alone is read; what
can be read in several ways, or in none, is refused; what follows a rule that may not be meant is
warned of. Each cause is one sentence, however many files have it.
"""

import os
from collections.abc import Callable

from vit_jax.data.image_files import ending_of, is_image, list_files, list_images
from vit_jax.data.records import Source
from vit_jax.data.sources.annotated.coco import coco_files, coco_source
from vit_jax.data.sources.annotated.findings import Findings
from vit_jax.data.sources.annotated.objects import split_tops
from vit_jax.data.sources.annotated.voc import voc_folders, voc_source
from vit_jax.data.sources.annotated.yolo import yaml_file, yolo_source
from vit_jax.data.sources.folder import SPLITS, subfolders
from vit_jax.data.splits import canonical
from vit_jax.errors import DatasetError

_READ: dict[str, Callable[[str, Findings], Source]] = {
  'yolo': yolo_source,
  'coco': coco_source,
  'voc': voc_source,
}

_WRAPPED = 3  # folders among which a dataset with boxes is looked for; more are classes

_INSTEAD = (
  'which is not read: put images into images/, and text files with classes.txt into labels/ or xml '
  'files into annotations/'
)


def annotated_kind(root: str) -> str | None:
  """'yolo', 'coco' or 'voc' for a folder with boxes, the first of several; None for any other.

  Raises:
    DatasetError: a layout that is not read and would be taken for classes.
  """
  kinds = _kinds(root)
  if kinds:
    return kinds[0]
  if os.path.isfile(os.path.join(root, 'obj.names')):
    raise DatasetError(f'dataset {root} is laid out for Darknet (obj.names), {_INSTEAD}')
  for top in (name for name in subfolders(root) if canonical(name) in SPLITS):
    beside = _beside_an_image(os.path.join(root, top))
    if beside is not None:
      raise DatasetError(f'{os.path.join(root, top)} has {beside} beside its image, {_INSTEAD}')
  within = [name for name in subfolders(root) if canonical(name) not in SPLITS]
  for name in within if len(within) <= _WRAPPED else []:
    inside = os.path.join(root, name)
    found = _kinds(inside)
    if found:
      raise DatasetError(
        f'dataset {root} holds a dataset with boxes ({found[0]}) in {name}, which is no class: '
        f'name {inside} instead'
      )
  return None


def _beside_an_image(folder: str) -> str | None:
  """An annotation file that lies beside the image of its name, in no class folder."""
  names = sorted(os.listdir(folder))
  images = {os.path.splitext(name)[0] for name in names if is_image(ending_of(name))}
  annotations = (name for name in names if name.lower().endswith(('.xml', '.txt')))
  return next((name for name in annotations if os.path.splitext(name)[0] in images), None)


def annotated_source(root: str, kind: str) -> Source:
  """Reads all annotations of a folder with boxes.

  Raises:
    DatasetError: all that has no right answer, by file and line.
  """
  findings = Findings(root)
  for other in _kinds(root):
    if other != kind:
      findings.warn(root, f'has {other} annotations beside those of {kind}, which are read alone')
  source = _READ[kind](root, findings)
  for split, top in split_tops(root).items():
    if top and split not in source.records and list_images(root, top):
      findings.warn(os.path.join(root, top), f'has images, but no annotations of {kind}; left out')
  findings.close()
  if not any(len(r) for r in source.records.values()):
    raise DatasetError(f'dataset {root} ({kind}): no annotated images')
  return source


def _kinds(root: str) -> list[str]:
  """The kinds of annotations that a folder has, in the order of preference."""
  tops = ['', *(name for name in subfolders(root) if canonical(name) in SPLITS)]
  named = subfolders(root) if yaml_file(root) else []
  kinds = []
  if any({'images', 'labels'} <= set(subfolders(os.path.join(root, t))) for t in [*tops, *named]):
    kinds.append('yolo')
  if coco_files(root):
    kinds.append('coco')
  folders = [found for top in tops if (found := voc_folders(root, top)) is not None]
  if folders and (not kinds or any(list_files(root, f, '.xml') for _, f in folders)):
    kinds.append('voc')
  return kinds
