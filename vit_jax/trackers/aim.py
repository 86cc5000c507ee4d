"""Aim: a repository in the current folder, or the one or the server that AIM_REPO names."""

import json
import logging
import os
import pathlib
from collections.abc import Mapping
from typing import Any

from vit_jax.trackers.base import TRACKERS, Ending, TrackedRun, Tracker

log = logging.getLogger(__name__)


@TRACKERS.register('aim')
class Aim(Tracker):
  """The split of a metric is Aim's context 'subset'; a project is an experiment."""

  package = 'aim'

  def start(self, run: TrackedRun) -> str:
    import aim

    repo = os.environ.get('AIM_REPO') or None
    options = {'experiment': run.project, 'capture_terminal_logs': False}
    self._run: Any = aim.Run(run.id or None, repo=repo, **options)
    self._run.name = run.name
    self._run['config'] = json.loads(json.dumps(run.config))
    log.info('tracker aim: run %s in %s', self._run.hash, repo or pathlib.Path.cwd())
    return self._run.hash

  def log(self, metrics: Mapping[str, float], step: int) -> None:
    for key, value in metrics.items():
      split, _, name = key.partition('/')
      self._run.track(value, name, step, context={'subset': split})

  def finish(self, ending: Ending, report: pathlib.Path | None) -> None:
    self._run['ending'] = ending
    if report:
      self._run['report'] = str(report.resolve())
    self._run.close()
