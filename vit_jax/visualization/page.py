"""index.html: one page that holds all figures, to be opened or sent as it is."""

import dataclasses
import pathlib
from collections.abc import Sequence

from vit_jax.errors import counted
from vit_jax.report import page
from vit_jax.report.thumbnails import Thumbnail

_MOST_INLINE = 60_000_000  # bytes of PNGs


@dataclasses.dataclass(frozen=True)
class Entry:
  """A figure on the page.

  Attributes:
    path: its PNG.
    group: heading under which it stands.
    title: what it is.
    caption: how to read it.
    plain: the figure as a PNG without title and caption, which the page has as text; empty for the
      file as it is.
  """

  path: pathlib.Path
  group: str
  title: str
  caption: str
  plain: bytes = b''


def write_page(
  folder: pathlib.Path,
  title: str,
  entries: Sequence[Entry],
  notes: Sequence[str] = (),
  predicted: Sequence[Thumbnail] = (),
) -> pathlib.Path:
  """Writes index.html with the figures inside it: it needs no other file and no network.

  Where they are more than a browser opens quickly, it shows the files beside it instead.

  Args:
    folder: of the page and the figures.
    title: of the page.
    entries: the figures.
    notes: what is missing, and why.
    predicted: the images with their predictions, shown first.
  """
  inline = sum(entry.path.stat().st_size for entry in entries) <= _MOST_INLINE
  sections = [
    (
      group,
      [
        page.figure(e.path, e.title, e.caption, (e.plain or True) if inline else False, _alt(e))
        for e in entries
        if e.group == group
      ],
    )
    for group in dict.fromkeys(entry.group for entry in entries)
  ]
  lead = [page.thumbnails(predicted), *(page.paragraph(note, 'note') for note in notes)]
  footer = f'Made by vit_jax: {counted(len(entries), "figure")}.'
  return page.write(folder / 'index.html', title, lead, sections, footer)


def _alt(entry: Entry) -> str:
  """What the figure is, of what, and what it shows."""
  return f'{entry.title}, {entry.group}: {entry.caption}'
