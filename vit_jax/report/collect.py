"""From batches to a record of predictions."""

import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from vit_jax.data import Examples, Transform
from vit_jax.report.facts import Facts
from vit_jax.report.predictions import Predictions


class Collector:
  """Keeps the outputs of an evaluation: the `on_batch` of `evaluate.score`.

  Memory: 4 n k bytes for n pictures and k classes.

  Args:
    examples: the split that the batches come from.
    classes: the model's, which 'label' of the batches indexes.
    several: whether 'labels' of the batches count, of any number of classes a picture.
  """

  def __init__(self, examples: Examples, classes: Sequence[str], several: bool = False):
    self._examples, self._classes, self._several = examples, tuple(classes), several
    self._rows: dict[str, list[np.ndarray]] = {'index': [], 'label': [], 'mask': [], 'logits': []}
    self._more: dict[str, list[np.ndarray]] = {}
    self._began = time.monotonic()
    self._ended: list[float] = []

  def __call__(self, batch: dict, outputs: np.ndarray | dict[str, np.ndarray]) -> None:
    """Takes a batch and what the model says of it.

    Args:
      batch: 'index', 'label' and 'mask' [b]; for boxes 'box' [b, 4] and 'has_box' [b].
      outputs: logits [b, k], or {'logits': [b, k], 'box': [b, 4]}.
    """
    if not isinstance(outputs, dict):
      outputs = {'logits': outputs}
    elif 'box' in outputs:
      true = np.where(np.asarray(batch['has_box'])[:, None], batch['box'], np.nan)
      for name, rows in (('boxes_cxcywh', outputs['box']), ('true_boxes_cxcywh', true)):
        self._more.setdefault(name, []).append(np.asarray(rows, np.float32))
    if self._several:
      self._more.setdefault('multi_hot', []).append(np.asarray(batch['labels'], np.uint8))
    for name in ('index', 'label', 'mask'):
      self._rows[name].append(np.asarray(batch[name]))
    self._rows['logits'].append(np.asarray(outputs['logits'], np.float32))
    self._ended.append(time.monotonic())

  def predictions(self, facts: Facts | None = None) -> Predictions:
    """The record over all processes; every process has to call it.

    Raises:
      UserError: no picture was readable, or outputs are not finite.
    """
    from vit_jax import parallel  # reading predictions needs no JAX

    empty = np.zeros((0,), np.int32), np.zeros((0, len(self._classes)), np.float32)
    rows = {
      name: np.concatenate(parts) if parts else empty[name == 'logits']
      for name, parts in self._rows.items()
    }
    rows |= {name: np.concatenate(parts) for name, parts in self._more.items()}
    after_first = np.array([sum(int(m.sum()) for m in self._rows['mask'][1:])])
    pictures_after_first = int(parallel.gather({'count': after_first})['count'].sum())
    rows = parallel.gather(rows)
    kept = np.flatnonzero(rows['mask'])
    kept = kept[np.argsort(rows['index'][kept], kind='stable')]
    index = rows['index'][kept].astype(np.int64)
    warm = self._ended[-1] - self._ended[0] if len(self._ended) > 1 else 0.0
    return Predictions(
      classes=self._classes,
      labels=rows['label'][kept].astype(np.int32),
      logits=rows['logits'][kept],
      ids=tuple(self._examples.id(int(i)) for i in index),
      index=index,
      facts=facts or Facts('evaluation'),
      seconds=self._ended[-1] - self._began if self._ended else 0.0,
      img_sec=pictures_after_first / warm if warm > 0 else None,
      skipped=len(self._examples) - len(kept),
      **{name: rows[name][kept] for name in self._more},
    )


def picture_loader(examples: Examples, transform: Transform) -> Callable[[int], np.ndarray]:
  """The function that gives the picture at a position of the split as the model saw it.

  Args:
    examples: the split.
    transform: of the evaluation.

  Returns:
    position -> uint8 [h, w, c].
  """

  def load(position: int) -> np.ndarray:
    example: dict[str, Any] = transform(examples[position], np.random.default_rng(0))
    return np.asarray(example['image'])

  return load
