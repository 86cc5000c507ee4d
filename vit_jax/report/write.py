"""The report of an evaluation: files for programs first, then the page for people."""

import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from vit_jax import files
from vit_jax.errors import UserError
from vit_jax.files import write_csv
from vit_jax.report import boxes, history, metrics, several
from vit_jax.report.predictions import FILE, Predictions

_WIDE = 1000  # classes up to which the confusion matrix is written as a table


def write_report(
  out_dir: str | pathlib.Path,
  predictions: Predictions,
  metrics_rows: Sequence[dict] = (),
  load_picture: Callable[[int], np.ndarray] | None = None,
) -> dict[str, Any]:
  """Writes predictions.npz, metrics.json, CSVs, then figures and report.html.

  Args:
    out_dir: made where it is missing; files of an earlier report are replaced.
    predictions: what is reported.
    metrics_rows: of the run's metrics.jsonl, for the learning curves.
    load_picture: position in the split -> uint8 [h, w, c], as the model saw it; without it no
      pictures are shown.

  Returns:
    What metrics.json holds.

  Raises:
    UserError: the folder cannot be written, or, once predictions, metrics and tables are written,
      matplotlib is missing.
  """
  out = pathlib.Path(out_dir)
  try:
    out.mkdir(parents=True, exist_ok=True)
    if predictions.multi_hot is not None:
      result, precision = several.write_data(out, predictions, metrics_rows)
      several.write_page(out, predictions, result, precision, metrics_rows)
      return result
    result = _write_data(out, predictions, metrics_rows)
  except OSError as e:
    raise UserError(f'cannot write a report to {out}: {e.strerror or e}') from e
  from vit_jax.report import sections  # draws

  sections.write_page(out, predictions, result, metrics_rows, load_picture)
  return result


def _write_data(
  out: pathlib.Path, predictions: Predictions, rows: Sequence[dict]
) -> dict[str, Any]:
  predictions.save(out / FILE)
  facts = predictions.facts
  trained = history.training(rows, facts.config.get('batch_size'))
  result = metrics.compute(predictions) | boxes.compute(predictions)
  result |= {
    'training': None
    if trained is None
    else {
      'steps': trained.steps,
      'seconds': trained.seconds,
      'seconds_estimated': trained.estimated,
      'img_sec': trained.img_sec,
      'memory_bytes': trained.memory_bytes,
    },
    'facts': facts.to_json(),
  }
  result = metrics.jsonable(result)
  files.write_json(out / 'metrics.json', result)
  _write_classes(out, predictions)
  _write_pictures(out / 'predictions.csv', predictions)
  reliability = metrics.calibration(predictions)
  edges = reliability.edges
  write_csv(
    out / 'calibration.csv',
    ('from', 'to', 'pictures', 'mean_confidence', 'accuracy'),
    zip(edges[:-1], edges[1:], reliability.counts, reliability.confidence, reliability.accuracy),
  )
  return result


def _write_classes(out: pathlib.Path, predictions: Predictions) -> None:
  classes, table = predictions.classes, metrics.per_class(predictions)
  write_csv(
    out / 'per_class.csv',
    ('class', 'support', 'predicted', 'precision', 'recall', 'f1'),
    zip(classes, table.support, table.predicted, table.precision, table.recall, table.f1),
  )
  counts = metrics.confusion_counts(predictions)
  pairs = metrics.confused_pairs(counts, metrics.confusion_probability(predictions))
  write_csv(
    out / 'confused_pairs.csv',
    ('true', 'predicted', 'pictures', 'share_of_true_class', 'mean_probability'),
    ((classes[p.true], classes[p.predicted], p.count, p.share, p.probability) for p in pairs),
  )
  if len(classes) <= _WIDE:
    write_csv(
      out / 'confusion.csv',
      ('true \\ predicted', *classes),
      ((name, *row) for name, row in zip(classes, counts)),
    )


def _write_pictures(path: pathlib.Path, predictions: Predictions) -> None:
  classes = predictions.classes
  header = ['id', 'true', 'predicted', 'correct', 'confidence', 'true_probability', 'rank']
  columns: list = [
    predictions.ids,
    [classes[i] for i in predictions.labels],
    [classes[i] for i in predictions.predicted],
    predictions.correct.astype(int),
    predictions.confidence,
    predictions.true_probability,
    predictions.ranks,
  ]
  values = boxes.overlaps(predictions)
  if values is not None:
    header.append('iou')
    columns.append(values)
  write_csv(path, header, zip(*columns))
