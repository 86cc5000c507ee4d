"""From batches to a record of predictions."""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from vit_jax.data import Examples, Transform
from vit_jax.report.facts import Facts
from vit_jax.report.predictions import Predictions
from vit_jax.report.text import encodable

LoadImage = Callable[[int], np.ndarray]  # position in a split -> uint8 [h, w, c]


class Timing:
  """How long an evaluation took, and its rate: one definition for terminal, logs and reports.

  It is an `on_batch` of `evaluation.scoring.score`.

  Attributes:
    seconds: from its making to the end of the last batch, compilation included.
  """

  def __init__(self) -> None:
    self._began = time.monotonic()
    self._ended: list[tuple[float, int]] = []  # of each batch, with its images

  def __call__(self, batch: Mapping[str, np.ndarray], outputs: Any) -> None:
    """Takes a batch whose outputs are there; of 'mask' [b] it counts the images."""
    self._ended.append((time.monotonic(), int(np.sum(batch['mask']))))

  @property
  def seconds(self) -> float:
    return self._ended[-1][0] - self._began if self._ended else 0.0

  def warm_rate(self) -> float | None:
    """Images/s of all processes after the first batch, which compiles; None if there is but one.

    Every process has to call it.
    """
    from vit_jax import parallel  # reading predictions needs no JAX

    images = _over_processes(parallel, sum(count for _, count in self._ended[1:]))
    seconds = self._ended[-1][0] - self._ended[0][0] if self._ended else 0.0
    return images / seconds if seconds > 0 else None

  def rate(self) -> float:
    """`warm_rate`; of a single batch its rate, compilation included."""
    from vit_jax import parallel

    images = _over_processes(parallel, sum(count for _, count in self._ended))
    return self.warm_rate() or images / max(self.seconds, 1e-9)


class Collector:
  """Keeps the outputs of an evaluation: the `on_batch` of `evaluation.scoring.score`.

  Memory: 4 n k bytes for n images and k classes.

  Args:
    examples: the split that the batches come from.
    classes: the model's, which 'label' of the batches indexes.
    label_sets: whether the truth is 'labels' of the batches, any number of classes per image.

  Attributes:
    timing: of the batches.
  """

  def __init__(self, examples: Examples, classes: Sequence[str], label_sets: bool = False):
    self._examples, self._classes, self._label_sets = examples, tuple(classes), label_sets
    self._rows: dict[str, list[np.ndarray]] = {'index': [], 'label': [], 'mask': [], 'logits': []}
    self._more: dict[str, list[np.ndarray]] = {}
    self.timing = Timing()

  def __call__(
    self, batch: Mapping[str, np.ndarray], outputs: np.ndarray | Mapping[str, np.ndarray]
  ) -> None:
    """Takes a batch and the model's outputs for it.

    Args:
      batch: 'index', 'label' and 'mask' [b]; for boxes 'box' [b, 4] and 'has_box' [b].
      outputs: logits [b, k], or {'logits': [b, k], 'box': [b, 4]}.
    """
    if not isinstance(outputs, Mapping):
      outputs = {'logits': outputs}
    elif 'box' in outputs:
      true = np.where(np.asarray(batch['has_box'])[:, None], batch['box'], np.nan)
      for name, rows in (('boxes_cxcywh', outputs['box']), ('true_boxes_cxcywh', true)):
        self._more.setdefault(name, []).append(np.asarray(rows, np.float32))
    if self._label_sets:
      self._more.setdefault('multi_hot', []).append(np.asarray(batch['labels'], np.uint8))
    for name in ('index', 'label', 'mask'):
      self._rows[name].append(np.asarray(batch[name]))
    self._rows['logits'].append(np.asarray(outputs['logits'], np.float32))
    self.timing(batch, outputs)

  def predictions(self, facts: Facts | None = None) -> Predictions:
    """The record over all processes; every process has to call it.

    Raises:
      DatasetError: no image could be decoded.
      DivergenceError: outputs are not finite.
    """
    from vit_jax import parallel  # reading predictions needs no JAX

    empty = np.zeros((0,), np.int32), np.zeros((0, len(self._classes)), np.float32)
    rows = {
      name: np.concatenate(parts) if parts else empty[name == 'logits']
      for name, parts in self._rows.items()
    }
    rows |= {name: np.concatenate(parts) for name, parts in self._more.items()}
    rows = parallel.gather(rows)
    kept = np.flatnonzero(rows['mask'])
    kept = kept[np.argsort(rows['index'][kept], kind='stable')]
    index = rows['index'][kept].astype(np.int64)
    return Predictions(
      classes=self._classes,
      labels=rows['label'][kept].astype(np.int32),
      logits=rows['logits'][kept],
      ids=tuple(encodable(self._examples.id(int(i))) for i in index),
      index=index,
      facts=facts or Facts('evaluation'),
      seconds=self.timing.seconds,
      img_sec=self.timing.warm_rate(),
      skipped=len(self._examples) - len(kept),
      boxes_cxcywh=rows['boxes_cxcywh'][kept] if 'boxes_cxcywh' in rows else None,
      true_boxes_cxcywh=rows['true_boxes_cxcywh'][kept] if 'true_boxes_cxcywh' in rows else None,
      multi_hot=rows['multi_hot'][kept] if 'multi_hot' in rows else None,
    )


def _over_processes(parallel: Any, count: int) -> int:
  return int(parallel.gather({'count': np.array([count])})['count'].sum())


def image_loader(examples: Examples, transform: Transform) -> LoadImage:
  """The function that gives the image at a position of the split as the model saw it.

  Args:
    examples: the split.
    transform: of the evaluation.

  Returns:
    position -> uint8 [h, w, c].
  """

  def load(position: int) -> np.ndarray:
    example = transform(examples[position], np.random.default_rng(0))
    return np.asarray(example['image'])

  return load
