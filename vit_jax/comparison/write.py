"""The comparison as a page, a table and JSON."""

import itertools
import json
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from vit_jax import files
from vit_jax.comparison import figures
from vit_jax.comparison.gather import Run
from vit_jax.comparison.significance import Paired, holm, paired
from vit_jax.errors import UserError
from vit_jax.files import write_csv
from vit_jax.report import canvas, history, metrics, page
from vit_jax.report.examples import percent
from vit_jax.report.history import duration, number

_CLASSES = 40  # classes shown by recall
_LEVEL = 0.05

Row = tuple[str, str, Callable[[Run], Any], Callable[[Any], str]]


def facts(runs: Sequence[Run]) -> list[Row]:
  """The rows of the table: (name in files, name for people, value, how it is written)."""

  def metric(name: str) -> Callable[[Run], Any]:
    return lambda run: run.metrics.get(name)

  def fact(name: str) -> Callable[[Run], Any]:
    return lambda run: getattr(run.predictions.facts, name)

  def trained(name: str) -> Callable[[Run], Any]:
    return lambda run: getattr(run.training, name) if run.training else None

  def share(value: float | None) -> str:
    return '–' if value is None else percent(value)

  def span(value: list[float]) -> str:
    return f'{100 * value[0]:.1f} – {100 * value[1]:.1f}\u00a0%'

  def words(value: Any) -> str:
    return str(value) if value else '–'

  rows: list[Row] = [('model', 'model', fact('model'), words)]
  rows += [
    ('accuracy', 'top-1 accuracy', metric('accuracy'), share),
    ('accuracy_interval', '95\u00a0% interval', metric('accuracy_interval'), span),
  ]
  for k in (3, 5):
    if all(f'top{k}' in run.metrics for run in runs):
      rows.append((f'top{k}', f'top-{k} accuracy', metric(f'top{k}'), share))
  rows += [
    ('macro_f1', 'macro F1', metric('macro_f1'), lambda v: f'{v:.3f}'),
    ('ece', 'calibration error (ECE)', metric('ece'), share),
    ('parameters', 'parameters', fact('parameters'), number),
    ('trained_parameters', 'trained parameters', fact('trained_parameters'), number),
    ('training_seconds', 'training time', trained('seconds'), duration),
    ('training_img_sec', 'training pictures/s', trained('img_sec'), number),
    (
      'seconds_per_parameter',
      'training time per trained parameter',
      lambda run: run.seconds_per_parameter,
      brief,
    ),
    ('evaluation_seconds', 'evaluation time', metric('seconds'), lambda v: duration(v or None)),
    ('img_sec', 'evaluation pictures/s', metric('img_sec'), number),
    ('device_memory_bytes', 'peak device memory', lambda run: run.memory_bytes, history.size),
    ('host_memory_bytes', 'peak process memory', fact('host_memory_bytes'), history.size),
    ('devices', 'devices', fact('devices'), words),
  ]
  always = {'model', 'accuracy', 'trained_parameters', 'training_seconds'}
  return [row for row in rows if row[0] in always or any(row[2](run) for run in runs)]


def brief(seconds: float | None) -> str:
  """'12.3 µs' or '4.5 ms'; a dash for None."""
  if seconds is None:
    return '–'
  value, unit = (1e6 * seconds, 'µs') if seconds < 1e-3 else (1e3 * seconds, 'ms')
  return f'{number(value)}\u00a0{unit}'


def text_table(runs: Sequence[Run]) -> str:
  """The table for a terminal."""
  rows = [('', *(run.name for run in runs))]
  rows += [(label, *(show(value(run)) for run in runs)) for _, label, value, show in facts(runs)]
  widths = [max(len(row[j]) for row in rows) for j in range(len(rows[0]))]
  lines = []
  for first, *rest in rows:
    cells = [f'{cell:>{width}}' for cell, width in zip(rest, widths[1:])]
    lines.append('  '.join([f'{first:{widths[0]}}', *cells]))
  return '\n'.join(lines)


def pairs(runs: Sequence[Run]) -> list[tuple[Run, Run, Paired, float]]:
  """Every pair of runs with its test, and the p-value adjusted for the number of pairs."""
  both = list(itertools.combinations(runs, 2))
  tests = [paired(a.predictions.correct, b.predictions.correct) for a, b in both]
  adjusted = holm([test.p_value for test in tests])
  return [(a, b, test, p) for (a, b), test, p in zip(both, tests, adjusted)]


def write_comparison(out_dir: str | pathlib.Path, runs: Sequence[Run]) -> dict[str, Any]:
  """Writes compare.json and compare.csv, then figures and compare.html.

  Args:
    out_dir: made where it is missing.
    runs: as `gather.gather` gives them: tested on the same pictures, in the same order.

  Returns:
    What compare.json holds.

  Raises:
    UserError: the folder cannot be written, or matplotlib is missing once the tables are written.
  """
  out = pathlib.Path(out_dir)
  tests, table = pairs(runs), facts(runs)
  result = metrics.jsonable(
    {
      'pictures': len(runs[0].predictions),
      'runs': [
        {'name': run.name, 'path': run.path, **{key: value(run) for key, _, value, _ in table}}
        for run in runs
      ],
      'pairs': [
        {
          'first': a.name,
          'second': b.name,
          'difference': t.difference,
          'interval': t.interval,
          'only_first_right': t.only_first,
          'only_second_right': t.only_second,
          'p_value': t.p_value,
          'p_value_holm': p,
        }
        for a, b, t, p in tests
      ],
    }
  )
  try:
    out.mkdir(parents=True, exist_ok=True)
    files.write_json(out / 'compare.json', result)
    keys = [key for key, *_ in table if not key.endswith('_interval')]
    write_csv(
      out / 'compare.csv',
      ('run', *keys, 'accuracy_low', 'accuracy_high'),
      (
        [
          run.name,
          *(value(run) for key, _, value, _ in table if key in keys),
          *run.metrics['accuracy_interval'],
        ]
        for run in runs
      ),
    )
    _write_page(out, runs, table, tests)
  except OSError as e:
    raise UserError(f'cannot write a comparison to {out}: {e.strerror or e}') from e
  return result


def _write_page(
  out: pathlib.Path,
  runs: Sequence[Run],
  table: list[Row],
  tests: list[tuple[Run, Run, Paired, float]],
) -> None:
  canvas.empty_folder(out / 'figures')
  report = page.Page(
    ' against '.join(run.name for run in runs) if len(runs) <= 3 else f'{len(runs)} runs compared'
  )
  report.lead(*_lead(runs, tests))
  rows = [(label, *(show(value(run)) for run in runs)) for _, label, value, show in table]
  report.section('Table', page.table(('what', *(run.name for run in runs)), rows), *_notes(runs))
  report.section('Accuracy', *_accuracy(out, runs, tests))
  report.section('Learning curves', *_curves(out, runs))
  report.section('What accuracy costs', *_costs(out, runs))
  report.section('Classes', *_classes(out, runs))
  report.section('Differences in configuration', *_configuration(runs))
  count = len(runs[0].predictions)
  report.write(out / 'compare.html', f'Made by vit_jax from the same {count:,} pictures.')


def _figure(out: pathlib.Path, name: str, drawing: Any, title: str, caption: str) -> str:
  if drawing is None:
    return ''
  return page.figure(canvas.save(drawing, out / 'figures' / f'{name}.png'), title, caption)


def _lead(runs: Sequence[Run], tests: list[tuple[Run, Run, Paired, float]]) -> list[str]:
  best = max(runs, key=lambda run: run.metrics['accuracy'])
  base = runs[0].predictions
  text = (
    f'All were tested on the same {len(base):,} pictures ({base.facts.split or "the split"} of '
    f'{pathlib.PurePath(base.facts.dataset).name or "one dataset"}). Most accurate is {best.name} '
    f'with {percent(best.metrics["accuracy"])}. '
  )
  unsure = [(b if a is best else a).name for a, b, _, p in tests if best in (a, b) and p >= _LEVEL]
  if not unsure:
    text += 'Its lead over every other run is more than chance explains (5\u00a0% level).'
  else:
    text += f'Its difference from {", ".join(unsure)} may be chance (5\u00a0% level).'
  names = sorted({run.predictions.facts.dataset for run in runs})
  parts = [page.paragraph(text, 'lead')]
  if len(names) > 1:
    parts.append(
      page.paragraph(
        f'The datasets are called {" and ".join(names)}; names and classes of all pictures agree.',
        'note',
      )
    )
  return parts


def _notes(runs: Sequence[Run]) -> list[str]:
  notes = []
  if any(run.training and run.training.estimated for run in runs):
    notes.append(
      'Training time is added up from the training rate where a run wrote no seconds: '
      'without compilation, validation and saving.'
    )
  if len({run.predictions.facts.devices for run in runs}) > 1:
    notes.append('The runs were evaluated on different devices: times are not comparable.')
  notes.append(
    'Evaluation time includes compilation; evaluation pictures a second leave out the '
    'first batch, which compiles. –: not known.'
  )
  return [page.paragraph(' '.join(notes))]


def _accuracy(
  out: pathlib.Path, runs: Sequence[Run], tests: list[tuple[Run, Run, Paired, float]]
) -> list[str]:
  names = ['accuracy'] + (['top5'] if all('top5' in run.metrics for run in runs) else [])
  figure = _figure(
    out,
    'accuracy',
    figures.accuracies(runs, names),
    'Accuracy on the test pictures',
    'Wilson intervals for each run alone. Overlapping intervals do not mean that two runs are '
    'alike: the table below compares them picture by picture.',
  )
  adjusted = len(tests) > 1
  header = [
    'pair',
    'difference',
    '95\u00a0% interval',
    'only first right',
    'only second right',
    'p-value',
    'p-value (Holm)',
    'verdict',
  ]
  rows = []
  for a, b, t, p in tests:
    low, high = t.interval
    points = f'{100 * t.difference:+.1f} points'
    verdict = 'differ' if p < _LEVEL else 'may be chance'
    row = [
      f'{a.name} – {b.name}',
      points,
      f'{100 * low:+.1f} to {100 * high:+.1f}',
      f'{t.only_first:,}',
      f'{t.only_second:,}',
      p_text(t.p_value),
      p_text(p),
      verdict,
    ]
    rows.append(row if adjusted else row[:6] + row[7:])
  text = (
    "McNemar's exact test on the pictures that one of the two alone is right about; bootstrap "
    'interval of the difference over pictures.'
  )
  if adjusted:
    text += f' Holm corrects for {len(tests)} pairs having been tested.'
  header = header if adjusted else header[:6] + header[7:]
  return [figure, '<h3>Paired differences</h3>', page.paragraph(text), page.table(header, rows)]


def p_text(p: float) -> str:
  return '< 0.0001' if p < 0.0001 else f'{p:.4f}' if p < 0.1 else f'{p:.2f}'


def _curves(out: pathlib.Path, runs: Sequence[Run]) -> list[str]:
  parts = []
  for split, name in (
    ('val', 'accuracy'),
    ('val', 'loss'),
    ('train', 'accuracy'),
    ('train', 'loss'),
  ):
    for x in ('step', 'seconds'):
      which = {'val': 'Validation', 'train': 'Training'}[split]
      parts.append(
        _figure(
          out,
          f'{split}_{name}_{x}',
          figures.curves(runs, split, name, x),
          f'{which} {name} over {"steps" if x == "step" else "time"}',
          'Batch sizes may differ, and with them what a step is.'
          if x == 'step'
          else 'Time of training alone where it was added up from rates.',
        )
      )
  return [page.figures(*parts)]


def _costs(out: pathlib.Path, runs: Sequence[Run]) -> list[str]:
  costs = (
    (
      'parameters',
      'parameters (millions)',
      'size',
      1e-6,
      [run.predictions.facts.parameters for run in runs],
    ),
    (
      'training_time',
      'training time (minutes)',
      'training time',
      1 / 60,
      [run.training.seconds if run.training else None for run in runs],
    ),
    (
      'throughput',
      'evaluation pictures a second',
      'throughput',
      1,
      [metrics.throughput(run.predictions) for run in runs],
    ),
  )
  parts = []
  for name, label, title, unit, values in costs:
    if sum(bool(v) for v in values) < 2:
      continue
    scaled = [v * unit if v else None for v in values]
    parts.append(
      _figure(
        out,
        f'cost_{name}',
        figures.trade_off(runs, scaled, label),
        f'Accuracy and {title}',
        'Up is better; '
        + ('right is faster.' if name == 'throughput' else 'left is cheaper.')
        + ' Bars: 95\u00a0% intervals.',
      )
    )
  return [page.figures(*parts)]


def _classes(out: pathlib.Path, runs: Sequence[Run]) -> list[str]:
  """Recall by class; of many classes those that differ most."""
  base = runs[0].predictions
  present = np.flatnonzero(np.bincount(base.labels, minlength=len(base.classes)))
  values = np.array(
    [[run.predictions.correct[base.labels == c].mean() for c in present] for run in runs]
  )
  spread = np.ptp(values, axis=0)
  order = np.argsort(-spread, kind='stable')[:_CLASSES]
  caption = 'The runs differ most at the top.'
  if len(present) > len(order):
    caption = f'The {len(order)} of {len(present):,} classes that the runs differ most in.'
  return [
    _figure(
      out,
      'recall',
      figures.recalls(runs, [base.names[present[i]] for i in order], values[:, order]),
      'Recall of each class',
      caption,
    )
  ]


def _configuration(runs: Sequence[Run]) -> list[str]:
  flat = [_flatten(run.predictions.facts.config) for run in runs]
  names = sorted(set().union(*flat))
  rows = [
    (name, *(json.dumps(f[name]) if name in f else '–' for f in flat))
    for name in names
    if len({json.dumps(f.get(name)) for f in flat}) > 1
  ]
  return [page.table(('option', *(run.name for run in runs)), rows)] if rows else []


def _flatten(config: Any, prefix: str = '') -> dict[str, Any]:
  found: dict[str, Any] = {}
  for key, value in config.items():
    if isinstance(value, dict):
      found |= _flatten(value, f'{prefix}{key}.')
    else:
      found[prefix + key] = value
  return found
