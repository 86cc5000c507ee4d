"""Figures of what the functions of this package return; matplotlib is loaded on first use.

Every function returns a `matplotlib.figure.Figure` with a title and a caption that explains it;
`save` writes it. No function touches pyplot or a display.
"""

import pathlib
import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from vit_jax.report import canvas
from vit_jax.report.canvas import drawing
from vit_jax.visualization.heat import colormap, overlay, scale

if TYPE_CHECKING:
  from matplotlib.axes import Axes
  from matplotlib.figure import Figure

Box = tuple[int, int, int, int]  # left, top, width, height in pixels

_MARK = '#00e5ff'  # contrasts with fur, grass and sky alike
_TEXT = 10  # points
CLIPPED = 2.0  # percent of the patches at either end of a tile's scale that are clipped


@drawing
def new_figure(width: float, height: float, title: str, caption: str) -> 'Figure':
  """An empty figure in inches, with a title above and a wrapped caption below."""
  per_line = max(30, int(width * 12.6))  # characters of 10 points on an inch, nearly
  lines = textwrap.wrap(caption, per_line)
  figure = canvas.new_figure(width, height + 0.19 * len(lines) + 0.4)
  figure.suptitle('\n'.join(textwrap.wrap(title, int(per_line * 0.7))), fontsize=12)
  figure.supxlabel('\n'.join(lines), fontsize=_TEXT, color='#333333', x=0.01, ha='left')
  return figure


def save(figure: 'Figure', path: str | pathlib.Path, dpi: int = 110) -> pathlib.Path:
  """Writes a PNG."""
  return canvas.save(figure, pathlib.Path(path), dpi)


def without_words(figure: 'Figure', dpi: int = 110) -> bytes:
  """The figure as a PNG without its title and its caption, for a page that has them as text.

  They are gone from the figure afterwards.
  """
  figure.suptitle('')
  figure.supxlabel('')
  return canvas.png(figure, dpi)


def _show(
  axes: 'Axes', image: np.ndarray, title: str = '', mark: Box | None = None, size: float = _TEXT
) -> None:
  """An image without axes, with a box around `mark`."""
  if image.shape[-1] == 1:
    image = np.repeat(image, 3, axis=-1)
  axes.imshow(image, interpolation='nearest')
  axes.set_xticks([])
  axes.set_yticks([])
  axes.spines[:].set_visible(True)
  axes.set_title(title, fontsize=size)
  if mark:
    from matplotlib.patches import Rectangle  # noqa: PLC0415

    left, top, width, height = mark
    place = (left - 0.5, top - 0.5)
    axes.add_patch(Rectangle(place, width, height, fill=False, edgecolor=_MARK, linewidth=2))


def _color_bar(figure: 'Figure', axes: 'Sequence[Axes] | np.ndarray', label: str) -> None:
  """A color bar of the heat colors, from the least to the greatest value."""
  from matplotlib.cm import ScalarMappable  # noqa: PLC0415
  from matplotlib.colors import ListedColormap  # noqa: PLC0415

  mapping = ScalarMappable(cmap=ListedColormap(colormap(np.linspace(0, 1, 256)) / 255.0))
  mapping.set_clim(0, 1)
  bar = figure.colorbar(mapping, ax=axes, fraction=0.03, pad=0.01, ticks=[0, 1], aspect=30)
  bar.ax.set_yticklabels(('least', 'most'), fontsize=_TEXT)
  bar.set_label(label, fontsize=_TEXT)


def patch_mark(patch: tuple[int, int], patch_size: tuple[int, int]) -> Box:
  """The box of the patch (row, column)."""
  return patch[1] * patch_size[1], patch[0] * patch_size[0], patch_size[1], patch_size[0]


@drawing
def attention_figure(
  image: np.ndarray,
  maps: Sequence[np.ndarray],
  labels: Sequence[str],
  title: str,
  caption: str,
  heads: Sequence[int] | None = None,
  mark: Box | None = None,
) -> 'Figure':
  """Attention of layers and heads, with the mean of the heads at the end.

  Layers are rows, or columns where they are at least as many as the heads and fit.

  Args:
    image: uint8 [h, w, c].
    maps: for each layer [heads, rows, columns].
    labels: names of the layers.
    title, caption: above and below.
    heads: numbers of the heads that maps hold; None for all.
    mark: box around the query patch, see `patch_mark`.
  """
  count = max(len(m) for m in maps)
  names = [f'head {h}' for h in (range(count) if heads is None else heads)]
  names += ['mean'] if count > 1 else []
  tiles = [[*layer, *([layer.mean(axis=0)] if count > 1 else [])] for layer in maps]
  sheet, places = tile_sheet([[colormap(scale(t, CLIPPED)) for t in row] for row in tiles])
  across, down, ticks = names, list(labels), places
  if len(names) <= len(maps) <= 12:  # wider than high fits a screen
    transposed = list(zip(*tiles))
    sheet, ticks = tile_sheet([[colormap(scale(t, CLIPPED)) for t in row] for row in transposed])
    across, down = list(labels), names
  ratio = sheet.shape[0] / sheet.shape[1]
  width = len(across) * (2.4 if len(across) <= 3 else max(0.62, min(1.3, 8.0 / len(across))))
  side = 2.0  # of the image at the left, in inches
  height = max(width * ratio + 0.3, side * image.shape[0] / image.shape[1] + 0.3)
  figure = new_figure(side + width + 1.6, height, title, caption)
  left, right = figure.subplots(1, 2, width_ratios=(side, width + 0.8))
  _show(left, image, 'image', mark)
  left.set_anchor('N')
  right.imshow(sheet, interpolation='nearest')
  right.set_anchor('N')
  right.spines[:].set_visible(False)
  right.tick_params(length=0, labelsize=_TEXT, labeltop=True, labelbottom=False)
  right.set_xticks(ticks[1], across)
  right.set_yticks(ticks[0], down)
  _color_bar(figure, [right], 'attention, each tile on its own scale')
  return figure


def tile_sheet(
  rows: Sequence[Sequence[np.ndarray]],
) -> tuple[np.ndarray, tuple[list[float], list[float]]]:
  """Tiles [r, c, 3] of equal size as one image with white gaps: much quicker than many axes.

  Returns:
    uint8 [h, w, 3] and the middles of the rows and of the columns in its pixels.
  """
  r, c = rows[0][0].shape[:2]
  size = max(4, round(64 / max(r, c)))  # pixels per patch, so that gaps are narrow
  gap = max(2, r * size // 14)
  h, w = r * size + gap, c * size + gap
  sheet = np.full((len(rows) * h - gap, len(rows[0]) * w - gap, 3), 255, np.uint8)
  for i, row in enumerate(rows):
    for j, tile in enumerate(row):
      big = tile.repeat(size, axis=0).repeat(size, axis=1)
      sheet[i * h : i * h + r * size, j * w : j * w + c * size] = big
  middles = [i * h + r * size / 2 - 0.5 for i in range(len(rows))]
  return sheet, (middles, [j * w + c * size / 2 - 0.5 for j in range(len(rows[0]))])


@drawing
def overlay_figure(
  image: np.ndarray,
  maps: Sequence[np.ndarray],
  names: Sequence[str],
  title: str,
  caption: str,
  mark: Box | None = None,
) -> 'Figure':
  """An image, and maps laid over it with a ring where each has its peak.

  Args:
    image: uint8 [h, w, c].
    maps: each [rows, columns].
    names: of the maps.
    title, caption: above and below.
    mark: box around a chosen patch, see `patch_mark`.
  """
  ratio = image.shape[0] / image.shape[1]
  count = len(maps) + 1
  columns = min(count, 4)
  rows = -(-count // columns)
  figure = new_figure(2.9 * columns + 0.8, rows * (2.9 * ratio + 0.35), title, caption)
  grid = figure.subplots(rows, columns, squeeze=False)
  for axes in grid.ravel()[count:]:
    axes.axis('off')
  _show(grid[0, 0], image, 'image', mark)
  for axes, values, name in zip(grid.ravel()[1:], maps, names):
    _show(axes, overlay(image, values), '\n'.join(textwrap.wrap(name, 32)), mark)
    row, column = np.unravel_index(np.argmax(values), values.shape)
    y = (row + 0.5) * image.shape[0] / values.shape[0] - 0.5
    x = (column + 0.5) * image.shape[1] / values.shape[1] - 0.5
    axes.plot(x, y, 'o', markersize=11, markerfacecolor='none', color=_MARK, markeredgewidth=1.8)
  _color_bar(figure, grid, 'weight, each map on its own scale')
  return figure


@drawing
def position_figure(similarity: np.ndarray, title: str, caption: str, most: int = 16) -> 'Figure':
  """Tiles of similarity, one for each patch's position embedding.

  Args:
    similarity: [rows, columns, rows, columns] from `position_similarity`.
    title, caption: above and below.
    most: rows or columns shown; larger grids show every second, third, ... patch.
  """
  rows, columns = similarity.shape[:2]
  step = -(-max(rows, columns) // most)
  tiles = similarity[::step, ::step]
  r, c = tiles.shape[:2]
  gap = max(1, max(rows, columns) // 12)
  sheet = np.full((r * (rows + gap) - gap, c * (columns + gap) - gap), np.nan, np.float32)
  for i in range(r):
    for j in range(c):
      top, left = i * (rows + gap), j * (columns + gap)
      sheet[top : top + rows, left : left + columns] = tiles[i, j]
  ratio = sheet.shape[0] / sheet.shape[1]
  figure = new_figure(8.6, 7.1 * ratio + 0.2, title, caption)
  axes = figure.subplots()
  shown = axes.imshow(sheet, cmap='viridis', interpolation='nearest', vmax=1.0)
  axes.set_xticks([j * (columns + gap) + (columns - 1) / 2 for j in range(c)])
  axes.set_xticklabels([j * step for j in range(c)], fontsize=_TEXT)
  axes.set_yticks([i * (rows + gap) + (rows - 1) / 2 for i in range(r)])
  axes.set_yticklabels([i * step for i in range(r)], fontsize=_TEXT)
  axes.set_xlabel('column of the patch')
  axes.set_ylabel('row of the patch')
  figure.colorbar(shown, ax=axes, fraction=0.04, pad=0.01, label='cosine similarity')
  return figure


@drawing
def filter_figure(filters: np.ndarray, shares: np.ndarray, title: str, caption: str) -> 'Figure':
  """Principal components of filters [k, p, q, c] with the variance that each explains [k]."""
  columns = min(7, len(filters))
  rows = -(-len(filters) // columns)
  figure = new_figure(1.25 * columns + 0.2, 1.5 * rows, title, caption)
  grid = figure.subplots(rows, columns, squeeze=False)
  for axes in grid.ravel()[len(filters) :]:
    axes.axis('off')
  for i, (axes, values) in enumerate(zip(grid.ravel(), filters)):
    image = 0.5 + 0.5 * values / np.abs(values).max()
    _show(axes, image, f'{i + 1}: {100 * shares[i]:.1f} %')
  return figure


@drawing
def distance_figure(
  labels: Sequence[str], distances: np.ndarray, uniform: float, title: str, caption: str
) -> 'Figure':
  """Mean attention distance in pixels [layers, heads] over depth, a dot for each head."""
  from matplotlib import colormaps  # noqa: PLC0415

  figure = new_figure(7.5, 4.6, title, caption)
  axes = figure.subplots()
  depth, heads = distances.shape
  shades = colormaps['viridis'].resampled(heads)
  dots = axes.scatter(
    np.repeat(np.arange(depth), heads),
    distances.ravel(),
    c=np.tile(np.arange(heads), depth),
    cmap=shades,
    vmin=-0.5,
    vmax=heads - 0.5,
    s=28,
    zorder=3,
  )
  axes.plot(distances.mean(axis=1), color='#888888', linewidth=1.2, label='mean of the heads')
  axes.axhline(uniform, color='#cc4444', linestyle='--', linewidth=1.2, label='uniform attention')
  axes.set_xticks(range(depth))
  axes.set_xticklabels([label.rsplit(' ', 1)[-1] for label in labels], fontsize=_TEXT)
  axes.set_xlabel('block')
  axes.set_ylabel('mean attention distance (pixels)')
  axes.set_ylim(0, max(distances.max(), uniform) * 1.22)
  axes.grid(alpha=0.3)
  axes.legend(fontsize=_TEXT, loc='upper left', ncols=2)
  if heads > 1:
    ticks = range(0, heads, -(-heads // 8))
    figure.colorbar(dots, ax=axes, label='head', fraction=0.04, pad=0.01, ticks=ticks)
  return figure


@drawing
def sheet_figure(
  rows: Sequence[Sequence[np.ndarray | str | None]],
  titles: Sequence[Sequence[str]],
  labels: Sequence[str],
  title: str,
  caption: str,
  tile: float = 1.6,
) -> 'Figure':
  """Rows of images: token PCA by block, channels, nearest images.

  Args:
    rows: images [h, w, c] (or [h, w], drawn in heat colors on their own scale); None for an empty
      place; a text stands upright in a narrow column.
    titles: above each image, of the same layout as rows.
    labels: at the left of each row.
    title, caption: above and below.
    tile: width of an image in inches.
  """
  columns = max(len(row) for row in rows)
  narrow = {j for row in rows for j, cell in enumerate(row) if isinstance(cell, str)}
  widths = [0.22 if j in narrow else 1.0 for j in range(columns)]
  shapes = [cell.shape for row in rows for cell in row if isinstance(cell, np.ndarray)]
  ratio = float(np.median([shape[0] / shape[1] for shape in shapes]))
  heights = [0.12 + 0.14 * max(1 + t.count('\n') if t else 0 for t in row) for row in titles]
  height = len(rows) * tile * ratio + sum(heights)
  figure = new_figure(sum(widths) * (tile + 0.06) + 0.4, height, title, caption)
  grid = figure.subplots(len(rows), columns, squeeze=False, width_ratios=widths)
  for i, row in enumerate(rows):
    for axes, cell, name in zip(grid[i], row, titles[i]):
      if isinstance(cell, np.ndarray):
        image = cell if cell.ndim == 3 else colormap(scale(cell, CLIPPED))
        _show(axes, image, name, size=_TEXT)
      else:
        _write(axes, cell or '')
    for axes in grid[i][len(row) :]:
      axes.axis('off')
    grid[i, 0].set_ylabel(labels[i], fontsize=_TEXT)
  return figure


def _write(axes: 'Axes', text: str) -> None:
  """An empty place, or an upright text in it."""
  axes.set_xticks([])
  axes.set_yticks([])
  axes.spines[:].set_visible(False)
  axes.text(
    0.5,
    0.5,
    text,
    rotation=90,
    ha='center',
    va='center',
    transform=axes.transAxes,
    fontsize=_TEXT,
    color='#333333',
  )
