"""What a report consists of: a task lists numbers, tables, a summary, sections and figures."""

import dataclasses
import pathlib
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from markupsafe import Markup

from vit_jax.files import short_name
from vit_jax.report import canvas, page
from vit_jax.report.collect import LoadImage
from vit_jax.report.predictions import Predictions

if TYPE_CHECKING:
  from matplotlib.figure import Figure

T = TypeVar('T')

_NO_FILE_NAME = re.compile(r'[^\w.-]')  # a metric may be called 'top 5/raw'


@dataclasses.dataclass(frozen=True)
class Title:
  """What a metric of metrics.jsonl is called.

  Attributes:
    text: such as 'top-1 accuracy'.
    percent: whether it is a share, shown in percent.
    note: how to read its learning curve.
  """

  text: str
  percent: bool = False
  note: str = ''


@dataclasses.dataclass(frozen=True)
class Table:
  """A CSV file.

  Attributes:
    file: its name.
    header: names of the columns.
    rows: cells.
  """

  file: str
  header: Sequence[str]
  rows: Iterable[Sequence[Any]]


class Context:
  """What tables, summary and sections are made from.

  Args:
    predictions: the record.
    result: what metrics.json holds.
    rows: of the run's metrics.jsonl; empty for a model that was not trained here.
    titles: of metrics, by their names in metrics.jsonl.
    folder: where figures go.
    load_image: position in the split -> uint8 [h, w, c]; None to show no images.
  """

  def __init__(
    self,
    predictions: Predictions,
    result: Mapping[str, Any],
    rows: Sequence[Mapping[str, Any]],
    titles: Mapping[str, Title],
    folder: pathlib.Path,
    load_image: LoadImage | None,
  ):
    self.predictions, self.result, self.rows = predictions, result, rows
    self.titles, self.folder, self.load_image = titles, folder, load_image
    self._computed: dict[Callable[[Predictions], Any], Any] = {}

  def once(self, compute: Callable[[Predictions], T]) -> T:
    """`compute(predictions)`, computed at the first call and kept."""
    if compute not in self._computed:
      self._computed[compute] = compute(self.predictions)
    return self._computed[compute]

  def draw(self, name: str, drawing: 'Figure', dpi: int = canvas.DPI) -> pathlib.Path:
    """Writes a figure as NAME.png into the figures' folder."""
    path = self.folder / f'{short_name(_NO_FILE_NAME.sub("_", name))}.png'
    return canvas.save(drawing, path, dpi)

  def figure(self, name: str, drawing: 'Figure', title: str, caption: str, alt: str = '') -> Markup:
    """Writes a figure as `draw` does; returns the HTML that shows it, see `page.figure`."""
    return page.figure(self.draw(name, drawing), title, caption, alt=alt)


Section = Callable[[Context], tuple[str, Sequence[Markup]] | None]


@dataclasses.dataclass(frozen=True)
class ReportLayout:
  """The report of a task; `write_report` adds what all reports have.

  To every report it adds learning curves and the test values of all metrics that were logged, time
  and memory, configuration and versions, and to metrics.json 'training' and 'facts'.

  Attributes:
    metrics: the numbers of metrics.json, from the predictions.
    summary: HTML above the table of contents, see `sections.summary`.
    sections: of the page, in order, each a title with HTML parts (made by the functions of `page`;
      a plain string is escaped); None, or no parts, where there is nothing to show.
    tables: CSV files, each None where there is nothing to write.
    titles: of metrics, by their names in metrics.jsonl; a metric without one shows by its name.
    live_figures: for TensorBoard during training, by name, from the predictions of the validation
      split and its images.
  """

  metrics: Callable[[Predictions], dict[str, Any]]
  summary: Callable[[Context], Sequence[Markup]]
  sections: Sequence[Section] = ()
  tables: Sequence[Callable[[Context], Table | None]] = ()
  titles: Mapping[str, Title] = dataclasses.field(default_factory=dict)
  live_figures: Mapping[str, Callable[[Predictions, LoadImage], 'Figure']] = dataclasses.field(
    default_factory=dict
  )
