"""From batches to a record of predictions."""

import time
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from vit_jax.data import Examples, Transform
from vit_jax.report.facts import Facts
from vit_jax.report.predictions import Predictions
from vit_jax.report.text import encodable

LoadImage = Callable[[int], np.ndarray]  # position in a split -> uint8 [h, w, c]


class Collector:
  """Keeps the outputs of an evaluation: the `on_batch` of `evaluation.scoring.score`.

  Memory: 4 n k bytes for n images and k classes.

  Args:
    examples: the split that the batches come from.
    classes: the model's, which 'label' of the batches indexes.
    label_sets: whether the truth is 'labels' of the batches, any number of classes per image.
  """

  def __init__(self, examples: Examples, classes: Sequence[str], label_sets: bool = False):
    self._examples, self._classes, self._label_sets = examples, tuple(classes), label_sets
    self._rows: dict[str, list[np.ndarray]] = {'index': [], 'label': [], 'mask': [], 'logits': []}
    self._more: dict[str, list[np.ndarray]] = {}
    self._began = time.monotonic()
    self._ended: list[float] = []

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
    self._ended.append(time.monotonic())

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
    after_first = np.array([sum(int(m.sum()) for m in self._rows['mask'][1:])])
    images_after_first = int(parallel.gather({'count': after_first})['count'].sum())
    rows = parallel.gather(rows)
    kept = np.flatnonzero(rows['mask'])
    kept = kept[np.argsort(rows['index'][kept], kind='stable')]
    index = rows['index'][kept].astype(np.int64)
    warm = self._ended[-1] - self._ended[0] if len(self._ended) > 1 else 0.0
    return Predictions(
      classes=self._classes,
      labels=rows['label'][kept].astype(np.int32),
      logits=rows['logits'][kept],
      ids=tuple(encodable(self._examples.id(int(i))) for i in index),
      index=index,
      facts=facts or Facts('evaluation'),
      seconds=self._ended[-1] - self._began if self._ended else 0.0,
      img_sec=images_after_first / warm if warm > 0 else None,
      skipped=len(self._examples) - len(kept),
      boxes_cxcywh=rows['boxes_cxcywh'][kept] if 'boxes_cxcywh' in rows else None,
      true_boxes_cxcywh=rows['true_boxes_cxcywh'][kept] if 'true_boxes_cxcywh' in rows else None,
      multi_hot=rows['multi_hot'][kept] if 'multi_hot' in rows else None,
    )


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
