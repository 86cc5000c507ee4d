"""The gallery of a report: images to filter by class and by right or wrong, each shown once."""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
from markupsafe import Markup

from vit_jax.errors import counted
from vit_jax.report import examples, figures, metrics, page, thumbnails
from vit_jax.report.layout import Context
from vit_jax.report.predictions import Predictions
from vit_jax.report.thumbnails import Thumbnail

ANCHOR = 'gallery'
KINDS = {'wrong': 'wrong', 'correct': 'correct'}
_ORDERS = {
  '-confidence': 'most confident first',
  'confidence': 'least confident first',
  'truth': 'lowest probability of the true class first',
}


def anchor(true: int, predicted: int) -> str:
  """The place of the page with images of a class that are predicted as one."""
  return f'p{true}-{predicted}'


def anchors_of(predictions: Predictions) -> set[str]:
  """All places that the gallery of these predictions has."""
  rows = examples.gallery(predictions)
  return {anchor(int(predictions.labels[r]), int(predictions.predicted[r])) for r in rows}


def classes_of(predictions: Predictions) -> dict[int, str]:
  """The first place of each class that the gallery shows."""
  found: dict[int, str] = {}
  for row in examples.gallery(predictions):
    true, predicted = int(predictions.labels[row]), int(predictions.predicted[row])
    for index in (true, predicted):
      found.setdefault(index, anchor(true, predicted))
  return found


def class_link(places: Mapping[int, str], index: int, name: str) -> str:
  """The name of a class, as a link to its images where the gallery has some."""
  return page.link(f'#{places[index]}', name, index) if index in places else name


def thumbnails_of(context: Context, rows: Sequence[int]) -> list[Thumbnail]:
  """Images of some rows, with their predictions."""
  assert context.load_image is not None
  return thumbnails.predicted(context.predictions, rows, context.load_image)


def which(shown: int, n: int) -> str:
  """'80 images of 1,234' or 'All 30 images': what a gallery shows of a split."""
  if shown == n > 1:
    return f'All {n:,} images'
  return f'{counted(shown, "image")} of {n:,}'


def save_sheet(context: Context, name: str, items: Sequence[Thumbnail]) -> None:
  """Thumbnails as one figure NAME.png beside the page."""
  if items:
    context.draw(name, figures.sheet(items), dpi=100)


def section(context: Context) -> tuple[str, Sequence[Markup]] | None:
  """Mistakes, doubts and examples of every class, as the model saw them."""
  if not context.load_image:
    return None
  predictions = context.predictions
  rows = examples.gallery(predictions)
  items, seen = [], set()
  for item in thumbnails_of(context, rows):
    place = anchor(int(item.data['true']), int(item.data['pred']))
    items.append(item if place in seen else dataclasses.replace(item, anchor=place))
    seen.add(place)
  _sheets(context)
  names = predictions.names
  shown = sorted({int(item.data[key]) for item in items for key in ('true', 'pred')})
  orders = dict(_ORDERS)
  if any('iou' in item.data for item in items):
    orders |= {'iou': 'lowest IoU first', '-iou': 'highest IoU first'}
  n, wrong = len(predictions), int((~predictions.correct).sum())
  text = (
    f'{which(len(items), n)}, as the model saw them, with prediction and truth and their '
    'probabilities. '
  )
  if wrong:
    text += (
      'Most confident mistakes come first, with a dashed bar on top. Wrong labels may be among '
      'them: check whether it is the model that is wrong, or the label. '
    )
  else:
    text += 'There is no mistake among these images'
    text += '. ' if len(items) == n else ': the most and the least confident are shown. '
  return 'Images', [
    page.paragraph(text + page.link('predictions.csv', 'All of them: predictions.csv')),
    *_worst(context),
    page.anchored(ANCHOR, page.gallery(items, [(i, names[i]) for i in shown], KINDS, orders)),
  ]


def _worst(context: Context) -> list[Markup]:
  """The classes with the lowest F1, each a link to its images."""
  predictions, table = context.predictions, context.once(metrics.per_class)
  places, names = context.once(classes_of), predictions.names
  found = [
    Markup('{} (F1 {:.3f}, {:,} of {:,} missed)').format(
      class_link(places, worst.index, names[worst.index]),
      table.f1[worst.index],
      sum(n for _, n in worst.predicted_as),
      table.support[worst.index],
    )
    for worst in examples.worst_classes(predictions)
  ]
  words = Markup(', ').join(found)
  return [page.paragraph(Markup('Worst classes: ') + words + '.')] if found else []


def _sheets(context: Context) -> None:
  """Figures beside the page: the most confident mistakes, and each of the worst classes."""
  predictions = context.predictions
  mistakes = np.asarray(examples.most_confident_mistakes(predictions)).tolist()
  save_sheet(context, 'confident_mistakes', thumbnails_of(context, mistakes))
  for number, worst in enumerate(examples.worst_classes(predictions), start=1):
    items = thumbnails_of(context, worst.missed)
    for c, row in worst.lookalikes:
      caption = f'example of {predictions.names[c]}'
      assert context.load_image is not None
      items.append(thumbnails.example_of(predictions, row, caption, context.load_image))
    save_sheet(context, f'worst_{number}', items)
