"""One page that holds all figures, to be opened or sent as it is."""

import base64
import dataclasses
import html
import pathlib
import urllib.parse
from collections.abc import Sequence

_MOST_INLINE = 60_000_000  # bytes of PNGs
_STYLE = """\
:root { color-scheme: light; }
body { font: 16px/1.5 system-ui, sans-serif; margin: 0 auto; max-width: 1200px; padding: 1rem;
  color: #1c1c1c; background: #fff; }
h1 { font-size: 1.5rem; overflow-wrap: anywhere; }
h2 { font-size: 1.2rem; border-bottom: 1px solid #ccc; margin-top: 2.5rem;
  overflow-wrap: anywhere; }
figure { margin: 1.5rem 0; }
figure img { max-width: 100%; height: auto; border: 1px solid #ddd; }
figcaption { color: #444; max-width: 60rem; }
.wide { overflow-x: auto; }
@media (max-width: 700px) { figure img { max-width: none; width: 760px; } }
nav a { margin-right: 1rem; }
.note { background: #fff6e0; padding: .5rem 1rem; border-left: 4px solid #d9a300; }
"""


@dataclasses.dataclass(frozen=True)
class Entry:
  """A figure on the page.

  Args:
    path: its PNG.
    group: heading under which it stands.
    title: what it is.
    caption: how to read it.
  """

  path: pathlib.Path
  group: str
  title: str
  caption: str


def write_page(
  folder: pathlib.Path, title: str, entries: Sequence[Entry], notes: Sequence[str] = ()
) -> pathlib.Path:
  """Writes index.html with the pictures inside it: it needs no other file and no network.

  Where they are more than a browser likes to open at once, it shows the files beside it instead.
  """
  inline = sum(e.path.stat().st_size for e in entries) <= _MOST_INLINE
  groups = list(dict.fromkeys(e.group for e in entries))
  parts = [
    '<!doctype html><html lang="en"><head><meta charset="utf-8">',
    '<meta name="viewport" content="width=device-width, initial-scale=1">',
    f'<title>{html.escape(title)}</title><style>{_STYLE}</style></head><body>',
    f'<h1>{html.escape(title)}</h1>',
  ]
  parts += [f'<p class="note">{html.escape(note)}</p>' for note in notes]
  if len(groups) > 1:
    links = [f'<a href="#g{i}">{html.escape(g)}</a>' for i, g in enumerate(groups)]
    parts.append(f'<nav>{" ".join(links)}</nav>')
  for i, group in enumerate(groups):
    parts.append(f'<h2 id="g{i}">{html.escape(group)}</h2>')
    parts += [_figure(e, inline) for e in entries if e.group == group]
  parts.append('</body></html>\n')
  path = folder / 'index.html'
  path.write_text('\n'.join(parts), encoding='utf-8')
  return path


def _figure(entry: Entry, inline: bool) -> str:
  source = urllib.parse.quote(entry.path.name)
  if inline:
    source = 'data:image/png;base64,' + base64.b64encode(entry.path.read_bytes()).decode()
  return (
    f'<figure><div class="wide"><img loading="lazy" src="{source}" '
    f'alt="{html.escape(entry.title)}"></div>'
    f'<figcaption><b>{html.escape(entry.title)}.</b> {html.escape(entry.caption)} '
    f'<code>{html.escape(entry.path.name)}</code></figcaption></figure>'
  )
