"""What frozen features are worth: by a linear probe, by few-shot least squares, by k-NN."""

import dataclasses
import statistics
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from vit_jax.data import Dataset, Examples
from vit_jax.errors import ConfigError, DatasetError
from vit_jax.evaluation import few_shot, knn, linear_probe
from vit_jax.evaluation.feature_cache import FeatureCache, Features


@dataclasses.dataclass(frozen=True)
class Result:
  """Scores of frozen features.

  Attributes:
    scores: by name: {'accuracy': ..., ...}.
    trained_on: examples that were used for fitting.
    examples: that were scored.
    computed: features that no cache held.
    skipped: images that cannot be decoded.
  """

  scores: dict[str, dict[str, float]]
  trained_on: int
  examples: int
  computed: int
  skipped: int


def choose_splits(val: str | None, test: str | None, dataset: Dataset) -> tuple[str, str]:
  """The splits to choose the penalty on ('' for cross-validation) and to score.

  Args:
    val, test: as the user named them; None for the dataset's own.
    dataset: with splits.

  Raises:
    ConfigError: there is nothing to score on.
  """
  test = test or next((name for name in ('test', 'val') if dataset.has_split(name)), '')
  if not test:
    raise ConfigError(
      f'{dataset.name} has neither a test nor a val split: use '
      "--train='train[:80%]' --test='train[80%:]', or --resplit"
    )
  if val is None:
    val = 'val' if dataset.has_split('val') and test != 'val' else ''
  return val, test


def few_shot_scores(
  cache: FeatureCache,
  train: Examples,
  test: Examples,
  num_classes: int,
  *,
  shots: Sequence[int],
  draws: int,
  penalties: Sequence[float],
  seed: int,
  on_error: str,
) -> Result:
  """Least squares on a few images of each class; only the features of those are computed.

  Args:
    cache: of the model's features.
    train, test: examples.
    num_classes: k.
    shots: images of each class.
    draws: how often they are drawn at random.
    penalties: L2; of several, the best by leave-one-out.
    seed: of the draws.
    on_error: policy for images that cannot be decoded.
  """
  labels = train.labels
  rows = [few_shot.draw(labels, num_classes, max(shots), (seed, i)) for i in range(draws)]
  drawn = [cache.features(train.take(r), 'train', on_error) for r in rows]
  tested = cache.features(test, 'test', on_error)
  cache.save()
  scores = {}
  for count in shots:
    found = few_shot.accuracies(
      [(d.x, d.labels) for d in drawn], (tested.x, tested.labels), num_classes, count, penalties
    )
    scores[f'fewshot_{count}'] = {'accuracy': float(np.mean(found))}
    if draws > 1:  # of one draw no spread is known
      scores[f'fewshot_{count}']['std'] = statistics.stdev(found)
  return _result(scores, len(set(np.concatenate(rows).tolist())), tested, drawn)


def knn_scores(
  cache: FeatureCache,
  train: Examples,
  test: Examples,
  num_classes: int,
  *,
  neighbours: Sequence[int],
  temperature: float,
  on_error: str,
) -> Result:
  """k nearest neighbours among all training images.

  Args:
    cache: of the model's features.
    train, test: examples.
    num_classes: number of classes.
    neighbours: values of k.
    temperature: a neighbour weighs exp(cosine similarity / temperature).
    on_error: policy for images that cannot be decoded.

  Raises:
    ConfigError: k is larger than the training set.
  """
  known = cache.features(train, 'train', on_error)
  tested = cache.features(test, 'test', on_error)
  cache.save()
  if max(neighbours) > len(known.labels):
    raise ConfigError(
      f'--neighbours={max(neighbours)}, but there are only {len(known.labels)} training images'
    )
  found = knn.accuracies(
    (known.x, known.labels), (tested.x, tested.labels), num_classes, neighbours, temperature
  )
  scores = {f'knn_{k}': {'accuracy': accuracy} for k, accuracy in zip(neighbours, found)}
  return _result(scores, len(known.labels), tested, [known])


def linear_probe_scores(
  cache: FeatureCache,
  splits: Mapping[str, Examples],
  train: str,
  val: str,
  test: str,
  num_classes: int,
  *,
  c: float | None,
  seed: int,
  on_error: str,
) -> tuple[linear_probe.Head, Result, dict[str, Any]]:
  """Multinomial logistic regression on all training images.

  Args:
    cache: of the model's features.
    splits: examples by split string.
    train, val, test: which of them to fit, to choose the penalty ('' for cross-validation) and to
      score.
    num_classes: k.
    c: inverse strength of the L2 penalty; None to choose it.
    seed: of the folds.
    on_error: policy for images that cannot be decoded.

  Returns:
    The head, its scores, and what else is worth saying: 'train_accuracy', 'c' and seconds.
  """
  began = time.monotonic()
  features = {name: cache.features(e, name, on_error) for name, e in splits.items()}
  cache.save()
  computed = time.monotonic()
  known, tested = features[train], features[test]
  chosen_on = (features[val].x, features[val].labels) if val else None
  head = linear_probe.fit_head(known.x, known.labels, num_classes, c, chosen_on, seed)
  scores = linear_probe.score(head, tested.x, tested.labels)
  more = {
    'train_accuracy': linear_probe.score(head, known.x, known.labels)['accuracy'],
    'c': head.c,
    'features_seconds': round(computed - began, 2),
    'fit_seconds': round(time.monotonic() - computed, 2),
  }
  others = [f for name, f in features.items() if name != test]
  return head, _result({'linear': scores}, len(known.labels), tested, others), more


def _result(
  scores: dict[str, dict[str, float]], trained_on: int, tested: Features, others: Sequence[Features]
) -> Result:
  if not len(tested.labels):
    raise DatasetError('there is no image to score')
  every = [tested, *others]
  return Result(
    scores,
    trained_on,
    len(tested.labels),
    sum(split.computed for split in every),
    sum(split.skipped for split in every),
  )
