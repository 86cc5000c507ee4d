"""Figures of images side by side: with boxes, with predictions, with queries, keys and values."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from vit_jax.data import boxes
from vit_jax.errors import ModelError
from vit_jax.inference.loaded import Prediction
from vit_jax.report.canvas import BLUE, GREY, ORANGE, drawing
from vit_jax.report.text import percent, readable, shorten
from vit_jax.visualization import figures, flow
from vit_jax.visualization.activations import Captured, Layer

if TYPE_CHECKING:
  from matplotlib.axes import Axes
  from matplotlib.figure import Figure

_TEXT = 10  # points
_MARK = np.array((0, 229, 255), np.uint8)  # contrasts with fur, grass and sky alike

Box = Sequence[float] | np.ndarray | None


@drawing
def image_figure(
  images: Sequence[np.ndarray],
  names: Sequence[str],
  title: str,
  caption: str,
  true_boxes: Sequence[Box] = (),
  predicted_boxes: Sequence[Box] = (),
  columns: int = 6,
) -> 'Figure':
  """Images in rows, with their names and boxes.

  Args:
    images: uint8 [h, w, c] each.
    names: above each image.
    title, caption: above and below.
    true_boxes, predicted_boxes: for each image (centre x, centre y, width, height) as shares of it,
      drawn in blue and orange; None for no box.
    columns: images in a row.
  """
  if not len(images):
    raise ModelError('there are no images to draw')
  columns = min(columns, len(images))
  rows = -(-len(images) // columns)
  tile = min(2.4, 10.5 / columns)
  ratio = float(np.median([image.shape[0] / image.shape[1] for image in images]))
  lines = max(1 + name.count('\n') for name in names)
  height = rows * (tile * ratio + 0.2 * lines)
  figure = figures.new_figure(columns * (tile + 0.06), height, title, caption)
  grid = figure.subplots(rows, columns, squeeze=False).ravel()
  for axes in grid[len(images) :]:
    axes.axis('off')
  for i, (axes, image, name) in enumerate(zip(grid, images, names)):
    _show(axes, image, name)
    for found, color in ((true_boxes, BLUE), (predicted_boxes, ORANGE)):
      if i < len(found):
        _draw_box(axes, image, found[i], color)
  return figure


def _show(axes: 'Axes', image: np.ndarray, name: str = '') -> None:
  """An image without axes."""
  axes.imshow(image if image.shape[-1] == 3 else np.repeat(image[..., :1], 3, axis=-1))
  axes.set_xticks([])
  axes.set_yticks([])
  axes.spines[:].set_visible(False)
  axes.set_title(name, fontsize=_TEXT)


def _draw_box(axes: 'Axes', image: np.ndarray, cxcywh: Box, color: str) -> None:
  """A box over an image, with a light edge that any ground leaves visible."""
  from matplotlib.patches import Rectangle  # noqa: PLC0415

  if cxcywh is None:
    return
  h, w = image.shape[:2]
  left, top, right, bottom = boxes.corners(np.asarray(cxcywh)) * (w, h, w, h) - 0.5
  for width, shade in ((4.5, '#ffffff'), (2.2, color)):
    axes.add_patch(
      Rectangle(
        (left, top), right - left, bottom - top, fill=False, edgecolor=shade, linewidth=width
      )
    )


@drawing
def prediction_figure(
  images: Sequence[np.ndarray],
  predictions: Sequence[Sequence[Prediction]],
  title: str,
  caption: str,
  true_names: Sequence[str] = (),
  names: Sequence[str] = (),
) -> 'Figure':
  """Images, each with its most probable classes as bars.

  Args:
    images: uint8 [h, w, c] each.
    predictions: for each image, as `Loaded.predict` returns them.
    title, caption: above and below.
    true_names: the class of each image, whose bar is blue; all bars are where none are given.
    names: above each image; its true class where none are given.
  """
  if not len(images):
    raise ModelError('there are no images to draw')
  across = min(2, len(images))
  rows = -(-len(images) // across)
  most = max(len(found) for found in predictions)
  height = max(1.6, 0.3 * most + 0.5)
  figure = figures.new_figure(5.4 * across, rows * height, title, caption)
  grid = figure.subplots(rows, 2 * across, squeeze=False, width_ratios=(1.0, 1.5) * across)
  for axes in grid.ravel()[2 * len(images) :]:
    axes.axis('off')
  pairs = grid.reshape(-1, 2)
  for i, ((left, right), image, found) in enumerate(zip(pairs, images, predictions)):
    true = true_names[i] if i < len(true_names) else None
    above = '' if true is None else f'true: {true}'
    _show(left, image, names[i] if i < len(names) else above)
    _draw_bars(right, found, true)
  return figure


def _draw_bars(axes: 'Axes', predictions: Sequence[Prediction], true: str | None) -> None:
  """Probabilities as bars, the most probable class on top."""
  shares = [100 * p.probability for p in predictions]
  names = [shorten(name, 24) for name in readable([p.name for p in predictions])]
  colors = [BLUE if true in (None, p.name) else GREY for p in predictions]
  axes.barh(range(len(names)), shares, color=colors, height=0.7)
  axes.set_yticks(range(len(names)), names, fontsize=_TEXT)
  axes.invert_yaxis()
  axes.set_xlim(0, 124)
  axes.set_xticks([])
  axes.spines['bottom'].set_visible(False)
  for i, p in enumerate(predictions):
    axes.text(shares[i] + 1.5, i, percent(p.probability), va='center', fontsize=_TEXT - 1)


def qkv_figure(
  pixels: np.ndarray,
  captured: Captured,
  layer: Layer,
  head: int,
  patch: tuple[int, int],
  channels: Sequence[int] | None = None,
  count: int = 3,
  title: str = 'Queries, keys and values, channel by channel',
) -> 'Figure':
  """How one patch's attention in one head comes about from the channels of queries and keys.

  A row for each channel: its query, key and value on the grid, and what it adds to the logits of
  the patch's attention. Below them the logits that all channels add up to, and the attention.

  Args:
    pixels: uint8 [h, w, c], the image.
    captured: with 'query', 'key', 'value' and 'weights', of a batch of one.
    layer: one of self-attention.
    head: its number.
    patch: (row, column) whose attention is explained, marked in the image.
    channels: numbers; None for the `count` that add most to the differences between patches.
    count: how many.
    title: above the figure.

  Raises:
    ModelError: another kind of layer, no such head, channel or patch.
  """
  terms = flow.attention_terms(captured, layer, patch)[0]
  heads, width = terms.shape[:2]
  if not 0 <= head < heads:
    raise ModelError(f'head {head} is not one of {heads}: give 0 to {heads - 1}')
  if layer.value is None or layer.query is None or layer.key is None:
    raise ModelError(f'{layer.label} was captured without values: capture them too')
  terms = terms[head]
  if channels is None:
    channels = np.argsort(-terms.std(axis=(1, 2)), kind='stable')[:count].tolist()
  wrong = [c for c in channels if not 0 <= c < width]
  if wrong:
    raise ModelError(f'channel {wrong[0]} is not one of {width}: give 0 to {width - 1}')
  query, key, value = (captured.patches(x)[0, head] for x in (layer.query, layer.key, layer.value))
  marked = _marked(pixels, patch, captured.patch_size)
  rows: list[list[np.ndarray | str | None]] = []
  titles, labels = [], []
  for i, c in enumerate(channels):
    rows.append([None if i else marked, query[..., c], key[..., c], value[..., c], terms[c]])
    names = (f'channel {c}: query', 'key', 'value', 'adds to logits')
    titles.append(['' if i else 'image', *names])
    labels.append('')
  weights = flow.attention_map(captured, layer, patch)[0, head]
  rows.append([None, None, None, terms.sum(axis=0), weights])
  titles.append(['', '', '', 'sum: logits', 'softmax: attention'])
  labels.append('')
  return figures.sheet_figure(
    rows,
    titles,
    labels,
    title,
    f'{layer.label}, head {head} of {heads}, {width} channels; the query is the patch in the box '
    f'(row {patch[0]}, column {patch[1]}). A channel adds query at the box x key / sqrt({width}); '
    'bright is more, each tile on its own scale. The values are what attention then takes the mean '
    'of.',
    tile=1.5,
  )


def _marked(pixels: np.ndarray, patch: tuple[int, int], patch_size: tuple[int, int]) -> np.ndarray:
  """The image with a box around a patch: uint8 [h, w, 3]."""
  image = np.repeat(pixels, 3, axis=-1) if pixels.shape[-1] == 1 else pixels.copy()
  left, top, width, height = figures.patch_mark(patch, patch_size)
  line = max(1, round(max(image.shape[:2]) / 56))
  inner = image[top : top + height, left : left + width].copy()
  rows = slice(max(0, top - line), top + height + line)
  image[rows, max(0, left - line) : left + width + line] = _MARK
  image[top : top + height, left : left + width] = inner
  return image
