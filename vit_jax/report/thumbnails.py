"""Images with their predictions below them, for pages and figures."""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image, ImageDraw

from vit_jax.data import boxes as boxes_lib
from vit_jax.report.collect import LoadImage
from vit_jax.report.predictions import Predictions
from vit_jax.report.text import percent

_SIZE = 264  # pixels of the longer side
# Of the true and the predicted box: colors that the color-blind tell apart, on a dark edge.
_BOX_COLORS, _EDGE = ('#35b7ff', '#ff9a1f'), '#101418'
_SMALL = 100  # below it images are enlarged, and keep their pixels


@dataclasses.dataclass(frozen=True)
class Thumbnail:
  """An image with its prediction.

  Attributes:
    pixels: uint8 [h, w, 3], its boxes drawn in.
    lines: below it; the first in bold.
    correct: frame in blue, orange or, for None, grey.
    id: of the image.
    anchor: its id on the page; '' for none.
    data: numbers and words by which a gallery filters and orders, see `page.gallery`.
  """

  pixels: np.ndarray
  lines: Sequence[str]
  correct: bool | None
  id: str
  anchor: str = ''
  data: Mapping[str, str] = dataclasses.field(default_factory=dict)


def predicted(
  predictions: Predictions, rows: Sequence[int], load_image: LoadImage
) -> list[Thumbnail]:
  """Images with prediction and truth; with boxes where there are some.

  Args:
    predictions: the record.
    rows: of it.
    load_image: position in the split -> uint8 [h, w, c].
  """
  return [_predicted(predictions, int(row), load_image) for row in rows]


def _predicted(predictions: Predictions, row: int, load_image: LoadImage) -> Thumbnail:
  true, guess = int(predictions.labels[row]), int(predictions.predicted[row])
  names = predictions.names
  lines = [f'pred {names[guess]}, {percent(float(predictions.confidence[row]))}']
  if true != guess:
    lines.append(f'true {names[true]}, {percent(float(predictions.true_probability[row]))}')
  else:
    lines.append('correct')
  image = load_image(int(predictions.index[row]))
  hw = image.shape[:2]
  pair = [predictions.true_boxes_cxcywh, predictions.boxes_cxcywh]
  boxes = [table[row] for table in pair if table is not None]
  overlap = float(boxes_lib.iou(*boxes)) if len(boxes) == 2 else np.nan
  if np.isfinite(overlap):
    lines.append(f'IoU {overlap:.2f}')
  corners = [None if table is None else boxes_lib.to_xyxy(table[row], hw) for table in pair]
  data = {
    'true': str(true),
    'pred': str(guess),
    'kind': 'correct' if true == guess else 'wrong',
    'confidence': f'{predictions.confidence[row]:.4f}',
    'truth': f'{predictions.true_probability[row]:.4f}',
  }
  if np.isfinite(overlap):
    data['iou'] = f'{overlap:.3f}'
  pixels = draw(image, corners)
  return Thumbnail(pixels, lines, true == guess, predictions.ids[row], data=data)


def example_of(
  predictions: Predictions, row: int, caption: str, load_image: LoadImage
) -> Thumbnail:
  """An image that stands for its class, in a grey frame."""
  pixels = draw(load_image(int(predictions.index[row])))
  return Thumbnail(pixels, [caption], None, predictions.ids[row])


def draw(image: np.ndarray, boxes_xyxy: Sequence[np.ndarray | None] = ()) -> np.ndarray:
  """An image at the size of thumbnails, with its boxes.

  Args:
    image: uint8 [h, w, c].
    boxes_xyxy: true and predicted corners [4] in pixels, drawn in blue and orange; None for none.

  Returns:
    uint8 [h, w, 3].
  """
  image = np.repeat(image, 3, axis=-1) if image.shape[-1] == 1 else image
  pil_image = Image.fromarray(image)
  longer = max(pil_image.size)
  factor = 1.0
  if longer > _SIZE or longer < _SMALL:
    factor = _SIZE / longer
    width, height = (max(1, round(side * factor)) for side in pil_image.size)
    how = Image.Resampling.NEAREST if longer < _SMALL else Image.Resampling.LANCZOS
    pil_image = pil_image.resize((width, height), how)
  pen = ImageDraw.Draw(pil_image)
  for box, color in zip(boxes_xyxy, _BOX_COLORS):
    if box is not None and np.all(np.isfinite(box)):
      left, top, right, bottom = (float(x) * factor for x in box)
      corners = (min(left, right), min(top, bottom), max(left, right), max(top, bottom))
      pen.rectangle(corners, outline=_EDGE, width=7)
      left, top, right, bottom = corners
      inner = (left + 1, top + 1, max(left + 1, right - 1), max(top + 1, bottom - 1))
      pen.rectangle(inner, outline=color, width=4)
  return np.asarray(pil_image)
