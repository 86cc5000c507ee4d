"""What a tracker is."""

import abc
import dataclasses
import pathlib
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from vit_jax.registry import Registry

Ending = Literal['finished', 'interrupted', 'failed']


@dataclasses.dataclass(frozen=True)
class TrackedRun:
  """What a tracker is told of a run when it starts or resumes.

  Attributes:
    name: of the run: that of its folder.
    project: what the run is shown among.
    folder: the run's.
    config: all options, nested, of JSON's types.
    id: what `Tracker.start` returned in an earlier attempt; '' in the first.
  """

  name: str
  project: str
  folder: pathlib.Path
  config: Mapping[str, Any]
  id: str = ''


class Tracker(abc.ABC):
  """One run in one tracker. All methods are called in one thread of their own, in this order.

  Whatever a method raises ends tracking with a warning and never the run. A row comes once, unless
  the process is killed within `lag_seconds` of it. The package is imported in `start`.

  Attributes:
    package: what has to be installed, by the name that pip and Python know; '' for nothing.
    project_variable: of the environment, which names the project where the config does not.
    lag_seconds: after which a row that `log` took survives a kill; younger ones are sent again.
  """

  package: ClassVar[str] = ''
  project_variable: ClassVar[str] = ''
  lag_seconds: ClassVar[float] = 0.0

  @abc.abstractmethod
  def start(self, run: TrackedRun) -> str:
    """Begins a run, or resumes the one of `run.id`; returns its id, which is kept."""

  @abc.abstractmethod
  def log(self, metrics: Mapping[str, float], step: int) -> None:
    """Takes finite metrics, such as {'val/accuracy': 0.5}; of a test, the step may be an earlier
    one."""

  @abc.abstractmethod
  def finish(self, ending: Ending, report: pathlib.Path | None) -> None:
    """Ends an attempt when all rows have arrived.

    Args:
      ending: how the attempt ended; after any the run may be resumed.
      report: the run's page, where there is one.
    """


TRACKERS: Registry[type[Tracker]] = Registry('tracker', 'vit_jax.trackers')
