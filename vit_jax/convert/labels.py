"""Names of the ImageNet-1k classes, and how class names of two sources are matched."""

import functools
import pathlib
import re
from collections.abc import Sequence

_WORDNET = re.compile(r'(n\d{8})(?:$|[_ -])')


@functools.cache
def _table() -> tuple[tuple[str, str], ...]:
  text = pathlib.Path(__file__).with_name('imagenet1k.txt').read_text()
  rows = (line.split(' ', 1) for line in text.splitlines())
  return tuple((wordnet, name.replace('_', ' ')) for wordnet, name in rows)


def imagenet1k() -> tuple[str, ...]:
  """The 1000 class names in the order of every ImageNet-1k classifier."""
  return tuple(name for _, name in _table())


def wordnet_ids() -> tuple[str, ...]:
  """The 1000 WordNet ids in the same order; folders of ImageNet are named after them."""
  return tuple(wordnet for wordnet, _ in _table())


def normalize(name: str) -> str:
  """A class name as it is compared: its WordNet id if it begins with one, else bare words."""
  match = _WORDNET.match(name)
  if match:
    return match[1]
  return re.sub(r'[\s_-]+', '_', name.strip().lower())


def index_of(classes: Sequence[str]) -> dict[str, int]:
  """Index of each class by normalized name, and by WordNet id where these are ImageNet's classes.

  Two classes of one name (ImageNet has two cranes) are found by id only.
  """
  index: dict[str, int] = {}
  twice = set()
  for i, name in enumerate(classes):
    key = normalize(name)
    if key in index:
      twice.add(key)
    index[key] = i
  for key in twice:
    del index[key]
  if [normalize(c) for c in classes] == [normalize(c) for c in imagenet1k()]:
    index.update({wordnet: i for i, wordnet in enumerate(wordnet_ids())})
  return index
