"""Scores a run's held-out pictures: while it trains, and once at its end."""

import pathlib
from collections.abc import Callable
from typing import Any

import jax

from vit_jax import report
from vit_jax.checkpoint import Run, load_run
from vit_jax.config import Config
from vit_jax.console import Progress, format_metrics
from vit_jax.errors import UserError
from vit_jax.evaluation.evaluator import Evaluator, loader_options
from vit_jax.evaluation.frozen_evaluator import FrozenEvaluator
from vit_jax.evaluation.measure import measure
from vit_jax.metric_writer import MetricWriter, read_metrics
from vit_jax.training.experiment import Prepared


class Examiner:
  """Validates and tests a run.

  Args:
    run: with the held-out pictures.
    placement: where the model lies.
    writer: is given every row of metrics.
    progress: is told them.
    refuse: called with (step, metrics) of a validation before they are written; raises on a NaN.
  """

  def __init__(
    self,
    run: Prepared,
    placement: Any,
    writer: MetricWriter,
    progress: Progress,
    refuse: Callable[[int, dict], None],
  ):
    self._run, self._placement, self._refuse = run, placement, refuse
    self._writer, self._progress = writer, progress
    config = run.config
    self._evaluator = Evaluator(
      run.module,
      run.task,
      run.preprocess,
      placement,
      run.eval_transform,
      config.evaluation.batch_size or config.batch_size,
      loading(config),
    )
    self._frozen = _frozen_evaluator(run, placement)

  def validate(self, step: int, state: Any) -> dict[str, float]:
    """Metrics of the validation split, empty where there is none."""
    if 'val' not in self._run.held_out:
      return {}
    collector = self._collector('val')
    metrics = self._evaluate('val', state.averaged, collector)
    self._refuse(step, {f'validation {k}': v for k, v in metrics.items()})
    self._writer.write(step, 'val', metrics)
    if state.ema is not None:
      raw = self._evaluate('val', state.variables)
      self._writer.write(step, 'val_raw', raw)
      self._progress.say(f'step {step}  val_raw {format_metrics(raw)}  (weights not averaged)')
    self._live_pictures(step, collector)
    self._progress.say(f'step {step}  val {format_metrics(metrics)}')
    return metrics

  def score_features(self, step: int, state: Any) -> dict[str, float]:
    """Metrics of frozen features."""
    if not self._frozen:
      return {}
    metrics = self._frozen(state.averaged)
    self._writer.write(step, 'val', metrics)
    self._progress.say(f'step {step}  val {format_metrics(metrics)}')
    return metrics

  def final_test(self, path: pathlib.Path) -> dict[str, float]:
    """Scores the test split with the best checkpoint and reports it; empty where there is none."""
    if 'test' not in self._run.held_out:
      return {}
    best = load_run(path, 'best')
    collector = self._collector('test')
    metrics = self._evaluate('test', self._placement.put_state(best.variables), collector)
    self._writer.write(best.step, 'test', metrics)
    self._progress.say(f'test {format_metrics(metrics)}  (checkpoint of step {best.step})')
    self._write_report(path, best, collector)
    return metrics

  def _collector(self, role: str) -> report.Collector:
    run = self._run
    return report.Collector(run.held_out[role], run.dataset.classes, several=bool(run.task.summary))

  def _evaluate(
    self, role: str, variables: Any, collector: report.Collector | None = None
  ) -> dict[str, float]:
    return self._evaluator(self._run.held_out[role], variables, collector)

  def _write_report(self, path: pathlib.Path, best: Run, collector: report.Collector) -> None:
    run = self._run
    predictions = collector.predictions(
      report.Facts(
        name=path.name,
        model=run.config.model['name'],
        dataset=run.dataset.name,
        split=run.config.dataset.test,
        step=best.step,
        image_size=run.image_hw,
        config=best.config,
        link=run.task.loss,
        **measure(best.variables, best.config),
      )
    )
    if jax.process_index():
      return
    load_picture = report.picture_loader(run.held_out['test'], run.eval_transform)
    try:
      report.write_report(path / 'report', predictions, read_metrics(path), load_picture)
      self._progress.say(f'report: {path / "report" / "report.html"}')
    except UserError as e:  # a run does not fail for want of figures
      self._progress.say(f'note: {e}')

  def _live_pictures(self, step: int, collector: report.Collector) -> None:
    """Confusions and sample pictures for TensorBoard."""
    if not (self._run.config.log.tensorboard and report.can_draw()):
      return
    if self._run.task.summary:
      return  # classes of any number are not confused one for another
    predictions = collector.predictions()
    if jax.process_index() == 0:
      load_picture = report.picture_loader(self._run.held_out['val'], self._run.eval_transform)
      for name, image in report.live_images(predictions, load_picture).items():
        self._writer.write_image(step, f'val/{name}', image)


def loading(config: Config) -> dict[str, Any]:
  """How images are loaded, as `data.train_batches` and `data.eval_batches` take it."""
  return loader_options(config.input.threads, config.dataset.on_error)


def _frozen_evaluator(run: Prepared, placement: Any) -> FrozenEvaluator | None:
  config = run.config
  if not config.fewshot.every:
    return None
  if 'val' not in run.held_out:
    raise UserError(
      'config.fewshot.every scores features on validation pictures: set '
      "config.dataset.val='train[90%:]', say"
    )
  return FrozenEvaluator(
    config.fewshot,
    run.train,
    run.held_out['val'],
    len(run.dataset.classes),
    run.eval_transform,
    run.module,
    run.preprocess,
    placement,
    batch_size=config.evaluation.batch_size or config.batch_size,
    seed=config.seed,
    reading=loading(config),
  )
