"""What is compared of each run, as rows of a table."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

from vit_jax.comparison.gather import Run
from vit_jax.report.text import duration, number, percent, size


@dataclasses.dataclass(frozen=True)
class Fact:
  """Something that is known of each run.

  Attributes:
    key: its name in compare.json and compare.csv.
    label: its name for people.
    value: of a run; None where it is not known.
    show: how the value is written.
  """

  key: str
  label: str
  value: Callable[[Run], Any]
  show: Callable[[Any], str]


def facts(runs: Sequence[Run]) -> list[Fact]:
  """The rows of the table; without those that are known of no run."""
  always = {'model', 'accuracy', 'trained_parameters', 'training_seconds'}
  top_k = [f for f in _TOP_K if all(f.key in run.metrics for run in runs)]
  rows = [*_FIRST, *top_k, *_REST]
  return [row for row in rows if row.key in always or any(row.value(run) for run in runs)]


def _metric(name: str) -> Callable[[Run], Any]:
  return lambda run: run.metrics.get(name)


def _circumstance(name: str) -> Callable[[Run], Any]:
  return lambda run: getattr(run.predictions.facts, name)


def _training(name: str) -> Callable[[Run], Any]:
  return lambda run: getattr(run.training, name) if run.training else None


def _words(value: Any) -> str:
  return str(value) if value else '–'


def _percent(share: float | None) -> str:
  return '–' if share is None else percent(share)


def _decimals(value: float) -> str:
  return f'{value:.3f}'


def _interval(ends: Sequence[float]) -> str:
  return f'{100 * ends[0]:.1f} – {100 * ends[1]:.1f}\u00a0%'


_FIRST = (
  Fact('model', 'model', _circumstance('model'), _words),
  Fact('accuracy', 'top-1 accuracy', _metric('accuracy'), _percent),
  Fact('accuracy_interval', '95\u00a0% interval', _metric('accuracy_interval'), _interval),
)
_TOP_K = tuple(Fact(f'top{k}', f'top-{k} accuracy', _metric(f'top{k}'), _percent) for k in (3, 5))
_REST = (
  Fact('macro_f1', 'macro F1', _metric('macro_f1'), _decimals),
  Fact('ece', 'calibration error (ECE)', _metric('ece'), _percent),
  Fact('parameters', 'parameters', _circumstance('parameters'), number),
  Fact('trained_parameters', 'trained parameters', _circumstance('trained_parameters'), number),
  Fact('training_seconds', 'training time', _training('seconds'), duration),
  Fact('training_img_sec', 'training images/s', _training('img_sec'), number),
  Fact(
    'seconds_per_parameter',
    'training time per million trained parameters',
    lambda run: run.seconds_per_parameter,
    lambda s: duration(s and 1e6 * s),
  ),
  Fact('evaluation_seconds', 'evaluation time', _metric('seconds'), lambda s: duration(s or None)),
  Fact('img_sec', 'evaluation images/s', _metric('img_sec'), number),
  Fact('device_memory_bytes', 'peak device memory', lambda run: run.memory_bytes, size),
  Fact('host_memory_bytes', 'peak process memory', _circumstance('host_memory_bytes'), size),
  Fact('devices', 'devices', _circumstance('devices'), _words),
)
