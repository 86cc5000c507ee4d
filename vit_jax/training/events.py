"""What a run tells of itself, whatever shows it: see `display`."""

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any


@dataclasses.dataclass(frozen=True)
class PlanEvent:
  """What a run is about to do.

  Attributes:
    rows: the outline, by topic: about ten.
    notes: what somebody should know before it starts.
    details: the text of plan.txt.
    facts: numbers and names, as JSON values.
  """

  rows: Mapping[str, str]
  notes: Sequence[str]
  details: str
  facts: Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class Course:
  """The steps of this attempt, and which metrics to expect.

  Attributes:
    total: steps of the whole run.
    start: steps made before this attempt.
    batch_size: examples a step.
    examples: of an epoch.
    validates: whether there is a validation split.
    metrics: names of a validation's metrics, in order.
    best: the metric by which checkpoints are compared.
    best_mode: 'max' or 'min'.
    before: rows of metrics.jsonl that earlier attempts wrote.
    seconds_before: of training in earlier attempts.
  """

  total: int
  start: int
  batch_size: int
  examples: int
  validates: bool
  metrics: Sequence[str]
  best: str
  best_mode: str
  before: Sequence[Mapping[str, Any]] = ()
  seconds_before: float = 0.0

  def epoch(self, step: int) -> float:
    """Epochs that have passed at a step."""
    return step * self.batch_size / self.examples


@dataclasses.dataclass(frozen=True)
class Scored:
  """A metric of a split.

  Attributes:
    split: that was scored.
    metric: its name.
    value: the mean over the split.
    interval: 95 % confidence interval, where the report has one.
    examples: how many were scored.
    percent: whether it is a share.
  """

  split: str
  metric: str
  value: float
  interval: tuple[float, float] | None = None
  examples: int | None = None
  percent: bool = False


@dataclasses.dataclass(frozen=True)
class SummaryEvent:
  """How a run ended.

  Attributes:
    workdir: the run's folder, or its URL.
    steps: updates in all.
    seconds: of training, over all attempts.
    best_step: of the checkpoint that is used; None where nothing was validated.
    best_epoch: the same in epochs.
    scores: of that checkpoint, the test first.
    report: the page, None where none was written.
    commands: to type next.
    warnings: of the run.
  """

  workdir: str
  steps: int
  seconds: float
  best_step: int | None
  best_epoch: float | None
  scores: Sequence[Scored]
  report: pathlib.Path | None
  commands: Sequence[str]
  warnings: Sequence[str]


@dataclasses.dataclass(frozen=True)
class EstimateEvent:
  """What a dry run measured and computed.

  Attributes:
    rows: by topic, as text.
    facts: the numbers.
    page: with augmented images.
  """

  rows: Mapping[str, str]
  facts: Mapping[str, Any]
  page: pathlib.Path
