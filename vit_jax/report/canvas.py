"""Where figures are drawn: matplotlib on first use, one style, no display."""

import contextlib
import functools
import importlib.util
import io
import pathlib
import textwrap
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
from PIL import Image

from vit_jax.errors import UserError

BLUE, ORANGE, GREEN, RED, GREY = '#0b62a4', '#d55e00', '#007a57', '#b3202c', '#666666'
SERIES = (BLUE, ORANGE, GREEN, '#aa3f8f', '#56b4e9', '#8a6d00', '#e69f00', '#444444')
DPI = 150
_STYLE = {
  'font.size': 10,
  'axes.titlesize': 10.5,
  'axes.spines.top': False,
  'axes.spines.right': False,
  'axes.axisbelow': True,
  'grid.color': '#e2e2e2',
  'legend.frameon': False,
  'text.parse_math': False,  # a class may be called '$5_$10'
}


def can_draw() -> bool:
  """Whether matplotlib is installed."""
  return importlib.util.find_spec('matplotlib') is not None


def drawing(draw: Callable[..., Any]) -> Callable[..., Any]:
  """Makes a function draw in the common style.

  Raises:
    UserError: when called, if matplotlib is not installed.
  """

  @functools.wraps(draw)
  def styled(*args, **kwargs):
    with style():
      return draw(*args, **kwargs)

  return styled


@contextlib.contextmanager
def style():
  """The common style."""
  try:
    import matplotlib  # slow, and an extra
  except ImportError:
    raise UserError('figures need matplotlib: pip install vit_jax[figures]') from None
  with matplotlib.rc_context(_STYLE), warnings.catch_warnings():
    # A class name in a script that no font here has: the page beside the figure still shows it.
    warnings.filterwarnings('ignore', 'Glyph .* missing from font')
    warnings.filterwarnings('ignore', 'Matplotlib currently does not support .* natively')
    yield


def empty_folder(folder: pathlib.Path) -> pathlib.Path:
  """Makes a folder for figures, without those of an earlier page: they are no longer true.

  Raises:
    UserError: matplotlib is not installed; then everything stays as it is.
  """
  with style():
    folder.mkdir(exist_ok=True)
    for old in folder.glob('*.png'):
      old.unlink()
  return folder


def new_figure(width: float, height: float):
  """An empty figure in inches."""
  from matplotlib.figure import Figure

  return Figure((width, height), layout='constrained', facecolor='white', dpi=DPI)


def logarithmic(axis) -> None:
  """Makes an axis (`axes.xaxis`) logarithmic, its numbers plain: the style reads no formulas."""
  from matplotlib.ticker import LogFormatter

  class Plain(LogFormatter):
    def __call__(self, x, pos=None):
      return f'{x:,.10g}' if super().__call__(x, pos) else ''

  axis.axes.set(**{f'{axis.axis_name}scale': 'log'})
  axis.set_major_formatter(Plain())
  axis.set_minor_formatter(Plain(minor_thresholds=(1.5, 0.4)))  # below 1.5 decades some, of 0.4 all


def save(figure, path: pathlib.Path | io.BytesIO, dpi: int = DPI) -> pathlib.Path:
  """Writes a PNG."""
  with style():
    # Tight: the layout reckons without the rest that equal aspects leave, and cuts off labels.
    figure.savefig(path, dpi=dpi, format='png', bbox_inches='tight', pad_inches=0.08)
  return path


def pixels(figure, dpi: int = 100) -> np.ndarray:
  """The figure as uint8 [h, w, 3]."""
  buffer = io.BytesIO()
  save(figure, buffer, dpi)
  return np.asarray(Image.open(buffer).convert('RGB'))


def shorten(name: str, most: int = 22) -> str:
  """A name cut in its middle where it is long: ends of names tell them apart as beginnings do."""
  if len(name) <= most:
    return name
  head = (most - 1) * 3 // 5
  return name[:head] + '…' + name[len(name) - (most - 1 - head) :]


def wrap(text: str, width: int) -> str:
  return '\n'.join(textwrap.wrap(text, width)) or text
