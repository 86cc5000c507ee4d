"""The sections of report.html, with the figures that they show."""

import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from vit_jax.report import boxes, canvas, examples, figures, history, live, matrices, metrics, page
from vit_jax.report.examples import percent
from vit_jax.report.facts import Facts
from vit_jax.report.history import duration, number
from vit_jax.report.predictions import Predictions

_ROWS = 50  # classes in a table that is not folded away


class Drawn:
  """What the sections share.

  Args:
    folder: for the figures.
    predictions: the record.
    result: what metrics.json holds.
    load_picture: None to show no pictures.
  """

  def __init__(
    self,
    folder: pathlib.Path,
    predictions: Predictions,
    result: dict[str, Any],
    load_picture: examples.LoadPicture | None,
  ):
    self.folder, self.predictions, self.result = folder, predictions, result
    self.load_picture = load_picture
    self.names = predictions.names
    self.table = metrics.per_class(predictions)
    self.counts = metrics.confusion_counts(predictions)
    self.probability = metrics.confusion_probability(predictions)
    self.pairs = metrics.confused_pairs(self.counts, self.probability)

  def figure(self, name: str, drawing: Any, title: str, caption: str) -> str:
    """Writes a figure and returns the HTML that shows it."""
    path = canvas.save(drawing, self.folder / f'{name}.png')
    return page.figure(path, title, caption)

  def sheet(self, name: str, items: list[page.Shot]) -> None:
    """Writes pictures that the page shows on their own as one figure too."""
    canvas.save(live.shots_figure(items), self.folder / f'{name}.png', dpi=100)


def write_page(
  out: pathlib.Path,
  predictions: Predictions,
  result: dict[str, Any],
  rows: Sequence[dict],
  load_picture: examples.LoadPicture | None,
) -> pathlib.Path:
  """Draws all figures and writes report.html."""
  folder = canvas.empty_folder(out / 'figures')
  drawn = Drawn(folder, predictions, result, load_picture)
  report = page.Page(title(predictions.facts))
  report.lead(*_summary(drawn))
  report.section('Learning curves', *_curves(drawn, rows))
  report.section('Boxes', *_boxes(drawn))
  report.section('Classes', *_classes(drawn))
  report.section('Calibration', *_calibration(drawn))
  report.section('Confusion', *_confusion(drawn))
  report.section('Worst classes', *_worst(drawn))
  report.section('Most confident mistakes', *_mistakes(drawn))
  report.section('Time and memory', _time(drawn))
  return finish(report, out, predictions)


def finish(report: page.Page, out: pathlib.Path, predictions: Predictions) -> pathlib.Path:
  """Ends a page with what was scored, versions and options, and writes it as report.html."""
  report.section('Configuration and versions', *_configuration(predictions.facts))
  made = f'vit_jax {predictions.facts.versions.get("vit_jax", "")}'.strip()
  return report.write(out / 'report.html', f'Made by {made} from {len(predictions):,} predictions.')


def title(facts: Facts) -> str:
  """'dogs on dogs6 test': of a dataset that is a folder, the end of its path."""
  where = '/'.join(pathlib.PurePath(facts.dataset).parts[-2:])
  return f'{facts.name} on {where} {facts.split}' if where else facts.name


def interval(result: dict[str, Any], name: str) -> str:
  """'95 % interval 80.5 to 88.6 %'."""
  low, high = result[f'{name}_interval']
  return f'95\u00a0% interval {100 * low:.1f} to {100 * high:.1f}\u00a0%'


def _summary(drawn: Drawn) -> list[str]:
  result, predictions, facts = drawn.result, drawn.predictions, drawn.predictions.facts
  right = int(predictions.correct.sum())
  most = drawn.table.support.max() / len(predictions)
  what = facts.model or 'The model'
  parts = [
    page.paragraph(
      f'{what} is right about {right:,} of {len(predictions):,} pictures: '
      f'{percent(result["accuracy"])} ({interval(result, "accuracy")}). Always naming the most '
      f'frequent class would be right about {percent(most)}.',
      'lead',
    )
  ]
  if result['classes_present'] < result['classes']:
    parts.append(
      page.paragraph(
        f'These pictures show {result["classes_present"]:,} of the {result["classes"]:,} classes '
        'that the model knows. Means over classes leave out those without pictures.',
        'note',
      )
    )
  if predictions.skipped:
    parts.append(
      page.paragraph(
        f'{predictions.skipped:,} pictures could not be read and count nowhere.', 'note'
      )
    )
  items = [('Top-1 accuracy', percent(result['accuracy']), interval(result, 'accuracy'))]
  items += [
    (f'Top-{k} accuracy', percent(result[f'top{k}']), interval(result, f'top{k}'))
    for k in (3, 5)
    if f'top{k}' in result
  ]
  items.append(('Macro F1', f'{result["macro_f1"]:.3f}', 'mean over classes'))
  items.append(
    (
      'Calibration error',
      percent(result['ece']),
      f'ECE; mean confidence {percent(result["mean_confidence"])}',
    )
  )
  if 'mean_iou' in result:
    items.append(('Mean IoU', f'{result["mean_iou"]:.3f}', f'of {result["boxes"]:,} boxes'))
    items.append(('IoU over 0.5', percent(result['iou50']), interval(result, 'iou50')))
  if result['img_sec']:
    where = f', {facts.devices}' if facts.devices else ''
    items.append(('Throughput', f'{number(result["img_sec"])} /s', f'pictures{where}'))
  return [*parts, page.cards(items)]


def _curves(drawn: Drawn, rows: Sequence[dict]) -> list[str]:
  captions = {
    'loss': 'Training values are means over the steps since the last report, in training mode and '
    'of augmented pictures, so that validation may look better.',
    'learning_rate': 'As the schedule set it.',
  }
  parts = []
  trained = [row for row in rows if row['split'] == 'train']
  if not trained:
    return []
  known = set().union(*rows)
  for name in ('loss', 'accuracy', 'top3', 'top5', 'iou', 'learning_rate'):
    if name not in known or (name == 'top3' and 'top5' in known):
      continue
    seen = [
      s
      for s in ('train', 'val', 'test')
      if any(row['split'] == s and row.get(name) is not None for row in rows)
    ]
    words = {
      'train': 'training',
      'val': 'validation',
      'test': 'the test (star: the checkpoint that was tested)',
    }
    default = f'Of {" and ".join(words[s] for s in seen)}.'
    parts.append(
      drawn.figure(
        f'curve_{name}',
        figures.learning_curve(rows, name),
        figures.curve_title(name),
        captions.get(name, default),
      )
    )
  return [page.figures(*parts)]


def _boxes(drawn: Drawn) -> list[str]:
  values, result = boxes.overlaps(drawn.predictions), drawn.result
  if values is None or 'boxes' not in result:
    return []
  rows = [
    (f'over {t:g}', percent(result[f'iou{100 * t:.0f}']), interval(result, f'iou{100 * t:.0f}'))
    for t in boxes.THRESHOLDS
  ]
  rows.append(('over 0.5 and class right', percent(result['box50_right']), ''))
  parts = [
    page.figures(
      drawn.figure(
        'iou',
        boxes.histogram(values[np.isfinite(values)]),
        'Overlap with the true boxes',
        f'Intersection over union of {result["boxes"]:,} boxes; mean {result["mean_iou"]:.3f}, '
        f'median {result["median_iou"]:.3f}.',
      ),
      page.table(
        ('IoU', 'pictures', '95 % interval'),
        [(a, b, c.removeprefix('95\u00a0% interval ')) for a, b, c in rows],
      ),
    )
  ]
  if drawn.load_picture:
    items = examples.shots(
      drawn.predictions, examples.spread_of_boxes(drawn.predictions), drawn.load_picture
    )
    drawn.sheet('boxes', items)
    parts += [
      '<h3>From the worst to the best box</h3>',
      page.paragraph('Green: true box; red: predicted box. Evenly spread by overlap.'),
      page.shots(items),
    ]
  return parts


def _classes(drawn: Drawn) -> list[str]:
  table, names = drawn.table, drawn.names
  order = table.present[np.argsort(table.f1[table.present], kind='stable')]
  taken: dict[int, list[str]] = {}
  for pair in drawn.pairs:
    taken.setdefault(pair.true, []).append(f'{names[pair.predicted]} ({pair.count:,})')

  def score(value: float) -> str:
    return '–' if np.isnan(value) else f'{value:.3f}'

  rows = [
    (
      names[i],
      f'{table.support[i]:,}',
      score(table.precision[i]),
      score(table.recall[i]),
      score(table.f1[i]),
      ', '.join(taken.get(i, ['–'])[:3]),
    )
    for i in order
  ]
  header = ('class', 'pictures', 'precision', 'recall', 'F1', 'taken for (pictures)')
  caption = 'Worst F1 first. – : no such prediction. All of it: per_class.csv'
  first = len(rows) if len(rows) <= _ROWS else 20
  shown = page.table(header, rows[:first], caption, text=(5,))
  if rows[first:]:
    shown += page.details(
      f'The other {len(rows) - first:,} classes', page.table(header, rows[first:], text=(5,))
    )
  text = (
    'Recall: share of the class that is recognised. Precision: share of what is taken for the '
    'class that belongs to it. F1: their harmonic mean.'
  )
  result = drawn.result
  means = page.paragraph(
    f'Mean over classes: precision {result["macro_precision"]:.3f}, recall '
    f'{result["balanced_accuracy"]:.3f} (balanced accuracy), F1 {result["macro_f1"]:.3f}; F1 '
    f'weighted by pictures {result["weighted_f1"]:.3f}.'
  )
  drawing = figures.per_class(table, names)
  return [means, drawn.figure('per_class', drawing, 'Precision, recall and F1', text), shown]


def _calibration(drawn: Drawn) -> list[str]:
  reliability, predictions = metrics.calibration(drawn.predictions), drawn.predictions
  lean = drawn.result['mean_confidence'] - drawn.result['accuracy']
  word = 'overconfident' if lean > 0 else 'underconfident'
  text = (
    f'Expected calibration error {percent(reliability.ece)}, largest gap of a bin '
    f'{percent(reliability.worst)}. Mean confidence is {percent(drawn.result["mean_confidence"])} '
    f'and accuracy {percent(drawn.result["accuracy"])}: '
    + ('the two agree.' if abs(lean) < 0.01 else f'on the whole the model is {word}.')
  )
  return [
    page.paragraph(text),
    page.figures(
      drawn.figure(
        'reliability',
        figures.reliability(reliability),
        'Reliability diagram',
        'Bars on the dashed line mean that confidence can be taken at its word; below it '
        'the model is overconfident. Bins with few pictures have wide intervals.',
      ),
      drawn.figure(
        'confidence',
        figures.confidence(predictions.confidence, predictions.correct),
        'Confidence of right and wrong predictions',
        'The further apart the two are, the better a threshold sorts out mistakes.',
      ),
    ),
  ]


def _confusion(drawn: Drawn) -> list[str]:
  k = len(drawn.names)
  support = drawn.counts.sum(axis=1, keepdims=True)
  shares = np.where(support > 0, drawn.counts / np.maximum(support, 1), np.nan)
  by_count = (
    'Rows are true classes, columns predictions; numbers are pictures, shades shares of the row.'
  )
  by_probability = (
    'What the model expected on average for pictures of the row, in percent: doubts show here even '
    'where the prediction was right.'
  )
  if k <= matrices.NAMED:
    parts = [
      drawn.figure(
        'confusion_counts',
        matrices.confusion(drawn.counts, drawn.names, drawn.names, shares),
        'Confusion by counts',
        by_count,
      ),
      drawn.figure(
        'confusion_probability',
        matrices.confusion(drawn.probability, drawn.names, drawn.names, percent=True),
        'Confusion by mean predicted probability',
        by_probability,
      ),
    ]
    shown = page.figures(*parts) if k <= 12 else ''.join(parts)
  else:
    shown = _confusion_of_many(drawn, shares, by_count, by_probability)
  rows = [
    (
      drawn.names[p.true],
      drawn.names[p.predicted],
      f'{p.count:,}',
      percent(p.share),
      percent(p.probability),
    )
    for p in drawn.pairs[:20]
  ]
  header = ('true class', 'taken for', 'pictures', 'share of class', 'mean probability')
  if not rows:
    return [shown, page.paragraph('No picture was confused.')]
  more = len(drawn.pairs) - len(rows)
  caption = f'{more:,} more pairs in confused_pairs.csv' if more else ''
  return [shown, '<h3>Most confused pairs</h3>', page.table(header, rows, caption, text=(1,))]


def _confusion_of_many(drawn: Drawn, shares: np.ndarray, counts_text: str, text: str) -> str:
  key = (
    'Off the diagonal lie mistakes; square-root shades, so that rare ones show. Names of the '
    'numbers: per_class.csv, counted from 0.'
  )
  if np.isnan(shares).any():
    key += ' Rows of classes without pictures are empty.'
  parts = [
    page.figures(
      drawn.figure(
        'confusion_counts',
        matrices.overview(shares, "share of the class's pictures"),
        'Confusion by counts, all classes',
        key,
      ),
      drawn.figure(
        'confusion_probability',
        matrices.overview(drawn.probability, 'mean probability'),
        'Confusion by mean predicted probability, all classes',
        key,
      ),
    )
  ]
  chosen = matrices.most_confused(drawn.pairs)
  if chosen:
    known = [i for i in chosen if drawn.table.support[i]]
    rows = [drawn.names[i] for i in known]
    columns = [*(drawn.names[i] for i in chosen), 'all others']
    parts += [
      drawn.figure(
        'confusion_counts_worst',
        matrices.confusion(
          matrices.excerpt(drawn.counts, known, chosen),
          rows,
          columns,
          matrices.excerpt(shares, known, chosen),
        ),
        'Confusion by counts, most confused classes',
        f'{counts_text} Alike classes stand together.',
      ),
      drawn.figure(
        'confusion_probability_worst',
        matrices.confusion(
          matrices.excerpt(drawn.probability, known, chosen), rows, columns, percent=True
        ),
        'Confusion by mean predicted probability, most confused classes',
        text,
      ),
    ]
  return ''.join(parts)


def _worst(drawn: Drawn) -> list[str]:
  parts = []
  for worst in examples.worst_classes(drawn.predictions, drawn.table):
    name, i = drawn.names[worst.index], worst.index
    taken = ', '.join(f'{drawn.names[c]} ({n:,})' for c, n in worst.taken_for[:5])
    missed = sum(n for _, n in worst.taken_for)
    parts += [
      f'<h3>{page.escape(name)}</h3>',
      page.paragraph(
        f'F1 {drawn.table.f1[i]:.3f}, recall {drawn.table.recall[i]:.3f}: {missed:,} of '
        f'{drawn.table.support[i]:,} pictures missed. Taken for {taken}.'
      ),
    ]
    if not drawn.load_picture:
      continue
    items = examples.shots(drawn.predictions, worst.missed, drawn.load_picture)
    alike = [
      page.Shot(
        drawn.load_picture(int(drawn.predictions.index[row])),
        [f'a typical {drawn.names[c]}'],
        None,
        drawn.predictions.ids[row],
      )
      for c, row in worst.lookalikes
    ]
    number = len([p for p in parts if p.startswith('<h3>')])
    drawn.sheet(f'worst_{number}', items + alike)
    parts.append(page.shots(items + alike))
  if parts and drawn.load_picture:
    parts.insert(
      0,
      page.paragraph(
        'Missed images, as the model saw them, with the prediction and its probability; then, in '
        'a grey frame, the most confident example of each class that they were predicted as.'
      ),
    )
  return parts


def _mistakes(drawn: Drawn) -> list[str]:
  if not drawn.load_picture:
    return []
  rows = examples.most_confident_mistakes(drawn.predictions)
  if not len(rows):
    return [page.paragraph('There is no mistake among these pictures.')]
  items = examples.shots(drawn.predictions, rows.tolist(), drawn.load_picture)
  drawn.sheet('confident_mistakes', items)
  text = (
    'The surest wrong predictions. Wrong labels show up here first: look whether the model is '
    'wrong or the name of the file.'
  )
  return [page.paragraph(text), page.shots(items)]


def _time(drawn: Drawn) -> str:
  result, facts = drawn.result, drawn.predictions.facts
  trained = result['training']
  rows: list[tuple[str, str]] = []
  if trained:
    how = ' (without compilation, validation and saving)' if trained['seconds_estimated'] else ''
    rows += [
      ('training', duration(trained['seconds']) + how),
      ('steps', f'{trained["steps"]:,}'),
      ('training pictures a second', number(trained['img_sec'])),
    ]
  first = ' (with compilation)' if drawn.predictions.img_sec is None else ''
  rows += [
    ('evaluation', duration(result['seconds'] or None) + ', compilation included'),
    ('evaluation pictures a second', number(result['img_sec']) + first),
    ('devices', facts.devices or '–'),
    ('parameters', number(facts.parameters)),
  ]
  if facts.trained_parameters is not None:
    rows.append(('trained parameters', number(facts.trained_parameters)))
  memory = facts.device_memory_bytes or (trained or {}).get('memory_bytes')
  if memory:
    rows.append(('peak memory of a device', history.size(memory)))
  if facts.host_memory_bytes:
    rows.append(('peak memory of the process', history.size(facts.host_memory_bytes)))
  return page.table(('what', 'value'), rows, text=(1,))


def _configuration(facts: Facts) -> list[str]:
  """What was scored, versions and options."""
  rows = [
    ('model', facts.model or '–'),
    ('pictures', f'{facts.dataset} {facts.split}'.strip() or '–'),
    ('input', '{} x {} pixels'.format(*facts.image_size) if facts.image_size else '–'),
    ('checkpoint', '–' if facts.step is None else f'step {facts.step:,}'),
  ]
  parts = [page.table(('what', 'value'), rows, text=(1,))]
  if facts.versions:
    parts.append(
      page.details(
        'Versions', page.table(('package', 'version'), list(facts.versions.items()), text=(1,))
      )
    )
  if facts.config:
    parts.append(page.details('All options', page.code(facts.config)))
  return parts
