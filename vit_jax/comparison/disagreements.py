"""The images on which runs disagree: a table, a CSV, and a gallery where the dataset is there."""

import dataclasses
import logging
import pathlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from markupsafe import Markup

from vit_jax import data, files
from vit_jax.comparison.gather import Run
from vit_jax.errors import DatasetError, UserError, counted
from vit_jax.report import figures, page, thumbnails
from vit_jax.report.collect import LoadImage
from vit_jax.report.text import percent
from vit_jax.report.thumbnails import Thumbnail

if TYPE_CHECKING:
  from matplotlib.figure import Figure

FILE = 'disagreements.csv'
_MOST = 60  # images and rows on the page

log = logging.getLogger(__name__)


def rows_of(runs: Sequence[Run]) -> list[int]:
  """Rows that some runs predict correctly and others wrongly, the most confident mistakes first."""
  correct = np.stack([run.predictions.correct for run in runs])
  found = np.flatnonzero(correct.any(axis=0) & ~correct.all(axis=0))
  confidence = np.stack([run.predictions.confidence for run in runs])
  mistaken = np.where(correct, 0.0, confidence).max(axis=0)
  return found[np.argsort(-mistaken[found], kind='stable')].tolist()


def write_csv(path: pathlib.Path, runs: Sequence[Run], rows: Sequence[int]) -> None:
  """Writes a row for each image: its id, its class, and of each run prediction and confidence."""
  base = runs[0].predictions
  header = ['id', 'true']
  for run in runs:
    header += [f'{run.name} predicted', f'{run.name} confidence']
  lines = []
  for row in rows:
    line: list[Any] = [base.ids[row], base.classes[base.labels[row]]]
    for p in (run.predictions for run in runs):
      line += [p.classes[p.predicted[row]], p.confidence[row]]
    lines.append(line)
  files.write_csv(path, header, lines)


def section(out: pathlib.Path, runs: Sequence[Run]) -> tuple[str, Sequence[Markup]]:
  """Writes the CSV; returns the part of the page."""
  title, rows = 'Disagreements', rows_of(runs)
  if not rows:
    return title, [page.paragraph('Each image is predicted correctly by all runs or by none.')]
  write_csv(out / FILE, runs, rows)
  patterns = {row: _pattern(runs, row) for row in rows}
  chosen = _spread(rows, patterns)
  count = counted(len(rows), 'image is', 'images are')
  text = f'{count} predicted correctly by some runs and wrongly by others; '
  load = image_loader(runs)
  items = [] if load is None else _items(runs, chosen, patterns, load)
  if items:
    base = runs[0].predictions
    shown = sorted({int(item.data['true']) for item in items})
    kinds = {pattern: _kind(runs, pattern) for pattern in dict.fromkeys(patterns.values())}
    gallery = page.gallery(items, [(i, base.names[i]) for i in shown], kinds)
    text += f'{len(items)} of them are shown, most confident mistakes first.'
    return title, [page.paragraph(text), gallery, _table(runs, rows[:0], patterns)]
  text += 'most confident mistakes first.'
  return title, [page.paragraph(text), _table(runs, chosen, patterns)]


def sheet(runs: Sequence[Run], most: int = 12) -> 'Figure | None':
  """Images that some runs predict correctly and others do not, each kind in turn.

  Args:
    runs: as `gather.gather` gives them.
    most: images, at most.

  Returns:
    None where there are no such images, or their dataset cannot be opened.
  """
  rows = rows_of(runs)
  patterns = {row: _pattern(runs, row) for row in rows}
  load = image_loader(runs) if rows else None
  if load is None:
    return None
  items = _items(runs, _spread(rows, patterns, most), patterns, load)
  return figures.sheet(items) if items else None


def _table(runs: Sequence[Run], rows: Sequence[int], patterns: Mapping[int, str]) -> Markup:
  """Images as rows of a table; without rows a link to the file alone."""
  if not rows:
    return page.paragraph('As a table: ' + page.link(FILE, FILE))
  base = runs[0].predictions
  cells = [
    (
      base.ids[row],
      base.names[base.labels[row]],
      *(_predicted(run, row) for run in runs),
      _kind(runs, patterns[row]),
    )
    for row in rows
  ]
  header = ('image', 'true class', *(run.name for run in runs), 'correct')
  words = tuple(range(1, len(header)))
  return page.table(header, cells, 'As a file:', text=words, sortable=True, file=FILE)


def _pattern(runs: Sequence[Run], row: int) -> str:
  """Numbers of the runs that are correct, '0-2'."""
  return '-'.join(str(i) for i, run in enumerate(runs) if run.predictions.correct[row])


def _kind(runs: Sequence[Run], pattern: str) -> str:
  return 'only ' + ', '.join(runs[int(i)].name for i in pattern.split('-')) + ' correct'


def _spread(rows: Sequence[int], patterns: Mapping[int, str], most: int = _MOST) -> list[int]:
  """Rows of every pattern in turn, so that a rare one is shown too; then in their order."""
  of_pattern: dict[str, list[int]] = {}
  for row in rows:
    of_pattern.setdefault(patterns[row], []).append(row)
  turns = [(turn, row) for found in of_pattern.values() for turn, row in enumerate(found)]
  chosen = {row for _, row in sorted(turns)[:most]}
  return [row for row in rows if row in chosen]


def _predicted(run: Run, row: int) -> str:
  p = run.predictions
  return f'{p.names[p.predicted[row]]}, {percent(float(p.confidence[row]))}'


def _items(
  runs: Sequence[Run], rows: Sequence[int], patterns: Mapping[int, str], load: LoadImage
) -> list[Thumbnail]:
  base, items = runs[0].predictions, []
  for row in rows:
    try:
      pixels = thumbnails.draw(load(row))
    except UserError as e:
      log.warning('%s', e)
      continue
    true = base.labels[row]
    lines = [f'true {base.names[true]}']
    for run in runs:
      mark = '\u2713' if run.predictions.correct[row] else '\u2717'
      lines.append(f'{mark} {run.name}: {_predicted(run, row)}')
    values = {'true': str(true), 'pred': '', 'kind': patterns[row]}
    items.append(Thumbnail(pixels, lines, None, base.ids[row], data=values))
  return items


def image_loader(runs: Sequence[Run]) -> LoadImage | None:
  """The function that gives the image of a row, as it is stored.

  Returns:
    row -> uint8 [h, w, c]; None, with a warning, where the dataset of no run can be opened here.
  """
  problems = []
  for run in runs:
    facts = run.predictions.facts
    if not facts.config.get('dataset'):
      continue
    try:
      return _loader(run)
    except UserError as e:
      problems.append(f'{run.name}: {e}')
  if problems:
    log.warning('the images of disagreements are not shown: %s', problems[0])
  return None


def _loader(run: Run) -> LoadImage:
  from vit_jax.config import parse_saved  # a comparison without images needs no config

  predictions = run.predictions
  facts = predictions.facts
  options = parse_saved({'dataset': facts.config['dataset']}).dataset
  if facts.dataset and facts.dataset != options.name:  # evaluated on another one
    options = dataclasses.replace(options, name=facts.dataset)
  examples = options.open().split(facts.split)
  decode = data.parse_transform('decode', fixed_size=False)
  place = {examples.id(i): i for i in range(len(examples))}

  def load(row: int) -> np.ndarray:
    if predictions.ids[row] not in place:
      raise DatasetError(f'{predictions.ids[row]} is not in {facts.dataset} any more')
    return np.asarray(decode(examples[place[predictions.ids[row]]])['image'])

  return load
