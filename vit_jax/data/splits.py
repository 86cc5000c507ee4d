"""Split strings in the grammar of TFDS, and splits made by class and seed."""

import itertools
import re
import zlib
from collections.abc import Mapping, Sequence

import numpy as np

from vit_jax.errors import ConfigError, DatasetError, did_you_mean

_SLICE = re.compile(r'^(?P<name>[\w\-.]+)(?:\[(?P<from>[^:\]]*):(?P<to>[^:\]]*)\])?$')
_BOUND = re.compile(r'^(?P<number>-?\d[\d_]*(?:\.\d+)?)(?P<percent>%?)$')
_ALIASES = {
  **dict.fromkeys(('valid', 'validation', 'validate', 'dev', 'development'), 'val'),
  'training': 'train',
  'testing': 'test',
}


def canonical(name: str) -> str:
  """One name for a split: 'valid', 'validation' and 'dev' are 'val', 'Training' is 'train'."""
  return _ALIASES.get(name.lower(), name.lower())


def parse_split(spec: str, sizes: Mapping[str, int]) -> list[tuple[str, int, int]]:
  """Reads 'train[:90%]+val', in TFDS's grammar: percent or examples, negative from the end, '+'.

  Args:
    spec: the split string; 'all' is every split.
    sizes: examples by canonical split name.

  Returns:
    (split, first, end) of each part, in the order written.

  Raises:
    DatasetError: unreadable, unknown split, out of range, or no examples.
  """
  parts, problems = [], []
  for text in spec.replace(' ', '').split('+'):
    match = _SLICE.match(text)
    if not match:
      problems.append(
        f'split {text!r} in {spec!r} cannot be read; write train, train[:90%] or train[100:200]'
      )
      continue
    name = match['name'] if match['name'] in sizes else canonical(match['name'])
    if name == 'all' and name not in sizes and match['from'] is None:
      parts += [(split, 0, size) for split, size in sizes.items()]
    elif name not in sizes:
      problems.append(f'no split {match["name"]!r}: {did_you_mean(name, sizes)}')
    else:
      try:
        first = _bound(match['from'], sizes[name], 0)
        end = _bound(match['to'], sizes[name], sizes[name])
        parts.append((name, first, max(first, end)))
      except ValueError as e:
        problems.append(f'split {text!r}: {e}')
  if not problems and not any(end > first for _, first, end in parts):
    problems.append(f'split {spec!r} has no examples; sizes are {dict(sizes)}')
  if problems:
    raise DatasetError(problems)
  return parts


def _bound(text: str | None, size: int, default: int) -> int:
  """A slice's end as an index from 0 to `size`."""
  if not text:
    return default
  match = _BOUND.match(text)
  if not match or ('.' in match['number'] and not match['percent']):
    raise ValueError(f'bound {text!r} is neither a number of examples nor a percentage')
  number = float(match['number'].replace('_', ''))
  if match['percent']:
    if abs(number) > 100:
      raise ValueError(f'bound {text!r} is beyond 100%')
    index = round(number * size / 100)
  else:
    index = int(number)
    if abs(index) > size:
      raise ValueError(f'bound {text} is beyond the {size} examples of the split')
  return index + size if number < 0 else index


def class_rng(seed: int, name: str) -> np.random.Generator:
  """The generator that orders one class: the same whichever other classes are used."""
  return np.random.Generator(np.random.Philox(key=[seed, zlib.crc32(name.encode())]))


def interleave(
  labels: np.ndarray, classes: Sequence[str], seed: int, per_class: int = 0
) -> np.ndarray:
  """An order in which every stretch has the classes in about their proportions.

  Each class is shuffled by seed and spread evenly over the whole; the number of one class's
  images in any leading part is within one of its proportion.

  Args:
    labels: int `[n]` class of each image, in an order that does not depend on the machine.
    classes: class names; an order is drawn from (seed, name).
    seed: of the order.
    per_class: keep at most so many of a class; 0 keeps all.

  Returns:
    int64 `[m]` positions in `labels`.
  """
  where, when = [], []
  for name, members in zip(classes, _by_class(labels, len(classes)), strict=True):
    rng = class_rng(seed, name)
    shift = rng.random()
    members = rng.permutation(members)
    members = members[:per_class] if per_class else members
    where.append(members)
    when.append((np.arange(len(members)) + shift) / max(len(members), 1))
  order = np.argsort(np.concatenate(when), kind='stable')
  return np.concatenate(where)[order].astype(np.int64)


def stratified(
  labels: np.ndarray, order: np.ndarray, fractions: Sequence[float]
) -> dict[str, np.ndarray]:
  """Splits by class: each class gives its fraction, and at least one image where it has enough.

  Args:
    labels: int `[n]` class of each image.
    order: positions in `labels` to divide, as `interleave` gives them; kept within each part.
    fractions: of train, val and test; train takes the rest after rounding.

  Returns:
    Positions by split name; a split of fraction 0 is absent.
  """
  names = [n for n, f in zip(('train', 'val', 'test'), fractions) if f > 0]
  taken: dict[str, list[np.ndarray]] = {name: [] for name in names}
  found = labels[order]
  for rows in _by_class(found, found.max(initial=0) + 1):
    members = order[rows]
    end = len(members)
    for name, fraction in zip(('test', 'val'), (fractions[2], fractions[1])):
      if fraction > 0:
        count = int(len(members) * fraction + 0.5 + 1e-9)
        count = max(count, 1) if len(members) >= len(names) else count
        taken[name].append(members[max(end - count, 0) : end])
        end = max(end - count, 0)
    if 'train' in taken:
      taken['train'].append(members[:end])
  chosen = {name: np.concatenate(parts) for name, parts in taken.items()}
  return {name: order[np.isin(order, members)] for name, members in chosen.items()}


def _by_class(labels: np.ndarray, classes: int) -> list[np.ndarray]:
  """The positions of each of so many classes in labels, in ascending order; all in one pass."""
  order = np.argsort(labels, kind='stable')
  bounds = np.searchsorted(labels[order], np.arange(classes + 1))
  return [order[start:end] for start, end in itertools.pairwise(bounds)]


def check_fractions(fractions: Sequence[float]) -> tuple[float, float, float]:
  """The three fractions; two given ones are train and validation.

  Raises:
    ConfigError: negative, or not adding up to 1.
  """
  given = tuple(float(f) for f in fractions)
  given = (*given, 0.0) if len(given) == 2 else given
  if len(given) != 3 or min(given) < 0 or abs(sum(given) - 1) > 1e-6 or given[0] == 0:
    raise ConfigError(
      f'split_fractions are those of train, val and test and must add up to 1, for example '
      f'(0.8, 0.1, 0.1); got {tuple(fractions)}'
    )
  return given[0], given[1], given[2]
