"""Features that are computed once and kept, whatever splits they are asked for in."""

import dataclasses
import hashlib
import json
import pathlib
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np

from vit_jax.errors import UserError

_CHUNK = 512  # pictures read before their features are computed


@dataclasses.dataclass(frozen=True)
class Features:
  """A split as the head sees it.

  Attributes:
    x: [n, d] float32.
    labels: [n] int32.
    computed: pictures among them that no cache held.
    skipped: unreadable pictures that are not among them.
  """

  x: np.ndarray
  labels: np.ndarray
  computed: int
  skipped: int


class FeatureCache:
  """Pooled features of pictures by their content: another split of the same pictures costs nothing.

  Args:
    loaded: the model.
    folder: where the cache lies.
    dataset: its name; every dataset has its own file.
  """

  def __init__(self, loaded: Any, folder: pathlib.Path, dataset: str):
    self._loaded = loaded
    self.path = folder / f'{_fingerprint(loaded, dataset)}.npz'
    self._rows: dict[bytes, np.ndarray] = {}
    if self.path.exists():
      try:
        with np.load(self.path) as saved:
          self._rows = {d.tobytes(): row for d, row in zip(saved['digests'], saved['features'])}
      except (OSError, ValueError, KeyError) as e:
        raise UserError(f'{self.path} is damaged: delete it') from e
    self._saved = len(self._rows)

  def features(self, examples: Any, name: str, on_error: str = 'raise') -> Features:
    """The features of a split, computed where the cache lacks them.

    Args:
      examples: of `vit_jax.data`.
      name: of the split, for the progress bar.
      on_error: what an unreadable picture does: 'raise' or 'skip'.

    Raises:
      UserError: naming an unreadable picture.
    """
    rows: list[np.ndarray] = []
    labels: list[int] = []
    skipped = 0
    before = len(self._rows)
    for chunk in _chunks(examples, name):
      digests = [_digest(example['image']) for example in chunk]
      unreadable = self._compute(chunk, digests, on_error)
      skipped += len(unreadable)
      for example, digest in zip(chunk, digests):
        if example['label'] < 0:
          raise UserError(f'{example["id"]} has no label: this split cannot be scored')
        if digest not in unreadable:
          rows.append(self._rows[digest])
          labels.append(example['label'])
    if not rows:
      raise UserError(f'the split {name} has no picture that can be read')
    return Features(np.stack(rows), np.array(labels, np.int32), len(self._rows) - before, skipped)

  def save(self) -> None:
    """Writes the cache where it has something new; it appears whole or not at all."""
    from vit_jax.weights.formats import npz

    if len(self._rows) == self._saved:
      return
    try:
      self.path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as e:
      raise UserError(f'cannot make the cache {self.path.parent}: {e.strerror}') from e
    digests = np.frombuffer(b''.join(self._rows), np.uint8).reshape(len(self._rows), -1)
    npz.write(self.path, {'digests': digests, 'features': np.stack(list(self._rows.values()))})
    self._saved = len(self._rows)

  def _compute(self, chunk: list[dict], digests: list[bytes], on_error: str) -> set[bytes]:
    """Adds what is missing of some examples; returns the digests of those that cannot be read."""
    missing = {d: e for d, e in zip(digests, chunk) if d not in self._rows}
    if not missing:
      return set()
    problems: dict[int, UserError] = {}
    found = iter(self._loaded.features([e['image'] for e in missing.values()], 'pooled', problems))
    unreadable = [list(missing)[i] for i in problems]
    if problems and on_error == 'raise':
      raise UserError(
        [
          f'{missing[d]["id"]}: {" ".join(p.problems)} (--on_error=skip leaves it out)'
          for d, p in zip(unreadable, problems.values())
        ]
      )
    for digest in missing:
      if digest not in unreadable:
        self._rows[digest] = next(found)
    return set(unreadable)


def _chunks(examples: Any, name: str) -> Iterator[list[dict]]:
  import tqdm

  with tqdm.tqdm(
    total=len(examples), desc=name, unit='picture', leave=False, disable=not sys.stderr.isatty()
  ) as bar:
    for start in range(0, len(examples), _CHUNK):
      chunk = [examples[i] for i in range(start, min(start + _CHUNK, len(examples)))]
      yield chunk
      bar.update(len(chunk))


def _digest(image: bytes | np.ndarray) -> bytes:
  if isinstance(image, bytes):
    return hashlib.blake2b(image, digest_size=16).digest()
  shape = str(image.shape).encode()
  return hashlib.blake2b(shape + np.ascontiguousarray(image).tobytes(), digest_size=16).digest()


def _fingerprint(loaded: Any, dataset: str) -> str:
  """Short text that differs wherever weights, model, preprocessing or dataset do."""
  from vit_jax import tree

  described = {
    'model': loaded.config['model'],
    'preprocess': loaded.preprocess.to_json(),
    'dataset': dataset,
  }
  total = hashlib.blake2b(json.dumps(described, sort_keys=True).encode(), digest_size=12)
  for name, value in tree.flatten(loaded.variables).items():
    if not name.startswith('params/head'):
      total.update(name.encode())
      total.update(np.ascontiguousarray(value).view(np.uint8))
  return total.hexdigest()
