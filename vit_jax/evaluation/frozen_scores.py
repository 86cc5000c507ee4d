"""What `python -m vit_jax.probe --method=fewshot` and `--method=knn` measure."""

import argparse
from typing import Any

import numpy as np

from vit_jax.errors import UserError
from vit_jax.evaluation import few_shot as few_shot_lib
from vit_jax.evaluation import knn
from vit_jax.evaluation.feature_cache import FeatureCache


def few_shot(
  args: argparse.Namespace, cache: FeatureCache, train: Any, test: Any, classes: int
) -> dict:
  """Least squares from a few pictures of each class; only the features of those are computed."""
  labels = train.labels
  rows = [
    few_shot_lib.draw(labels, classes, max(args.shots), (args.seed, i)) for i in range(args.draws)
  ]
  drawn = [cache.features(train.take(r), args.train, args.on_error) for r in rows]
  tested = cache.features(test, 'test', args.on_error)
  cache.save()
  scores = {}
  for shots in args.shots:
    found = few_shot_lib.accuracies(
      [(d.x, d.labels) for d in drawn], (tested.x, tested.labels), classes, shots, args.l2
    )
    scores[f'fewshot_{shots}'] = {'accuracy': float(np.mean(found)), 'std': float(np.std(found))}
  trained_on = len(set(np.concatenate(rows).tolist()))
  return _result(scores, trained_on, tested, drawn)


def neighbours(
  args: argparse.Namespace, cache: FeatureCache, train: Any, test: Any, classes: int
) -> dict:
  """A vote of the nearest of all training pictures."""
  known = cache.features(train, args.train, args.on_error)
  tested = cache.features(test, 'test', args.on_error)
  cache.save()
  if max(args.neighbours) > len(known.labels):
    raise UserError(
      f'--neighbours={max(args.neighbours)}, but there are only {len(known.labels)} '
      'training pictures'
    )
  found = knn.vote_accuracies(
    (known.x, known.labels), (tested.x, tested.labels), classes, args.neighbours, args.temperature
  )
  scores = {f'knn_{k}': {'accuracy': accuracy} for k, accuracy in zip(args.neighbours, found)}
  return _result(scores, len(known.labels), tested, [known])


def _result(scores: dict, trained_on: int, tested: Any, others: list) -> dict:
  return {
    'scores': scores,
    'trained_on': trained_on,
    'examples': len(tested.labels),
    'computed': sum(split.computed for split in [tested, *others]),
    'skipped': sum(split.skipped for split in [tested, *others]),
  }
