"""Figures of a report. Each takes arrays and returns a matplotlib figure without a caption."""

from collections.abc import Sequence

import numpy as np

from vit_jax.report.canvas import (
  BLUE,
  GREEN,
  GREY,
  ORANGE,
  RED,
  drawing,
  logarithmic,
  new_figure,
  shorten,
  wrap,
)
from vit_jax.report.metrics import Calibration, PerClass, wilson

_SPLITS = {'train': ('training', BLUE), 'val': ('validation', ORANGE), 'test': ('test', RED)}
LABELS = {
  'loss': 'loss',
  'accuracy': 'top-1 accuracy (%)',
  'top3': 'top-3 accuracy (%)',
  'top5': 'top-5 accuracy (%)',
  'iou': 'mean IoU',
  'map': 'mean average precision',
  'exact': 'all classes right (%)',
  'learning_rate': 'learning rate',
  'img_sec': 'pictures a second',
}


def curve_title(name: str) -> str:
  """'Top-1 accuracy over training', of 'accuracy'."""
  label = LABELS.get(name, name).split(' (')[0]
  return f'{label[0].upper()}{label[1:]} over training'


def curve(rows: Sequence[dict], split: str, name: str, x: str = 'step') -> np.ndarray:
  """Points [2, n] of a metric of a split over another column of metrics.jsonl."""
  points = [
    (row[x], row[name])
    for row in rows
    if row['split'] == split and row.get(name) is not None and row.get(x) is not None
  ]
  values = np.array(points, np.float64).reshape(-1, 2).T
  return values * [[1], [100 if LABELS.get(name, '').endswith('(%)') else 1]]


@drawing
def learning_curve(rows: Sequence[dict], name: str):
  """One metric over steps: training and validation as lines, the test as a mark.

  Args:
    rows: of metrics.jsonl.
    name: of the metric.
  """
  figure = new_figure(5.4, 3.6)
  axes = figure.subplots()
  splits = _SPLITS if name != 'learning_rate' else {'train': ('training', BLUE)}
  for split, (label, colour) in splits.items():
    steps, values = curve(rows, split, name)
    if not len(steps):
      continue
    if split == 'test':
      axes.plot(steps, values, '*', markersize=14, color=colour, label=label, zorder=4)
    else:
      few = len(steps) <= 30
      axes.plot(
        steps,
        values,
        '-o' if few else '-',
        markersize=3.5,
        linewidth=1.5,
        color=colour,
        label=label,
      )
  axes.set_xlabel('step')
  axes.set_ylabel(LABELS.get(name, name))
  if name == 'loss':
    _maybe_logarithmic(axes)
  axes.grid()
  if name != 'learning_rate':
    axes.legend(loc='best')
  return figure


def _maybe_logarithmic(axes) -> None:
  values = np.concatenate([line.get_ydata() for line in axes.lines])
  if len(values) and values.min() > 0 and values.max() / values.min() > 30:
    logarithmic(axes.yaxis)


@drawing
def reliability(calibration: Calibration):
  """Accuracy over confidence, and how many pictures each bin holds."""
  figure = new_figure(5.4, 5.2)
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
    label='share right in the bin',
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
  upper.set_ylabel('share right')
  upper.grid()
  figure.legend(loc='outside upper center', fontsize=8.5, ncols=2)
  lower.bar(left, calibration.counts, width, align='edge', color=GREY, edgecolor='white')
  lower.set_xlim(0, 1)
  lower.set_xlabel('confidence (probability of the prediction)')
  lower.set_ylabel('pictures')
  return figure


@drawing
def confidence(values: np.ndarray, correct: np.ndarray):
  """Confidence of right and of wrong predictions.

  Args:
    values: probability of the prediction [n].
    correct: bool [n].
  """
  figure = new_figure(5.4, 3.6)
  axes = figure.subplots()
  edges = np.linspace(0, 1, 21)
  groups = [values[correct], values[~correct]]
  names = [f'right ({correct.sum():,})', f'wrong ({(~correct).sum():,})']
  axes.hist(
    groups,
    edges,
    stacked=True,
    color=[GREEN, RED],
    label=names,
    edgecolor='white',
    linewidth=0.5,
    hatch=['', '///'],
  )
  axes.set_xlim(0, 1)
  axes.set_xlabel('confidence (probability of the prediction)')
  axes.set_ylabel('pictures')
  figure.legend(loc='outside upper center', ncols=2)
  axes.grid(axis='y')
  return figure


@drawing
def per_class(table: PerClass, names: Sequence[str], most: int = 40):
  """Precision, recall and F1 of each class; of many classes, their distribution."""
  order = table.present[np.argsort(table.f1[table.present], kind='stable')]
  if len(order) > most:
    return _distribution(table, order)
  figure = new_figure(5.4, 1.3 + 0.27 * len(order))
  axes = figure.subplots()
  places = np.arange(len(order))[::-1]
  right = np.round(table.recall[order] * table.support[order])
  spans = np.array([wilson(r, s) for r, s in zip(right, table.support[order])])
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


def _distribution(table: PerClass, order: np.ndarray):
  figure = new_figure(5.4, 3.8)
  axes = figure.subplots()
  share = (np.arange(len(order)) + 0.5) / len(order) * 100
  for values, label, colour, line in (
    (table.recall, 'recall', BLUE, '-'),
    (np.nan_to_num(table.precision), 'precision', ORANGE, '--'),
    (table.f1, 'F1', 'black', ':'),
  ):
    axes.plot(share, np.sort(values[order]), line, color=colour, label=label, linewidth=1.8)
  axes.set_xlim(0, 100)
  axes.set_ylim(-0.02, 1.02)
  axes.set_xlabel(f'share of the {len(order):,} classes, worst first (%)')
  axes.set_ylabel('score of the class')
  axes.grid()
  axes.legend(loc='lower right')
  return figure


@drawing
def sheet(
  pictures: Sequence[np.ndarray],
  titles: Sequence[str],
  correct: Sequence[bool | None],
  columns: int = 4,
):
  """Pictures with what was said of them.

  Args:
    pictures: uint8 [h, w, c].
    titles: below each, one or several lines.
    correct: draws a green or a red frame, or for None a grey one.
    columns: pictures side by side.
  """
  columns = min(columns, len(pictures))
  rows = -(-len(pictures) // columns)
  lines = max(t.count('\n') + 1 for t in titles)
  figure = new_figure(1.75 * columns, rows * (1.75 + 0.17 * lines))
  grid = figure.subplots(rows, columns, squeeze=False).ravel()
  for axes in grid[len(pictures) :]:
    axes.axis('off')
  for axes, picture, title, right in zip(grid, pictures, titles, correct):
    picture = np.repeat(picture, 3, -1) if picture.shape[-1] == 1 else picture
    axes.imshow(picture, interpolation='nearest' if max(picture.shape) < 100 else 'antialiased')
    axes.set_xticks([])
    axes.set_yticks([])
    colour = GREY if right is None else GREEN if right else RED
    axes.spines[:].set_visible(True)
    axes.spines[:].set_color(colour)
    axes.spines[:].set_linewidth(3)
    text = '\n'.join(wrap(line, 24) for line in title.split('\n'))
    axes.set_xlabel(text, fontsize=8, color=colour if right is not None else 'black')
  return figure
