"""A cache of features by image content: another split of the same images costs nothing."""

import dataclasses
import hashlib
import json
import logging
import pathlib
import sys
import zipfile
from collections.abc import Iterator

import numpy as np
import tqdm

from vit_jax import processes, tree
from vit_jax.console import warn_once
from vit_jax.data import Examples
from vit_jax.errors import DatasetError, DivergenceError, ImageError, StorageError, UserError
from vit_jax.files import make_folder
from vit_jax.inference import shared
from vit_jax.inference.loaded import Loaded
from vit_jax.weights.containers import npz

log = logging.getLogger(__name__)

_CHUNK = 512  # images read before their features are computed
_DIGEST_BYTES = 16


@dataclasses.dataclass(frozen=True)
class Features:
  """Features and labels of a split.

  Attributes:
    x: [n, d] float32.
    labels: [n] int32.
    computed: images among them that no cache held.
    skipped: images that cannot be decoded, which are not among them.
  """

  x: np.ndarray
  labels: np.ndarray
  computed: int
  skipped: int


class FeatureCache:
  """Pooled features of images, keyed by their content.

  Args:
    loaded: the model.
    folder: of the cache files.
    dataset: its name; every dataset has its own file.
  """

  def __init__(self, loaded: Loaded, folder: pathlib.Path, dataset: str):
    self._loaded = loaded
    self.path = folder / f'{_fingerprint(loaded, dataset)}.npz'
    self._rows: dict[bytes, np.ndarray] = {}
    try:
      self._rows = _read(self.path) if self.path.exists() else {}
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as e:
      log.warning('%s is not used, and features are computed again: it is damaged (%s)',
                  self.path, e)  # fmt: skip
    self._saved = len(self._rows)

  def features(self, examples: Examples, name: str, on_error: str = 'raise') -> Features:
    """The features of a split, computed where the cache lacks them.

    Args:
      examples: of `vit_jax.data`.
      name: of the split, for the progress bar.
      on_error: policy for images that cannot be decoded: 'raise' or 'skip'.

    Raises:
      ImageError: naming an image that cannot be decoded.
      DatasetError: a missing label, or nothing that can be decoded.
      DivergenceError: features that are not finite.
    """
    rows: list[np.ndarray] = []
    labels: list[int] = []
    skipped = 0
    before = len(self._rows)
    for chunk in _chunks(examples, name):
      digests = [_digest(example['image']) for example in chunk]
      unreadable = self._compute(chunk, digests, on_error)
      skipped += sum(digest in unreadable for digest in digests)
      for example, digest in zip(chunk, digests):
        if example['label'] < 0:
          raise DatasetError(f'{example["id"]} has no label: this split cannot be scored')
        if digest not in unreadable:
          rows.append(self._rows[digest])
          labels.append(example['label'])
    if not rows:
      raise DatasetError(f'the split {name} has no image that can be decoded')
    bad = sum(not np.isfinite(row).all() for row in rows)
    if bad:
      raise DivergenceError(
        f"the model's features of {bad} of {len(rows)} images of the split {name} are not finite "
        'numbers'
      )
    return Features(np.stack(rows), np.array(labels, np.int32), len(self._rows) - before, skipped)

  def save(self) -> None:
    """Writes the cache where it has something new; it appears whole or not at all.

    Of several processes the first writes. Where it cannot be written there is a warning: the next
    command computes the features again.
    """
    if len(self._rows) == self._saved or processes.index():
      return
    digests = np.frombuffer(b''.join(self._rows), np.uint8).reshape(len(self._rows), -1)
    try:
      make_folder(self.path.parent)
      npz.write(self.path, {'digests': digests, 'features': np.stack(list(self._rows.values()))})
    except StorageError as e:
      warn_once(log, f'features are not cached: {e}; VIT_JAX_CACHE names another folder')
    self._saved = len(self._rows)

  def _compute(self, chunk: list[dict], digests: list[bytes], on_error: str) -> set[bytes]:
    """Adds what is missing of some examples; returns the digests of those that cannot be read.

    Several processes share what the first one lacks; another one, whose cache may be of another
    disk, computes by itself what it lacks beyond that.
    """
    places = {digest: i for i, digest in enumerate(digests)}
    lacking = processes.agreed(lambda: [i for d, i in places.items() if d not in self._rows])
    problems: dict[int, UserError] = {}
    found = self._computed([chunk[i] for i in lacking], [digests[i] for i in lacking], problems)
    unreadable = {digests[lacking[i]]: problem for i, problem in problems.items()}
    if unreadable and on_error == 'raise':
      raise ImageError(
        [
          f'{example["id"]}: {" ".join(unreadable[d].problems)} (--on_error=skip excludes it)'
          for example, d in zip(chunk, digests)
          if d in unreadable
        ]
      )
    self._rows |= found
    if processes.index():
      more = [i for d, i in places.items() if d not in self._rows and d not in unreadable]
      own = self._loaded.features([chunk[i]['image'] for i in more]) if more else ()
      self._rows |= {digests[i]: row for i, row in zip(more, own)}
    return set(unreadable)

  def _computed(
    self, examples: list[dict], digests: list[bytes], problems: dict[int, UserError]
  ) -> dict[bytes, np.ndarray]:
    """Features by digest of what can be decoded; `problems` gets the rest, by position."""
    if not examples:
      return {}
    images = [example['image'] for example in examples]
    found = shared.features(self._loaded, images, 'pooled', problems)
    return dict(zip((d for i, d in enumerate(digests) if i not in problems), found))


def _read(path: pathlib.Path) -> dict[bytes, np.ndarray]:
  """Features by digest; zipfile verifies the checksums of both arrays."""
  with open(path, 'rb') as file, np.load(file) as saved:
    digests, features = saved['digests'], saved['features']
  if digests.shape != (len(features), _DIGEST_BYTES) or features.ndim != 2:
    raise ValueError(f'digests {digests.shape}, features {features.shape}')
  return {d.tobytes(): row for d, row in zip(digests, features)}


def _chunks(examples: Examples, name: str) -> Iterator[list[dict]]:
  with tqdm.tqdm(
    total=len(examples), desc=name, unit='image', leave=False, disable=not sys.stderr.isatty()
  ) as bar:
    for start in range(0, len(examples), _CHUNK):
      chunk = [examples[i] for i in range(start, min(start + _CHUNK, len(examples)))]
      yield chunk
      bar.update(len(chunk))


def _digest(image: bytes | np.ndarray) -> bytes:
  if isinstance(image, bytes):
    return hashlib.blake2b(image, digest_size=_DIGEST_BYTES).digest()
  shape = str(image.shape).encode()
  return hashlib.blake2b(
    shape + np.ascontiguousarray(image).tobytes(), digest_size=_DIGEST_BYTES
  ).digest()


def _fingerprint(loaded: Loaded, dataset: str) -> str:
  """Short text that differs wherever weights, model, preprocessing or dataset do."""
  described = {
    'model': loaded.config['model'],
    'preprocess': loaded.preprocess.to_json(),
    'dataset': dataset,
  }
  total = hashlib.blake2b(json.dumps(described, sort_keys=True).encode(), digest_size=12)
  for name, value in tree.flatten(loaded.variables).items():
    if not name.startswith('params/head'):
      total.update(name.encode())
      total.update(np.ascontiguousarray(value).tobytes())
  return total.hexdigest()
