"""Scores a run's held-out splits: while it trains, and once at its end."""

import logging
import pathlib
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import numpy as np

from vit_jax import data, processes, remote, report
from vit_jax.checkpoint import Run, load_run
from vit_jax.command_line import beside
from vit_jax.config import Config
from vit_jax.console import phase
from vit_jax.errors import UserError
from vit_jax.evaluation.evaluator import Evaluator
from vit_jax.evaluation.frozen_evaluator import FrozenEvaluator
from vit_jax.evaluation.measure import measure
from vit_jax.metric_writer import read_metrics
from vit_jax.models.shapes import title
from vit_jax.training.experiment import loading_of
from vit_jax.training.preparation import Plan

log = logging.getLogger(__name__)


class Validation:
  """Validates and tests a run.

  Attributes:
    best: the checkpoint that was tested; None before.
    tested: its metrics.
    report: the page of the test; None where none was written.

  Args:
    config: the run's options.
    plan: with the held-out splits, where the model lies and what is kept in memory.
    record: called with (step, split, metrics) of every row.
    write_image: called with (step, name, image) of every image for TensorBoard.
    refuse: called with (step, metrics) of a validation before they are written; raises on a NaN.
  """

  def __init__(
    self,
    config: Config,
    plan: Plan,
    record: Callable[[int, str, dict], None],
    write_image: Callable[[int, str, np.ndarray], None],
    refuse: Callable[[int, dict], None],
  ):
    experiment, placement = plan.experiment, plan.placement
    self._config, self._experiment, self._placement = config, experiment, placement
    self._record, self._write_image, self._refuse = record, write_image, refuse
    self.best: Run | None = None
    self.report: pathlib.Path | None = None
    self.tested: dict[str, float] = {}
    loading = loading_of(config)
    batch_size = config.evaluation.batch_size or config.batch_size
    self._caching = caching = plan.caching

    def evaluator(module: nn.Module, preprocess: data.Preprocess) -> Evaluator:
      transform = experiment.eval_transform
      return Evaluator(
        module, experiment.task, preprocess, placement, transform, batch_size, loading
      )

    self._evaluate = evaluator(experiment.module, experiment.preprocess)
    self._evaluate_kept = self._evaluate  # the examples that are kept in memory
    if caching.of_features:
      self._evaluate_kept = evaluator(caching.module, caching.preprocess)
    self._frozen = None
    if config.fewshot.every:
      self._frozen = FrozenEvaluator(
        config.fewshot,
        experiment.train,
        experiment.held_out['val'],
        len(experiment.dataset.classes),
        experiment.eval_transform,
        experiment.module,
        experiment.preprocess,
        placement,
        batch_size=batch_size,
        seed=config.seed,
        loading=loading,
      )

  def validate(self, step: int, state: Any) -> dict[str, float]:
    """Metrics of the validation split, empty where there is none."""
    if 'val' not in self._experiment.held_out:
      return {}
    collector = self._collector('val')
    val, cache = self._experiment.held_out['val'], self._caching.cache
    with phase('validating', told_after=None):
      metrics = self._evaluate_kept(val, state.averaged, collector, cache=cache)
    self._refuse(step, {f'validation {k}': v for k, v in metrics.items()})
    self._record(step, 'val', metrics)
    if state.ema is not None:
      with phase('validating without EMA', told_after=None):
        raw = self._evaluate_kept(val, state.variables, cache=cache)
      self._record(step, 'val_raw', raw)
    with phase('drawing figures for TensorBoard', told_after=None):
      self._write_images(step, collector)
    return metrics

  def score_features(self, step: int, state: Any) -> dict[str, float]:
    """Metrics of frozen features, where they are wanted."""
    if not self._frozen:
      return {}
    with phase('scoring frozen features', told_after=None):
      metrics = self._frozen(state.averaged)
    self._record(step, 'val', metrics)
    return metrics

  def final_test(self, path: pathlib.Path) -> dict[str, float]:
    """Scores the test split with the best checkpoint and reports it; empty where there is none."""
    if 'test' not in self._experiment.held_out:
      return {}
    self.best = best = processes.chosen(
      lambda: load_run(str(path), 'best'),
      lambda run: run.step,
      lambda step: load_run(str(path), str(step)),
    )
    collector = self._collector('test')
    with phase('testing the best checkpoint'):
      self.tested = self._evaluate(
        self._experiment.held_out['test'], self._placement.put_state(best.variables), collector
      )
    self._record(best.step, 'test', self.tested)
    with phase('writing the report'):
      self._write_report(path, best, collector)
    return self.tested

  def _collector(self, role: str) -> report.Collector:
    experiment = self._experiment
    return report.Collector(
      experiment.held_out[role],
      experiment.dataset.classes,
      label_sets=experiment.task.labels_per_image == 'several',
    )

  def _write_report(self, path: pathlib.Path, best: Run, collector: report.Collector) -> None:
    experiment = self._experiment
    predictions = collector.predictions(
      report.Facts(
        name=path.name,
        model=title(experiment.model_record),
        dataset=experiment.dataset.name,
        split=self._config.dataset.test,
        step=best.step,
        image_size=experiment.image_hw,
        config=best.config,
        activation=experiment.task.activation,
        **measure(best.variables, best.config),
      )
    )
    if processes.index():
      return
    load_image = report.image_loader(experiment.held_out['test'], experiment.eval_transform)
    try:
      layout = experiment.task.report_layout()
      report.write_report(path / 'report', predictions, layout, read_metrics(path), load_image)
      self.report = path / 'report' / 'report.html'
    except UserError as e:  # a run does not fail for want of figures
      where = f'--report={remote.output_beside(path, "report")}'
      log.warning('no report: %s; then %s', e, beside('evaluate', remote.address(path), where))

  def _write_images(self, step: int, collector: report.Collector) -> None:
    """The live figures of the task's report, for TensorBoard."""
    experiment = self._experiment
    if not (self._config.log.tensorboard and report.can_draw()):
      return
    layout = experiment.task.report_layout()
    if not layout.live_figures:
      return
    predictions = collector.predictions()
    if processes.index() == 0:
      load_image = report.image_loader(experiment.held_out['val'], experiment.eval_transform)
      with processes.busy():
        for name, image in report.live_images(predictions, layout, load_image).items():
          self._write_image(step, f'val/{name}', image)
