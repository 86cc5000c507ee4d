"""compare.html: what the runs have in common, and in what they differ."""

import json
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from markupsafe import Markup

from vit_jax.comparison import disagreements, figures, verdict
from vit_jax.comparison.gather import Run
from vit_jax.comparison.significance import LEVEL, Pair
from vit_jax.comparison.table import Fact
from vit_jax.errors import counted
from vit_jax.report import alternatives, canvas, metrics, page
from vit_jax.report.sections import span_of
from vit_jax.report.text import number, percent

if TYPE_CHECKING:
  from matplotlib.figure import Figure

_CLASSES = 40  # classes shown by recall


class Extra(NamedTuple):
  """What a page says besides.

  Attributes:
    lead: parts above all others.
    sections: before all others, each a title with parts.
  """

  lead: Sequence[Markup]
  sections: Sequence[tuple[str, Sequence[Markup]]]


def write(
  out: pathlib.Path,
  runs: Sequence[Run],
  table: Sequence[Fact],
  pairs: Sequence[Pair],
  extra: Extra | None = None,
) -> pathlib.Path:
  """Draws the figures and writes the page.

  Args:
    out: folder of the page.
    runs: tested on the same images, in the same order.
    table: its rows.
    pairs: every pair of runs with its test.
    extra: parts of its own, such as a sweep's.

  Raises:
    DependencyError: matplotlib is missing.
  """
  canvas.empty_folder(out / 'figures')
  names = [run.name for run in runs]
  rows = [(row.label, *(row.show(row.value(run)) for run in runs)) for row in table]
  reports = [_report(out, run) for run in runs]
  extra = extra or Extra((), ())
  sections = [
    *extra.sections,
    ('Table', [page.table(('what', *reports), rows, file='compare.csv'), _notes(runs)]),
    ('Accuracy', _accuracy(out, runs, pairs)),
    ('Learning curves', _curves(out, runs)),
    ('Accuracy and cost', _costs(out, runs)),
    ('Classes', _classes(out, runs)),
    disagreements.section(out, runs),
    ('Differences in configuration', _configuration(runs)),
  ]
  title = ' vs '.join(names) if len(runs) <= 3 else f'{len(runs)} runs compared'
  footer = f'Made by vit_jax from the same {counted(len(runs[0].predictions), "image")}.'
  lead = [*extra.lead, *_lead(runs, pairs)]
  if any(isinstance(name, Markup) for name in reports):
    lead.append(page.paragraph(Markup('Reports: ') + Markup(', ').join(reports)))
  return page.write(out / 'compare.html', title, lead, sections, footer)


def _report(out: pathlib.Path, run: Run) -> str:
  """The name of a run, as a link to its report where there is one."""
  folder = pathlib.Path(run.path)
  for path in (folder / 'report' / 'report.html', folder / 'report.html'):
    if path.is_file():
      try:
        return page.link(os.path.relpath(path, out), run.name)
      except ValueError:  # another drive of Windows
        break
  return run.name


def _figure(
  out: pathlib.Path, name: str, drawing: 'Figure | None', title: str, caption: str, alt: str
) -> Markup:
  if drawing is None:
    return Markup()
  path = canvas.save(drawing, out / 'figures' / f'{name}.png')
  return page.figure(path, title, caption, alt=alt)


def _lead(runs: Sequence[Run], pairs: Sequence[Pair]) -> list[Markup]:
  base = runs[0].predictions
  tested = (
    f'All were tested on the same {counted(len(base), "image")} '
    f'({base.facts.split or "the split"} of '
    f'{pathlib.PurePath(base.facts.dataset).name or "one dataset"}).'
  )
  parts = [page.paragraph(verdict.of_runs(runs, pairs), 'lead'), page.paragraph(tested)]
  datasets = sorted({run.predictions.facts.dataset for run in runs})
  if len(datasets) > 1:
    called = ' and '.join(datasets)
    text = f'The datasets are called {called}; names and classes of all images agree.'
    parts.append(page.paragraph(text, 'note'))
  return parts


def _notes(runs: Sequence[Run]) -> Markup:
  notes = []
  if any(run.training and run.training.seconds_estimated for run in runs):
    notes.append(
      'Training time is added up from the training rate where a run recorded no seconds: '
      'without compilation, validation and saving.'
    )
  if len({run.predictions.facts.devices for run in runs}) > 1:
    notes.append('The runs were evaluated on different devices: times are not comparable.')
  single = [run.name for run in runs if run.predictions.img_sec is None]
  notes.append(
    'Evaluation time includes compilation, unless a validation of the same run had compiled it '
    'before; evaluation images/s exclude the first batch, which may compile'
    + (f', but for those of a single batch ({", ".join(single)})' if single else '')
    + '. –: not known.'
  )
  return page.paragraph(' '.join(notes))


def _accuracy(out: pathlib.Path, runs: Sequence[Run], pairs: Sequence[Pair]) -> list[Markup]:
  names = ['accuracy'] + (['top5'] if all('top5' in run.metrics for run in runs) else [])
  figure = _figure(
    out,
    'accuracy',
    figures.accuracies(runs, names),
    'Accuracy on the test images',
    'Wilson intervals for each run alone. Overlapping intervals do not mean that two runs are '
    'alike: the table below compares them image by image.',
    '95\u00a0% intervals of the accuracy: '
    + '; '.join(f'{run.name} {span_of(run.metrics, "accuracy")}' for run in runs),
  )
  columns: dict[str, list[str]] = {
    'pair': [f'{pair.first.name} – {pair.second.name}' for pair in pairs],
    f'verdict (p\u00a0<\u00a0{LEVEL:g})': [verdict.of_pair(pair) for pair in pairs],
    'difference': [f'{verdict.points(pair.test.difference)} points' for pair in pairs],
    '95\u00a0% interval': [
      ' to '.join(verdict.points(end) for end in pair.test.interval) for pair in pairs
    ],
    'p-value': [verdict.p_text(pair.test.p_value) for pair in pairs],
  }
  text = (
    "McNemar's exact test on the images that only one of the two predicts correctly; adjusted Wald "
    'interval of the difference.'
  )
  if len(pairs) > 1:
    columns['p-value (Holm)'] = [verdict.p_text(pair.adjusted_p) for pair in pairs]
    text += f' Holm corrects for {len(pairs)} pairs having been tested.'
  columns['only first correct'] = [f'{pair.test.only_first:,}' for pair in pairs]
  columns['only second correct'] = [f'{pair.test.only_second:,}' for pair in pairs]
  return [
    figure,
    page.heading('Paired differences'),
    page.paragraph(verdict.of_runs(runs, pairs)),
    page.paragraph(text),
    page.table(list(columns), list(zip(*columns.values())), text=(1,), sortable=True),
  ]


def _curves(out: pathlib.Path, runs: Sequence[Run]) -> list[Markup]:
  parts = []
  for split, which in (('val', 'Validation'), ('train', 'Training')):
    for name in ('accuracy', 'loss'):
      for x, over in (('step', 'steps'), ('seconds', 'time')):
        caption = 'Batch sizes may differ, and with them what a step is.'
        if x == 'seconds':
          caption = 'Time of training alone where it was added up from rates.'
        drawing = figures.curves(runs, split, name, x)
        title = f'{which} {name} over {over}'
        alt = alternatives.last_values(title, [(run.name, run.rows) for run in runs], split, name)
        parts.append(_figure(out, f'{split}_{name}_{x}', drawing, title, caption, alt))
  return [page.figures(*parts)]


def _costs(out: pathlib.Path, runs: Sequence[Run]) -> list[Markup]:
  parameters = [run.predictions.facts.parameters for run in runs]
  seconds = [run.training.seconds if run.training else None for run in runs]
  rates = [metrics.throughput(run.predictions) for run in runs]
  parts = []
  for name, title, label, values, unit in (
    ('parameters', 'size', 'parameters (millions)', parameters, 1e-6),
    ('training_time', 'training time', 'training time (minutes)', seconds, 1 / 60),
    ('throughput', 'throughput', 'evaluation images/s', rates, 1),
  ):
    if sum(bool(v) for v in values) < 2:
      continue
    drawing = figures.trade_off(runs, [v * unit if v else None for v in values], label)
    better = 'right is faster' if name == 'throughput' else 'left is cheaper'
    caption = f'Up is better; {better}. Bars: 95\u00a0% intervals.'
    if figures.spread([v for v in values if v]).beside:
      caption += ' Runs with the same value, or nearly, are drawn side by side.'
    alt = f'Accuracy and {label}: ' + '; '.join(
      f'{run.name} {percent(run.metrics["accuracy"])} at {number(v * unit)}'
      for run, v in zip(runs, values)
      if v
    )
    parts.append(_figure(out, f'cost_{name}', drawing, f'Accuracy and {title}', caption, alt))
  return [page.figures(*parts)]


def _classes(out: pathlib.Path, runs: Sequence[Run]) -> list[Markup]:
  """Recall by class; of many classes those that differ most."""
  base = runs[0].predictions
  present = np.flatnonzero(np.bincount(base.labels, minlength=len(base.classes)))
  values = np.array(
    [[run.predictions.correct[base.labels == c].mean() for c in present] for run in runs]
  )
  order = np.argsort(-np.ptp(values, axis=0), kind='stable')[:_CLASSES]
  caption = 'The runs differ most at the top.'
  if not np.ptp(values, axis=0).any():
    caption = 'The runs do not differ in any class.'
  elif len(present) > len(order):
    caption = f'The {len(order)} of {len(present):,} classes that the runs differ most in.'
  drawing = figures.recalls(runs, [base.names[present[i]] for i in order], values[:, order])
  alt = f'Recall of each class by run. {caption}'
  if len(order):
    widest = ', '.join(
      f'{run.name} {percent(float(value))}' for run, value in zip(runs, values[:, order[0]])
    )
    alt += f' Class {base.names[present[order[0]]]}: {widest}.'
  return [_figure(out, 'recall', drawing, 'Recall of each class', caption, alt)]


def _configuration(runs: Sequence[Run]) -> list[Markup]:
  flat = [_flatten(run.predictions.facts.config) for run in runs]
  names = sorted(set().union(*flat))
  rows = [
    (name, *(json.dumps(f[name]) if name in f else '–' for f in flat))
    for name in names
    if len({json.dumps(f.get(name)) for f in flat}) > 1
  ]
  return [page.table(('option', *(run.name for run in runs)), rows, sortable=True)] if rows else []


def _flatten(config: Mapping[str, Any], prefix: str = '') -> dict[str, Any]:
  found: dict[str, Any] = {}
  for key, value in config.items():
    if isinstance(value, dict):
      found |= _flatten(value, f'{prefix}{key}.')
    else:
      found[prefix + key] = value
  return found
