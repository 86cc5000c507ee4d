"""Trackio: local, or what TRACKIO_SPACE_ID or TRACKIO_SERVER_URL names."""

import contextlib
import io
import logging
import pathlib
import uuid
from collections.abc import Mapping
from typing import Any

from vit_jax import machine
from vit_jax.trackers.base import TRACKERS, Ending, TrackedRun, Tracker

log = logging.getLogger(__name__)


@TRACKERS.register('trackio')
class Trackio(Tracker):
  """Trackio finds a run again by its name, which therefore holds the id."""

  package = 'trackio'
  lag_seconds = 2.0

  def start(self, run: TrackedRun) -> str:
    import trackio

    name = run.id or f'{run.name}-{uuid.uuid4().hex[:6]}'
    with contextlib.redirect_stdout(io.StringIO()):  # it prints how to open its pages
      self._run: Any = trackio.init(
        project=run.project, name=name, config=dict(run.config), resume='allow'
      )
    command = machine.shell_line(['trackio', 'show', '--project', run.project])
    log.info('tracker trackio: run %s; to see it: %s', name, command)
    return name

  def log(self, metrics: Mapping[str, float], step: int) -> None:
    self._run.log(dict(metrics), step)

  def finish(self, ending: Ending, report: pathlib.Path | None) -> None:
    if report:
      import trackio

      self._run.log({'report': trackio.Html(report.read_text('utf-8'))})
    with contextlib.redirect_stdout(io.StringIO()):
      self._run.finish()
