"""Which images a model was trained on: of a run by its split, of a file by what it states."""

import base64
import dataclasses
import hashlib
import logging
import os
import pathlib
from collections.abc import Collection, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from vit_jax.errors import DatasetError
from vit_jax.files import read_json

if TYPE_CHECKING:  # --help must not wait for NumPy
  from vit_jax.data.dataset import Examples

log = logging.getLogger(__name__)

# Letters of an image's digest: that any of a million images has the digest of one of 50,000 others
# has a probability of 0.0002. Digests are short, and a shared file shows no names of images.
_LETTERS = 8


@dataclasses.dataclass(frozen=True)
class TrainedOn:
  """The images that a model was trained on, read when they are asked for.

  Args:
    path: the file that states them, for messages.
    stated: by dataset, as the user wrote it, the digests of its images, one after another; None to
      read `path`, the split.json of a run.
    options: of the run's dataset.
  """

  path: pathlib.Path = pathlib.Path()
  stated: Mapping[str, str] | None = dataclasses.field(default_factory=dict)
  options: Mapping[str, Any] = dataclasses.field(default_factory=dict)

  @classmethod
  def of_run(cls, workdir: pathlib.Path, config: Mapping[str, Any]) -> 'TrainedOn':
    """Of a run's folder and its options; what is in no split.json is not known."""
    path, options = workdir / 'split.json', config.get('dataset') or {}
    return cls(path, None, options) if options and path.exists() else cls()

  def images(self) -> Mapping[str, str]:
    """The digests by dataset; {} with a warning where split.json is damaged."""
    if self.stated is not None:
      return self.stated
    split = read_json(self.path)
    if not _is_split(split):
      log.warning(
        '%s is damaged, so that nobody knows which images were trained on: the command that '
        'trained the run writes it again', self.path,
      )  # fmt: skip
      return {}
    return {self.options.get('name', ''): digests(_trained(split, self.options))}

  def and_of(self, dataset: str, examples: 'Examples') -> Mapping[str, str]:
    """`images` and those of one more training."""
    images = self.images()
    more = digests(examples.id(i) for i in range(len(examples)))
    both = {*_each(images.get(dataset, '')), *_each(more)}
    return {**images, dataset: ''.join(sorted(both))}

  def warn(self, dataset: str, examples: 'Examples', what: str, hint: str) -> None:
    """Warns of examples that the model was trained on.

    Args:
      dataset: whose examples they are.
      examples: that are scored.
      what: these are: 'test images'.
      hint: why that may be, or what to do.
    """
    here = os.path.realpath(dataset)
    trained = {
      digest
      for name, images in self.images().items()
      if os.path.realpath(name) == here
      for digest in _each(images)
    }
    count = sum(_digest(examples.id(i)) in trained for i in range(len(examples) if trained else 0))
    if count:
      log.warning(
        '%d of %d %s were trained on, says %s: %s', count, len(examples), what, self.path, hint
      )


def _is_split(value: Any) -> bool:
  """Whether a JSON value is names of images by split."""
  return isinstance(value, dict) and all(
    isinstance(names, list) and all(isinstance(name, str) for name in names)
    for names in value.values()
  )


def _trained(split: Mapping[str, list[str]], options: Mapping[str, Any]) -> Collection[str]:
  """The images of a run's training split, which may be a part of 'train' or more than it."""
  from vit_jax.data.splits import parse_split

  try:
    parts = parse_split(options.get('train') or 'train', {k: len(v) for k, v in split.items()})
  except DatasetError:
    return split.get('train', ())
  return [image for name, first, end in parts for image in split[name][first:end]]


def digests(images: Iterable[str]) -> str:
  """Digests of images' names, sorted, one after another."""
  return ''.join(sorted(map(_digest, images)))


def is_digests(value: Any) -> bool:
  """Whether a JSON value may be the digests of some images."""
  return isinstance(value, str) and len(value) % _LETTERS == 0


def _digest(image: str) -> str:
  name = image.encode('utf-8', 'surrogateescape')
  return base64.b64encode(hashlib.blake2b(name, digest_size=_LETTERS * 6 // 8).digest()).decode()


def _each(joined: str) -> list[str]:
  return [joined[i : i + _LETTERS] for i in range(0, len(joined), _LETTERS)]
