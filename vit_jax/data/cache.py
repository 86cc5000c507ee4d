"""Images in memory across epochs, as the part of their transform that never changes left them."""

import threading
from collections.abc import Callable

import numpy as np

from vit_jax.data.dataset import Examples
from vit_jax.data.transforms.fused import Kept
from vit_jax.data.transforms.parse import Transform
from vit_jax.errors import ImageError

_SAMPLES = 32  # images that stand for the size of all
_OVERHEAD = 1024  # bytes of an example besides its pixels


class ImageCache:
  """Memory for decoded images, which the threads of a process share.

  An image is kept when it is first read, as long as there is room, and never given up for another:
  of a set that is read whole in every epoch, whichever images are kept save as much.

  Attributes:
    limit_bytes: most that is kept.
    used_bytes: kept so far.

  Args:
    limit_bytes: most that is kept.
  """

  def __init__(self, limit_bytes: int):
    self.limit_bytes, self.used_bytes = limit_bytes, 0
    self._full = False
    self._lock = threading.Lock()
    self._of: dict[tuple[int, Transform], KeptExamples | KeptFeatures] = {}

  def take(self, size: int) -> bool:
    """Whether so many bytes more may be kept; nothing may once something did not fit."""
    with self._lock:
      self._full = self._full or self.used_bytes + size > self.limit_bytes
      self.used_bytes += 0 if self._full else size
    return not self._full

  def put(
    self, examples: Examples, transform: Transform, rows: dict[str, np.ndarray], known: np.ndarray
  ) -> None:
    """Keeps what was computed of all examples, to be given in their images' place.

    Args:
      examples, transform: of which.
      rows: arrays [n, ...] by name, 'image' among them.
      known: bool [n], False for an example that could not be read.
    """
    self._of[id(examples), transform] = KeptFeatures(examples, transform, rows, known)

  def of(self, examples: Examples, transform: Transform) -> 'KeptExamples | KeptFeatures':
    """What is kept of these examples; the same for every call with them."""
    key = id(examples), transform
    if key not in self._of:
      self._of[key] = KeptExamples(examples, transform, self.take)
    return self._of[key]


class KeptExamples:
  """Examples between the deterministic beginning of their transform and its random rest.

  Args:
    examples: which they are.
    transform: of them.
    take: asks for so many bytes to keep.
  """

  def __init__(self, examples: Examples, transform: Transform, take: Callable[[int], bool]):
    self._examples, self._take = examples, take  # held: another object must not get its id
    self._beginning, self._rest = transform.split(take)
    self._kept: dict[int, dict] = {}

  def load(self, index: int, read: Callable[[], dict], rng: np.random.Generator) -> dict:
    """The transformed example, equal to that of the whole transform.

    Args:
      index: of the example.
      read: gives it as it is stored.
      rng: of the random rest.
    """
    example = self._kept.get(index)
    if example is None:
      example = _apply(self._beginning, read(), rng)
      if self._take(_nbytes(example)):
        self._kept[index] = example = _own(example)
    return _apply(self._rest, dict(example), rng)

  def expected_bytes(self) -> int:
    """About how much memory all of them need, judged by a few."""
    total = len(self._examples)
    sizes = []
    for index in np.linspace(0, total - 1, min(total, _SAMPLES)).astype(int).tolist():
      try:
        example = _apply(self._beginning, self._examples[index], np.random.default_rng(0))
      except ImageError:  # a policy decides when it is trained on
        continue
      sizes.append(_nbytes(example, at_most=True))
    return round(total * float(np.mean(sizes))) if sizes else 0


class KeptFeatures:
  """Examples whose images are the features that a frozen backbone has for them.

  Args:
    examples, transform, rows, known: as of `ImageCache.put`.
  """

  def __init__(
    self,
    examples: Examples,
    transform: Transform,
    rows: dict[str, np.ndarray],
    known: np.ndarray,
  ):
    self._examples, self._transform, self._rows, self._known = examples, transform, rows, known

  def load(self, index: int, read: Callable[[], dict], rng: np.random.Generator) -> dict:
    """The example; arguments as of `KeptExamples.load`."""
    if not self._known[index]:
      self._transform(read())  # says again why not
      raise ImageError(f'{self._examples.id(index)} could not be read when the run started')
    return {'index': index, **{name: values[index] for name, values in self._rows.items()}}


def _apply(ops: tuple, example: dict, rng: np.random.Generator) -> dict:
  for op in ops:
    example = op(example, rng)
  return example


def _nbytes(example: dict, at_most: bool = False) -> int:
  image = example['image']
  kept = at_most and isinstance(image, Kept)
  return _OVERHEAD + (image.nbytes_at_most if kept else _size(image))


def _size(image: bytes | np.ndarray | Kept) -> int:
  return len(image) if isinstance(image, bytes) else image.nbytes


def _own(example: dict) -> dict:
  """The example with pixels that are no view of a larger image and that nobody can change."""
  image = example['image']
  if not isinstance(image, np.ndarray):
    return example
  if image.base is not None:
    image = image.copy()
  image.flags.writeable = False
  return {**example, 'image': image}
