"""What figures show, in words, for those who cannot see them."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from vit_jax.errors import counted
from vit_jax.report.figures import SPLITS, curve
from vit_jax.report.metrics import Calibration
from vit_jax.report.text import number, percent


def learning_curve(
  rows: Sequence[Mapping[str, Any]], name: str, label: str, as_percent: bool = False
) -> str:
  """The first and the last value of each split. Arguments of `figures.learning_curve`."""
  parts = []
  for split, (which, _) in SPLITS.items():
    steps, values = curve(rows, split, name)
    show = percent if as_percent else number
    if len(steps) > 1:
      ends = f'from {show(values[0])} at step {steps[0]:,.0f} to {show(values[-1])}'
      parts.append(f'{which} {ends} at step {steps[-1]:,.0f}')
    elif len(steps):
      parts.append(f'{which} {show(values[0])} at step {steps[0]:,.0f}')
  return f'Line chart of {label} over steps: {"; ".join(parts)}.'


def reliability(calibration: Calibration) -> str:
  """Accuracy of each bin of the reliability diagram."""
  bins = [
    f'{percent(confidence)}: {percent(accuracy)} ({counted(int(count), "image")})'
    for confidence, accuracy, count in zip(
      calibration.confidence, calibration.accuracy, calibration.counts
    )
    if count
  ]
  return f'Accuracy by mean confidence of the bin: {"; ".join(bins)}.'


def confidence(values: np.ndarray, correct: np.ndarray) -> str:
  """Medians of the confidence. Arguments of `figures.confidence`."""
  parts = [
    f'{counted(int(chosen.sum()), "prediction", "predictions")} {words}, median confidence '
    f'{percent(float(np.median(values[chosen])))}'
    for words, chosen in (('correct', correct), ('wrong', ~correct))
    if chosen.any()
  ]
  return f'Histogram of confidence: {"; ".join(parts)}.'


def last_values(
  title: str, runs: Sequence[tuple[str, Sequence[Mapping[str, Any]]]], split: str, name: str
) -> str:
  """The last value of a metric in each run.

  Args:
    title: of the figure.
    runs: their names with their rows of metrics.jsonl.
    split, name: of the metric.
  """
  found = [(run, curve(rows, split, name)[1]) for run, rows in runs]
  ends = '; '.join(f'{run} {number(float(values[-1]))}' for run, values in found if len(values))
  return f'{title}, last values: {ends}.'
