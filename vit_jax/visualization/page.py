"""index.html: one page that holds all figures, to be opened or sent as it is."""

import dataclasses
import pathlib
from collections.abc import Sequence

from vit_jax.report import page

_MOST_INLINE = 60_000_000  # bytes of PNGs


@dataclasses.dataclass(frozen=True)
class Entry:
  """A figure on the page.

  Attributes:
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
  """Writes index.html with the figures inside it: it needs no other file and no network.

  Where they are more than a browser opens quickly, it shows the files beside it instead.

  Args:
    folder: of the page and the figures.
    title: of the page.
    entries: the figures.
    notes: what is missing, and why.
  """
  inline = sum(entry.path.stat().st_size for entry in entries) <= _MOST_INLINE
  sections = [
    (
      group,
      [page.figure(e.path, e.title, e.caption, inline) for e in entries if e.group == group],
    )
    for group in dict.fromkeys(entry.group for entry in entries)
  ]
  lead = [page.paragraph(note, 'note') for note in notes]
  footer = f'Made by vit_jax: {len(entries)} figures.'
  return page.write(folder / 'index.html', title, lead, sections, footer)
