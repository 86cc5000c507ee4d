"""How well boxes are found: overlap with the true ones, in numbers and as a figure."""

from typing import Any

import numpy as np

from vit_jax.data import boxes as boxes_lib
from vit_jax.report.canvas import BLUE, ORANGE, drawing, new_figure
from vit_jax.report.metrics import wilson
from vit_jax.report.predictions import Predictions

THRESHOLDS = (0.5, 0.75, 0.9)


def iou(one_cxcywh: np.ndarray, other_cxcywh: np.ndarray) -> np.ndarray:
  """Intersection over union of boxes in pairs: [..., 4], [..., 4] -> [...].

  A box of negative size counts as empty; two empty boxes overlap by 0. NaN gives NaN.
  """
  one, other = (boxes_lib.to_xyxy(_positive(b), (1, 1)) for b in (one_cxcywh, other_cxcywh))
  low, high = np.maximum(one[..., :2], other[..., :2]), np.minimum(one[..., 2:], other[..., 2:])
  shared = np.prod(np.maximum(high - low, 0), axis=-1)
  area = np.prod(one[..., 2:] - one[..., :2], -1) + np.prod(other[..., 2:] - other[..., :2], -1)
  union = area - shared
  return np.divide(shared, union, out=np.where(np.isnan(union), np.nan, 0.0), where=union > 0)


def _positive(cxcywh: np.ndarray) -> np.ndarray:
  cxcywh = np.array(cxcywh, np.float64)
  cxcywh[..., 2:] = np.maximum(cxcywh[..., 2:], 0)
  return cxcywh


def overlaps(predictions: Predictions) -> np.ndarray | None:
  """IoU of each picture's boxes [n], NaN where it has none; None for a task without boxes."""
  if predictions.boxes_cxcywh is None or predictions.true_boxes_cxcywh is None:
    return None
  return iou(predictions.boxes_cxcywh, predictions.true_boxes_cxcywh)


def compute(predictions: Predictions) -> dict[str, Any]:
  """Shares over the thresholds with intervals; empty where there are no boxes.

  'box50_right' is the share whose class is right and whose IoU is at least 0.5.
  """
  values = overlaps(predictions)
  known = np.isfinite(values) if values is not None else np.zeros(0, bool)
  n = int(known.sum())
  if not n:
    return {}
  found = values[known]
  result: dict[str, Any] = {
    'boxes': n,
    'mean_iou': float(found.mean()),
    'median_iou': float(np.median(found)),
  }
  for threshold in THRESHOLDS:
    hits = int((found >= threshold).sum())
    name = f'iou{100 * threshold:.0f}'
    result |= {name: hits / n, f'{name}_interval': list(wilson(hits, n))}
  both = int(((found >= 0.5) & predictions.correct[known]).sum())
  return result | {'box50_right': both / n}


@drawing
def histogram(values: np.ndarray):
  """How many pictures have which IoU, with the thresholds marked.

  Args:
    values: IoU of pictures that have a box [n].
  """
  figure = new_figure(5.4, 3.8)
  axes = figure.subplots()
  axes.hist(values, np.linspace(0, 1, 21), color=BLUE, edgecolor='white', linewidth=0.5)
  top = axes.get_ylim()[1] * 1.18
  for threshold in THRESHOLDS:
    share = (values >= threshold).mean()
    axes.axvline(threshold, color=ORANGE, linestyle='--', linewidth=1.2)
    axes.text(
      threshold - 0.01,
      top * 0.985,
      f'{100 * share:.0f} %\n≥ {threshold:g}',
      ha='right',
      va='top',
      fontsize=8.5,
    )
  axes.set_ylim(0, top)
  axes.set_xlim(0, 1)
  axes.set_xlabel('IoU of the predicted with the true box')
  axes.set_ylabel('pictures')
  axes.grid(axis='y')
  return figure
