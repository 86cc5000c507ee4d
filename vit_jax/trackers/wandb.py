"""Weights & Biases, online or with WANDB_MODE=offline; its files lie in the run's folder."""

import logging
import pathlib
import uuid
from collections.abc import Mapping
from typing import Any

from vit_jax.errors import ConfigError
from vit_jax.trackers.base import TRACKERS, Ending, TrackedRun, Tracker

log = logging.getLogger(__name__)


@TRACKERS.register('wandb')
class WeightsAndBiases(Tracker):
  """The x axis of every metric is 'step'; W&B's own step would refuse a test of an earlier one."""

  package = 'wandb'
  lag_seconds = 30.0
  project_variable = 'WANDB_PROJECT'

  def start(self, run: TrackedRun) -> str:
    import wandb

    online = wandb.setup().settings.mode not in ('offline', 'dryrun', 'disabled')
    # Without a key, `init` would wait at a terminal for somebody to type one.
    if online and not wandb.login(prompt=False):
      raise ConfigError('not logged in: run `wandb login`, or set WANDB_MODE=offline')
    self._run: Any = wandb.init(
      project=run.project,
      name=run.name,
      dir=str(run.folder),
      config=dict(run.config),
      id=run.id or uuid.uuid4().hex[:8],
      resume='allow',
      settings=wandb.Settings(silent=True, console='off'),
    )
    self._run.define_metric('*', step_metric='step')
    where = self._run.dir if self._run.offline else self._run.url
    log.info('tracker wandb: %s', where)
    return self._run.id

  def log(self, metrics: Mapping[str, float], step: int) -> None:
    self._run.log({**metrics, 'step': step})

  def finish(self, ending: Ending, report: pathlib.Path | None) -> None:
    if report:
      import wandb

      self._run.log({'report': wandb.Html(report.read_text('utf-8'), inject=False)})
    self._run.finish(exit_code=0 if ending == 'finished' else 1)
