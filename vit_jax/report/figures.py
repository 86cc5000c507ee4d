"""Figures of a report. Each takes arrays and returns a matplotlib figure without a caption."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from vit_jax.report.canvas import (
  BLUE,
  GREY,
  ORANGE,
  drawing,
  logarithmic,
  new_figure,
)
from vit_jax.report.metrics import Calibration, PerClass, wilson
from vit_jax.report.text import shorten, wrap
from vit_jax.report.thumbnails import Thumbnail

if TYPE_CHECKING:
  from matplotlib.axes import Axes
  from matplotlib.figure import Figure

# Of a sheet of thumbnails, in inches: the longer side of an image, between images, a line of text.
_IMAGE, _GAP, _LINE = 1.5, 0.25, 0.16

SPLITS = {'train': ('training', BLUE), 'val': ('validation', ORANGE), 'test': ('test', 'black')}


def curve(
  rows: Sequence[Mapping[str, Any]],
  split: str,
  name: str,
  x: str = 'step',
  percent: bool = False,
) -> np.ndarray:
  """Points [2, n] of a metric of a split over another column of metrics.jsonl.

  Args:
    rows: of metrics.jsonl.
    split: whose rows count.
    name: of the metric.
    x: the other column.
    percent: whether the metric is a share, wanted in percent.
  """
  points = [
    (row[x], row[name])
    for row in rows
    if row['split'] == split and row.get(name) is not None and row.get(x) is not None
  ]
  values = np.array(points, np.float64).reshape(-1, 2).T
  return values * [[1], [100 if percent else 1]]


@drawing
def learning_curve(
  rows: Sequence[Mapping[str, Any]], name: str, label: str, percent: bool = False
) -> 'Figure':
  """One metric over steps: training and validation as lines, the test as a mark.

  Args:
    rows: of metrics.jsonl.
    name: of the metric.
    label: of its axis.
    percent: whether the metric is a share, drawn in percent.
  """
  figure = new_figure(4.1, 3.1)
  axes = figure.subplots()
  for split, (which, color) in SPLITS.items():
    steps, values = curve(rows, split, name, percent=percent)
    if not len(steps):
      continue
    if split == 'test':
      axes.plot(steps, values, '*', markersize=14, color=color, label=which, zorder=4)
    else:
      style = '-o' if len(steps) <= 30 else '-'
      axes.plot(steps, values, style, markersize=3.5, linewidth=1.5, color=color, label=which)
  axes.set_xlabel('step')
  axes.set_ylabel(f'{label} (%)' if percent else label)
  if name.endswith('loss'):
    _maybe_logarithmic(axes)
  axes.grid()
  if [line.get_label() for line in axes.lines] != [SPLITS['train'][0]]:
    axes.legend(loc='best')
  return figure


def _maybe_logarithmic(axes: 'Axes') -> None:
  values = np.concatenate([np.asarray(line.get_ydata(), float) for line in axes.lines])
  if len(values) and values.min() > 0 and values.max() / values.min() > 30:
    logarithmic(axes.yaxis)


@drawing
def reliability(calibration: Calibration) -> 'Figure':
  """Accuracy over confidence, and how many images each bin holds."""
  figure = new_figure(4.1, 4.5)
  upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
  left, width = calibration.edges[:-1], np.diff(calibration.edges)
  filled = calibration.counts > 0
  upper.plot([0, 1], [0, 1], '--', color=GREY, linewidth=1.2, label='perfectly calibrated')
  upper.bar(
    left[filled],
    calibration.accuracy[filled],
    width[filled],
    align='edge',
    color=BLUE,
    alpha=0.35,
    edgecolor='white',
    label='accuracy in the bin',
  )
  middle, accuracy = calibration.confidence[filled], calibration.accuracy[filled]
  spans = np.array([wilson(round(a * c), c) for a, c in zip(accuracy, calibration.counts[filled])])
  spread = np.abs(spans.T - accuracy)
  upper.errorbar(
    middle,
    accuracy,
    spread,
    fmt='o',
    markersize=4.5,
    color=BLUE,
    elinewidth=1,
    capsize=2,
    label='at the mean confidence, 95 % interval',
  )
  upper.set_ylim(0, 1.02)
  upper.set_ylabel('accuracy')
  upper.grid()
  figure.legend(loc='outside upper center', fontsize=10)
  lower.bar(left, calibration.counts, width, align='edge', color=GREY, edgecolor='white')
  lower.set_xlim(0, 1)
  lower.set_xlabel('confidence (probability of the prediction)')
  lower.set_ylabel('images')
  return figure


@drawing
def confidence(values: np.ndarray, correct: np.ndarray) -> 'Figure':
  """Confidence of correct and of wrong predictions.

  Args:
    values: probability of the prediction [n].
    correct: bool [n].
  """
  figure = new_figure(4.1, 3.1)
  axes = figure.subplots()
  axes.hist(
    [values[correct], values[~correct]],
    np.linspace(0, 1, 21).tolist(),
    stacked=True,
    color=[BLUE, ORANGE],
    label=[f'correct ({correct.sum():,})', f'wrong ({(~correct).sum():,})'],
    edgecolor='white',
    linewidth=0.5,
    hatch=['', '///'],
  )
  axes.set_xlim(0, 1)
  axes.set_xlabel('confidence (probability of the prediction)')
  axes.set_ylabel('images')
  figure.legend(loc='outside upper center', ncols=2)
  axes.grid(axis='y')
  return figure


@drawing
def per_class(table: PerClass, names: Sequence[str], most: int = 40) -> 'Figure':
  """Precision, recall and F1 of each class; of more than `most` classes, their distribution."""
  order = table.worst_first
  if len(order) > most:
    return _distribution(table, order)
  figure = new_figure(4.1, 1.3 + 0.27 * len(order))
  axes = figure.subplots()
  places = np.arange(len(order))[::-1]
  hits = np.round(table.recall[order] * table.support[order])
  spans = np.array([wilson(h, s) for h, s in zip(hits, table.support[order])])
  axes.hlines(places, spans[:, 0], spans[:, 1], color=BLUE, linewidth=5, alpha=0.18)
  axes.plot(table.recall[order], places, 'o', color=BLUE, markersize=6, label='recall')
  axes.plot(table.precision[order], places, 's', color=ORANGE, markersize=5, label='precision')
  axes.plot(table.f1[order], places, 'D', color='black', markersize=3.5, label='F1')
  axes.set_yticks(places, [f'{shorten(names[i])} ({table.support[i]:,})' for i in order])
  axes.set_ylim(-0.7, len(order) - 0.3)
  axes.set_xlim(-0.02, 1.02)
  axes.set_xlabel('score; the bar is the 95 % interval of the recall')
  axes.grid()
  figure.legend(loc='outside upper center', ncols=3)
  return figure


def _distribution(table: PerClass, order: np.ndarray) -> 'Figure':
  figure = new_figure(4.1, 3.1)
  axes = figure.subplots()
  share = (np.arange(len(order)) + 0.5) / len(order) * 100
  for values, label, color, line in (
    (table.recall, 'recall', BLUE, '-'),
    (np.nan_to_num(table.precision), 'precision', ORANGE, '--'),
    (table.f1, 'F1', 'black', ':'),
  ):
    axes.plot(share, np.sort(values[order]), line, color=color, label=label, linewidth=1.8)
  axes.set_xlim(0, 100)
  axes.set_ylim(-0.02, 1.02)
  axes.set_xlabel(f'share of the {len(order):,} classes, worst first (%)')
  axes.set_ylabel('score of the class')
  axes.grid()
  axes.legend(loc='lower right')
  return figure


@drawing
def sheet(items: Sequence[Thumbnail], columns: int = 4) -> 'Figure':
  """Thumbnails in rows, in blue, orange or grey frames; those of mistakes are dashed.

  All are on one pair of axes, in inches: a pair for each, laid out by matplotlib, takes two to
  three times as long.

  Args:
    items: at least one.
    columns: images side by side.
  """
  from matplotlib.patches import Rectangle

  columns = min(columns, len(items))
  texts = ['\n'.join(wrap(line, 20) for line in item.lines) for item in items]
  lines = [text.count('\n') + 1 for text in texts]
  heights = [
    _IMAGE + _LINE * max(lines[first : first + columns]) + _GAP
    for first in range(0, len(items), columns)
  ]
  width, height = (_IMAGE + _GAP) * columns, sum(heights)
  figure = new_figure(width, height)
  figure.set_layout_engine('none')
  axes = figure.add_axes((0, 0, 1, 1))
  for i, (item, text) in enumerate(zip(items, texts)):
    row, column = divmod(i, columns)
    left, top = (_IMAGE + _GAP) * column + _GAP / 2, sum(heights[:row]) + _GAP / 2
    h, w = _IMAGE * np.array(item.pixels.shape[:2]) / max(item.pixels.shape[:2])
    x, y = left + (_IMAGE - w) / 2, top + (_IMAGE - h) / 2
    small = max(item.pixels.shape) < 100
    axes.imshow(
      item.pixels,
      interpolation='nearest' if small else 'antialiased',
      extent=(x, x + w, y + h, y),
    )
    color = GREY if item.correct is None else BLUE if item.correct else ORANGE
    dashes = '--' if item.correct is False else '-'
    frame = Rectangle((x, y), w, h, fill=False, edgecolor=color, linewidth=3, linestyle=dashes)
    axes.add_patch(frame)
    below = y + h + _LINE / 2
    axes.text(left + _IMAGE / 2, below, text, fontsize=9, ha='center', va='top')
  axes.set(xlim=(0, width), ylim=(height, 0), aspect='auto')
  axes.axis('off')
  return figure
