"""Figures of a comparison: every run keeps its color and its marker throughout."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from vit_jax.comparison.gather import Run
from vit_jax.report.canvas import SERIES, drawing, logarithmic, new_figure
from vit_jax.report.figures import curve
from vit_jax.report.history import with_seconds
from vit_jax.report.sections import TITLES
from vit_jax.report.single_label import TITLES as ACCURACIES
from vit_jax.report.text import shorten, shorten_all

if TYPE_CHECKING:
  from matplotlib.figure import Figure

_MARKERS = 'osD^vP*X'
_NEAR, _BESIDE = 0.02, 0.06  # shares of an axis: taken for equal, and how far apart they are drawn
_TITLES = {**TITLES, **ACCURACIES}


def _color(i: int) -> str:
  return SERIES[i % len(SERIES)]


def _marker(i: int) -> str:
  return _MARKERS[i % len(_MARKERS)]


def _legend(figure: 'Figure', runs: int) -> None:
  figure.legend(loc='outside upper left', ncols=1 if runs > 6 else min(2, runs), fontsize=10)


@drawing
def accuracies(runs: Sequence[Run], names: Sequence[str]) -> 'Figure':
  """Accuracies with intervals: a row for each run.

  Args:
    runs: in order from the top.
    names: metrics of `metrics.compute`: 'accuracy', 'top5'.
  """
  figure = new_figure(4.1, 1.0 + 0.4 * len(runs))
  axes = figure.subplots()
  for j, name in enumerate(names):
    for i, run in enumerate(runs):
      low, high = run.metrics[f'{name}_interval']
      place = len(runs) - 1 - i + (0.13 - 0.26 * j if len(names) > 1 else 0)
      axes.plot([100 * low, 100 * high], [place, place], color=_color(i), linewidth=2.5, alpha=0.6)
      axes.plot(
        100 * run.metrics[name],
        place,
        _marker(j),
        color=_color(i),
        markersize=7 - 2 * j,
        label=_TITLES[name].text if i == 0 else None,
      )
  called = shorten_all([run.name for run in runs], 26)
  axes.set_yticks(range(len(runs)), called[::-1])
  axes.set_ylim(-0.6, len(runs) - 0.4)
  axes.set_xlabel('accuracy (%), with 95 % interval')
  axes.grid(axis='x')
  if len(names) > 1:
    figure.legend(loc='outside upper center', ncols=len(names), fontsize=10, labelcolor='black')
  return figure


@drawing
def curves(runs: Sequence[Run], split: str, name: str, x: str) -> 'Figure | None':
  """One metric of all runs over steps, or over seconds of training.

  Args:
    runs: all of them.
    split: 'train' or 'val'.
    name: of the metric, 'accuracy' or 'loss'.
    x: 'step' or 'seconds'.

  Returns:
    The figure, or None where fewer than two runs have the metric.
  """
  title = _TITLES[name]
  figure = new_figure(4.1, 3.4)
  axes = figure.subplots()
  called = shorten_all([run.name for run in runs], 30)
  drawn = 0
  for i, run in enumerate(runs):
    rows = run.rows
    if x == 'seconds':
      rows = with_seconds(rows, run.predictions.facts.config.get('batch_size'))
    places, values = curve(rows, split, name, x, title.percent)
    if not len(places):
      continue
    drawn += 1
    axes.plot(
      places / (60 if x == 'seconds' else 1),
      values,
      '-',
      marker=_marker(i) if len(places) <= 30 else '',
      markersize=4,
      color=_color(i),
      linewidth=1.5,
      label=called[i],
    )
  if drawn < 2:
    return None
  axes.set_xlabel('training time (minutes)' if x == 'seconds' else 'step')
  which = {'train': 'training', 'val': 'validation'}[split]
  axes.set_ylabel(f'{which} {title.text}' + (' (%)' if title.percent else ''))
  axes.grid()
  _legend(figure, len(runs))
  return figure


class Spread(NamedTuple):
  """An axis on which the values of several runs stand apart.

  Attributes:
    places: where each is drawn: at its value, or where others are as large beside them.
    limits: of the axis.
    logarithmic: whether it is so.
    only: the value of all; None where they differ.
    beside: whether any is drawn beside another.
  """

  places: list[float]
  limits: tuple[float, float]
  logarithmic: bool
  only: float | None
  beside: bool


def spread(values: Sequence[float]) -> Spread:
  """Places for positive values, of which some may be (nearly) equal."""
  low, high = min(values), max(values)
  is_log = high > 3 * low
  scaled = np.log(values) if is_log else np.asarray(values, float)
  wide = 1.5 * max(np.ptp(scaled), 0.1 * (1 if is_log else high))
  start = (scaled.min() + scaled.max() - wide) / 2
  order = np.argsort(scaled, kind='stable')
  apart = np.flatnonzero(np.diff(scaled[order]) > _NEAR * wide) + 1
  for group in np.split(order, apart):
    step = wide * min(_BESIDE, 0.3 / len(group))
    middle = scaled[group].mean()
    for k, i in enumerate(np.sort(group)):
      scaled[i] = middle + step * (k - (len(group) - 1) / 2)
  found = np.array([*scaled, start, start + wide])
  *places, first, last = (np.exp(found) if is_log else found).tolist()
  only, beside = low if low == high else None, len(apart) < len(order) - 1
  return Spread(places, (first, last), is_log, only, beside)


@drawing
def trade_off(runs: Sequence[Run], values: Sequence[float | None], label: str) -> 'Figure':
  """Accuracy over what it costs, on a logarithmic axis where costs differ much.

  Args:
    runs: all of them.
    values: cost of each, None where it is unknown.
    label: of the cost, with its unit.
  """
  figure = new_figure(4.1, 3.4)
  axes = figure.subplots()
  called = shorten_all([run.name for run in runs], 30)
  axis = spread([v for v in values if v])
  places = iter(axis.places)
  for i, (run, value) in enumerate(zip(runs, values)):
    if not value:
      continue
    low, high = (100 * x for x in run.metrics['accuracy_interval'])
    middle = 100 * run.metrics['accuracy']
    axes.errorbar(
      next(places),
      middle,
      [[middle - low], [high - middle]],
      fmt=_marker(i),
      color=_color(i),
      markersize=8,
      capsize=3,
      elinewidth=1,
      label=called[i],
    )
  if axis.logarithmic:
    logarithmic(axes.xaxis)
  axes.set_xlim(*axis.limits)
  if axis.only is not None:
    axes.set_xticks([axis.only], [f'{axis.only:,.4g}'])
  axes.set_xlabel(label)
  axes.set_ylabel('top-1 accuracy (%)')
  axes.grid(which='both')
  _legend(figure, len(runs))
  return figure


@drawing
def recalls(runs: Sequence[Run], names: Sequence[str], values: np.ndarray) -> 'Figure':
  """Recall of each class by run.

  Args:
    runs: all of them.
    names: of the classes, from the top.
    values: recall [runs, classes].
  """
  figure = new_figure(4.1, 1.3 + 0.28 * len(names))
  axes = figure.subplots()
  places = np.arange(len(names))[::-1]
  axes.hlines(places, values.min(0), values.max(0), color='#dddddd', linewidth=6)
  called = shorten_all([run.name for run in runs], 30)
  for i in range(len(runs)):
    shift = (0.5 * (len(runs) - 1) - i) * 0.5 / max(3, len(runs))  # equal markers stay apart
    axes.plot(
      values[i],
      places + shift,
      _marker(i),
      color=_color(i),
      markersize=5.5,
      label=called[i],
    )
  axes.set_yticks(places, [shorten(n, 24) for n in names])
  axes.set_ylim(-0.7, len(names) - 0.3)
  axes.set_xlim(-0.02, 1.02)
  axes.set_xlabel("recall: share of the class's images that are predicted as it")
  axes.grid()
  _legend(figure, len(runs))
  return figure
