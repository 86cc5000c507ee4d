"""Scores a model on splits: validation in the loop, the final test and `vit_jax.evaluate` alike."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import flax.linen as nn
import jax
import numpy as np

from vit_jax import data, processes
from vit_jax.console import phase
from vit_jax.evaluation.scoring import score
from vit_jax.parallel import Placement, round_up
from vit_jax.report import Collector, Timing
from vit_jax.tasks import Task


def make_eval_step(
  module: nn.Module, task: Task, preprocess: data.Preprocess
) -> Callable[[dict, dict], tuple[dict, jax.Array]]:
  """Builds the function (variables, batch) -> (metrics of each example {name: [b]}, outputs)."""

  def eval_step(variables: dict, batch: dict) -> tuple[dict, jax.Array]:
    outputs: Any = module.apply(variables, preprocess.normalize(batch['image']), train=False)
    return task.metrics(outputs, batch), outputs

  return eval_step


class Evaluator:
  """Scores variables on any split with one compiled step, every example once.

  Args:
    module, task, preprocess: what is scored.
    placement: where variables and batches lie.
    transform: of evaluation.
    batch_size: examples a step over all devices; rounded up to what they can share.
    loading: further arguments of `data.eval_batches`, see `loader_options`.
  """

  def __init__(
    self,
    module: nn.Module,
    task: Task,
    preprocess: data.Preprocess,
    placement: Placement,
    transform: data.Transform,
    batch_size: int,
    loading: Mapping[str, Any],
  ):
    self._task, self._placement, self._transform = task, placement, transform
    self._batch_size = round_up(batch_size, placement) // processes.count()
    self._loading = dict(loading)
    self._step = announced(placement.compile_eval(make_eval_step(module, task, preprocess)))

  def __call__(
    self,
    examples: data.Examples,
    variables: Any,
    collector: Collector | None = None,
    wrap: Callable[[Iterable[dict]], Iterable[dict]] = lambda batches: batches,
    cache: data.ImageCache | None = None,
  ) -> dict[str, float]:
    """Metrics of a split.

    Args:
      examples: the split.
      variables: placed.
      collector: receives every batch with the model's outputs.
      wrap: changes the stream of batches: a progress bar, other class indices.
      cache: keeps transformed images for the next call.

    Returns:
      Means by metric, 'examples' that were scored, 'img_sec' (see `report.Timing`), and 'skipped'
      where some could not be read.

    Raises:
      DatasetError: there is no example to score, or one without a label.
    """
    batches = data.eval_batches(
      examples, self._transform, batch_size=self._batch_size, cache=cache, **self._loading
    )
    timing = collector.timing if collector else Timing()
    result = score(
      self._step,
      self._placement,
      variables,
      wrap(batches),
      collector or timing,
      self._task.split_metrics if self._task.has_split_metrics else None,
    )
    result['img_sec'] = timing.rate()
    if skipped := len(examples) - int(result['examples']):  # by all processes
      result['skipped'] = skipped
    return result


def spread(total: int, batch_size: int) -> int:
  """The size of equal batches, as many as at `batch_size`: the last one is hardly padded.

  Args:
    total: number of examples, at least 1.
    batch_size: the largest size.
  """
  batches = -(-total // batch_size)
  return -(-total // batches)


def announced(step: Callable) -> Callable:
  """An evaluation step that says when it is compiled: at its first call."""
  called = False

  def call(variables: Any, batch: dict) -> Any:
    nonlocal called
    if called:
      return step(variables, batch)
    with phase('compiling the evaluation step', told_after=1.0):
      found = jax.block_until_ready(step(variables, batch))
    called = True
    return found

  return call


def loader_options(
  threads: int = 0, on_error: str = 'raise', prefetch_bytes: int | None = None
) -> dict[str, Any]:
  """Arguments of `data.train_batches` and `data.eval_batches` that depend on this process.

  Args:
    threads: that load; 0 takes one per core.
    on_error: policy for images that cannot be decoded.
    prefetch_bytes: most memory of images that are made ahead; None: as `data.Prefetch` has it.
  """
  return {
    'process_index': processes.index(),
    'process_count': processes.count(),
    'threads': threads or None,
    'on_error': on_error,
    'prefetch_bytes': prefetch_bytes,
  }


def relabeled(batch: dict, to_model: np.ndarray, num_classes: int) -> dict:
  """The batch with the model's class indices instead of the dataset's.

  Args:
    batch: with 'label' [b], -1 where there is none, and perhaps 'labels' [b, dataset classes].
    to_model: the model's index of each of the dataset's classes.
    num_classes: of the model.
  """
  batch = {**batch, 'label': np.where(batch['label'] < 0, -1, to_model[batch['label']])}
  if 'labels' in batch:
    labels = np.zeros((len(batch['labels']), num_classes), batch['labels'].dtype)
    labels[:, to_model] = batch['labels']
    batch['labels'] = labels
  return batch
