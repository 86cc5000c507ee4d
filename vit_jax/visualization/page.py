"""One page that holds all figures, to be opened or sent as it is."""

import dataclasses
import pathlib
from collections.abc import Sequence

from vit_jax.report import page

_MOST_INLINE = 60_000_000  # bytes of PNGs


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
  made = page.Page(title)
  made.lead(*(page.paragraph(note, 'note') for note in notes))
  for group in dict.fromkeys(e.group for e in entries):
    made.section(
      group, *(page.figure(e.path, e.title, e.caption, inline) for e in entries if e.group == group)
    )
  return made.write(folder / 'index.html', f'Made by vit_jax: {len(entries)} figures.')
