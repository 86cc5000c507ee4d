"""Which images and classes a report shows."""

import dataclasses

import numpy as np

from vit_jax.data import boxes as boxes_lib
from vit_jax.report.metrics import PerClass, confusion_counts, per_class
from vit_jax.report.predictions import Predictions

SHOWN_WHOLE = 50  # images of a split that a gallery shows all of
# Images of a larger one's gallery, at most: mistakes, confusions, least confident ones, one of each
# class.
_MISTAKES, _CONFUSIONS, _UNSURE, _OF_CLASSES = 24, 36, 8, 24


@dataclasses.dataclass(frozen=True)
class WorstClass:
  """A class that is often missed, with evidence.

  Attributes:
    index: of the class.
    predicted_as: (class, images) that its missed images are predicted as, the most frequent first.
    missed: rows of its images that are predicted wrongly, the most confident first.
    lookalikes: (class, row) of an image of each class in `predicted_as`, where there is one.
  """

  index: int
  predicted_as: list[tuple[int, int]]
  missed: list[int]
  lookalikes: list[tuple[int, int]]


def most_confident_mistakes(predictions: Predictions, most: int = 16) -> np.ndarray:
  """Rows of wrong predictions, the most confident first."""
  wrong = np.flatnonzero(~predictions.correct)
  return wrong[np.argsort(-predictions.confidence[wrong], kind='stable')][:most]


def worst_classes(
  predictions: Predictions, most: int = 6, images: int = 5, lookalikes: int = 3
) -> list[WorstClass]:
  """The worst classes, their missed images, and what they are predicted as.

  Args:
    predictions: the record.
    most: classes.
    images: missed ones of each.
    lookalikes: other classes of each that are shown too.
  """
  found = []
  confidence = predictions.confidence
  for index in lowest_f1(predictions, per_class(predictions), most):
    missed = np.flatnonzero((predictions.labels == index) & ~predictions.correct)
    others, count = np.unique(predictions.predicted[missed], return_counts=True)
    order = np.argsort(-count, kind='stable')
    predicted_as = [(int(others[i]), int(count[i])) for i in order]
    typical = [(c, _typical(predictions, c)) for c, _ in predicted_as[:lookalikes]]
    found.append(
      WorstClass(
        index,
        predicted_as,
        missed[np.argsort(-confidence[missed], kind='stable')][:images].tolist(),
        [(c, row) for c, row in typical if row is not None],
      )
    )
  return found


def lowest_f1(predictions: Predictions, table: PerClass, most: int) -> list[int]:
  """Classes with the lowest F1 that have wrong images; among equals the lowest true probability."""
  k = len(predictions.classes)
  missed = np.bincount(predictions.labels[~predictions.correct], minlength=k)
  expected = np.bincount(predictions.labels, predictions.true_probability, k)
  wrong = [int(i) for i in table.present if missed[i]]
  return sorted(wrong, key=lambda i: (table.f1[i], expected[i] / table.support[i]))[:most]


def _typical(predictions: Predictions, index: int) -> int | None:
  """The image of a class that is recognised with the most confidence."""
  rows = np.flatnonzero(predictions.labels == index)
  if not len(rows):
    return None
  return int(rows[np.argmax(predictions.probabilities[rows, index])])


def samples(predictions: Predictions, most: int = 16) -> list[int]:
  """The same rows at every evaluation of a split: spread evenly over it."""
  n = len(predictions)
  return sorted({int(i) for i in np.linspace(0, n - 1, min(most, n)).round()})


def overlaps(predictions: Predictions) -> np.ndarray:
  """IoU of each image's boxes [n], NaN where it has none."""
  if predictions.boxes_cxcywh is None or predictions.true_boxes_cxcywh is None:
    return np.full(len(predictions), np.nan)
  return boxes_lib.iou(predictions.boxes_cxcywh, predictions.true_boxes_cxcywh)


def spread(predictions: Predictions, most: int = 12) -> list[int]:
  """Rows from the worst to the best overlap, evenly."""
  values = overlaps(predictions)
  known = np.flatnonzero(np.isfinite(values))
  order = known[np.argsort(values[known], kind='stable')]
  places = np.linspace(0, len(order) - 1, min(most, len(order))).round().astype(int)
  return order[np.unique(places)].tolist()


def gallery(predictions: Predictions, most: int = 80) -> list[int]:
  """Rows of images worth a look, each once, mistakes first; of a small split all.

  The most confident mistakes; one image of each frequent confusion; missed images of the worst
  classes; the least confident, wrong and correct; the most confident image of each class; boxes
  from the worst to the best.

  Args:
    predictions: the record.
    most: images.
  """
  wrong, confidence = ~predictions.correct, predictions.confidence
  up = np.argsort(confidence, kind='stable')
  worst = [row for found in worst_classes(predictions) for row in found.missed]
  typical = [_typical(predictions, int(c)) for c in per_class(predictions).present[:_OF_CLASSES]]
  everything = range(len(predictions)) if len(predictions) <= SHOWN_WHOLE else ()
  chosen = [
    *everything,
    *most_confident_mistakes(predictions, _MISTAKES).tolist(),
    *_confusions(predictions),
    *worst,
    *up[wrong[up]][:_UNSURE].tolist(),
    *up[~wrong[up]][: 2 * _UNSURE].tolist(),
    *(row for row in typical if row is not None),
    *spread(predictions),
    *up[::-1][:_UNSURE].tolist(),
  ]
  rows = list(dict.fromkeys(chosen))[:most]
  return sorted(rows, key=lambda row: (predictions.correct[row], -confidence[row]))


def _confusions(predictions: Predictions) -> list[int]:
  """The most confident image of each confusion, the most frequent ones first."""
  counts = confusion_counts(predictions)
  first: dict[tuple[int, int], int] = {}
  for row in most_confident_mistakes(predictions, len(predictions)).tolist():
    first.setdefault((int(predictions.labels[row]), int(predictions.predicted[row])), row)
  return [first[pair] for pair in sorted(first, key=lambda pair: -counts[pair])][:_CONFUSIONS]
