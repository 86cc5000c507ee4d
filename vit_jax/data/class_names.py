"""Names of ImageNet's classes, and how class names of two sources are matched."""

import functools
import json
import pathlib
import re
import unicodedata
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from vit_jax.errors import ConfigError, DatasetError, did_you_mean

if TYPE_CHECKING:
  import numpy as np

_WORDNET = re.compile(r'(n\d{8})(?:$|[_ -])')


@functools.cache
def _table() -> tuple[tuple[str, str], ...]:
  text = pathlib.Path(__file__).with_name('imagenet1k.txt').read_text('utf-8')
  rows = (line.split(' ', 1) for line in text.splitlines())
  return tuple((wordnet, name.replace('_', ' ')) for wordnet, name in rows)


def imagenet1k() -> tuple[str, ...]:
  """The 1000 class names in the order of every ImageNet-1k classifier."""
  return tuple(name for _, name in _table())


def wordnet_ids() -> tuple[str, ...]:
  """The 1000 WordNet ids in the same order; folders of ImageNet are named after them."""
  return tuple(wordnet for wordnet, _ in _table())


# Classes of the variants of ImageNet-21k by their number, and the letter that marks them in the
# table: all that the published Google weights know, the images of autumn 2011 (two fewer), the
# two processed by Ridnik et al. (2104.10972; autumn and winter releases), and timm's 12k.
IMAGENET21K = {21843: '', 21841: 'f', 11221: 'p', 10450: 'w', 11821: 't'}


@functools.cache
def by_count(count: int) -> tuple[str, ...]:
  """The classes of a classifier with so many outputs, in its order: ImageNet's, by their number.

  Args:
    count: 1000, or one of IMAGENET21K; these are named 'n01440764_tench', as words come twice.

  Returns:
    Names; () for any other number.
  """
  if count == 1000:
    return imagenet1k()
  if count not in IMAGENET21K:
    return ()
  text = pathlib.Path(__file__).with_name('imagenet21k.txt').read_text('utf-8')
  rows = (line.split(' ', 2) for line in text.splitlines())
  return tuple(f'{wordnet}_{word}' for wordnet, marks, word in rows if IMAGENET21K[count] in marks)


def in_order(table: Any) -> tuple[str, ...]:
  """Class names in order, from JSON values in any of the forms that people keep them in.

  Args:
    table: a list of names; {index: name}, where an index may be 0, '0' or 'LABEL_0'; or
      {name: index}.

  Raises:
    ConfigError: another form, or indices that do not count from 0.
  """
  if isinstance(table, list | tuple) and all(isinstance(v, str | int | float) for v in table):
    return tuple(map(str, table))
  if not isinstance(table, dict):
    raise ConfigError(
      f'class names: expected a list, or names by index, got {type(table).__name__}'
    )
  by_index = {_index(key): value for key, value in table.items()}
  if table and None in by_index:
    by_index = {_index(value): key for key, value in table.items()}
  others = [v for v in by_index.values() if not isinstance(v, str | int | float)]
  if others:
    raise ConfigError(f'class names: expected a name for each index, got {others[0]!r:.80}')
  if len(by_index) != len(table) or set(by_index) != set(range(len(table))):
    shown = ', '.join(map(repr, list(table.items())[:3]))
    raise ConfigError(
      f'class names: expected indices 0 to {max(0, len(table) - 1)}, each once, got {shown}'
    )
  return tuple(str(by_index[i]) for i in range(len(table)))


def _index(value: Any) -> int | None:
  if isinstance(value, str) and (match := re.fullmatch(r'(?:LABEL_)?(\d+)', value)):
    return int(match[1])
  return value if isinstance(value, int) and not isinstance(value, bool) else None


def read_file(path: str | pathlib.Path) -> tuple[str, ...]:
  """Class names of a file: one a line, or JSON in a form of `in_order`.

  Raises:
    ConfigError: naming the file and what is wrong with it.
  """
  try:
    text = pathlib.Path(path).read_text('utf-8-sig')
  except (OSError, UnicodeError) as e:
    reason = getattr(e, 'strerror', None) or 'it is not text in UTF-8'
    raise ConfigError(f'cannot read the class names in {path}: {reason}') from e
  if text.lstrip()[:1] in ('[', '{'):
    try:
      return in_order(json.loads(text))
    except (ValueError, ConfigError) as e:
      raise ConfigError(f'{path}: {e}') from e
  lines = [line.strip() for line in text.rstrip().splitlines()]
  if not lines:
    raise ConfigError(f'{path} holds no class names')
  empty = [i for i, line in enumerate(lines, 1) if not line]
  if empty:
    raise ConfigError(f'{path}: line {empty[0]} is empty; expected a class name a line')
  return tuple(lines)


def unusable(name: str) -> str:
  """Why a folder or a file cannot name a class; empty where it can."""
  try:
    name.encode()
  except UnicodeEncodeError:
    return 'has a name that is not UTF-8; rename it'
  if any(unicodedata.category(c) == 'Cc' for c in name):
    return 'has a line break or another control character in its name; rename it'
  return ''


def normalize(name: str) -> str:
  """A class name as it is compared: its WordNet id if it begins with one, else bare words."""
  match = _WORDNET.match(name)
  if match:
    return match[1]
  return re.sub(r'[\s_-]+', '_', unicodedata.normalize('NFC', name).strip().lower())


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
  elif classes and all(_WORDNET.match(c) for c in classes):
    words = [normalize(name) for name in imagenet1k()]
    for wordnet, word in zip(wordnet_ids(), words):
      if wordnet in index and words.count(word) == 1:
        index.setdefault(word, index[wordnet])
  return index


def align(dataset_classes: tuple[str, ...], model_classes: tuple[str, ...]) -> 'np.ndarray':
  """The model's class index of each of the dataset's classes, matched by name.

  A dataset may hold some of the model's classes only. ImageNet classes match by name or by WordNet
  id ('tench', 'n01440764', 'n01440764_tench').

  Returns:
    Indices [len(dataset_classes)], int32.

  Raises:
    DatasetError: naming classes that the model does not know.
  """
  import numpy as np  # --help must not wait for it

  if dataset_classes == model_classes:
    return np.arange(len(model_classes), dtype=np.int32)
  index = index_of(model_classes)
  found = [index.get(normalize(name)) for name in dataset_classes]
  # 'n02085620-Chihuahua' is a model's 'Chihuahua', where no two classes are of that word.
  words = [normalize(_WORDNET.sub('', name, count=1)) for name in dataset_classes]
  found = [
    index.get(word) if i is None and words.count(word) == 1 else i for i, word in zip(found, words)
  ]
  unknown = [name for name, i in zip(dataset_classes, found) if i is None]
  if unknown:
    hint = did_you_mean(unknown[0], model_classes, every_up_to=5)
    raise DatasetError(
      f'the model has {len(model_classes)} classes and does not know {len(unknown)} of the '
      f"dataset's {len(dataset_classes)}, such as {unknown[0]!r}: {hint}"
    )
  return np.array(found, np.int32)


def in_order_of_numbers(names: tuple[str, ...]) -> tuple[str, ...]:
  """Names that are numbers ('0' to '11') by value, where 10 comes after 9; others as they are."""
  if not names or not all(name.isdecimal() for name in names):
    return names
  return tuple(sorted(names, key=lambda name: (int(name), name)))
