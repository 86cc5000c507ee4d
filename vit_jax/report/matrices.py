"""Confusion matrices that can be read, from 2 to thousands of classes."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from vit_jax.report.canvas import drawing, new_figure
from vit_jax.report.metrics import Pair
from vit_jax.report.text import shorten

if TYPE_CHECKING:
  from matplotlib.axes import Axes
  from matplotlib.figure import Figure

NAMED = 50  # classes whose names fit along an axis
WRITTEN = 1000  # classes up to which the confusion matrix is written as a CSV
_NUMBERED = 30  # classes whose cells hold numbers in readable size
_BLOCKS = 125  # cells along the side of an overview


@drawing
def confusion(
  values: np.ndarray,
  rows: Sequence[str],
  columns: Sequence[str],
  shades: np.ndarray | None = None,
  percent: bool = False,
) -> 'Figure':
  """A matrix with a name at every row and column, and numbers where they fit.

  Args:
    values: written into the cells [r, c]; nothing where 0 or NaN.
    rows: names of the true classes.
    columns: names of the predicted classes.
    shades: of the cells [r, c], 0 to 1; None for the values.
    percent: whether values are shares, written in percent.
  """
  r, c = values.shape
  shades = values if shades is None else shades
  many = max(r, c)
  cell = 0.62 if many <= 12 else 0.42 if many <= _NUMBERED else 0.25
  most = 22 if many <= _NUMBERED else 18
  labels = max(len(shorten(n, most)) for n in (*rows, *columns)) * 0.075
  upright = many > 12
  figure = new_figure(
    max(4.4, 1.6 + labels + cell * c), max(3.4, 0.8 + labels * (1 if upright else 0.8) + cell * r)
  )
  axes = figure.subplots()
  shown = axes.imshow(np.nan_to_num(shades), cmap='Blues', vmin=0, vmax=1)
  number_size, size = (9.5, 9.5) if many <= 12 else (7.5, 8.5) if many <= _NUMBERED else (5.5, 7.5)
  _write_numbers(axes, values, shades, percent, number_size)
  turn = {'rotation': 90} if upright else {'rotation': 45, 'ha': 'right', 'rotation_mode': 'anchor'}
  axes.set_xticks(range(c), [shorten(n, most) for n in columns], fontsize=size, **turn)
  axes.set_yticks(range(r), [shorten(n, most) for n in rows], fontsize=size)
  axes.set_xticks(np.arange(c + 1) - 0.5, minor=True)
  axes.set_yticks(np.arange(r + 1) - 0.5, minor=True)
  axes.grid(which='minor', color='#dddddd', linewidth=0.5)
  axes.tick_params(which='minor', length=0)
  axes.spines[:].set_visible(False)
  axes.set_xlabel('predicted class')
  axes.set_ylabel('true class')
  label = 'mean probability' if percent else "share of the true class's images"
  figure.colorbar(shown, ax=axes, fraction=0.04, pad=0.02, label=label)
  return figure


def _write_numbers(
  axes: 'Axes', values: np.ndarray, shades: np.ndarray, percent: bool, size: float
) -> None:
  for i, j in zip(*np.nonzero(np.nan_to_num(values))):
    if percent:
      text = f'{100 * values[i, j]:.0f}'
      if text == '0':
        continue
    else:
      text = f'{values[i, j]:,}' if values[i, j] < 10_000 else f'{values[i, j] / 1000:.0f}k'
    ink = 'white' if shades[i, j] > 0.55 else '#1c1c1c'
    axes.text(j, i, text, ha='center', va='center', fontsize=size, color=ink)


@drawing
def overview(shades: np.ndarray, what: str) -> 'Figure':
  """The matrix of many classes as blocks, in which even a single confusion can be seen.

  Args:
    shades: [k, k], 0 to 1, NaN in the rows of absent classes.
    what: the shades' meaning.
  """
  from matplotlib.colors import PowerNorm

  k = len(shades)
  size = -(-k // _BLOCKS)
  blocks = pool(np.nan_to_num(shades), size)
  figure = new_figure(6.4, 5.6)
  axes = figure.subplots()
  edge = len(blocks) * size
  # Confusions are rare and small beside the diagonal: the square root shows both.
  shown = axes.imshow(
    blocks,
    cmap='Blues',
    norm=PowerNorm(0.5, 0, 1),
    interpolation='nearest',
    extent=(-0.5, edge - 0.5, edge - 0.5, -0.5),
  )
  axes.set_xlim(-0.5, k - 0.5)
  axes.set_ylim(k - 0.5, -0.5)
  axes.set_xlabel('number of the predicted class')
  axes.set_ylabel('number of the true class')
  note = f'{what}; largest of {size} x {size} cells' if size > 1 else what
  figure.colorbar(shown, ax=axes, fraction=0.045, pad=0.02, label=note)
  return figure


def pool(values: np.ndarray, size: int) -> np.ndarray:
  """The largest value of each block of size x size cells [k, k] -> [ceil(k / size), ...]."""
  missing = -len(values) % size
  padded = np.pad(values, ((0, missing), (0, missing)))
  n = len(padded) // size
  return padded.reshape(n, size, n, size).max(axis=(1, 3))


def most_confused(pairs: Sequence[Pair], most: int = 24) -> list[int]:
  """Classes of the most frequent confusions, those that are confused with each other together."""
  chosen: list[int] = []
  for pair in pairs:
    new = [i for i in (pair.true, pair.predicted) if i not in chosen]
    if len(chosen) + len(new) > most:
      break
    chosen += new
  weight = np.zeros((len(chosen), len(chosen)))
  place = {c: i for i, c in enumerate(chosen)}
  for pair in pairs:
    if pair.true in place and pair.predicted in place:
      weight[place[pair.true], place[pair.predicted]] += pair.share
  return [chosen[i] for i in _neighbours(weight + weight.T)]


def _neighbours(weight: np.ndarray) -> list[int]:
  """An order of classes by likeness [m, m], in which the most alike stand together."""
  if len(weight) < 3:
    return list(range(len(weight)))
  from scipy.cluster import hierarchy
  from scipy.spatial.distance import squareform

  distance = 1.0 / (1.0 + 10 * weight)
  np.fill_diagonal(distance, 0)
  tree = hierarchy.linkage(squareform(distance), 'average', optimal_ordering=True)
  return hierarchy.leaves_list(tree).tolist()


def excerpt(matrix: np.ndarray, rows: Sequence[int], columns: Sequence[int]) -> np.ndarray:
  """Some rows and columns of a matrix, and a last column with the sum of all others."""
  chosen = matrix[list(rows)]
  inside = chosen[:, list(columns)]
  rest = chosen.sum(1, keepdims=True) - inside.sum(1, keepdims=True)
  return np.concatenate([inside, rest], axis=1)
