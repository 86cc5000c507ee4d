"""Self-contained HTML pages: figures, images, style and script lie within; no network is needed.

Without its script a page reads the same; with it tables sort, images enlarge, galleries filter.

The functions make parts of a page by the macros of `templates/parts.html`. Every string is escaped;
only `Markup`, which these functions return, goes in as it is.
"""

import base64
import functools
import hashlib
import io
import json
import pathlib
import re
import urllib.parse
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import jinja2
from markupsafe import Markup, escape
from PIL import Image, features

from vit_jax import files
from vit_jax.report import canvas
from vit_jax.report.text import printable, shorten
from vit_jax.report.thumbnails import Thumbnail

_LARGE = 60_000  # bytes of a PNG above which a figure is compressed further
# Pixels of the page an inch of a figure: as it is shown, and the least, at which the 10 points of
# its smallest text are 12 pixels high.
_WIDTH, _NARROWEST = 115, 87
_ENDS = re.compile(r'[_,=]|/(?!s\b)|\.(?!\d)')  # of parts of a name; 'images/s' is a unit
_OPTION = re.compile(r'(?<![\w-])--[\w.]+=?')


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
  html = render(
    'page.html', title=title, lead=lead, sections=[s for s in filled if s[1]], footer=footer
  )
  files.write_text(path, html + '\n')
  return path


def render(template: str, **values: Any) -> str:
  """A page as HTML.

  Args:
    template: its file in `templates/`.
    **values: of its variables; all but Markup are escaped.
  """
  return _environment().get_template(template).render(**values)


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
  environment.filters |= {'breakable': _breakable, 'sha256': _sha256, 'short': _short}
  return environment


def _printable(value: Any) -> Any:
  """What an expression writes, without control characters; Markup has none."""
  return printable(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _sha256(script: str) -> str:
  """How a content security policy names a script."""
  return f'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'


def _short(name: str) -> str:
  return shorten(printable(name))


def _breakable(value: Any) -> Markup:
  """A name that may be broken where a part of it ends, but in no number; Markup as it is."""
  if isinstance(value, Markup):
    return value
  return Markup(_ENDS.sub(r'\g<0><wbr>', str(escape(printable(str(value))))))


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


def figure(
  path: pathlib.Path,
  title: str,
  caption: str,
  inline: bytes | bool = True,
  alt: str = '',
) -> Markup:
  """A figure with a caption.

  On a narrow screen it shrinks while its text can be read, and then scrolls sideways.

  Args:
    path: of a PNG.
    title: what it is.
    caption: how to read it.
    inline: put the PNG inside the page; otherwise the page shows the file beside it. Bytes: another
      PNG to put inside, such as one without the words that the page has.
    alt: what it shows, for those who cannot see it; '' for the title.
  """
  width, height = _inches(path)
  source = urllib.parse.quote(path.name, errors='surrogateescape')
  if inline:
    png = path.read_bytes() if inline is True else inline
    width, height = _inches(io.BytesIO(png))
    source = _smallest(png)
  sizes = [round(_WIDTH * width), round(_WIDTH * height), round(_NARROWEST * width)]
  return _part('figure', source, title, caption, alt or title, path.name, *sizes, not inline)


def _inches(path: pathlib.Path | io.BytesIO) -> tuple[float, float]:
  """Width and height by the resolution that the file states."""
  with Image.open(path) as image:
    dpi = image.info.get('dpi', (canvas.DPI, canvas.DPI))
    return image.width / dpi[0], image.height / dpi[1]


def figures(*parts: Markup, kind: str = '') -> Markup:
  """Parts beside each other where there is room; empty where there are none.

  Args:
    *parts: each gets a column.
    kind: 'uneven' gives a table in the second column more room.
  """
  filled = [part for part in parts if part]
  return _part('figures', filled, kind) if filled else Markup()


def link(address: str | pathlib.PurePath, text: str, index: int | None = None) -> Markup:
  """A link to a file, by its path relative to the page, or to a place of the page, '#...'.

  Args:
    address: where it leads.
    text: of the link.
    index: class whose images the gallery shows after a click; None for those of the place.
  """
  if not str(address).startswith('#'):
    path = pathlib.PurePath(address).as_posix()
    address = urllib.parse.quote(path, errors='surrogateescape')
  return _part('link', address, text, index)


def anchored(name: str, part: Markup) -> Markup:
  """A part that links '#NAME' lead to; empty where it is."""
  return _part('anchored', name, part) if part else part


def table(
  header: Sequence[str],
  rows: Sequence[Sequence[Any]],
  caption: str = '',
  text: Sequence[int] = (),
  sortable: bool = False,
  file: str = '',
) -> Markup:
  """A table that scrolls sideways where it is too wide.

  Args:
    header: of the columns; the first column names the rows.
    rows: cells.
    caption: above it.
    text: columns of words, which are flush left.
    sortable: whether a click on a heading sorts it, and words filter its rows.
    file: the CSV beside the page that holds all of it, linked above the table.
  """
  return _part('table', header, rows, caption, text, sortable, file)


class Cell(NamedTuple):
  """A cell of a matrix.

  Attributes:
    text: in it.
    shade: 0 to 10.
    note: what it says, in words.
    target: id of the image that a click shows; '' for none.
  """

  text: str
  shade: int
  note: str
  target: str = ''


def matrix(
  title: str,
  caption: str,
  columns: Sequence[str],
  rows: Sequence[tuple[str, Sequence[Cell]]],
  file: str = '',
) -> Markup:
  """A shaded matrix whose cells tell their values.

  Args:
    title: what it is.
    caption: how to read it.
    columns: their names.
    rows: each a name with its cells.
    file: the CSV beside the page that holds it.
  """
  return _part('matrix', title, caption, file, columns, rows)


def details(summary: str, *parts: Markup, kind: str = '') -> Markup:
  """Parts that are folded away until the summary is clicked; `kind` is a class, 'rest'."""
  return _part('details', summary, parts, kind)


def code(value: Any) -> Markup:
  """A value as indented JSON."""
  return command(json.dumps(value, indent=2, ensure_ascii=False))


def command(text: str) -> Markup:
  """Lines as a program reads them, such as a command: no line ends within '--option='."""
  whole = _OPTION.sub(r'<span class="whole">\g<0></span>', str(escape(printable(text))))
  return _part('code', Markup(whole))


def thumbnails(items: Sequence[Thumbnail]) -> Markup:
  """Images in rows; empty where there are none."""
  return _part('thumbnails', _shown(items)) if items else Markup()


def gallery(
  items: Sequence[Thumbnail],
  classes: Sequence[tuple[int, str]] = (),
  kinds: Mapping[str, str] | None = None,
  orders: Mapping[str, str] | None = None,
) -> Markup:
  """Images that can be filtered and ordered by their `data`; empty where there are none.

  Args:
    items: the images.
    classes: numbers and names to choose from; an image is of the class that its 'true' or 'pred'
      is.
    kinds: values of 'kind' to choose from, with their names.
    orders: names of numbers to order by, '-' before the name for the greatest first, each with
      words.
  """
  if not items:
    return Markup()
  chosen = list((orders or {}).items()), list((kinds or {}).items())
  return _part('gallery', _shown(items), list(classes), *chosen)


def _shown(items: Sequence[Thumbnail]) -> list[dict[str, Any]]:
  """What the templates show of images."""
  kinds = {None: '', True: 'correct', False: 'wrong'}
  return [
    {
      'kind': kinds[item.correct],
      'source': _smallest(_encoded(image, 'png'), image),
      'width': item.pixels.shape[1],
      'height': item.pixels.shape[0],
      'lines': item.lines,
      'alt': f'{_file_name(item.id)}: {", ".join(item.lines)}',
      'id': item.id,
      'file': _file_name(item.id),
      'anchor': item.anchor,
      'data': list(item.data.items()),
    }
    for item, image in ((item, Image.fromarray(item.pixels)) for item in items)
  ]


def _file_name(id_: str) -> str:
  path = pathlib.PurePath(id_)
  return shorten(path.name if path.suffix else id_, 28)


def _smallest(png: bytes, image: Image.Image | None = None) -> str:
  """An image's data URI: as PNG, or where that is smaller as JPEG or WebP.

  Args:
    png: the image.
    image: of a photograph; None for a figure, whose text JPEG would blur.
  """
  found = {'png': png}
  if image is not None:
    found['jpeg'] = _encoded(image, 'jpeg', quality=80)
  elif len(png) > _LARGE and features.check('webp'):
    found['webp'] = _encoded(Image.open(io.BytesIO(png)).convert('RGB'), 'webp', quality=80)
  kind = min(found, key=lambda name: len(found[name]))
  return f'data:image/{kind};base64,{base64.b64encode(found[kind]).decode()}'


def _encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
  buffer = io.BytesIO()
  image.save(buffer, kind, **options)
  return buffer.getvalue()
