"""A loaded model with a request, and what has been drawn so far."""

import dataclasses
import logging
import pathlib
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from vit_jax import tasks
from vit_jax.data import class_names
from vit_jax.errors import ConfigError, UserError, did_you_mean
from vit_jax.files import unique_stem
from vit_jax.inference.loaded import Loaded
from vit_jax.logits import probabilities
from vit_jax.models.heads import backbone_of
from vit_jax.report import thumbnails
from vit_jax.report.text import percent, printable
from vit_jax.report.thumbnails import Thumbnail
from vit_jax.visualization import figures
from vit_jax.visualization.activations import NotApplicable, Variables
from vit_jax.visualization.images import ModelInput, read_image, variables_for
from vit_jax.visualization.page import Entry
from vit_jax.visualization.request import ImageSize, Request

if TYPE_CHECKING:
  from matplotlib.figure import Figure

log = logging.getLogger(__name__)


def _without_lone_nearest(request: Request) -> Request:
  """The request without nearest images where there is one image and nobody asked for them."""
  others = tuple(what for what in request.what if what != 'nearest')
  if request.explicit or len({*request.images, *request.gallery}) > 1 or not others:
    return request
  return dataclasses.replace(request, what=others)


class Session:
  """What the drawings of a command share.

  Args:
    loaded: by `vit_jax.load`.
    request: the command line.

  Attributes:
    module: of the model; body: the same without a box head.
    wanted: the request, without what this model cannot have.
    entries: figures that have been drawn.
    predicted: images with their predictions.
    notes: what could not be drawn or read, and why.
    undecodable: number of images that could not be decoded.
  """

  def __init__(self, loaded: Loaded, request: Request):
    self.loaded = loaded
    self.module = loaded.module
    self.body = backbone_of(loaded.module)
    self.classes = [str(c) for c in loaded.classes or ()]
    self.entries: list[Entry] = []
    self.predicted: list[Thumbnail] = []
    self.notes: list[str] = []
    self.wanted = _without_lone_nearest(self._possible(request))
    self.class_indices = [self.class_index(name) for name in request.classes]
    self.undecodable = 0
    self._stems: set[str] = set()

  def _possible(self, request: Request) -> Request:
    """The request without what only transformers have, if this is none."""
    others = tuple(what for what in request.what if what != 'nearest')
    if hasattr(self.body, 'num_prefix_tokens') or not others:
      return request
    self.notes.append(
      f'{type(self.body).__name__} has neither tokens nor attention, so there is no '
      f'{", ".join(others)}; nearest works for every model'
    )
    kept = tuple(what for what in request.what if what == 'nearest')
    return dataclasses.replace(request, what=kept)

  def class_index(self, name: str) -> int:
    """The index of a class given by number or by name, in upper or lower case.

    Raises:
      ConfigError: there is no such class.
    """
    if name.isdigit():
      return int(name)
    known = class_names.index_of(self.classes)
    if class_names.normalize(name) in known:
      return known[class_names.normalize(name)]
    if not self.classes:
      raise ConfigError(f'--class={name}: these weights have no class names, give a number')
    raise ConfigError(f'--class={name}: {did_you_mean(name, self.classes)}')

  def class_name(self, index: int) -> str:
    """The name of a class; its number where classes have no names."""
    return self.classes[index] if index < len(self.classes) else f'class {index}'

  def probabilities(self, logits: np.ndarray) -> np.ndarray:
    """Of classes, as predictions have them: [k] -> [k]."""
    task = tasks.of_config(self.loaded.config, len(logits))
    return probabilities(logits, task.activation)

  def predict(self, image: ModelInput, logits: np.ndarray, most: int = 3) -> None:
    """Keeps the most confident classes of an image for the top of the page: logits [k]."""
    if not self.module.num_classes:
      return
    chances = self.probabilities(logits)
    order = np.argsort(-logits, kind='stable')[:most].tolist()
    lines = [f'{self.class_name(i)}, {percent(float(chances[i]))}' for i in order]
    lines[0] = f'pred {lines[0]}'
    pixels = thumbnails.draw(image.pixels)
    self.predicted.append(thumbnails.Thumbnail(pixels, lines, None, str(image.path)))

  def read(self, path: pathlib.Path, image_size: ImageSize = None) -> ModelInput | None:
    """An image; None, and a note, where the file cannot be decoded."""
    patch_size = getattr(self.body, 'patch_size', (1, 1))
    try:
      return read_image(path, self.loaded.preprocess, patch_size, image_size)
    except UserError as e:
      self.undecodable += 1
      self.notes += [p for p in e.problems if p not in self.notes]
      return None

  def variables(self, image: ModelInput) -> Variables:
    """The model's variables, for the size of an image."""
    h, w, _ = image.pixels.shape
    trained = self.loaded.preprocess.image_size
    return variables_for(self.module, self.loaded.variables, (h, w), trained)

  def stem(self, path: pathlib.Path) -> str:
    """The start of the names of an image's figures, unique among images of one name."""
    return unique_stem(path.stem, self._stems)

  def attempt(self, what: str, draw: Callable[[], None]) -> None:
    """Draws what is wanted, or notes that this model does not have it."""
    if what not in self.wanted.what:
      return
    try:
      draw()
    except NotApplicable as e:
      if (note := f'{what}: {e}') not in self.notes:
        self.notes.append(note)

  def add(self, name: str, group: str, figure: 'Figure', title: str, caption: str) -> None:
    """Saves a figure and remembers it for the page."""
    path = figures.save(figure, self.wanted.out / f'{name}.png')
    self.entries.append(Entry(path, group, title, caption, figures.without_words(figure)))
    log.info('%s: %s', printable(str(path)), title)
