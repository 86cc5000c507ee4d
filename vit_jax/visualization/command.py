"""Draws what the command line asks for, picture by picture."""

import collections
import dataclasses
import pathlib
import sys
from collections.abc import Callable
from typing import Any

import numpy as np

from vit_jax.data import class_names
from vit_jax.errors import UserError, did_you_mean
from vit_jax.models.heads import backbone_of
from vit_jax.visualization import draw, figures
from vit_jax.visualization.activations import TENSORS, NotApplicable, capture
from vit_jax.visualization.images import Picture, read_picture, variables_for
from vit_jax.visualization.page import Entry, write_page

# What a look inside has to keep for each thing that is drawn.
_NEEDS = {
  'attention': ('weights',),
  'rollout': ('weights',),
  'distance': ('weights',),
  'colours': ('output',),
  'channels': TENSORS[1:],
}


class Session:
  """A loaded model and what has been drawn so far.

  Args:
    loaded: by `vit_jax.load`.
    wanted: the command line, a `Request`.
  """

  def __init__(self, loaded: Any, wanted: Any):
    self.loaded = loaded
    self.module = loaded.module
    self.body = backbone_of(loaded.module)
    self.classes = [str(c) for c in loaded.classes or ()]
    self.entries: list[Entry] = []
    self.notes: list[str] = []
    self.wanted = self._possible(wanted)
    self.class_indices = [self.class_index(name) for name in wanted.classes]
    self.unreadable = 0
    self._stems = collections.Counter()

  def _possible(self, wanted: Any) -> Any:
    """The request without what only transformers have, if this is none."""
    others = tuple(what for what in wanted.what if what != 'nearest')
    if hasattr(self.body, 'num_prefix_tokens') or not others:
      return wanted
    self.notes.append(
      f'{type(self.body).__name__} has neither tokens nor attention, so there is no '
      f'{", ".join(others)}; nearest works for every model'
    )
    kept = tuple(what for what in wanted.what if what == 'nearest')
    return dataclasses.replace(wanted, what=kept)

  def class_index(self, name: str) -> int:
    """The number of a class given by number or by name, upper and lower case alike."""
    if name.isdigit():
      return int(name)
    known = class_names.index_of(self.classes)
    if class_names.normalize(name) in known:
      return known[class_names.normalize(name)]
    if not self.classes:
      raise UserError(f'--class={name}: these weights have no class names, give a number')
    raise UserError(f'--class={name}: {did_you_mean(name, self.classes)}')

  def class_name(self, index: int) -> str:
    return self.classes[index] if index < len(self.classes) else f'class {index}'

  def probabilities(self, logits: np.ndarray) -> np.ndarray:
    """Of classes: each on its own where the model learned by sigmoid losses."""
    if (self.loaded.config.get('task') or {}).get('loss') == 'sigmoid':
      return 1.0 / (1.0 + np.exp(-logits))
    shares = np.exp(logits - logits.max())
    return shares / shares.sum()

  def read(self, path, image_size=None) -> Picture | None:
    """A picture; None, and a note, where the file cannot be read."""
    patch_size = getattr(self.body, 'patch_size', (1, 1))
    try:
      return read_picture(path, self.loaded.preprocess, patch_size, image_size)
    except UserError as e:
      self.unreadable += 1
      self.notes += [p for p in e.problems if p not in self.notes]
      return None

  def variables(self, picture: Picture) -> Any:
    size = picture.pixels.shape[:2]
    return variables_for(
      self.module, self.loaded.variables, size, self.loaded.preprocess.image_size
    )

  def stem(self, path) -> str:
    """The start of the names of a picture's files, different for pictures of one name."""
    self._stems[path.stem] += 1
    count = self._stems[path.stem]
    return path.stem if count == 1 else f'{path.stem}_{count}'

  def attempt(self, what: str, f: Callable[[], None]) -> None:
    """Draws, or notes that this model does not have it."""
    if what not in self.wanted.what:
      return
    try:
      f()
    except NotApplicable as e:
      if (note := f'{what}: {e}') not in self.notes:
        self.notes.append(note)

  def add(self, name: str, group: str, figure, title: str, caption: str) -> None:
    """Saves a figure and remembers it for the page."""
    path = figures.save(figure, self.wanted.out / f'{name}.png')
    self.entries.append(Entry(path, group, title, caption))
    print(f'{path}: {title}', flush=True)


def run(wanted: Any) -> int:
  """Loads the model, draws, and writes the page; returns the exit status.

  Raises:
    UserError: a class, block, head, channel or patch that is not there; or nothing to draw.
  """
  import vit_jax  # noqa: PLC0415  (for its lazy `load`)

  figures.new_figure(1, 1, '', '')  # a missing library is told before the work
  loaded = vit_jax.load(
    wanted.model, model=wanted.architecture, pretrained_dir=wanted.pretrained_dir
  )
  session = Session(loaded, wanted)
  wanted.out.mkdir(parents=True, exist_ok=True)
  looks_inside = any(what not in ('filters', 'nearest') for what in session.wanted.what)
  seen = [_draw_picture(session, path) for path in wanted.images if looks_inside]
  seen = [s for s in seen if s is not None]
  if seen:
    session.attempt('colours', lambda: draw.colours(session, seen))
    session.attempt('distance', lambda: draw.distance(session, seen))
    session.attempt('positions', lambda: draw.positions(session, seen))
  session.attempt('filters', lambda: draw.filters(session))
  session.attempt('nearest', lambda: draw.nearest_pictures(session))
  if not session.entries:
    raise UserError(session.notes or 'nothing to draw')
  for note in session.notes:
    print(f'note: {note}', file=sys.stderr)
  page = write_page(wanted.out, _title(wanted), session.entries, session.notes)
  print(f'{len(session.entries)} figures: open {page}')
  return int(session.unreadable > 0 or (wanted.explicit and bool(session.notes)))


def _title(wanted: Any) -> str:
  return f'What {pathlib.Path(wanted.model).name} sees'


def _draw_picture(session: Session, path) -> draw.Seen | None:
  """Figures of one picture; what figures over several pictures need is returned."""
  wanted = session.wanted
  picture = session.read(path, wanted.image_size)
  if picture is None:
    return None
  tensors = {t for what in wanted.what for t in _NEEDS.get(what, ())}
  variables = session.variables(picture)
  captured = capture(session.module, variables, picture.images, sorted(tensors))
  seen = draw.Seen(picture, session.stem(path), captured, np.asarray(captured.logits)[0])
  session.attempt('attention', lambda: draw.attention(session, seen))
  session.attempt('rollout', lambda: draw.rollouts(session, seen))
  session.attempt('gradient', lambda: draw.gradients(session, seen))
  session.attempt('channels', lambda: draw.channels(session, seen))
  return seen.lightened(draw.coloured_blocks(session, captured))
