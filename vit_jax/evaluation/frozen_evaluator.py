"""Frozen features of a run's own splits, scored while it trains."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import flax.linen as nn
import jax
import numpy as np

from vit_jax import data, parallel, processes
from vit_jax.config import Fewshot
from vit_jax.errors import ConfigError, UserError
from vit_jax.evaluation import few_shot, knn
from vit_jax.models.heads import backbone_of


class FrozenEvaluator:
  """Few-shot and k-NN accuracy on validation images.

  Training images go through the evaluation transform. Draws depend on the seed alone, so
  all evaluations of a run, resumed or not, see the same ones.

  Args:
    options: what is evaluated.
    train, val: examples fitted to, and scored.
    num_classes: k.
    transform: of evaluation.
    module: the model; its features are the input of its head.
    preprocess: the value range of the model's input.
    placement: of state and batches.
    batch_size: examples a step, over all devices.
    seed: of the draws.
    loading: further arguments of `data.eval_batches`.

  Raises:
    ConfigError: too few training images for shots or k.
  """

  def __init__(
    self,
    options: Fewshot,
    train: data.Examples,
    val: data.Examples,
    num_classes: int,
    transform: data.Transform,
    module: nn.Module,
    preprocess: data.Preprocess,
    placement: Any,
    batch_size: int,
    seed: int,
    loading: Mapping[str, Any],
  ):
    self._options, self._num_classes = options, num_classes
    self._transform, self._placement, self._loading = transform, placement, loading
    self._batch_size = parallel.round_up(batch_size, placement) // processes.count()
    self._step = placement.compile_eval(_feature_step(module, preprocess))
    labels = train.labels
    self._draws = []
    if options.shots:
      try:
        self._draws = [
          few_shot.draw(labels, num_classes, max(options.shots), (seed, i))
          for i in range(options.draws)
        ]
      except UserError as e:
        raise ConfigError(f'config.fewshot.shots: {e}') from None
    known = np.flatnonzero(labels >= 0)
    if options.neighbours and max(options.neighbours) > len(known):
      raise ConfigError(
        f'config.fewshot.neighbours={max(options.neighbours)}, but there are only '
        f'{len(known)} training images'
      )
    # Neighbours may be any image; few-shot alone needs no more than those drawn.
    self._rows = known if options.neighbours else np.unique(np.concatenate(self._draws))
    self._bank = (train.take(self._rows), labels[self._rows])
    rows = np.flatnonzero(val.labels >= 0)
    self._val = (val.take(rows), val.labels[rows])

  def __call__(self, variables: Any) -> dict[str, float]:
    """Scores placed variables: {'fewshot_5': mean accuracy over draws, 'knn_20': accuracy, ...}."""
    options = self._options
    x, readable = self._features(variables, self._bank[0])
    labels = self._bank[1]
    val_x, val_readable = self._features(variables, self._val[0])
    val = (val_x[val_readable], self._val[1][val_readable])
    drawn = []
    for rows in self._draws:
      places = np.searchsorted(self._rows, rows)
      places = places[readable[places]]
      drawn.append((x[places], labels[places]))
    scores = {}
    for shots in options.shots:
      scores[f'fewshot_{shots}'] = float(
        np.mean(few_shot.accuracies(drawn, val, self._num_classes, shots, options.l2))
      )
    if options.neighbours:
      found = knn.accuracies(
        (x[readable], labels[readable]),
        val,
        self._num_classes,
        options.neighbours,
        options.temperature,
      )
      scores |= {f'knn_{k}': accuracy for k, accuracy in zip(options.neighbours, found)}
    return scores

  def _features(self, variables: Any, examples: data.Examples) -> tuple[np.ndarray, np.ndarray]:
    """Features [n, d] of all examples, in every process, and which could be decoded [n]."""
    batches = data.eval_batches(
      examples, self._transform, batch_size=self._batch_size, **self._loading
    )
    rows, readable = feature_rows(self._step, self._placement, variables, batches, len(examples))
    return rows['image'], readable


def feature_rows(
  step: Callable[[Any, dict], jax.Array],
  placement: parallel.Placement,
  variables: Any,
  batches: Iterable[dict],
  total: int,
) -> tuple[dict[str, np.ndarray], np.ndarray]:
  """Features of a whole split, in every process.

  Args:
    step: compiled by the placement: (variables, {'image'}) -> features [b, d].
    placement, variables: placed.
    batches: of `data.eval_batches`.
    total: number of examples.

  Returns:
    Features as 'image' [n, d] and whatever else the examples hold [n, ...], by name; and which
    could be decoded [n].
  """
  parts: dict[str, list[np.ndarray]] = {}
  for batch in batches:
    images = placement.put_batch({'image': batch['image']})
    outputs = step(variables, images)
    processes.tick()
    for name, values in {**batch, 'image': placement.get_examples(outputs)}.items():
      parts.setdefault(name, []).append(values)
  found = parallel.gather({name: np.concatenate(part) for name, part in parts.items()})
  mask, index = found.pop('mask'), found.pop('index')
  readable = np.zeros(total, bool)
  readable[index[mask]] = True
  rows = {}
  for name, values in found.items():
    rows[name] = np.zeros((total, *values.shape[1:]), values.dtype)
    rows[name][index[mask]] = values[mask]
  return rows, readable


def _feature_step(
  module: nn.Module, preprocess: data.Preprocess
) -> Callable[[dict, dict], jax.Array]:
  """Builds the function (variables, batch) -> pooled features [b, d]."""
  body = backbone_of(module).clone(num_classes=0)

  def step(variables: dict, batch: dict) -> jax.Array:
    features: Any = body.apply(variables, preprocess.normalize(batch['image']), train=False)
    return features

  return step
