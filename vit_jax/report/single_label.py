"""Building blocks of reports about one class per image: tables, summary, sections."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from markupsafe import Markup

from vit_jax.errors import counted
from vit_jax.report import alternatives, confusion, figures, gallery, matrices, metrics, page
from vit_jax.report.layout import Context, Table, Title
from vit_jax.report.page import Card
from vit_jax.report.sections import interval_of, long_table
from vit_jax.report.text import percent

TITLES = {
  'accuracy': Title('top-1 accuracy', percent=True),
  'top3': Title('top-3 accuracy', percent=True),
  'top5': Title('top-5 accuracy', percent=True),
}


def images_table(context: Context) -> Table:
  """predictions.csv: a row for each image."""
  predictions = context.predictions
  classes = predictions.classes
  columns = {
    'id': predictions.ids,
    'true': [classes[i] for i in predictions.labels],
    'predicted': [classes[i] for i in predictions.predicted],
    'correct': predictions.correct.astype(int),
    'confidence': predictions.confidence,
    'true_probability': predictions.true_probability,
    'rank': predictions.ranks,
  }
  return Table('predictions.csv', list(columns), zip(*columns.values()))


def classes_table(context: Context) -> Table:
  """per_class.csv: precision, recall and F1 of each class."""
  table = context.once(metrics.per_class)
  columns = {
    'class': context.predictions.classes,
    'support': table.support,
    'predicted': table.predicted,
    'precision': table.precision,
    'recall': table.recall,
    'f1': table.f1,
  }
  return Table('per_class.csv', list(columns), zip(*columns.values()))


def pairs_table(context: Context) -> Table:
  """confused_pairs.csv: all confusions that happened."""
  classes, pairs = context.predictions.classes, context.once(metrics.confusion).pairs
  return Table(
    'confused_pairs.csv',
    ('true', 'predicted', 'pictures', 'share_of_true_class', 'mean_probability'),
    ((classes[p.true], classes[p.predicted], p.count, p.share, p.probability) for p in pairs),
  )


def confusion_table(context: Context) -> Table | None:
  """confusion.csv: the matrix by counts; None for very many classes."""
  classes, counts = context.predictions.classes, context.once(metrics.confusion).counts
  if len(classes) > matrices.WRITTEN:
    return None
  rows = ((name, *row) for name, row in zip(classes, counts))
  return Table('confusion.csv', ('true \\ predicted', *classes), rows)


def calibration_table(context: Context) -> Table:
  """calibration.csv: the bins of the reliability diagram."""
  found = context.once(metrics.calibration)
  return Table(
    'calibration.csv',
    ('from', 'to', 'pictures', 'mean_confidence', 'accuracy'),
    zip(found.edges[:-1], found.edges[1:], found.counts, found.confidence, found.accuracy),
  )


def lead(context: Context) -> list[Markup]:
  """Accuracy beside the majority-class baseline; absent classes and excluded images."""
  result, predictions = context.result, context.predictions
  hits, n = int(predictions.correct.sum()), len(predictions)
  baseline = context.once(metrics.per_class).support.max() / n
  low, high = result['accuracy_interval']
  place = 'within that interval: these images do not show that the model is better'
  if not low <= baseline <= high:
    place = 'below that interval' if baseline < low else 'above that interval: the model is worse'
  images = counted(n, 'image')
  parts = [
    page.paragraph(
      f'{predictions.facts.model or "The model"} predicts the class of {hits:,} of {images} '
      f'correctly: {percent(result["accuracy"])} ({interval_of(result, "accuracy")}). '
      f'Majority-class baseline: {percent(baseline)}, {place}.',
      'lead',
    )
  ]
  if result['classes_present'] < result['classes']:
    parts.append(
      page.paragraph(
        f'These images show {result["classes_present"]:,} of the {result["classes"]:,} classes '
        'that the model knows. Means over classes exclude those without images.',
        'note',
      )
    )
  if predictions.skipped:
    text = f'{counted(predictions.skipped, "image")} could not be decoded: excluded.'
    parts.append(page.paragraph(text, 'note'))
  return parts


def cards(context: Context) -> list[Card]:
  """Accuracies, macro F1 and calibration error."""
  result = context.result
  names = {'accuracy': 'Top-1 accuracy', 'top3': 'Top-3 accuracy', 'top5': 'Top-5 accuracy'}
  confidence = percent(result['mean_confidence'])
  return [
    *(
      Card(words, percent(result[name]), interval_of(result, name))
      for name, words in names.items()
      if name in result
    ),
    Card('Macro F1', f'{result["macro_f1"]:.3f}', f'mean over {_which_classes(result)}'),
    Card('Calibration error', percent(result['ece']), f'ECE; mean confidence {confidence}'),
  ]


def _which_classes(result: Mapping[str, Any]) -> str:
  """Those that means are over: 'classes', or 'the 3 classes that have images'."""
  present = result['classes_present']
  if present == result['classes']:
    return 'classes'
  return f'the {counted(present, "class that has", "classes that have")} images'


def classes_section(context: Context) -> tuple[str, Sequence[Markup]]:
  """Precision, recall and F1 of each class, and what its images are predicted as."""
  table, names = context.once(metrics.per_class), context.predictions.names
  others: dict[int, list[str]] = {}
  for pair in context.once(metrics.confusion).pairs:
    others.setdefault(pair.true, []).append(f'{names[pair.predicted]} ({pair.count:,})')

  def score(value: float) -> str:
    return '–' if np.isnan(value) else f'{value:.3f}'

  pictured = context.once(gallery.classes_of) if context.load_image else {}
  rows = [
    (
      gallery.class_link(pictured, i, names[i]),
      f'{table.support[i]:,}',
      score(table.precision[i]),
      score(table.recall[i]),
      score(table.f1[i]),
      ', '.join(others.get(i, ['–'])[:3]),
    )
    for i in table.worst_first.tolist()
  ]
  header = ('class', 'images', 'precision', 'recall', 'F1', 'wrongly predicted as (images)')
  caption = 'Worst F1 first. – : no such prediction. All classes:'
  shown = long_table(header, rows, caption, text=(5,), file='per_class.csv')
  result = context.result
  never = int((table.predicted[table.present] == 0).sum())
  means = (
    f'Mean over {_which_classes(result)}: precision {result["macro_precision"]:.3f}, recall '
    f'{result["balanced_accuracy"]:.3f} (balanced accuracy), F1 {result["macro_f1"]:.3f}; F1 '
    f'weighted by images {result["weighted_f1"]:.3f}.'
  )
  if never:
    which = ('class that is never predicted counts', 'classes that are never predicted count')
    means += f' {counted(never, *which)} with a precision of 0.'
  text = (
    "Recall: share of the class's images that are predicted as it. Precision: share of the images "
    'predicted as the class that belong to it. F1: their harmonic mean.'
  )
  lowest = ', '.join(f'{names[i]} ({table.f1[i]:.3f})' for i in table.worst_first[:3])
  figure = context.figure(
    'per_class',
    figures.per_class(table, names),
    'Precision, recall and F1',
    text,
    f'Precision, recall and F1 of {_which_classes(result)}, worst first. Lowest F1: {lowest}.',
  )
  return 'Classes', [page.paragraph(means), page.figures(figure, shown, kind='uneven')]


def calibration_section(context: Context) -> tuple[str, Sequence[Markup]]:
  """Whether confidence can be taken at its word."""
  found, predictions = context.once(metrics.calibration), context.predictions
  right = int(predictions.correct.sum())
  apart = 'The further apart the two are, the better a threshold finds mistakes.'
  if right in (0, len(predictions)):
    apart = f'There are no {"wrong" if right else "correct"} predictions.'
  return 'Calibration', [
    page.paragraph(_calibration_words(context, found)),
    page.figures(
      context.figure(
        'reliability',
        figures.reliability(found),
        'Reliability diagram',
        'On the dashed line accuracy equals confidence; below it the model is overconfident. Bins '
        'with few images have wide intervals.',
        alternatives.reliability(found),
      ),
      context.figure(
        'confidence',
        figures.confidence(predictions.confidence, predictions.correct),
        'Confidence of correct and wrong predictions',
        apart,
        alternatives.confidence(predictions.confidence, predictions.correct),
      ),
    ),
  ]


def _calibration_words(context: Context, found: metrics.Calibration) -> str:
  """Mean confidence beside the interval of the accuracy, and the ECE beside what chance makes."""
  result, n = context.result, len(context.predictions)
  confidence, accuracy = result['mean_confidence'], result['accuracy']
  low, high = result['accuracy_interval']
  text = f'Mean confidence is {percent(confidence)} and accuracy {percent(accuracy)}'
  if low <= confidence <= high:
    text += (
      f'. The confidence lies within the {interval_of(result, "accuracy")}: '
      f'{counted(n, "image does", "images do")} not show that the model is over- or underconfident '
      'on the whole.'
    )
  else:
    word = 'over' if confidence > accuracy else 'under'
    gap = 100 * abs(confidence - accuracy)
    text += (
      f': on the whole the model is {word}confident by {gap:.1f} points, more than chance '
      f'explains, as {percent(confidence)} lies outside the {interval_of(result, "accuracy")}.'
    )
  chance, worst = metrics.chance_ece(found), int(np.nanargmax(found.gaps))
  more = 'more' if found.ece > chance else 'no more'
  few = not low <= confidence <= high and found.ece <= chance
  unsure = ': its bins hold too few images to show what all of them together show' if few else ''
  return text + (
    f' Expected calibration error, over bins, {percent(found.ece)}, {more} than chance explains: a '
    f'calibrated model with these confidences would have up to {percent(chance)} on '
    f'{counted(n, "image")} in 95 of 100 draws{unsure}. Largest gap of a bin: '
    f'{percent(found.worst)}, of {counted(int(found.counts[worst]), "image")}.'
  )


CLASS_TABLES = (classes_table, pairs_table, confusion_table, calibration_table)
TABLES = (images_table, *CLASS_TABLES)
SECTIONS = (
  classes_section,
  calibration_section,
  confusion.section,
  gallery.section,
)
