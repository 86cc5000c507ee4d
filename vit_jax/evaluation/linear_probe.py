"""Multinomial logistic regression on features, and its place in the model as a head."""

import dataclasses
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from vit_jax.errors import DatasetError
from vit_jax.evaluation.linear import Linear
from vit_jax.logits import accuracy, rank_of_label

# Inverse strengths of the penalty that are tried: a factor of about three between neighbours.
PENALTIES = tuple(float(c) for c in np.logspace(-4, 1, 11))
_FOLDS = 5
_MAX_STEPS = 2000


@dataclasses.dataclass(frozen=True)
class Head(Linear):
  """A linear classifier whose scores are logits.

  Attributes:
    c: inverse strength of its L2 penalty.
  """

  c: float


def fit_head(
  x: np.ndarray,
  labels: np.ndarray,
  num_classes: int,
  c: float | None = None,
  val: tuple[np.ndarray, np.ndarray] | None = None,
  seed: int = 0,
) -> Head:
  """Fits multinomial logistic regression to standardised features.

  Args:
    x: [n, d].
    labels: [n].
    num_classes: k; each must be among the labels.
    c: inverse strength of the L2 penalty; None to choose it among PENALTIES.
    val: (features, labels) on which it is chosen; None for 5-fold cross-validation.
    seed: of the folds.

  Returns:
    The head, with the standardisation folded in: it takes features as they are.

  Raises:
    DatasetError: fewer than two classes, or too few images to choose `c`.
  """
  counts = np.bincount(labels, minlength=num_classes)
  if num_classes < 2:
    raise DatasetError('a probe needs at least two classes')
  if not counts.all():
    raise DatasetError(
      f'{int((counts == 0).sum())} of {num_classes} classes have no image to train on, the first '
      f'of them number {int(np.argmin(counts))}: leave them out with --classes'
    )
  if c is None:
    c = _best_penalty(_trials(x, labels, int(counts.min()), val, seed), num_classes)
  return next(_path(x, labels, num_classes, (c,)))


def _trials(x, labels, fewest: int, val, seed: int) -> list[tuple]:
  """What is trained on and scored to choose the penalty: (x, labels, x, labels) of each trial."""
  if val is not None:
    return [(x, labels, *val)]
  if fewest < 2:
    raise DatasetError(
      'a class with one image leaves nothing to choose the penalty on: name a --val split or --c'
    )
  from sklearn.model_selection import StratifiedKFold

  folds = StratifiedKFold(min(_FOLDS, fewest), shuffle=True, random_state=seed)
  return [(x[a], labels[a], x[b], labels[b]) for a, b in folds.split(x, labels)]


def _best_penalty(trials: Sequence[tuple], num_classes: int) -> float:
  """The penalty with the best held-out accuracy; the loss decides between equals."""
  correct = np.zeros(len(PENALTIES))
  loss = np.zeros(len(PENALTIES))
  for x, labels, x_val, labels_val in trials:
    for i, head in enumerate(_path(x, labels, num_classes, PENALTIES)):
      logits = head(x_val)
      correct[i] += (rank_of_label(logits, labels_val) < 1).sum()
      loss[i] -= _log_softmax(logits)[np.arange(len(logits)), labels_val].sum()
  return PENALTIES[np.lexsort((loss, -correct))[0]]


def _path(x: np.ndarray, labels: np.ndarray, k: int, penalties: Sequence[float]) -> Iterator[Head]:
  """Heads for growing `c`, each started from the one before."""
  from sklearn.linear_model import LogisticRegression
  from sklearn.preprocessing import StandardScaler

  scaler = StandardScaler().fit(x.astype(np.float64))
  standardised = scaler.transform(x.astype(np.float64))
  model = LogisticRegression(max_iter=_MAX_STEPS, warm_start=True)
  for c in penalties:
    model.set_params(C=c)
    with warnings.catch_warnings():  # a fit that has not quite converged is scored as it is
      warnings.filterwarnings('ignore', 'lbfgs failed to converge')
      model.fit(standardised, labels)
    kernel, bias = model.coef_.T, model.intercept_  # [d, k], [k]
    if k == 2:  # scikit-learn keeps the difference of the two logits
      kernel, bias = np.concatenate([-kernel, kernel], 1) / 2, np.concatenate([-bias, bias]) / 2
    kernel = kernel / scaler.scale_[:, None]
    yield Head(kernel, bias - scaler.mean_ @ kernel, float(c))


def _log_softmax(logits: np.ndarray) -> np.ndarray:
  logits = logits - logits.max(axis=1, keepdims=True)
  return logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))


def score(head: Head, x: np.ndarray, labels: np.ndarray) -> dict[str, float]:
  """Accuracy, of more than three classes 'top3', and loss of a head on features [n, d]."""
  logits = head(x)
  loss = -_log_softmax(logits)[np.arange(len(logits)), labels]
  return {
    'accuracy': accuracy(logits, labels),
    **({'top3': accuracy(logits, labels, 3)} if len(head.bias) > 3 else {}),
    'loss': float(loss.mean()),
    'examples': len(labels),
  }


def with_head(loaded: Any, head: Head) -> tuple[Any, dict[str, Any]]:
  """The module and variables of a loaded model whose classifier is a probe's.

  Both heads of a distilled model become it: their mean is what the probe computed.
  """
  from vit_jax import tree
  from vit_jax.models.heads import backbone_of  # needs JAX
  from vit_jax.models.shapes import variable_specs

  module = backbone_of(loaded.module).clone(num_classes=len(head.bias))
  specs = variable_specs(module, loaded.preprocess.image_size)
  flat = tree.flatten(loaded.variables)
  parts = {'kernel': head.kernel.astype(np.float32), 'bias': head.bias.astype(np.float32)}
  new = {
    name: parts[name.rsplit('/', 1)[-1]] if name.startswith('params/head') else flat[name]
    for name in specs
  }
  return module, tree.unflatten(new)
