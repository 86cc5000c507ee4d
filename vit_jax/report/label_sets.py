"""Building blocks of reports about any number of classes per image: average precisions."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from markupsafe import Markup

from vit_jax import logits as logits_lib
from vit_jax.errors import counted, some
from vit_jax.report import examples, gallery, metrics, page, sections, thumbnails
from vit_jax.report.layout import Context, Table, Title
from vit_jax.report.page import Card
from vit_jax.report.predictions import Predictions
from vit_jax.report.text import percent
from vit_jax.report.thumbnails import Thumbnail

_LISTED = 5  # classes named below an image

TITLES = {
  'map': Title('mean average precision'),
  'exact': Title('all classes correct', percent=True),
  'accuracy': Title('most confident class is shown', percent=True),
}


def truth(predictions: Predictions) -> np.ndarray:
  """Which classes each image shows: bool [n, k]."""
  if predictions.multi_hot is None:
    raise ValueError('these predictions have no label sets')
  return predictions.multi_hot > 0


def average_precision(predictions: Predictions) -> np.ndarray:
  """Of each class [k], NaN where no image shows it."""
  return logits_lib.average_precision(predictions.logits, truth(predictions))


def compute(predictions: Predictions) -> dict[str, Any]:
  """The metrics of all images together, as metrics.json has them."""
  shown, precision = truth(predictions), average_precision(predictions)
  known = np.isfinite(precision)
  best = predictions.predicted
  return {
    'examples': len(predictions),
    'skipped': predictions.skipped,
    'classes': len(predictions.classes),
    'classes_present': int(known.sum()),
    'map': float(precision[known].mean()) if known.any() else None,
    'accuracy': float(shown[np.arange(len(shown)), best].mean()),
    'exact': float(((predictions.logits > 0) == shown).all(axis=-1).mean()),
    'seconds': predictions.seconds,
    'img_sec': metrics.throughput(predictions),
  }


def classes_table(context: Context) -> Table:
  """per_class.csv: average precision of each class."""
  columns = {
    'class': context.predictions.classes,
    'support': truth(context.predictions).sum(axis=0),
    'average_precision': context.once(average_precision),
  }
  return Table('per_class.csv', list(columns), zip(*columns.values()))


def lead(context: Context) -> list[Markup]:
  """Mean average precision; excluded images."""
  result, facts = context.result, context.predictions.facts
  text = (
    f'{facts.model or "The model"} predicts which of {result["classes"]:,} classes each of '
    f'{counted(result["examples"], "image")} shows'
  )
  if result['map'] is None:
    text += '. No image shows any of them, so that there is no average precision.'
  else:
    text += (
      f', with a mean average precision of {result["map"]:.3f} over the '
      f'{counted(result["classes_present"], "class", "classes")} that occur.'
    )
  parts = [page.paragraph(text, 'lead')]
  if result['skipped']:
    text = f'{counted(result["skipped"], "image")} could not be decoded: excluded.'
    parts.append(page.paragraph(text, 'note'))
  return parts


def cards(context: Context) -> list[Card]:
  """Mean average precision and shares of images."""
  result = context.result
  none = int((~truth(context.predictions).any(axis=1)).sum())
  images = f'of images, of which {none:,} show no class' if none else 'of images'
  return [
    Card(
      'Mean average precision',
      '–' if result['map'] is None else f'{result["map"]:.3f}',
      'of classes that occur',
    ),
    Card('Most confident class is shown', percent(result['accuracy']), images),
    Card('All classes correct', percent(result['exact']), 'of images, at a threshold of 0.5'),
  ]


def classes_section(context: Context) -> tuple[str, Sequence[Markup]]:
  """Average precision of each class."""
  precision, names = context.once(average_precision), context.predictions.names
  support = truth(context.predictions).sum(axis=0)
  worst_first = np.argsort(np.where(np.isnan(precision), 2.0, precision), kind='stable')
  rows = [
    (names[i], f'{support[i]:,}', '–' if np.isnan(precision[i]) else f'{precision[i]:.3f}')
    for i in worst_first
  ]
  caption = 'Worst first. – : no image shows the class. All of it:'
  header = ('class', 'images', 'average precision')
  return 'Classes', [sections.long_table(header, rows, caption, file='per_class.csv')]


def _listed(classes: Sequence[str]) -> str:
  """The first of some classes below an image, and how many there are beyond."""
  return some(classes, _LISTED) or 'no class'


def images_section(context: Context) -> tuple[str, Sequence[Markup]] | None:
  """Images from the most to the fewest classes wrong, with those that are predicted and shown."""
  if not context.load_image:
    return None
  predictions, shown = context.predictions, truth(context.predictions)
  found, names = predictions.logits > 0, predictions.names
  wrong = (found != shown).sum(axis=1)
  order = np.argsort(-wrong, kind='stable')
  places = np.linspace(0, len(order) - 1, min(examples.SHOWN_WHOLE, len(order))).round().astype(int)
  items = []
  for row in order[np.unique(places)].tolist():
    predicted, true = np.flatnonzero(found[row]), np.flatnonzero(shown[row])
    chances = predictions.probabilities[row]
    likely = predicted[np.argsort(-chances[predicted], kind='stable')]
    data = {
      'true': ' '.join(map(str, true)),
      'pred': ' '.join(map(str, predicted)),
      'kind': 'wrong' if wrong[row] else 'correct',
      'mistakes': str(wrong[row]),
    }
    lines = [
      f'pred {_listed([f"{names[i]} {percent(float(chances[i]))}" for i in likely])}',
      f'true {_listed([names[i] for i in true])}',
    ]
    pixels = thumbnails.draw(context.load_image(int(predictions.index[row])))
    items.append(Thumbnail(pixels, lines, not wrong[row], predictions.ids[row], data=data))
  named_classes = (f'{item.data["true"]} {item.data["pred"]}'.split() for item in items)
  known = sorted({int(i) for numbers in named_classes for i in numbers})
  orders = {'-mistakes': 'most classes wrong first', 'mistakes': 'fewest classes wrong first'}
  whole = len(items) == len(predictions)
  text = (
    f'{gallery.which(len(items), len(predictions))}, {"" if whole else "evenly spread "}from the '
    'most to the fewest classes wrong, with probabilities at a threshold of 0.5.'
  )
  choices = [(i, names[i]) for i in known]
  return 'Images', [page.paragraph(text), page.gallery(items, choices, gallery.KINDS, orders)]
