"""How well boxes are found: numbers, a figure and a section about their overlap."""

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from markupsafe import Markup

from vit_jax.errors import counted
from vit_jax.report import gallery, page, sections, single_label
from vit_jax.report.canvas import BLUE, ORANGE, drawing, new_figure
from vit_jax.report.examples import overlaps, spread
from vit_jax.report.layout import Context, Table, Title
from vit_jax.report.metrics import wilson
from vit_jax.report.page import Card
from vit_jax.report.predictions import Predictions
from vit_jax.report.text import percent

if TYPE_CHECKING:
  from matplotlib.figure import Figure

THRESHOLDS = (0.5, 0.75, 0.9)
TITLES = {
  'iou': Title('mean IoU'),
  **{f'iou{100 * t:.0f}': Title(f'IoU of at least {t:g}', percent=True) for t in THRESHOLDS},
  'class_loss': Title('class loss'),
  'box_loss': Title('box loss'),
}


def compute(predictions: Predictions) -> dict[str, Any]:
  """Mean and median IoU, and shares at the thresholds with intervals, of images with a box.

  'box50_right' is the share whose class is correct and whose IoU is at least 0.5. Empty where no
  image has a box.
  """
  values = overlaps(predictions)
  known = np.isfinite(values)
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
  return result | {'box50_right': both / n, 'box50_right_interval': list(wilson(both, n))}


def images_table(context: Context) -> Table:
  """predictions.csv: a row for each image, with its IoU."""
  table = single_label.images_table(context)
  rows = [[*row, iou] for row, iou in zip(table.rows, context.once(overlaps))]
  return dataclasses.replace(table, header=[*table.header, 'iou'], rows=rows)


def cards(context: Context) -> list[Card]:
  """Mean IoU, and the share of boxes of at least 0.5."""
  result = context.result
  if 'boxes' not in result:
    return []
  return [
    Card('Mean IoU', f'{result["mean_iou"]:.3f}', f'of {counted(result["boxes"], "box", "boxes")}'),
    Card('IoU of at least 0.5', percent(result['iou50']), sections.interval_of(result, 'iou50')),
  ]


def section(context: Context) -> tuple[str, Sequence[Markup]] | None:
  """Overlap with the true boxes, and images from the worst to the best."""
  predictions, result = context.predictions, context.result
  if 'boxes' not in result:
    return None
  values = context.once(overlaps)
  found = counted(result['boxes'], 'box', 'boxes')
  rows = []
  for threshold in THRESHOLDS:
    name = f'iou{100 * threshold:.0f}'
    rows.append((f'≥ {threshold:g}', percent(result[name]), sections.span_of(result, name)))
  both = sections.span_of(result, 'box50_right')
  rows.append(('≥ 0.5 and class correct', percent(result['box50_right']), both))
  parts = [
    page.figures(
      context.figure(
        'iou',
        histogram(values[np.isfinite(values)]),
        'Overlap with the true boxes',
        f'Intersection over union of {found}; mean {result["mean_iou"]:.3f}, '
        f'median {result["median_iou"]:.3f}.',
        'Histogram of the IoU of predicted and true boxes: '
        + ', '.join(f'{percent(result[f"iou{100 * t:.0f}"])} at least {t:g}' for t in THRESHOLDS),
      ),
      page.table(('IoU', 'share of boxes', '95\u00a0% interval'), rows),
    )
  ]
  if context.load_image:
    items = gallery.thumbnails_of(context, spread(predictions))
    gallery.save_sheet(context, 'boxes', items)
    words = page.link(f'#{gallery.ANCHOR}', 'Images from the worst to the best box')
    parts.append(page.paragraph(words + '. Blue: true box; orange: predicted box.'))
  return 'Boxes', parts


@drawing
def histogram(values: np.ndarray) -> 'Figure':
  """How many images have which IoU, with the thresholds marked.

  Args:
    values: IoU of images that have a box [n].
  """
  figure = new_figure(4.1, 3.2)
  axes = figure.subplots()
  axes.hist(values, np.linspace(0, 1, 21).tolist(), color=BLUE, edgecolor='white', linewidth=0.5)
  top = axes.get_ylim()[1] * 1.18
  for threshold in THRESHOLDS:
    share = (values >= threshold).mean()
    axes.axvline(threshold, color=ORANGE, linestyle='--', linewidth=1.2)
    axes.text(
      threshold - 0.01,
      top * 0.985,
      f'{percent(share)}\n≥ {threshold:g}',
      ha='right',
      va='top',
      fontsize=10,
    )
  axes.set_ylim(0, top)
  axes.set_xlim(0, 1)
  axes.set_xlabel('IoU of the predicted with the true box')
  axes.set_ylabel('images')
  axes.grid(axis='y')
  return figure
