"""Who shows what a run tells: a person at a terminal or reading a file, a script, or nobody.

The loop gives its events (see `events`) to one `Display`. What library code logs and what takes a
while comes through the run's `Console`, which the display is made with.
"""

import json
import math
import pathlib
import sys
import textwrap
import time
from collections.abc import Mapping
from typing import Any

from vit_jax import processes
from vit_jax.checkpoint import best_step
from vit_jax.console import Console, columns, format_seconds, is_terminal
from vit_jax.errors import counted, one_line
from vit_jax.report.text import interval, percent
from vit_jax.tasks import metric_text, metrics_text
from vit_jax.training.events import Course, EstimateEvent, PlanEvent, Scored, SummaryEvent
from vit_jax.training.table import Table, rate_text

OUTPUTS = ('text', 'quiet', 'json')

_REDRAWN_EVERY = 0.2  # seconds
_LINE_EVERY = 60.0  # seconds between two lines of progress in a file
_FILE_WIDTH = 1000  # characters
_WAITS = 0.2  # share of the time that is waited for input, from which on it is said


class Display:
  """Shows nothing; the base of those that do.

  Args:
    console: that prints.
  """

  def __init__(self, console: Console):
    self._console = console

  def plan(self, event: PlanEvent, file: pathlib.Path | None) -> None:
    """Before anything is compiled.

    Args:
      event: the plan.
      file: that has all of it; None where none was written.
    """

  def begin(self, course: Course) -> None:
    """Before the first step."""

  def step(self, step: int) -> None:
    """After each step."""

  def row(self, step: int, split: str, metrics: Mapping[str, Any]) -> None:
    """A row that was written to metrics.jsonl."""

  def estimate(self, event: EstimateEvent) -> None:
    """At the end of a dry run."""

  def summary(self, event: SummaryEvent) -> None:
    """At the end of a run."""


class Quiet(Display):
  """Warnings, errors and one line at the end."""

  def estimate(self, event: EstimateEvent) -> None:
    self._console.say(one_line(f'{event.rows["time"]}; augmented images: {event.page}'))

  def summary(self, event: SummaryEvent) -> None:
    self._console.say(_result(event))


class Json(Display):
  """A JSON object a line on standard output, each with its kind as 'event'."""

  def plan(self, event: PlanEvent, file: pathlib.Path | None) -> None:
    self._print('plan', {**event.facts, 'notes': event.notes, 'file': file and str(file)})

  def row(self, step: int, split: str, metrics: Mapping[str, Any]) -> None:
    self._print('row', {'step': step, 'split': split, **metrics})

  def estimate(self, event: EstimateEvent) -> None:
    self._print('estimate', {**event.facts, 'page': str(event.page)})

  def summary(self, event: SummaryEvent) -> None:
    scores = [
      {'split': s.split, 'metric': s.metric, 'value': s.value, 'interval': s.interval}
      for s in event.scores
    ]
    self._print(
      'summary',
      {
        'workdir': event.workdir,
        'steps': event.steps,
        'seconds': event.seconds,
        'best_step': event.best_step,
        'scores': scores,
        'report': event.report and str(event.report),
        'commands': event.commands,
        'warnings': event.warnings,
      },
    )

  def _print(self, kind: str, values: Mapping[str, Any]) -> None:
    finite = {
      name: None if isinstance(value, float) and not math.isfinite(value) else value
      for name, value in values.items()
    }
    self._console.say(json.dumps({'event': kind, **finite}))


class Text(Display):
  """A plan, a table of validations and a summary; on a terminal with a live line."""

  _course: Course
  _table: Table

  def plan(self, event: PlanEvent, file: pathlib.Path | None) -> None:
    self._rows(event.rows)
    for note in event.notes:
      self._console.say(f'note: {one_line(note)}')
    if file is not None:
      self._console.say(f'all of the plan: {one_line(file)}')

  def begin(self, course: Course) -> None:
    self._course = course
    self._train: dict[str, Any] = {}
    self._since: dict[str, Any] = {}  # the same, of reports since the last row of the table
    self._scores: dict[int, float] = {}  # of validations, by step
    for row in course.before:
      if row['split'] == 'val':
        self._note_score(row['step'], row)
    terminal = is_terminal(sys.stdout)
    self._table = Table(course, columns() - 1 if terminal else _FILE_WIDTH, terminal)
    self._began = self._drawn = self._told = time.monotonic()
    self._first: tuple[int, float] | None = None  # when the first step, which compiles, was over
    self._shown_epoch = math.floor(course.epoch(course.start) + 1e-9)

  def step(self, step: int) -> None:
    now = time.monotonic()
    self._first = self._first or (step, now)
    if step == self._course.total:
      self._console.show_status('')
    elif self._console.live and now - self._drawn >= _REDRAWN_EVERY:
      self._drawn = now
      self._console.show_status('  '.join(self._fitting(self._progress(step, now))))

  def row(self, step: int, split: str, metrics: Mapping[str, Any]) -> None:
    if split == 'train':
      self._train = self._since = dict(metrics)
      self._train_row(step)
    elif split == 'test':
      pass  # the summary has it
    elif split == 'val_raw':
      self._console.say(f'  without EMA: {metrics_text(metrics, self._course.metrics)}')
    elif not set(metrics) & set(self._course.metrics):
      self._console.say(f'  frozen features: {metrics_text(metrics)}')
    else:
      self._note_score(step, metrics)
      self._table_row(step, metrics, self._best() == step)

  def estimate(self, event: EstimateEvent) -> None:
    self._rows(event.rows)
    self._console.say(f'augmented images: {one_line(event.page)}')

  def summary(self, event: SummaryEvent) -> None:
    self._console.show_status('')
    self._console.say('')
    self._console.repeat_warnings()
    self._console.say('\n'.join([*map(_score, event.scores), _course_of(event)]))
    if event.report is not None:
      self._console.say(f'report: {one_line(event.report)}')
    self._console.say(f'run outputs: {one_line(event.workdir)}')
    self._console.say('\n  '.join(['next:', *event.commands]))

  def _rows(self, rows: Mapping[str, str]) -> None:
    wide = max(map(len, rows)) + 2
    width = columns() if is_terminal(sys.stdout) else _FILE_WIDTH
    for name, text in rows.items():
      words = textwrap.wrap(one_line(text), max(20, width - wide), break_long_words=False)
      self._console.say(f'\n{" " * wide}'.join([f'{name:{wide}}{words[0]}', *words[1:]]))

  def _note_score(self, step: int, metrics: Mapping[str, Any]) -> None:
    if metrics.get(self._course.best) is not None:
      self._scores[step] = metrics[self._course.best]

  def _best(self) -> int | None:
    return best_step(self._scores, self._course.best_mode)

  def _table_row(self, step: int, val: Mapping[str, Any], best: bool) -> None:
    now = time.monotonic()
    seconds = self._course.seconds_before + now - self._began
    self._console.say('\n'.join(self._table.lines(step, seconds, self._since, val, best)))
    self._since = {}
    if others := self._table.others(val):
      self._console.say(f'  {metrics_text(others)}')
    self._told = now

  def _train_row(self, step: int) -> None:
    """Without validation a row an epoch; in a file a line a minute where nothing else is said."""
    epoch = math.floor(self._course.epoch(step) + 1e-9)
    now = time.monotonic()
    if not self._course.validates and (epoch > self._shown_epoch or step == self._course.total):
      self._shown_epoch = epoch
      self._table_row(step, {}, best=False)
    elif not self._console.live and now - self._told >= _LINE_EVERY:
      self._told = now
      self._console.say('  '.join(text for text, _ in self._progress(step, now)))

  def _progress(self, step: int, now: float) -> list[tuple[str, int]]:
    """Words of the progress line, each with its rank: those of the highest go first."""
    course, first = self._course, self._first
    found = [(f'step {step:,}/{course.total:,}', 0), (f'{step / course.total:.0%}', 3)]
    if course.epoch(course.total) >= 1:
      found.insert(0, (f'epoch {course.epoch(step):.1f}/{course.epoch(course.total):.1f}', 5))
    rate = self._train.get('img_sec')
    if first is not None and step > first[0] and now > first[1]:
      pace = (now - first[1]) / (step - first[0])
      rate = rate or course.batch_size / pace
      found.append((f'ETA {format_seconds(pace * (course.total - step))}', 1))
    if rate:
      found.append((f'{rate_text(rate)} images/s', 4))
    if self._train.get('loss') is not None:
      found.append((f'loss {metric_text("loss", self._train["loss"])}', 2))
    if self._train.get('input_wait', 0.0) > _WAITS:
      found.append((f'{self._train["input_wait"]:.0%} waiting for input', 6))
    if (best := self._best()) is not None:
      found.append((f'best {course.best} {metric_text(course.best, self._scores[best])}', 3))
    return found

  @staticmethod
  def _fitting(words: list[tuple[str, int]]) -> list[str]:
    while len(words) > 1 and sum(len(text) + 2 for text, _ in words) > columns():
      last = max(words, key=lambda word: word[1])
      words = [word for word in words if word is not last]
    return [text for text, _ in words]


DISPLAYS: dict[str, type[Display]] = {'text': Text, 'quiet': Quiet, 'json': Json}


def console_for(output: str) -> Console:
  """The console of a run: of several processes the first one prints.

  Args:
    output: one of OUTPUTS.
  """
  text = output == 'text'
  return Console(active=processes.index() == 0, information=text, live=text)


def _result(event: SummaryEvent) -> str:
  """'test accuracy 93.3 % (95 % interval 89.9 to 95.7 %), val accuracy 97.5 %'."""
  return ', '.join(map(_score, event.scores)) or _course_of(event)


def _course_of(event: SummaryEvent) -> str:
  """'best step 1,318 (epoch 65.0) of 2,027, in 1:48'."""
  text = f'{counted(event.steps, "step")} in {format_seconds(event.seconds)}'
  if event.best_step is None:
    return text
  epoch = '' if event.best_epoch is None else f' (epoch {event.best_epoch:.1f})'
  return f'best step {event.best_step:,}{epoch} of {text}'


def _score(score: Scored) -> str:
  value = percent(score.value) if score.percent else metric_text(score.metric, score.value)
  text = f'{score.split} {score.metric} {value}'
  if score.interval is not None:
    text += f' (95 % interval {interval(*score.interval)})'
  return text.replace('\u00a0', ' ')
