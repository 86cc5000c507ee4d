"""Where figures are drawn: matplotlib on first use, one style, no display."""

import contextlib
import functools
import importlib.util
import io
import pathlib
import re
import warnings
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

import numpy as np
from PIL import Image

from vit_jax.errors import DependencyError
from vit_jax.files import replacing

if TYPE_CHECKING:
  from matplotlib.axis import XAxis, YAxis
  from matplotlib.figure import Figure

P = ParamSpec('P')
R = TypeVar('R')

BLUE, ORANGE, GREY = '#0b62a4', '#d55e00', '#666666'
SERIES = (BLUE, ORANGE, '#007a57', '#aa3f8f', '#56b4e9', '#8a6d00', '#e69f00', '#444444')
DPI = 150
_STYLE: dict[Any, Any] = {
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


def drawing(draw: Callable[P, R]) -> Callable[P, R]:
  """Makes a function draw in the common style, each number of an axis whole at its tick.

  Raises:
    DependencyError: when called, if matplotlib is not installed.
  """

  @functools.wraps(draw)
  def styled(*args: P.args, **kwargs: P.kwargs) -> R:
    with style():
      drawn = draw(*args, **kwargs)
      for axes in getattr(drawn, 'axes', ()):  # of a figure; there may be None
        _whole_numbers(axes.xaxis)
        _whole_numbers(axes.yaxis)
      return drawn

  return styled


@contextlib.contextmanager
def style() -> Iterator[None]:
  """The common style.

  Raises:
    DependencyError: matplotlib is not installed.
  """
  try:
    import matplotlib  # slow
  except ImportError:
    raise DependencyError('figures need matplotlib: pip install matplotlib') from None
  with matplotlib.rc_context(_STYLE), warnings.catch_warnings():
    # A class name in a script that no font here has: the page beside the figure still shows it.
    warnings.filterwarnings('ignore', 'Glyph .* missing from font')
    warnings.filterwarnings('ignore', 'Matplotlib currently does not support .* natively')
    yield


def empty_folder(folder: pathlib.Path) -> pathlib.Path:
  """Makes a folder for figures, without those of an earlier page: they are no longer true.

  Raises:
    DependencyError: matplotlib is not installed; then everything stays as it is.
  """
  with style():
    folder.mkdir(exist_ok=True)
    for old in folder.glob('*.png'):
      old.unlink()
  return folder


def new_figure(width: float, height: float) -> 'Figure':
  """An empty figure in inches."""
  from matplotlib.figure import Figure

  return Figure((width, height), layout='constrained', facecolor='white', dpi=DPI)


def logarithmic(axis: 'XAxis | YAxis') -> None:
  """Makes an axis (`axes.xaxis`) logarithmic, its numbers plain: the style reads no formulas."""
  from matplotlib.ticker import LogFormatter

  class Plain(LogFormatter):
    def __call__(self, x: float, pos: int | None = None) -> str:
      return f'{x:,.10g}' if super().__call__(x, pos) else ''

  axis.axes.set(**{f'{axis.axis_name}scale': 'log'})
  axis.set_major_formatter(Plain())
  axis.set_minor_formatter(Plain(minor_thresholds=(1.5, 0.4)))  # below 1.5 decades some, of 0.4 all


def _whole_numbers(axis: 'XAxis | YAxis') -> None:
  """'4e-5' at a tick in place of '4' there and '1e-5' beside the axis."""
  from matplotlib.ticker import ScalarFormatter

  class Whole(ScalarFormatter):
    def format_ticks(self, values: Any) -> list[str]:
      if 1e-4 <= np.abs(values).max(initial=0) < 1e7:
        return super().format_ticks(values)
      return [re.sub(r'e([-+])0*', lambda e: 'e' + e[1].strip('+'), f'{x:.6g}') for x in values]

  if type(axis.get_major_formatter()) is ScalarFormatter:
    formatter = Whole(useOffset=False)
    formatter.set_scientific(False)
    axis.set_major_formatter(formatter)


def save(figure: 'Figure', path: pathlib.Path, dpi: int = DPI) -> pathlib.Path:
  """Writes a PNG, whole or not at all."""
  with replacing(path) as temporary:
    _write(figure, temporary, dpi)
  return path


def png(figure: 'Figure', dpi: int = DPI) -> bytes:
  """The PNG that `save` writes."""
  buffer = io.BytesIO()
  _write(figure, buffer, dpi)
  return buffer.getvalue()


def pixels(figure: 'Figure', dpi: int = 100) -> np.ndarray:
  """The figure as uint8 [h, w, 3]."""
  return np.asarray(Image.open(io.BytesIO(png(figure, dpi))).convert('RGB'))


def _write(figure: 'Figure', to: pathlib.Path | io.BytesIO, dpi: int) -> None:
  with style():
    # Tight: the layout leaves out of account what equal aspects leave over, and cuts off labels.
    figure.savefig(to, dpi=dpi, format='png', bbox_inches='tight', pad_inches=0.08)
