"""One HTML page that needs no other file and no network: figures and pictures lie within it."""

import base64
import dataclasses
import html
import io
import json
import pathlib
import urllib.parse
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from vit_jax.report import canvas

_WIDTH, _NARROWEST = 100, 65  # pixels of the page an inch of a figure
_STYLE = """\
:root { color-scheme: light; }
* { box-sizing: border-box; }
body { font: 16px/1.5 system-ui, -apple-system, 'Segoe UI', Roboto, sans-serif; color: #1c1c1c;
  background: #fff; margin: 0 auto; max-width: 1160px; padding: 1rem; }
h1 { font-size: 1.6rem; line-height: 1.25; margin: .5rem 0; overflow-wrap: anywhere; }
h2 { font-size: 1.25rem; border-bottom: 1px solid #ccc; margin: 2.5rem 0 .75rem; }
h3 { font-size: 1.05rem; margin: 1.75rem 0 .25rem; overflow-wrap: anywhere; }
p { max-width: 46rem; margin: .5rem 0; }
nav { line-height: 1.9; } nav a { margin-right: 1rem; white-space: nowrap; }
a { color: #0b4f86; }
.lead { font-size: 1.1rem; }
.note { background: #fff6e0; padding: .5rem 1rem; border-left: 4px solid #d9a300; }
.cards { display: grid; gap: .6rem; grid-template-columns: repeat(auto-fit, minmax(9.5rem, 1fr));
  margin: 1rem 0; padding: 0; }
.cards div { border: 1px solid #d5d5d5; border-radius: 6px; padding: .5rem .75rem; }
.cards dt { color: #505050; font-size: .85rem; }
.cards dd { margin: 0; font-size: 1.3rem; font-weight: 600; }
.cards small { display: block; font-size: .8rem; font-weight: 400; color: #505050; }
.figures { display: grid; gap: 1rem 2rem; align-items: start;
  grid-template-columns: repeat(auto-fit, minmax(min(100%, 460px), 1fr)); }
figure { margin: 1rem 0; min-width: 0; }
figure img { max-width: 100%; height: auto; display: block; }
.scroll { overflow-x: auto; max-width: 100%; }
figcaption { color: #444; font-size: .9rem; max-width: 46rem; margin-top: .4rem; }
figcaption code, p code { font-size: .85em; overflow-wrap: anywhere; }
table { border-collapse: collapse; width: max-content; font-size: .92rem;
  font-variant-numeric: tabular-nums; }
.caption { color: #444; font-size: .9rem; }
th, td { padding: .3rem .65rem; border-bottom: 1px solid #e2e2e2; text-align: right;
  vertical-align: top; }
th { font-weight: 600; } thead th { border-bottom: 2px solid #999; vertical-align: bottom; }
th:first-child, td.text, th.text { text-align: left; }
tbody th { font-weight: 400; max-width: 17rem; overflow-wrap: anywhere; background: #fff;
  position: sticky; left: 0; }
td.text { max-width: 30rem; overflow-wrap: anywhere; }
.pictures { display: grid; gap: .75rem; margin: .75rem 0;
  grid-template-columns: repeat(auto-fill, minmax(124px, 1fr)); }
.pictures figure { margin: 0; border-top: 4px solid #777; }
.pictures .wrong { border-color: #b3202c; } .pictures .right { border-color: #007a57; }
.pictures img { width: 100%; background: #eee; }
.pictures figcaption { font-size: .82rem; line-height: 1.35; color: #1c1c1c;
  overflow-wrap: anywhere; }
.pictures .id { color: #666; font-size: .72rem; }
details { margin: .75rem 0; } summary { cursor: pointer; color: #0b4f86; }
pre { overflow-x: auto; background: #f5f5f5; padding: .75rem; font-size: .8rem; }
@media (max-width: 600px) {
  th, td { padding: .25rem .4rem; } table { font-size: .85rem; } tbody th { max-width: 8rem; }
}
footer { margin-top: 3rem; color: #555; font-size: .85rem; border-top: 1px solid #ccc; }
"""


class Page:
  """A page that grows from top to bottom.

  Args:
    title: of the page.
  """

  def __init__(self, title: str):
    self._title = title
    self._parts: list[str] = []
    self._sections: list[str] = []
    self._head: list[str] = []

  def lead(self, *parts: str) -> None:
    """HTML that stands above the table of contents."""
    self._head += parts

  def section(self, title: str, *parts: str) -> None:
    """A heading with HTML below it; nothing where there are no parts."""
    parts = [p for p in parts if p]
    if not parts:
      return
    self._sections.append(title)
    name = f's{len(self._sections)}'
    self._parts += [
      f'<section aria-labelledby="{name}"><h2 id="{name}">{escape(title)}</h2>',
      *parts,
      '</section>',
    ]

  def write(self, path: pathlib.Path, footer: str) -> pathlib.Path:
    """Writes the page."""
    links = [f'<a href="#s{i + 1}">{escape(s)}</a>' for i, s in enumerate(self._sections)]
    parts = [
      '<!doctype html><html lang="en"><head><meta charset="utf-8">',
      '<meta name="viewport" content="width=device-width, initial-scale=1">',
      '<link rel="icon" href="data:,">',  # else a browser asks the server for one
      f'<title>{escape(self._title)}</title><style>{_STYLE}</style></head><body>',
      f'<header><h1>{escape(self._title)}</h1>',
      *self._head,
      f'<nav aria-label="sections">{" ".join(links)}</nav></header><main>',
      *self._parts,
      f'</main><footer><p>{escape(footer)}</p></footer></body></html>\n',
    ]
    path.write_text('\n'.join(parts), encoding='utf-8')
    return path


def escape(text: Any) -> str:
  return html.escape(str(text))


def paragraph(text: str, kind: str = '') -> str:
  return f'<p class="{kind}">{escape(text)}</p>' if kind else f'<p>{escape(text)}</p>'


def cards(items: Sequence[tuple[str, str, str]]) -> str:
  """Numbers that are seen first: (name, value, remark)."""
  rows = [
    f'<div><dt>{escape(name)}</dt><dd>{escape(value)}<small>{escape(remark)}</small></dd></div>'
    for name, value, remark in items
  ]
  return f'<dl class="cards">{"".join(rows)}</dl>'


def figure(path: pathlib.Path, title: str, caption: str, inline: bool = True) -> str:
  """A PNG with a caption.

  On a narrow screen it shrinks while its text can be read, and then scrolls sideways.

  Args:
    path: of the file.
    title: what it is; the text for those who cannot see it.
    caption: how to read it.
    inline: put the PNG inside the page; otherwise the page shows the file beside it.
  """
  source = urllib.parse.quote(path.name)
  if inline:
    source = 'data:image/png;base64,' + base64.b64encode(path.read_bytes()).decode()
  width, height = _inches(path)
  return (
    f'<figure><div class="scroll"><img width="{_WIDTH * width:.0f}" '
    f'height="{_WIDTH * height:.0f}" style="min-width:{_NARROWEST * width:.0f}px" '
    f'{"" if inline else "loading=lazy "}src="{source}" alt="{escape(title)}"></div>'
    f'<figcaption><b>{escape(title)}.</b> {escape(caption)} <code>{escape(path.name)}</code>'
    '</figcaption></figure>'
  )


def _inches(path: pathlib.Path) -> tuple[float, float]:
  """Width and height by the resolution that the file states."""
  with Image.open(path) as image:
    dpi = image.info.get('dpi', (canvas.DPI, canvas.DPI))
    return image.width / dpi[0], image.height / dpi[1]


def figures(*parts: str) -> str:
  """Figures beside each other where there is room."""
  parts = [p for p in parts if p]
  return f'<div class="figures">{"".join(parts)}</div>' if parts else ''


def table(
  header: Sequence[str], rows: Sequence[Sequence[Any]], caption: str = '', text: Sequence[int] = ()
) -> str:
  """A table that scrolls sideways where it is too wide.

  Args:
    header: of the columns; the first column names the rows.
    rows: cells.
    caption: above it.
    text: columns of words, which are flush left.
  """

  def cell(j: int, value: Any) -> str:
    if j == 0:
      name = escape(value).replace('_', '_<wbr>').replace('.', '.<wbr>')
      return f'<th scope="row">{name}</th>'
    return f'<td class="text">{escape(value)}</td>' if j in text else f'<td>{escape(value)}</td>'

  head = ''.join(
    f'<th scope="col"{" class=text" if j in text else ""}>{escape(h)}</th>'
    for j, h in enumerate(header)
  )
  body = ''.join(f'<tr>{"".join(cell(j, v) for j, v in enumerate(row))}</tr>' for row in rows)
  above = f'<p class="caption">{escape(caption)}</p>' if caption else ''
  return (
    f'{above}<div class="scroll"><table><thead><tr>{head}</tr></thead>'
    f'<tbody>{body}</tbody></table></div>'
  )


def details(summary: str, *parts: str) -> str:
  """Folded away until it is clicked."""
  return f'<details><summary>{escape(summary)}</summary>{"".join(parts)}</details>'


def code(value: Any) -> str:
  """A value as indented JSON."""
  return f'<pre>{escape(json.dumps(value, indent=2, ensure_ascii=False))}</pre>'


@dataclasses.dataclass(frozen=True)
class Shot:
  """A picture with what was said of it.

  Args:
    image: uint8 [h, w, c].
    lines: below it; the first in bold.
    correct: frame in green, red or, for None, grey.
    id: of the picture.
    boxes_xyxy: true and predicted corners in pixels, drawn in green and red; None for none.
  """

  image: np.ndarray
  lines: Sequence[str]
  correct: bool | None
  id: str
  boxes_xyxy: tuple[Any, Any] | None = None


def shots(items: Sequence[Shot]) -> str:
  """Pictures in rows."""
  parts = []
  for item in items:
    kind = '' if item.correct is None else 'right' if item.correct else 'wrong'
    first, *rest = (escape(line) for line in item.lines)
    name = f'<span class="id" title="{escape(item.id)}">{escape(_file_name(item.id))}</span>'
    text = '<br>'.join([f'<b>{first}</b>', *rest, name])
    source = data_uri(mark(item))
    parts.append(
      f'<figure class="{kind}"><img src="{source}" alt="{escape(item.lines[0])}">'
      f'<figcaption>{text}</figcaption></figure>'
    )
  return f'<div class="pictures">{"".join(parts)}</div>' if parts else ''


def _file_name(id_: str) -> str:
  return canvas.shorten(pathlib.PurePath(id_).name if pathlib.PurePath(id_).suffix else id_, 28)


def mark(item: Shot, size: int = 264) -> np.ndarray:
  """The picture with its boxes, its longer side at most `size` pixels; small ones keep pixels."""
  image = item.image
  image = np.repeat(image, 3, axis=-1) if image.shape[-1] == 1 else image
  picture = Image.fromarray(image)
  factor = size / max(picture.size)
  small = max(picture.size) < 100
  scaled = tuple(max(1, round(side * factor)) for side in picture.size)
  if factor < 1 or small:
    how = Image.Resampling.NEAREST if small else Image.Resampling.LANCZOS
    picture = picture.resize(scaled, how)
  else:
    factor = 1.0
  if item.boxes_xyxy:
    pen = ImageDraw.Draw(picture)
    for box, colour in zip(item.boxes_xyxy, ('#00c853', '#ff1744')):
      if box is not None and np.all(np.isfinite(box)):
        corners = [float(x) * factor for x in box]
        left, top, right, bottom = corners
        pen.rectangle(
          (min(left, right), min(top, bottom), max(left, right), max(top, bottom)),
          outline=colour,
          width=3,
        )
  return np.asarray(picture)


def data_uri(image: np.ndarray) -> str:
  """A picture inside the page."""
  buffer = io.BytesIO()
  Image.fromarray(image).save(buffer, 'jpeg', quality=85)
  return f'data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}'
