"""Tiny runs on the embedded digits, which tests train whole."""

import contextlib
import pathlib
import sys
from collections.abc import Iterator
from unittest import mock

from vit_jax import config, report
from vit_jax.metric_writer import read_metrics

ROOT = pathlib.Path(__file__).resolve().parents[2]
DIGITS = str(ROOT / 'configs/vit_digits.py')

TINY = {
  'model.width': '16',
  'model.depth': '1',
  'model.num_heads': '2',
  'model.mlp_dim': '24',
  'model.dropout': '0.1',
  'model.drop_path_rate': '0.2',
  'batch_size': '16',
  'log.every': '4 steps',
  'checkpoint.every': '6 steps',
  'evaluation.every': '12 steps',
  'schedule.warmup': '4 steps',
  'log.tensorboard': 'false',
}

_write_report = report.write_report
# What differs between two runs of the same numbers.
_TIMED = ('img_sec', 'input_wait', 'mfu', 'seconds')


def options(**overrides):
  """Checked options; names are written with '__' for dots."""
  return config.load(DIGITS, TINY | named(overrides))


def named(overrides):
  """{'a__b': value} as {'a.b': value}."""
  return {name.replace('__', '.'): value for name, value in overrides.items()}


def command(workdir, **overrides):
  """The words of the command that trains."""
  words = [f'--config.{name}={value}' for name, value in (TINY | named(overrides)).items()]
  run = ['-m', 'vit_jax.main', f'--config={DIGITS}', f'--workdir={workdir}']
  return [sys.executable, *run, *words]


@contextlib.contextmanager
def reports(written: bool) -> Iterator[None]:
  """Runs in this process write their reports or not: half of a brief run's time is its report's."""
  with mock.patch.object(report, 'write_report', _write_report if written else lambda *_: None):
    yield


def timeless_rows(path):
  """The rows of metrics.jsonl without times."""
  return [{k: v for k, v in row.items() if k not in _TIMED} for row in read_metrics(path)]
