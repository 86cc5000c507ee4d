"""One model for many threads: each decodes its own images, and all are computed together."""

import collections
import io
import queue
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from typing import Any

import numpy as np

from vit_jax import machine
from vit_jax.errors import UserError
from vit_jax.inference.loaded import Loaded, Prediction

Example = Mapping[str, Any]


class _Named(io.BytesIO):
  """Encoded bytes with the name that messages call the image by."""

  def __init__(self, data: bytes, name: str):
    super().__init__(data)
    self.name = name


class Service:
  """A model that answers many threads at once.

  What waits while a batch is computed makes the next batch: nothing waits for others to come. A
  batch is padded to the next power of two, each of which is compiled once, before the first answer.

  Args:
    name: by which requests choose it.
    loaded: the model; its `batch_size` is the largest batch.

  Raises:
    WeightsError: the model has no classifier.
  """

  def __init__(self, name: str, loaded: Loaded):
    loaded.check_classifier()
    self.name = name
    self.loaded = loaded
    fixed = loaded.fixed_batch_size
    self._sizes = [fixed] if fixed else _powers(loaded.batch_size)
    self._jobs: queue.SimpleQueue[tuple[Example, Future] | None] = queue.SimpleQueue()
    self._decoding = threading.Semaphore(machine.cores())
    self._thread = threading.Thread(target=self._work, name=f'batches of {name}', daemon=True)

  def start(self) -> None:
    """Compiles for all sizes of batches, then answers."""
    h, w = self.loaded.preprocess.image_size
    black = np.zeros((h, w, self.loaded.preprocess.input_channels), np.uint8)
    for size in self._sizes:
      self.loaded.outputs([{'image': black}], size)
    self._thread.start()

  def stop(self) -> None:
    """Ends when what was asked for is computed."""
    self._jobs.put(None)
    self._thread.join()

  def predict(
    self, images: Sequence[tuple[str, bytes]], top_k: int
  ) -> list[list[Prediction] | UserError]:
    """The most probable classes of each image, or why it cannot be read.

    Args:
      images: names and encoded bytes.
      top_k: classes for each.
    """
    found: list[list[Prediction] | UserError] = [[] for _ in images]
    waiting: collections.deque[tuple[int, Example, Future]] = collections.deque()

    def take() -> None:
      i, example, future = waiting.popleft()
      row = {name: x[None] for name, x in future.result().items()}
      (found[i],) = self.loaded.ranked(row, [example['box']], top_k)

    for i, (name, data) in enumerate(images):
      if len(waiting) == 2 * self._sizes[-1]:  # however many small files a request has
        take()
      try:
        with self._decoding:
          example = self.loaded.example(_Named(data, name))
      except UserError as e:
        found[i] = e
        continue
      future: Future = Future()
      self._jobs.put((example, future))
      waiting.append((i, example, future))
    while waiting:
      take()
    return found

  def _work(self) -> None:
    while (job := self._jobs.get()) is not None:
      jobs = [job]
      while len(jobs) < self._sizes[-1] and not self._jobs.empty():
        following = self._jobs.get()
        if following is None:
          self._jobs.put(None)
          break
        jobs.append(following)
      size = next(s for s in self._sizes if s >= len(jobs))
      try:
        outputs = self.loaded.outputs([example for example, _ in jobs], size)
      except Exception as e:  # of the device: each of them is answered, and the next are tried
        for _, future in jobs:
          future.set_exception(e)
        continue
      for i, (_, future) in enumerate(jobs):
        future.set_result({name: x[i] for name, x in outputs.items()})


def _powers(largest: int) -> list[int]:
  """1, 2, 4 and so on, up to and with the largest batch."""
  return sorted({*(1 << i for i in range(largest.bit_length()) if 1 << i <= largest), largest})
