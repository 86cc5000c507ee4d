"""Draws what the command line asks for, image by image."""

import dataclasses
import logging
import pathlib

from vit_jax.errors import ModelError
from vit_jax.inference.loaded import load
from vit_jax.visualization import draw, figures
from vit_jax.visualization.activations import TENSORS, capture
from vit_jax.visualization.page import write_page
from vit_jax.visualization.request import Request
from vit_jax.visualization.session import Session

log = logging.getLogger(__name__)

# The tensors that each drawing needs.
_NEEDS = {
  'attention': ('weights',),
  'rollout': ('weights',),
  'distance': ('weights',),
  'token_pca': ('output',),
  'channels': TENSORS[1:],
}


@dataclasses.dataclass(frozen=True)
class Result:
  """What was drawn.

  Attributes:
    page: index.html.
    figures: how many it holds.
    complete: whether every image was decoded, and all that was chosen was drawn.
  """

  page: pathlib.Path
  figures: int
  complete: bool


def run(request: Request) -> Result:
  """Loads the model, draws, and writes the page.

  Raises:
    ConfigError, ModelError: a class, block, head, channel or patch that is not there; or nothing
      to draw.
  """
  figures.new_figure(1, 1, '', '')  # a missing matplotlib is reported before the work
  loaded = load(
    request.model,
    model=request.architecture,
    pretrained_dir=request.pretrained_dir,
    **request.opening,
  )
  session = Session(loaded, request)
  request.out.mkdir(parents=True, exist_ok=True)
  drawn = []
  if any(what not in ('filters', 'nearest') for what in session.wanted.what):
    for path in request.images:
      if (image := _draw_image(session, path)) is not None:
        drawn.append(image)
  if drawn:
    session.attempt('token_pca', lambda: draw.token_pca(session, drawn))
    session.attempt('distance', lambda: draw.distance(session, drawn))
    session.attempt('positions', lambda: draw.positions(session, drawn[0]))
  session.attempt('filters', lambda: draw.filters(session))
  session.attempt('nearest', lambda: draw.nearest_images(session))
  if not session.entries:
    raise ModelError(session.notes or 'nothing to draw')
  for note in session.notes:
    log.warning('%s', note)
  title = f'Visualizations of {pathlib.Path(request.model).name}'
  page = write_page(request.out, title, session.entries, session.notes, session.predicted)
  complete = not session.undecodable and not (request.explicit and session.notes)
  return Result(page, len(session.entries), complete)


def _draw_image(session: Session, path: pathlib.Path) -> draw.Drawn | None:
  """Figures of one image; returns what figures over several images need."""
  wanted = session.wanted
  image = session.read(path, wanted.image_size)
  if image is None:
    return None
  tensors = {t for what in wanted.what for t in _NEEDS.get(what, ())}
  captured = capture(session.module, session.variables(image), image.images, sorted(tensors))
  session.predict(image, captured.logits[0])
  activations = draw.Activations(image, session.stem(path), captured)
  session.attempt('attention', lambda: draw.attention(session, activations))
  session.attempt('rollout', lambda: draw.rollouts(session, activations))
  session.attempt('gradient', lambda: draw.class_attribution(session, activations))
  session.attempt('channels', lambda: draw.channels(session, activations))
  return draw.Drawn.of(session, activations)
