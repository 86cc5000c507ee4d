"""Self-contained HTML pages: figures and images lie within, no script and no network is needed.

The functions make parts of a page by the macros of `templates/parts.html`. Every string is escaped;
only `Markup`, which these functions return, goes in as it is.
"""

import base64
import functools
import io
import json
import pathlib
import urllib.parse
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import jinja2
import numpy as np
from markupsafe import Markup, escape
from PIL import Image

from vit_jax import files
from vit_jax.report import canvas
from vit_jax.report.text import printable, shorten
from vit_jax.report.thumbnails import Thumbnail

_WIDTH, _NARROWEST = 100, 65  # pixels of the page an inch of a figure


class Card(NamedTuple):
  """A number that is seen first.

  Attributes:
    name: of the number.
    value: as it is written.
    note: below it.
  """

  name: str
  value: str
  note: str


def write(
  path: pathlib.Path,
  title: str,
  lead: Sequence[str],
  sections: Iterable[tuple[str, Sequence[str]] | None],
  footer: str,
) -> pathlib.Path:
  """Writes a page with a table of contents.

  Args:
    path: of the file.
    title: of the page.
    lead: parts above the table of contents.
    sections: titles with parts; None and sections without parts are left out.
    footer: at the end.
  """
  filled = [(s[0], [part for part in s[1] if part]) for s in sections if s is not None]
  template = _environment().get_template('page.html')
  html = template.render(
    title=title, lead=lead, sections=[s for s in filled if s[1]], footer=footer
  )
  files.write_text(path, html + '\n')
  return path


@functools.cache
def _environment() -> jinja2.Environment:
  environment = jinja2.Environment(
    loader=jinja2.PackageLoader('vit_jax.report'),
    autoescape=True,
    undefined=jinja2.StrictUndefined,
    finalize=_printable,
    trim_blocks=True,
    lstrip_blocks=True,
  )
  environment.filters['breakable'] = _breakable
  return environment


def _printable(value: Any) -> Any:
  """What an expression writes, without control characters; Markup has none."""
  return printable(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _breakable(value: Any) -> Markup:
  """A name that may be broken after underscores and dots."""
  text = escape(printable(str(value)))
  return text.replace('_', Markup('_<wbr>')).replace('.', Markup('.<wbr>'))


def _part(name: str, *arguments: Any) -> Markup:
  """What a macro of parts.html makes."""
  return getattr(_environment().get_template('parts.html').module, name)(*arguments)


def paragraph(text: str, kind: str = '') -> Markup:
  """A paragraph; `kind` is a class of style.css: 'lead', 'note'."""
  return _part('paragraph', text, kind)


def heading(text: str) -> Markup:
  """A heading within a section."""
  return _part('heading', text)


def cards(items: Sequence[Card]) -> Markup:
  """Numbers that are seen first, beside each other."""
  return _part('cards', items)


def figure(path: pathlib.Path, title: str, caption: str, inline: bool = True) -> Markup:
  """A PNG with a caption.

  On a narrow screen it shrinks while its text can be read, and then scrolls sideways.

  Args:
    path: of the file.
    title: what it is; the text for those who cannot see it.
    caption: how to read it.
    inline: put the PNG inside the page; otherwise the page shows the file beside it.
  """
  source = urllib.parse.quote(path.name, errors='surrogateescape')
  if inline:
    source = _data_uri('png', path.read_bytes())
  width, height = _inches(path)
  sizes = [round(_WIDTH * width), round(_WIDTH * height), round(_NARROWEST * width)]
  return _part('figure', source, title, caption, path.name, *sizes, not inline)


def _inches(path: pathlib.Path) -> tuple[float, float]:
  """Width and height by the resolution that the file states."""
  with Image.open(path) as image:
    dpi = image.info.get('dpi', (canvas.DPI, canvas.DPI))
    return image.width / dpi[0], image.height / dpi[1]


def figures(*parts: Markup) -> Markup:
  """Parts beside each other where there is room; empty where there are none."""
  filled = [part for part in parts if part]
  return _part('figures', filled) if filled else Markup()


def table(
  header: Sequence[str], rows: Sequence[Sequence[Any]], caption: str = '', text: Sequence[int] = ()
) -> Markup:
  """A table that scrolls sideways where it is too wide.

  Args:
    header: of the columns; the first column names the rows.
    rows: cells.
    caption: above it.
    text: columns of words, which are flush left.
  """
  return _part('table', header, rows, caption, text)


def details(summary: str, *parts: Markup) -> Markup:
  """Parts that are folded away until the summary is clicked."""
  return _part('details', summary, parts)


def code(value: Any) -> Markup:
  """A value as indented JSON."""
  return _part('code', json.dumps(value, indent=2, ensure_ascii=False))


def thumbnails(items: Sequence[Thumbnail]) -> Markup:
  """Images in rows; empty where there are none."""
  if not items:
    return Markup()
  kinds = {None: '', True: 'correct', False: 'wrong'}
  shown = [
    {
      'kind': kinds[item.correct],
      'source': _data_uri('jpeg', _jpeg(item.pixels)),
      'lines': item.lines,
      'id': item.id,
      'file': _file_name(item.id),
    }
    for item in items
  ]
  return _part('thumbnails', shown)


def _file_name(id_: str) -> str:
  path = pathlib.PurePath(id_)
  return shorten(path.name if path.suffix else id_, 28)


def _jpeg(pixels: np.ndarray) -> bytes:
  buffer = io.BytesIO()
  Image.fromarray(pixels).save(buffer, 'jpeg', quality=85)
  return buffer.getvalue()


def _data_uri(kind: str, data: bytes) -> str:
  return f'data:image/{kind};base64,{base64.b64encode(data).decode()}'
