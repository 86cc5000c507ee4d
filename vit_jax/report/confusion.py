"""The confusion matrix on the page: its cells tell their values and lead to their images."""

from collections.abc import Sequence

import numpy as np
from markupsafe import Markup

from vit_jax.errors import counted
from vit_jax.report import gallery, matrices, metrics, page
from vit_jax.report.layout import Context
from vit_jax.report.page import Cell
from vit_jax.report.text import percent

_BY_COUNT = (
  'Rows are true classes, columns predictions; numbers are images, shades shares of the row.'
)
_BY_PROBABILITY = (
  "Mean predicted probability over the row's images, in percent: it shows doubt even where the "
  'prediction was correct.'
)
_LEADS = ' An underlined number leads to its images.'


def section(context: Context) -> tuple[str, Sequence[Markup]]:
  """The confusion matrix by counts and by probability, and the most confused pairs."""
  found, names = context.once(metrics.confusion), context.predictions.names
  if len(names) > matrices.NAMED:
    parts = _of_many(context)
  else:
    everyone = list(range(len(names)))
    parts = _both(context, '', everyone, everyone, names)
  if not found.pairs:
    return 'Confusion', [*parts, page.paragraph('No image was confused.')]
  shown = _pictured(context)
  rows = []
  for p in found.pairs[:20]:
    images = f'{p.count:,}'
    place = gallery.anchor(p.true, p.predicted)
    rows.append(
      (
        names[p.true],
        names[p.predicted],
        page.link(f'#{place}', images) if place in shown else images,
        percent(p.share),
        percent(p.probability),
      )
    )
  header = ('true class', 'predicted as', 'images', 'share of class', 'mean probability')
  more = len(found.pairs) - len(rows)
  caption = f'{more:,} more pairs:' if more else 'As a file:'
  file = 'confused_pairs.csv'
  table = page.table(header, rows, caption, text=(1,), sortable=True, file=file)
  return 'Confusion', [*parts, page.heading('Most confused pairs'), table]


def _pictured(context: Context) -> set[str]:
  """Places of the page with images of a pair of classes."""
  return context.once(gallery.anchors_of) if context.load_image else set()


def _of_many(context: Context) -> list[Markup]:
  """Overviews of all classes, and the matrices of the most confused."""
  found, names = context.once(metrics.confusion), context.predictions.names
  key = (
    'Off the diagonal lie mistakes; square-root shades make rare ones visible. Classes by their '
    'numbers: per_class.csv, counted from 0.'
  )
  if np.isnan(found.shares).any():
    key += ' Rows of classes without images are empty.'
  common = ', '.join(
    f'{names[p.true]} as {names[p.predicted]} ({p.count:,})' for p in found.pairs[:3]
  )
  alt = f'Confusion matrix of {len(names):,} classes as a shaded square. ' + (
    f'Most frequent confusions: {common}.' if common else 'No image was confused.'
  )
  overviews = (
    context.figure(
      f'confusion_{name}',
      matrices.overview(shades, what),
      f'Confusion by {title}, all classes',
      key,
      alt,
    )
    for name, shades, what, title in (
      ('counts', found.shares, "share of the class's images", 'counts'),
      ('probability', found.probability, 'mean probability', 'mean predicted probability'),
    )
  )
  parts = [page.figures(*overviews)]
  chosen = matrices.most_confused(found.pairs)
  if chosen:
    known = [i for i in chosen if found.counts[i].any()]
    columns = [*(names[i] for i in chosen), 'all others']
    parts += _both(context, ', most confused classes', known, chosen, columns)
  return parts


def _both(
  context: Context, which: str, rows: list[int], columns: list[int], titles: Sequence[str]
) -> list[Markup]:
  """The matrices by counts and by probability, on the page and as PNGs beside it.

  Args:
    context: of the report.
    which: end of their titles.
    rows, columns: classes; where `titles` are one more, it is of the sum of all others.
    titles: of the columns.
  """
  found, names = context.once(metrics.confusion), context.predictions.names
  values = [found.counts, found.shares, found.probability]
  file = 'confusion.csv' if len(names) <= matrices.WRITTEN else ''
  if len(titles) > len(columns):
    values = [matrices.excerpt(v, rows, columns) for v in values]
  counts, shares, probability = values
  of_rows = [names[i] for i in rows]
  suffix = '_worst' if which else ''
  context.draw(f'confusion_counts{suffix}', matrices.confusion(counts, of_rows, titles, shares))
  context.draw(
    f'confusion_probability{suffix}',
    matrices.confusion(probability, of_rows, titles, percent=True),
  )
  shown, together = _pictured(context), ''
  if which:
    together = ' Classes that are confused with each other stand together.'
  lines: list[tuple[list[Cell], list[Cell]]] = []
  for i, row in enumerate(rows):
    line: tuple[list[Cell], list[Cell]] = ([], [])
    for j, title in enumerate(titles):
      place = gallery.anchor(row, columns[j]) if j < len(columns) else ''
      words = f'true {names[row]}, predicted {title}: '
      chance = f'mean probability {percent(float(np.nan_to_num(probability[i, j])))}'
      n = int(counts[i, j])
      if n:
        share = float(np.nan_to_num(shares[i, j]))
        words += f'{counted(n, "image")}, {percent(share)} of the class, '
        line[0].append(
          Cell(f'{n:,}', _shade(shares[i, j]), words + chance, place if place in shown else '')
        )
      else:
        line[0].append(Cell('', 0, ''))
      text = f'{100 * np.nan_to_num(probability[i, j]):.0f}'
      note = words + chance if text != '0' else ''
      line[1].append(Cell(text if note else '', _shade(probability[i, j]), note))
    lines.append(line)
  parts = [
    page.matrix(
      f'Confusion by counts{which}',
      _BY_COUNT + together + (_LEADS if shown else ''),
      titles,
      [(name, line[0]) for name, line in zip(of_rows, lines)],
      file,
    ),
    page.matrix(
      f'Confusion by mean predicted probability{which}',
      _BY_PROBABILITY,
      titles,
      [(name, line[1]) for name, line in zip(of_rows, lines)],
    ),
  ]
  return [page.figures(*parts)] if len(titles) <= 12 else parts


def _shade(share: float) -> int:
  """0 for none, 1 to 10 for more."""
  return int(np.ceil(10 * min(1.0, share))) if share > 0 else 0
