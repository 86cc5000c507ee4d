"""Which pictures a report shows, and what it says below them."""

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np

from vit_jax.data import boxes as boxes_lib
from vit_jax.report import boxes, metrics
from vit_jax.report.page import Shot
from vit_jax.report.predictions import Predictions

LoadPicture = Callable[[int], np.ndarray]


@dataclasses.dataclass(frozen=True)
class WorstClass:
  """A class that is often missed, with evidence.

  Args:
    index: of the class.
    taken_for: (class, pictures) it is confused with, the most frequent first.
    missed: rows of its pictures that went wrong, the most confident first.
    lookalikes: (class, row) of a picture of each class that it is taken for, where there is one.
  """

  index: int
  taken_for: list[tuple[int, int]]
  missed: list[int]
  lookalikes: list[tuple[int, int]]


def most_confident_mistakes(predictions: Predictions, most: int = 16) -> np.ndarray:
  """Rows of wrong predictions, the surest first."""
  wrong = np.flatnonzero(~predictions.correct)
  return wrong[np.argsort(-predictions.confidence[wrong], kind='stable')][:most]


def worst_classes(
  predictions: Predictions,
  table: metrics.PerClass,
  most: int = 6,
  pictures: int = 5,
  lookalikes: int = 3,
) -> list[WorstClass]:
  """The worst classes, their missed pictures, and what they are taken for.

  Args:
    predictions: the record.
    table: of its classes.
    most: classes.
    pictures: missed ones of each.
    lookalikes: other classes of each that are shown too.
  """
  found = []
  confidence = predictions.confidence
  for index in metrics.worst_classes(predictions, table, most):
    missed = np.flatnonzero((predictions.labels == index) & ~predictions.correct)
    taken, count = np.unique(predictions.predicted[missed], return_counts=True)
    order = np.argsort(-count, kind='stable')
    taken_for = [(int(taken[i]), int(count[i])) for i in order]
    examples = [(c, _typical(predictions, c)) for c, _ in taken_for[:lookalikes]]
    sure = missed[np.argsort(-confidence[missed], kind='stable')][:pictures]
    found.append(
      WorstClass(
        index, taken_for, sure.tolist(), [(c, row) for c, row in examples if row is not None]
      )
    )
  return found


def _typical(predictions: Predictions, index: int) -> int | None:
  """The picture of a class that is recognised most surely."""
  rows = np.flatnonzero(predictions.labels == index)
  if not len(rows):
    return None
  return int(rows[np.argmax(predictions.probabilities[rows, index])])


def samples(predictions: Predictions, most: int = 16) -> list[int]:
  """The same rows at every evaluation of a split: spread evenly over it."""
  n = len(predictions)
  return sorted({int(i) for i in np.linspace(0, n - 1, min(most, n)).round()})


def shot(predictions: Predictions, row: int, load_picture: LoadPicture) -> Shot:
  """A picture with truth and prediction."""
  true, said = int(predictions.labels[row]), int(predictions.predicted[row])
  right = true == said
  names = predictions.names
  lines = [f'{names[said]} {percent(float(predictions.confidence[row]))}']
  if not right:
    probability = percent(float(predictions.true_probability[row]))
    lines.append(f'is {names[true]} ({probability})')
  image = load_picture(int(predictions.index[row]))
  drawn = None
  if predictions.boxes_cxcywh is not None:
    hw = image.shape[:2]
    true_box = predictions.true_boxes_cxcywh
    drawn = (
      None if true_box is None else boxes_lib.to_xyxy(true_box[row], hw),
      boxes_lib.to_xyxy(predictions.boxes_cxcywh[row], hw),
    )
    values = boxes.overlaps(predictions)
    if values is not None and np.isfinite(values[row]):
      lines.append(f'IoU {values[row]:.2f}')
  return Shot(image, lines, right, predictions.ids[row], drawn)


def shots(predictions: Predictions, rows: Sequence[int], load_picture: LoadPicture) -> list[Shot]:
  return [shot(predictions, int(row), load_picture) for row in rows]


def spread_of_boxes(predictions: Predictions, most: int = 12) -> list[int]:
  """Rows from the worst to the best overlap, evenly."""
  values = boxes.overlaps(predictions)
  known = np.flatnonzero(np.isfinite(values))
  order = known[np.argsort(values[known], kind='stable')]
  places = np.linspace(0, len(order) - 1, min(most, len(order))).round().astype(int)
  return order[np.unique(places)].tolist()


def percent(share: float) -> str:
  """'85.0 %' with a space that does not break, and no '100 %' or '0 %' that is not one."""
  if 0.9995 <= share < 1:
    return '>\u00a099.9\u00a0%'
  if 0 < share < 0.0005:
    return '<\u00a00.1\u00a0%'
  return f'{100 * share:.1f}\u00a0%'
