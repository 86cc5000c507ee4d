"""Images that are in a dataset twice: in training and a held-out split, or in two classes."""

import hashlib
import logging
import os
from collections.abc import Iterator, Mapping

from vit_jax.data.dataset import Examples
from vit_jax.data.records import Place
from vit_jax.errors import counted

log = logging.getLogger(__name__)

# Of so many files in all, each one's size is asked for; of more, nothing: a network's file system
# takes a millisecond for each.
MOST_FILES = 10_000
_HEAD = 4096  # bytes that are compared before whole files are

_Where = tuple[str, int]  # split and index


def warn_of_overlap(splits: Mapping[str, Examples], options: Mapping[str, str]) -> None:
  """Warns of held-out images that are trained on too.

  Args:
    splits: examples of 'train' and of held-out splits.
    options: by split, what the user set: "config.dataset.val='train[90%:]'".
  """
  for role, examples in splits.items():
    shared = examples.overlap(splits['train']) if role != 'train' else 0
    if shared:
      log.warning(
        '%d of %d %s images are trained on too (%s, %s): the %s metrics are of images that the '
        'model has seen',
        shared, len(examples), role, options['train'], options[role], role,
      )  # fmt: skip


def warn_of_duplicates(dataset: str, splits: Mapping[str, Examples]) -> None:
  """Warns of files with the same bytes in training and a held-out split, or with two labels.

  Files are compared where all splits together have at most `MOST_FILES`: by size, then by their
  first bytes, then by a digest of the whole, so that few are read.

  Args:
    dataset: its name.
    splits: examples of 'train' and of held-out splits.
  """
  if sum(map(len, splits.values())) > MOST_FILES:
    return
  leaked: dict[str, list[str]] = {}
  contrary: list[str] = []
  labels = {role: examples.labels for role, examples in splits.items()}
  for group in _same_bytes(splits):
    names = [splits[role].id(i) for role, i in group]
    pair = ' and '.join(map(repr, names[:2]))
    if len({labels[role][i] for role, i in group}) > 1:
      contrary.append(pair)
    roles = {role for role, _ in group}
    for role in roles - {'train'} if 'train' in roles else ():
      first = {r: n for (r, _), n in reversed(list(zip(group, names)))}
      count = sum(r == role for r, _ in group)
      leaked.setdefault(role, []).extend([f'{first[role]!r} as {first["train"]!r}'] * count)
  for role, pairs in sorted(leaked.items()):
    log.warning(
      'dataset %s: %d of %d %s images are also images of training, byte for byte, such as %s: '
      'remove one of each; the %s metrics are of images that the model has seen',
      dataset, len(pairs), len(splits[role]), role, min(pairs), role,
    )  # fmt: skip
  if contrary:
    log.warning(
      'dataset %s: %s in two classes, byte for byte, such as %s: remove one of each',
      dataset, counted(len(contrary), 'image is', 'images are'), min(contrary),
    )  # fmt: skip


def _same_bytes(splits: Mapping[str, Examples]) -> Iterator[list[_Where]]:
  """Groups of examples whose files are alike, unless they are one and the same file."""
  by_size: dict[int, dict[Place, list[_Where]]] = {}
  for role, examples in splits.items():
    for i in range(len(examples)):
      place = examples.place(i)
      if place is None:
        return
      try:
        size = os.path.getsize(place.path) if place.size is None else place.size
      except OSError:  # said when it is read
        continue
      if size:
        by_size.setdefault(size, {}).setdefault(place, []).append((role, i))
  for same_size in by_size.values():
    for same_head in _regroup(same_size, _HEAD) if len(same_size) > 1 else ():
      for alike in _regroup(same_head, None) if len(same_head) > 1 else ():
        if len(alike) > 1:
          yield [where for several in alike.values() for where in several]


def _regroup(
  files: dict[Place, list[_Where]], length: int | None
) -> list[dict[Place, list[_Where]]]:
  """The files by a digest of their first bytes, or of all."""
  groups: dict[bytes, dict[Place, list[_Where]]] = {}
  for place, several in files.items():
    length_here = min((n for n in (place.size, length) if n is not None), default=-1)
    try:
      with open(place.path, 'rb') as f:
        f.seek(place.start)
        digest = hashlib.blake2b(f.read(length_here)).digest()
    except OSError:
      continue
    groups.setdefault(digest, {})[place] = several
  return list(groups.values())
