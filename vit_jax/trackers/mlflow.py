"""MLflow: a server, a database or files, whatever MLFLOW_TRACKING_URI names."""

import json
import logging
import pathlib
import time
from collections.abc import Iterator, Mapping
from typing import Any

from vit_jax.trackers.base import TRACKERS, Ending, TrackedRun, Tracker

log = logging.getLogger(__name__)

_STATUS = {'finished': 'FINISHED', 'interrupted': 'KILLED', 'failed': 'FAILED'}
_PARAMS_AT_ONCE, _LONGEST_PARAM = 100, 500  # limits of its servers


@TRACKERS.register('mlflow')
class MLflow(Tracker):
  """Options are parameters by their dotted names; a project is an experiment."""

  package = 'mlflow'
  project_variable = 'MLFLOW_EXPERIMENT_NAME'

  def start(self, run: TrackedRun) -> str:
    import mlflow

    # They report how tables are made and each of many attempts to reach a server.
    for name, level in (('mlflow', logging.WARNING), ('urllib3', logging.ERROR)):
      logging.getLogger(name).setLevel(level)
    self._client: Any = mlflow.MlflowClient()
    self._id = run.id
    if self._id:
      self._client.update_run(self._id, status='RUNNING')
    else:
      self._id = self._create(run)
    log.info('tracker mlflow: run %s in %s', self._id, mlflow.get_tracking_uri())
    return self._id

  def _create(self, run: TrackedRun) -> str:
    from mlflow.entities import Param

    found = self._client.get_experiment_by_name(run.project)
    experiment = found.experiment_id if found else self._client.create_experiment(run.project)
    created = self._client.create_run(experiment, run_name=run.name).info.run_id
    params = [Param(name, text[:_LONGEST_PARAM]) for name, text in _flat(run.config)]
    for start in range(0, len(params), _PARAMS_AT_ONCE):
      self._client.log_batch(created, params=params[start : start + _PARAMS_AT_ONCE])
    return created

  def log(self, metrics: Mapping[str, float], step: int) -> None:
    from mlflow.entities import Metric

    now = int(time.time() * 1000)
    self._client.log_batch(self._id, [Metric(k, v, now, step) for k, v in metrics.items()])

  def finish(self, ending: Ending, report: pathlib.Path | None) -> None:
    if report:
      self._client.log_artifact(self._id, str(report))
    self._client.set_terminated(self._id, _STATUS[ending])


def _flat(options: Mapping[str, Any], prefix: str = '') -> Iterator[tuple[str, str]]:
  for name, value in options.items():
    if isinstance(value, Mapping):
      yield from _flat(value, f'{prefix}{name}.')
    else:
      yield prefix + name, value if isinstance(value, str) else json.dumps(value)
