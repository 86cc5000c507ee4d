"""Building blocks of all reports: learning curves, logged metrics, time, configuration."""

import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from markupsafe import Markup

from vit_jax.errors import counted, dimensions
from vit_jax.report import alternatives, figures, page, text
from vit_jax.report.facts import Facts
from vit_jax.report.layout import Context, Title
from vit_jax.report.page import Card
from vit_jax.report.text import duration, number, percent

# Columns of metrics.jsonl that are not metrics.
_BOOKKEEPING = ('step', 'split', 'seconds', 'examples', 'skipped', 'memory_bytes')

# Metrics that the training loop logs, whatever the task.
TITLES = {
  'loss': Title(
    'loss',
    note='Training values are means over the steps since the last report, in training mode and of '
    'augmented images, so that validation may look better.',
  ),
  'learning_rate': Title('learning rate', note='As the schedule set it.'),
  'grad_norm': Title('gradient norm'),
  'weights_norm': Title('weight norm', note='L2 norm of all weights that are trained.'),
  'img_sec': Title('images/s'),
  'input_wait': Title('time spent waiting for input', percent=True),
  'mfu': Title('model FLOPs utilization', percent=True),
}
_FOLDED = ('grad_norm', 'weights_norm', 'img_sec', 'input_wait', 'mfu')  # curves folded away
_SPLITS = {
  'train': 'training',
  'val': 'validation',
  'test': 'the test (star: the checkpoint that was tested)',
}


def page_title(facts: Facts) -> str:
  """'dogs on dogs6 test': of a dataset that is a folder, the end of its path."""
  where = '/'.join(pathlib.PurePath(facts.dataset).parts[-2:])
  return f'{facts.name} on {where} {facts.split}' if where else facts.name


def span_of(result: Mapping[str, Any], name: str) -> str:
  """The interval of a metric, such as '80.5 to 88.6 %'."""
  return text.interval(*result[f'{name}_interval'])


def interval_of(result: Mapping[str, Any], name: str) -> str:
  """The same for a sentence, '95 % interval 80.5 to 88.6 %'."""
  return f'95\u00a0% interval {span_of(result, name)}'


def summary(
  lead: Callable[[Context], Sequence[Markup]], *cards: Callable[[Context], Sequence[Card]]
) -> Callable[[Context], Sequence[Markup]]:
  """The summary of a layout: sentences, then cards, of which the last is the throughput.

  Args:
    lead: makes the sentences.
    *cards: each makes some cards.
  """

  def made(context: Context) -> list[Markup]:
    items = [card for make in (*cards, _throughput) for card in make(context)]
    return [*lead(context), page.cards(items)]

  return made


def _throughput(context: Context) -> list[Card]:
  rate, devices = context.result.get('img_sec'), context.predictions.facts.devices
  if not rate:
    return []
  note = ', '.join(['images', *([devices] if devices else [])]) + _compiled(context)
  return [Card('Throughput', f'{number(rate)} /s', note)]


def _compiled(context: Context) -> str:
  """What is said of a rate that compilation is part of."""
  return ' (with compilation)' if context.predictions.img_sec is None else ''


def long_table(
  header: Sequence[str],
  rows: Sequence[Sequence[Any]],
  caption: str,
  text: Sequence[int] = (),
  file: str = '',
) -> Markup:
  """A sortable table of classes; of more than 50 all but 20 are folded away, see `page.table`."""
  first = len(rows) if len(rows) <= 50 else 20
  shown = page.table(header, rows[:first], caption, text, sortable=True, file=file)
  if rest := rows[first:]:
    folded = page.table(header, rest, text=text)
    # The script joins them to one table, and needs them beside each other.
    shown += page.details(
      f'The other {counted(len(rest), "class", "classes")}', folded, kind='rest'
    )
  return shown


def learning_curves(context: Context) -> tuple[str, Sequence[Markup]] | None:
  """Every metric that the run logged, over its steps."""
  if not any(row['split'] == 'train' for row in context.rows):
    return None
  names = _metrics(context, tuple(_SPLITS))
  parts = [page.figures(*(_curve(context, name) for name in names if name not in _FOLDED))]
  if folded := [name for name in names if name in _FOLDED]:
    called = ', '.join(_title(context, name).text for name in folded)
    curves = page.figures(*(_curve(context, name) for name in folded))
    parts.append(page.details(f'More curves: {called}', curves))
  return 'Learning curves', parts


def _metrics(context: Context, splits: Sequence[str]) -> list[str]:
  """Metrics logged for some splits: the loss, the task's, others, and last those of the loop."""
  rows = [row for row in context.rows if row['split'] in splits]
  logged = list(dict.fromkeys(name for row in rows for name in row if row[name] is not None))
  first, last = ['loss', *context.titles], list(TITLES)

  def place(name: str) -> tuple[int, int]:
    if name in first:
      return 0, first.index(name)
    return (2, last.index(name)) if name in last else (1, logged.index(name))

  return sorted((name for name in logged if name not in _BOOKKEEPING), key=place)


def _curve(context: Context, name: str) -> Markup:
  title = _title(context, name)
  seen = [
    words
    for split, words in _SPLITS.items()
    if any(row['split'] == split and row.get(name) is not None for row in context.rows)
  ]
  return context.figure(
    f'curve_{name}',
    figures.learning_curve(context.rows, name, title.text, title.percent),
    f'{_heading(context, name)} over training',
    title.note or f'Of {", ".join(seen)}.',
    alternatives.learning_curve(context.rows, name, title.text, title.percent),
  )


def _title(context: Context, name: str) -> Title:
  """A metric's title, else its name."""
  return {**TITLES, **context.titles}.get(name, Title(name))


def _heading(context: Context, name: str) -> str:
  """A metric's title with a capital, else its name as it is."""
  words = _title(context, name).text
  return words[:1].upper() + words[1:] if name in {**TITLES, **context.titles} else name


def logged_metrics(context: Context) -> tuple[str, Sequence[Markup]] | None:
  """A table of all metrics that the run logged for its test split."""
  rows = [row for row in context.rows if row['split'] == 'test']
  if not rows:
    return None
  cells = []
  for name in _metrics(context, ('test',)):
    title, value = _title(context, name), rows[-1].get(name)
    if value is not None:
      shown = percent(value) if title.percent else number(value, 4)
      cells.append((_heading(context, name), name, shown))
  text = (
    'As the run logged them at its end, of its own test split and the checkpoint of step '
    f'{rows[-1]["step"]:,}; the second column has their names in metrics.jsonl.'
  )
  table = page.table(('metric', 'name', 'test'), cells, text=(1,))
  return 'Test metrics', [page.paragraph(text), table]


def time_and_memory(context: Context) -> tuple[str, Sequence[Markup]]:
  """How long training and evaluation took, on what, and how much memory."""
  result, predictions = context.result, context.predictions
  facts, trained = predictions.facts, result['training']
  rows: list[tuple[str, str]] = []
  if trained:
    how = 'without' if trained['seconds_estimated'] else 'with'
    how = f' ({how} compilation, validation and saving)'
    rows += [
      ('training', duration(trained['seconds']) + how),
      ('steps', f'{trained["steps"]:,}'),
      ('training images/s', number(trained['img_sec'])),
    ]
  compiled = ', with compilation where no validation had compiled it before'
  rows += [
    ('evaluation', duration(predictions.seconds or None) + compiled),
    ('evaluation images/s', number(result.get('img_sec')) + _compiled(context)),
    ('devices', facts.devices or '–'),
    ('parameters', number(facts.parameters)),
  ]
  if facts.trained_parameters is not None:
    rows.append(('trained parameters', number(facts.trained_parameters)))
  memory = facts.device_memory_bytes or (trained or {}).get('memory_bytes')
  if memory:
    rows.append(('peak memory of a device', text.size(memory)))
  if facts.host_memory_bytes:
    rows.append(('peak memory of the process', text.size(facts.host_memory_bytes)))
  return 'Time and memory', [page.table(('what', 'value'), rows, text=(1,))]


def configuration(context: Context) -> tuple[str, Sequence[Markup]]:
  """What was evaluated, versions and options."""
  facts = context.predictions.facts
  rows = [
    ('model', facts.model or '–'),
    ('dataset', f'{facts.dataset} {facts.split}'.strip() or '–'),
    ('input', dimensions(facts.image_size) if facts.image_size else '–'),
    ('checkpoint', '–' if facts.step is None else f'step {facts.step:,}'),
  ]
  parts = [page.table(('what', 'value'), rows, text=(1,))]
  if facts.versions:
    versions = page.table(('package', 'version'), list(facts.versions.items()), text=(1,))
    parts.append(page.details('Versions', versions))
  if facts.config:
    parts.append(page.details('All options', page.code(facts.config)))
  return 'Configuration and versions', parts
