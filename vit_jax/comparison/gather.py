"""Reads the runs to compare, and refuses those that cannot be compared."""

import dataclasses
import functools
import logging
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from vit_jax import machine, metric_writer, remote
from vit_jax.data import class_names
from vit_jax.errors import CheckpointError, ConfigError, DatasetError, counted
from vit_jax.report import Predictions, load_predictions
from vit_jax.report.history import Training, training
from vit_jax.report.metrics import compute
from vit_jax.report.predictions import FILE

log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, eq=False)
class Run:
  """A run to compare.

  Attributes:
    name: short and unique.
    path: as it was given.
    predictions: in the order of images that all runs share.
    rows: of metrics.jsonl; empty for weights that were not trained here.
  """

  name: str
  path: str
  predictions: Predictions
  rows: Sequence[Mapping[str, Any]]

  @functools.cached_property
  def metrics(self) -> dict[str, Any]:
    """The numbers of its report."""
    return compute(self.predictions)

  @functools.cached_property
  def training(self) -> Training | None:
    """How long it trained; None for weights that were not trained here."""
    return training(self.rows, self.predictions.facts.config.get('batch_size'))

  @property
  def seconds_per_parameter(self) -> float | None:
    """Training seconds for each trained parameter."""
    trained, run = self.predictions.facts.trained_parameters, self.training
    if not trained or run is None or run.seconds is None:
      return None
    return run.seconds / trained

  @property
  def memory_bytes(self) -> int | None:
    """Peak on a device: of training where that was recorded, else of the evaluation."""
    of_training = self.training.memory_bytes if self.training else None
    return of_training or self.predictions.facts.device_memory_bytes


def gather(paths: Sequence[str]) -> list[Run]:
  """Reads the runs, evaluating those that have no predictions yet.

  Args:
    paths: folders of runs or of reports, or their URLs.

  Raises:
    ConfigError: a run is given twice.
    CheckpointError: a path is neither a run nor a report.
    DatasetError: the runs were not tested on the same images, of one class each.
  """
  paths = [remote.local(path) for path in paths]
  missing = [_no_run(p) for p in paths if not pathlib.Path(p).is_dir()]
  if missing:
    raise CheckpointError(missing)
  if len({os.path.realpath(p) for p in paths}) < len(paths):
    raise ConfigError(f'a run is named twice: {", ".join(paths)}')
  found = [_read(path) for path in paths]
  refuse_different_tests({path: p for path, (p, _) in zip(paths, found)})
  order = found[0][0].ids
  return [
    Run(name, path, in_order(predictions, order), rows)
    for name, path, (predictions, rows) in zip(short_names(paths), paths, found)
  ]


def _no_run(path: str) -> str:
  """What to type where a path may be weights: their report can be compared."""
  from vit_jax.weights.hub import pretrained_models

  if not os.path.lexists(path) and path not in pretrained_models():
    return f'{path} is neither a folder of a run nor of a report: there is nothing of that name'
  command = machine.shell_line(['python', '-m', 'vit_jax.evaluate', path, '--report=DIR'])
  return (
    f'{path} is neither a folder of a run nor of a report: if it is weights, `{command}` writes a '
    'report, whose folder DIR can be compared'
  )


def _read(path: str) -> tuple[Predictions, list[dict[str, Any]]]:
  """Predictions of a run, and the rows of its metrics.jsonl."""
  folder = pathlib.Path(path)
  file = next((f for f in (folder / FILE, folder / 'report' / FILE) if f.exists()), None)
  if file is None:
    _evaluate(path)
    file = folder / 'report' / FILE
  workdir = next((f for f in (folder, folder.parent) if (f / 'metrics.jsonl').exists()), None)
  if workdir == folder.parent and folder.name != 'report':
    workdir = None  # it belongs to another folder
  predictions = load_predictions(file)
  if predictions.multi_hot is not None:
    raise DatasetError(
      f'{file} is of a task with several classes per image: only runs with one class per image can '
      'be compared'
    )
  return predictions, metric_writer.read_metrics(workdir) if workdir else []


def _evaluate(path: str) -> None:
  from vit_jax import checkpoint
  from vit_jax.evaluation.standalone import evaluate

  if not checkpoint.is_run(path):
    raise CheckpointError(_no_run(path))
  log.info('%s has no report yet: evaluating it on its test split', path)
  evaluate(path, split='test', report_dir=str(pathlib.Path(path) / 'report'))


def refuse_different_tests(runs: Mapping[str, Predictions]) -> None:
  """Accuracies are compared only where all models were tested on the same images.

  Args:
    runs: predictions by the path of their run.

  Raises:
    DatasetError: how the test sets differ.
  """
  problems = []
  (first, base), *others = runs.items()
  truth = _truth(base)
  for path, predictions in others:
    other = _truth(predictions)
    reasons = []
    for here, there, ours, theirs in ((first, path, truth, other), (path, first, other, truth)):
      missing = [i for i in ours if i not in theirs]
      if missing:
        reasons.append(
          f'{len(missing):,} of {len(ours):,} images of {here} are not in {there}, '
          f'such as {missing[0]!r}'
        )
    moved = [i for i in truth if i in other and truth[i] != other[i]]
    if moved:
      i = moved[0]
      count = counted(len(moved), 'image has another class', 'images have other classes')
      reasons.append(f'{count}, such as {i!r}: {truth[i]!r} in {first}, {other[i]!r} in {path}')
    if reasons:
      where = ' and '.join(f'{p.facts.dataset} {p.facts.split}' for p in (base, predictions))
      problems.append(
        f'{first} and {path} were tested on different images ({where}): ' + '; '.join(reasons)
      )
  if problems:
    hint = 'evaluate them on one split: python -m vit_jax.evaluate RUN --dataset=... --report=DIR'
    raise DatasetError([*problems, hint])


def _truth(predictions: Predictions) -> dict[str, str]:
  """The true class of each image by its id, named as classes are matched between models."""
  names = [class_names.normalize(c) for c in predictions.classes]
  return {i: names[label] for i, label in zip(predictions.ids, predictions.labels)}


def in_order(predictions: Predictions, ids: Sequence[str]) -> Predictions:
  """The same predictions with the images in another order."""
  if predictions.ids == tuple(ids):
    return predictions
  place = {i: row for row, i in enumerate(predictions.ids)}
  rows = np.array([place[i] for i in ids])
  chosen = {
    name: getattr(predictions, name)[rows]
    for name in ('labels', 'logits', 'index', 'boxes_cxcywh', 'true_boxes_cxcywh')
    if getattr(predictions, name) is not None
  }
  return dataclasses.replace(predictions, ids=tuple(ids), **chosen)


def short_names(paths: Sequence[str]) -> list[str]:
  """The shortest ends of the paths that differ, without 'report' at their ends."""
  parts = []
  for path in paths:
    split = list(pathlib.Path(os.path.abspath(path)).parts)
    parts.append(split[:-1] if split[-1] == 'report' and len(split) > 1 else split)
  for length in range(1, max(map(len, parts)) + 1):
    names = ['/'.join(p[-length:]) for p in parts]
    if len(set(names)) == len(names):
      return names
  return list(paths)
