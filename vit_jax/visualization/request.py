"""What the command is asked to draw. Nothing here imports JAX or matplotlib."""

import dataclasses
import pathlib
from collections.abc import Mapping
from typing import Any, Literal

WHATS = (
  'attention',
  'rollout',
  'gradient',
  'token_pca',
  'channels',
  'nearest',
  'positions',
  'filters',
  'distance',
)
OLD_NAMES = {'colours': 'token_pca'}  # of version 0.1, still accepted
FUSIONS = ('mean', 'max', 'min')

ImageSize = tuple[int, int] | Literal['whole'] | None


@dataclasses.dataclass(frozen=True)
class Request:
  """The command line, read and checked as far as it can be without the model.

  Attributes:
    model: workdir, weights file or name of a pretrained model.
    images: files.
    out: folder for the results.
    what: names of `WHATS`.
    explicit: whether the user chose them.
    blocks, heads: numbers, None for all.
    channels: numbers, None for those that vary most.
    patches: (row, column) of query patches; empty for the class token.
    classes: names or numbers; empty for the most confident.
    fusions: names of `FUSIONS`.
    discard: share of the attention dropped by rollout.
    image_size: (height, width) in pixels, 'whole', or None for the model's own.
    gallery: files to search for nearest images; empty for the images themselves.
    count: how many nearest images.
    architecture, pretrained_dir: as `vit_jax.load` takes them.
    opening: more arguments of it, such as class names.
  """

  model: str
  images: tuple[pathlib.Path, ...]
  out: pathlib.Path
  what: tuple[str, ...] = WHATS
  explicit: bool = False
  blocks: tuple[int, ...] | None = None
  heads: tuple[int, ...] | None = None
  channels: tuple[int, ...] | None = None
  patches: tuple[tuple[int, int], ...] = ()
  classes: tuple[str, ...] = ()
  fusions: tuple[str, ...] = FUSIONS
  discard: float = 0.0
  image_size: ImageSize = None
  gallery: tuple[pathlib.Path, ...] = ()
  count: int = 5
  architecture: str = ''
  pretrained_dir: str = ''
  opening: Mapping[str, Any] = dataclasses.field(default_factory=dict)
