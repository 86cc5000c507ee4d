"""The report of pictures that show any number of classes: average precisions and curves."""

import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from vit_jax import files
from vit_jax.report import history, metrics
from vit_jax.report.predictions import FILE, Predictions

_CURVES = ('loss', 'map', 'exact', 'accuracy', 'learning_rate')
_ROWS = 50  # classes in a table that is not folded away


def compute(predictions: Predictions) -> tuple[dict[str, Any], np.ndarray]:
  """What metrics.json says, and the average precision of each class [k]."""
  from vit_jax.tasks.multilabel import average_precision  # needs JAX

  truth = predictions.multi_hot > 0
  precision = average_precision(predictions.logits, truth)
  known = np.isfinite(precision)
  best = predictions.logits.argmax(axis=-1)
  return {
    'examples': len(predictions),
    'skipped': predictions.skipped,
    'classes': len(predictions.classes),
    'classes_present': int(known.sum()),
    'map': float(precision[known].mean()) if known.any() else 0.0,
    'accuracy': float(truth[np.arange(len(truth)), best].mean()),
    'exact': float(((predictions.logits > 0) == truth).all(axis=-1).mean()),
    'seconds': predictions.seconds,
    'img_sec': predictions.img_sec,
    'facts': predictions.facts.to_json(),
  }, precision


def write_data(
  out: pathlib.Path, predictions: Predictions, rows: Sequence[dict]
) -> tuple[dict[str, Any], np.ndarray]:
  """Writes predictions.npz, metrics.json and per_class.csv.

  Returns:
    What metrics.json holds, and the average precision of each class [k].
  """
  from vit_jax.files import write_csv

  predictions.save(out / FILE)
  result, precision = compute(predictions)
  trained = history.training(rows, predictions.facts.config.get('batch_size'))
  result['training'] = trained and {'steps': trained.steps, 'seconds': trained.seconds}
  result = metrics.jsonable(result)
  files.write_json(out / 'metrics.json', result)
  support = (predictions.multi_hot > 0).sum(axis=0)
  write_csv(
    out / 'per_class.csv',
    ('class', 'support', 'average_precision'),
    zip(predictions.classes, support, precision),
  )
  return result, precision


def write_page(
  out: pathlib.Path,
  predictions: Predictions,
  result: dict[str, Any],
  precision: np.ndarray,
  rows: Sequence[dict],
) -> pathlib.Path:
  """Draws the curves and writes report.html, from what `write_data` gives."""
  from vit_jax.report import canvas, figures, page, sections

  folder = canvas.empty_folder(out / 'figures')
  facts = predictions.facts
  report = page.Page(sections.title(facts))
  report.lead(
    page.paragraph(
      f'{facts.model or "The model"} tells which of {result["classes"]:,} classes each of '
      f'{result["examples"]:,} pictures shows, with a mean average precision of '
      f'{result["map"]:.3f} over the {result["classes_present"]:,} classes that occur.',
      'lead',
    ),
    page.cards(
      [
        ('Mean average precision', f'{result["map"]:.3f}', 'of classes that occur'),
        ('Likeliest class is there', f'{100 * result["accuracy"]:.1f} %', 'of pictures'),
        ('All classes right', f'{100 * result["exact"]:.1f} %', 'of pictures'),
      ]
    ),
  )
  known = set().union(*rows)
  shown = []
  for name in (name for name in _CURVES if name in known):
    path = canvas.save(figures.learning_curve(rows, name), folder / f'curve_{name}.png')
    shown.append(
      page.figure(
        path, figures.curve_title(name), 'A star is the test of the checkpoint that was kept.'
      )
    )
  report.section('Learning curves', page.figures(*shown))
  support = (predictions.multi_hot > 0).sum(axis=0)
  worst = np.argsort(np.where(np.isnan(precision), 2.0, precision), kind='stable')
  cells = [
    (
      predictions.names[i],
      f'{support[i]:,}',
      '–' if np.isnan(precision[i]) else f'{precision[i]:.3f}',
    )
    for i in worst
  ]
  header = ('class', 'pictures', 'average precision')
  caption = 'Worst first; all of it: per_class.csv'
  report.section('Classes', page.table(header, cells[:_ROWS], caption))
  return sections.finish(report, out, predictions)
