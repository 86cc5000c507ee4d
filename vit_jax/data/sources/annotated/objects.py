"""Annotated objects: their boxes brought to the image as it is decoded, and made into records."""

import dataclasses
import os
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from vit_jax.data import boxes
from vit_jax.data.header import Header, read_headers
from vit_jax.data.records import FileRecords
from vit_jax.data.sources.annotated.findings import Findings
from vit_jax.data.sources.folder import SPLITS, subfolders
from vit_jax.data.splits import canonical
from vit_jax.errors import DatasetError

_ROUNDING = 1.5  # pixels by which corners may lie outside of an image without a word


@dataclasses.dataclass
class Object:
  """One object as its annotation has it.

  Args:
    class_: its class.
    xyxy: corners, in pixels or relative.
    place: file and line, to be named.
  """

  class_: str
  xyxy: tuple[float, float, float, float]
  place: str


@dataclasses.dataclass
class Annotated:
  """One image and what is known of it.

  Args:
    name: its path below the dataset's folder.
    objects: in it.
    stated_hw: its height and width as annotated, None where they are not.
    class_: its class, where a folder says it.
    place: file that says all this.
  """

  name: str
  objects: list[Object]
  stated_hw: tuple[int, int] | None = None
  class_: str | None = None
  place: str = ''


@dataclasses.dataclass(frozen=True)
class Coordinates:
  """How a format writes corners.

  Args:
    relative: from 0 to 1, else in pixels.
    first: number of the first pixel; with 1, the last one belongs to the box.
  """

  relative: bool = False
  first: int = 0


def split_tops(root: str) -> dict[str, str]:
  """Folder by split name; {'': ''} where there are no split folders.

  Raises:
    DatasetError: two folders for one split.
  """
  tops: dict[str, str] = {}
  for name in subfolders(root):
    split = canonical(name)
    if split in SPLITS:
      if split in tops:
        raise DatasetError(f'dataset {root} has both {tops[split]!r} and {name!r}; keep one')
      tops[split] = name
  return {split: tops[split] for split in SPLITS if split in tops} or {'': ''}


def records_by_split(
  root: str,
  splits: Mapping[str, Sequence[Annotated]],
  classes: Sequence[str],
  coordinates: Coordinates,
  findings: Findings,
) -> dict[str, FileRecords]:
  """Records of the annotated images of each split; looks into every image with boxes.

  Args:
    root: the dataset's folder.
    splits: images by split.
    classes: names in label order; all that occur.
    coordinates: of the format.
    findings: collects boxes that cannot be right.
  """
  found = [image for images in splits.values() for image in images if image.objects]
  _refuse_relative(found, coordinates, findings)
  paths = [os.path.join(root, image.name) for image in found]
  placed = {
    id(image): _placed(image, header, coordinates, path, findings)
    for image, header, path in zip(found, read_headers(paths), paths)
  }
  _warn_of_overlap(root, splits, findings)
  label_of = {name: i for i, name in enumerate(classes)}
  return {split: _records(root, images, placed, label_of) for split, images in splits.items()}


def _records(
  root: str,
  images: Sequence[Annotated],
  placed: Mapping[int, list[np.ndarray | None]],
  label_of: Mapping[str, int],
) -> FileRecords:
  labels, several = [], []
  cxcywh, has_box = np.zeros((len(images), 4), np.float32), np.zeros(len(images), bool)
  for row, image in enumerate(images):
    found = list(zip(image.objects, placed.get(id(image), [])))
    largest, box = max(found, key=lambda pair: _area(pair[1]), default=(None, None))
    if box is not None:
      cxcywh[row], has_box[row] = box, True
    class_ = image.class_ if image.class_ is not None or largest is None else largest.class_
    all_classes = {o.class_ for o in image.objects} if image.class_ is None else {image.class_}
    labels.append(label_of[str(class_)])
    several.append(sorted(label_of[c] for c in all_classes))
  all_labels = np.full((len(images), max(map(len, several), default=0)), -1, np.int32)
  for row, present in enumerate(several):
    all_labels[row, : len(present)] = present
  extra = {'box': cxcywh, 'has_box': has_box, 'all_labels': all_labels}
  return FileRecords(root, [image.name for image in images], labels, extra)


def _area(cxcywh: np.ndarray | None) -> float:
  return -1.0 if cxcywh is None else float(cxcywh[2] * cxcywh[3])


def _placed(
  image: Annotated,
  header: Header | None,
  coordinates: Coordinates,
  path: str,
  findings: Findings,
) -> list[np.ndarray | None]:
  """The boxes of an image's objects as `[4]`, in the image as decoded; None where there is none."""
  orientation = 1
  if coordinates.relative:
    frame: tuple[int, int] | None = (1, 1)
    if header is not None and header.orientation != 1:
      findings.warn(path, _UNKNOWN_FRAME)
  elif header is None:  # whatever reads the image later says so
    frame = image.stated_hw
  else:
    frame, orientation = _frame(image, header, path, findings)
  if frame is None:
    return [None] * len(image.objects)
  return _boxes(image.objects, frame, orientation, coordinates, findings)


_UNKNOWN_FRAME = (
  'has an EXIF orientation, and its annotation does not say whether boxes are of the image as '
  'stored or upright; taken as upright: if they are not, save the image without the orientation'
)


def _frame(
  image: Annotated, header: Header, path: str, findings: Findings
) -> tuple[tuple[int, int], int]:
  """Height and width of what the boxes were drawn on, and the orientation that they still need."""
  stated, stored, upright = image.stated_hw, header.stored_hw, header.upright_hw
  if stated is None:
    findings.warn(image.place, "states no height and width of its image; the image's own are taken")
  if header.orientation != 1 and (stated is None or stated == stored == upright):
    findings.warn(path, _UNKNOWN_FRAME)
    return upright, 1
  if stated is None or stated == upright:
    return upright, 1
  if stated == stored:
    return stored, header.orientation
  if stated == upright[::-1] and _fits(image.objects, upright):
    findings.warn(
      image.place, "states width and height of its image changed over; the image's own are taken"
    )
    return upright, 1
  for frame, orientation in ((upright, 1), (stored, header.orientation)):
    if _same_shape(stated, frame):
      findings.warn(
        image.place,
        'states another size than its image has, of the same shape; boxes are scaled to the image',
      )
      return stated, orientation
  findings.refuse(
    image.place,
    'states width and height of another image; correct its size or remove the file',
    f'{stated[1]} x {stated[0]} for {path} of {upright[1]} x {upright[0]}',
  )
  return upright, 1


def _fits(objects: Iterable[Object], hw: tuple[int, int]) -> bool:
  """Whether no corner lies beyond the right and lower edge."""
  return all(
    max(o.xyxy[0::2]) <= hw[1] + _ROUNDING and max(o.xyxy[1::2]) <= hw[0] + _ROUNDING
    for o in objects
  )


def _same_shape(one_hw: tuple[int, int], other_hw: tuple[int, int]) -> bool:
  """Whether the other may be the one resized, sides rounded to pixels."""
  (h, w), (other_h, other_w) = one_hw, other_hw
  return abs(other_h - other_w * h / w) <= 1 and abs(other_w - other_h * w / h) <= 1


def _boxes(
  objects: Sequence[Object],
  hw: tuple[int, int],
  orientation: int,
  coordinates: Coordinates,
  findings: Findings,
) -> list[np.ndarray | None]:
  """Boxes, corners sorted, within an image; None where nothing of one is left."""
  written = np.array([o.xyxy for o in objects], np.float64)  # [k, 4]
  low, high = np.minimum(written[:, :2], written[:, 2:]), np.maximum(written[:, :2], written[:, 2:])
  corners = np.concatenate([low - coordinates.first, high], 1)
  limits = np.array([hw[1], hw[0]] * 2, np.float64)
  cxcywh = boxes.from_xyxy(corners, hw)
  reversed_ = np.any(written[:, :2] > written[:, 2:], axis=1)
  empty = np.any(low == high, axis=1) | ~(cxcywh[:, 2] * cxcywh[:, 3] > 0)
  slack = 0.01 if coordinates.relative else _ROUNDING
  beyond = np.any((corners < -slack) | (corners - limits > slack), axis=1)
  for row in map(int, np.flatnonzero(reversed_ | empty | beyond)):
    place = objects[row].place
    if reversed_[row]:
      findings.warn(place, 'a box has its corners reversed; they are changed over')
    if empty[row]:
      findings.warn(
        place,
        'a box has no area or lies outside of its image; its class counts and the box does not',
      )
    elif beyond[row]:
      findings.warn(place, 'a box reaches beyond its image and is cut at the edge')
  return [
    None if nothing else boxes.turn_upright(box, orientation) for box, nothing in zip(cxcywh, empty)
  ]


def _refuse_relative(
  images: Iterable[Annotated], coordinates: Coordinates, findings: Findings
) -> None:
  """Refuses boxes in pixels that all lie within the first one: they are relative."""
  if coordinates.relative:
    return
  real = [
    o for image in images for o in image.objects if o.xyxy[0] < o.xyxy[2] and o.xyxy[1] < o.xyxy[3]
  ]
  if real and max(max(map(abs, o.xyxy)) for o in real) <= 1:
    findings.refuse(
      real[0].place,
      'all boxes lie within the first pixel, so they seem to be relative; expected pixels',
      f'box {real[0].xyxy}',
    )


def _warn_of_overlap(
  root: str, splits: Mapping[str, Sequence[Annotated]], findings: Findings
) -> None:
  seen: dict[str, str] = {}
  for split, images in splits.items():
    for image in images:
      if seen.setdefault(image.name, split) != split:
        findings.warn(
          os.path.join(root, image.name),
          f'is both in {seen[image.name]} and in {split}, so that scores say little of new images',
        )
