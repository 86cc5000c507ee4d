"""The record of an evaluation: what was true and what was predicted, image by image."""

import dataclasses
import functools
import json
import pathlib
import zipfile
from typing import Any

import numpy as np

from vit_jax import logits as logits_lib
from vit_jax.errors import CheckpointError, DatasetError, DivergenceError, UserError
from vit_jax.files import replacing
from vit_jax.report.facts import Facts
from vit_jax.report.text import readable

FILE = 'predictions.npz'


@dataclasses.dataclass(frozen=True, eq=False)
class Predictions:
  """Outputs of a model for the images of a split, each once, in the split's order.

  Attributes:
    classes: names by index, k of them.
    labels: true class [n], int32.
    logits: [n, k], float32.
    ids: a name for each image that stays the same everywhere; `compare` pairs runs by them.
    index: position of each image in the split [n], int64.
    facts: the circumstances.
    seconds: that the evaluation took, compilation included; 0 where it was not measured.
    img_sec: images/s after the first batch, which compiles; None where there was but one.
    skipped: images that could not be decoded.
    boxes_cxcywh: predicted [n, 4], relative to what the model saw; None for a task without boxes.
    true_boxes_cxcywh: [n, 4], NaN where an image has none.
    multi_hot: [n, k], 1 for each class that an image shows, where images show any number of
      classes; `labels` then mean nothing. None where each image has one class.

  Raises:
    DatasetError: no image, or arrays and labels that do not fit together.
    DivergenceError: logits that are not finite.
  """

  classes: tuple[str, ...]
  labels: np.ndarray
  logits: np.ndarray
  ids: tuple[str, ...]
  index: np.ndarray
  facts: Facts
  seconds: float = 0.0
  img_sec: float | None = None
  skipped: int = 0
  boxes_cxcywh: np.ndarray | None = None
  true_boxes_cxcywh: np.ndarray | None = None
  multi_hot: np.ndarray | None = None

  def __post_init__(self) -> None:
    n, k = len(self.labels), len(self.classes)
    if not n:
      raise DatasetError('no image could be evaluated')
    problems = []
    if self.logits.shape != (n, k):
      problems.append(f'logits {self.logits.shape} for {n} images and {k} classes')
    if len(self.ids) != n or len(self.index) != n:
      problems.append(f'{len(self.ids)} ids and {len(self.index)} positions for {n} images')
    if self.multi_hot is not None:
      if self.multi_hot.shape != (n, k):
        problems.append(f'label sets {self.multi_hot.shape} for {n} images and {k} classes')
    elif self.labels.min() < 0 or self.labels.max() >= k:
      count = int(((self.labels < 0) | (self.labels >= k)).sum())
      problems.append(f'{count} of {n} images have no label among the {k} classes')
    if problems:
      raise DatasetError(problems)
    bad = int((~np.isfinite(self.logits)).any(axis=-1).sum())
    if bad:
      raise DivergenceError(f"the model's outputs for {bad} of {n} images are not finite numbers")

  def __len__(self) -> int:
    return len(self.labels)

  @functools.cached_property
  def probabilities(self) -> np.ndarray:
    """[n, k], float32: of one class among all (softmax), or of each class on its own (sigmoid)."""
    return logits_lib.probabilities(self.logits, self.facts.activation)

  @functools.cached_property
  def predicted(self) -> np.ndarray:
    """The most confident class [n]; the first of equals."""
    return self.logits.argmax(axis=-1).astype(np.int32)

  @functools.cached_property
  def ranks(self) -> np.ndarray:
    """How many classes come before the true one [n]."""
    return logits_lib.rank_of_label(self.logits, self.labels)

  @property
  def correct(self) -> np.ndarray:
    """bool [n]."""
    return self.predicted == self.labels

  @property
  def confidence(self) -> np.ndarray:
    """Probability of the predicted class [n]."""
    return np.take_along_axis(self.probabilities, self.predicted[:, None], axis=-1)[:, 0]

  @property
  def true_probability(self) -> np.ndarray:
    """Probability of the true class [n]."""
    return np.take_along_axis(self.probabilities, self.labels[:, None], axis=-1)[:, 0]

  @functools.cached_property
  def names(self) -> tuple[str, ...]:
    """The classes as people read them."""
    return readable(self.classes)

  def save(self, path: str | pathlib.Path) -> None:
    """Writes an .npz without pickled objects, whole or not at all."""
    arrays: dict[str, Any] = {
      'labels': self.labels.astype(np.int32),
      'logits': self.logits.astype(np.float32),
      'index': self.index.astype(np.int64),
      'ids': np.array(self.ids, dtype=np.str_),
      'classes': np.array(self.classes, dtype=np.str_),
      'boxes_cxcywh': self.boxes_cxcywh,
      'true_boxes_cxcywh': self.true_boxes_cxcywh,
      'multi_hot': self.multi_hot,
    }
    scalars = {'seconds': self.seconds, 'img_sec': self.img_sec, 'skipped': self.skipped}
    record = json.dumps({'facts': self.facts.to_json(), **scalars})
    arrays = {'record': np.array(record)} | {k: v for k, v in arrays.items() if v is not None}
    with replacing(path) as temporary, open(temporary, 'wb') as f:
      np.savez(f, **arrays)


def load_predictions(path: str | pathlib.Path) -> Predictions:
  """Reads what `Predictions.save` wrote.

  Raises:
    CheckpointError: missing, damaged or another kind of file.
  """
  try:
    with np.load(path, allow_pickle=False) as z:
      arrays: dict[str, Any] = {name: z[name] for name in z.files}
    record = json.loads(str(arrays.pop('record')))
    for name in ('ids', 'classes'):
      arrays[name] = tuple(arrays[name].tolist())
    return Predictions(**arrays, **{**record, 'facts': Facts.from_json(record['facts'])})
  except (OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile, UserError) as e:
    reason = getattr(e, 'strerror', None) or ' '.join(str(e).split())
    raise CheckpointError(f'cannot read predictions from {path}: {reason}') from e
