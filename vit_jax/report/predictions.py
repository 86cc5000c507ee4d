"""The record of an evaluation: what was true, what was predicted, for which pictures."""

import collections
import dataclasses
import functools
import json
import pathlib
import re
import zipfile
from collections.abc import Sequence

import numpy as np
from scipy import special

from vit_jax.errors import UserError
from vit_jax.report.facts import Facts

FILE = 'predictions.npz'
_WORDNET = re.compile(r'^n\d{8}[-_ ]+')


@dataclasses.dataclass(frozen=True, eq=False)
class Predictions:
  """Outputs of a model for the pictures of a split, each once, in the split's order.

  Attributes:
    classes: names by index, k of them.
    labels: true class [n], int32.
    logits: [n, k], float32.
    ids: a name for each picture that stays the same everywhere; `compare` pairs runs by them.
    index: position of each picture in the split [n], int64.
    facts: the circumstances.
    seconds: that the evaluation took, compilation included; 0 where nobody measured.
    img_sec: pictures a second after the first batch, which compiles; None where there was but one.
    skipped: pictures that could not be read.
    boxes_cxcywh: predicted [n, 4], shares of what the model saw; None for a task without boxes.
    true_boxes_cxcywh: [n, 4], NaN where a picture has none.
    multi_hot: [n, k], 1 for each class that a picture shows, where they are any number; then
      `labels` say nothing. None where each picture has one class.
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

  def __post_init__(self):
    n, k = len(self.labels), len(self.classes)
    problems = []
    if self.logits.shape != (n, k):
      problems.append(f'logits {self.logits.shape} for {n} pictures and {k} classes')
    if len(self.ids) != n or len(self.index) != n:
      problems.append(f'{len(self.ids)} ids and {len(self.index)} positions for {n} pictures')
    if not n:
      problems.append('no picture could be evaluated')
    elif self.multi_hot is not None:
      if self.multi_hot.shape != (n, k):
        problems.append(f'sets of classes {self.multi_hot.shape} for {n} pictures, {k} classes')
    elif self.labels.min() < 0 or self.labels.max() >= k:
      count = int(((self.labels < 0) | (self.labels >= k)).sum())
      problems.append(f'{count} of {n} pictures have no label among the {k} classes')
    bad = int((~np.isfinite(self.logits)).any(axis=-1).sum())
    if bad:
      problems.append(f"the model's outputs for {bad} of {n} pictures are not finite numbers")
    if problems:
      raise UserError(problems)

  def __len__(self) -> int:
    return len(self.labels)

  @functools.cached_property
  def probabilities(self) -> np.ndarray:
    """[n, k], float32: of one class among all, or of each class alone for sigmoid losses."""
    if self.facts.link == 'sigmoid':
      return special.expit(self.logits)
    return special.softmax(self.logits, axis=-1)

  @functools.cached_property
  def predicted(self) -> np.ndarray:
    """The likeliest class [n]; the first of equals."""
    return self.logits.argmax(axis=-1).astype(np.int32)

  @functools.cached_property
  def ranks(self) -> np.ndarray:
    """How many classes come before the true one [n], by the rule of `tasks.metrics`."""
    true = np.take_along_axis(self.logits, self.labels[:, None], axis=-1)  # [n, 1]
    earlier = np.arange(len(self.classes))[None, :] < self.labels[:, None]
    return ((self.logits > true) | ((self.logits == true) & earlier)).sum(axis=-1)

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
    """Writes an .npz without pickled objects."""
    arrays = {
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
    np.savez(path, record=np.array(record), **{k: v for k, v in arrays.items() if v is not None})


def load_predictions(path: str | pathlib.Path) -> Predictions:
  """Reads what `Predictions.save` wrote.

  Raises:
    UserError: missing, damaged or another kind of file.
  """
  try:
    with np.load(path, allow_pickle=False) as z:
      arrays = {name: z[name] for name in z.files}
    record = json.loads(str(arrays.pop('record')))
    for name in ('ids', 'classes'):
      arrays[name] = tuple(arrays[name].tolist())
    return Predictions(**arrays, **{**record, 'facts': Facts.from_json(record['facts'])})
  except (OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile) as e:
    reason = getattr(e, 'strerror', None) or ' '.join(str(e).split())
    raise UserError(f'cannot read predictions from {path}: {reason}') from e


def readable(classes: Sequence[str]) -> tuple[str, ...]:
  """Class names without WordNet ids and underscores, where that keeps them apart."""
  short = [_WORDNET.sub('', name).replace('_', ' ').strip() or name for name in classes]
  count = collections.Counter(short)
  return tuple(new if count[new] == 1 else old for new, old in zip(short, classes))
