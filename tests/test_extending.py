"""A made-up thing of each kind, one file each, works end to end; CONTRIBUTING.md shows these."""

import json
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest

from vit_jax.metric_writer import read_metrics

ROOT = pathlib.Path(__file__).resolve().parents[1]

LOSS = '''
"""Focal loss: well classified examples count for less."""

import dataclasses

import jax
import jax.numpy as jnp

from vit_jax.options import option
from vit_jax.tasks.losses import LOSSES, Loss


@LOSSES.register('focal')
@dataclasses.dataclass(frozen=True)
class Focal(Loss):
  """Cross-entropy times (1 - p)^gamma. Source: 1708.02002, equation 5."""

  focal_gamma: float = option(2.0, 'focal: exponent', low=0)

  def __call__(self, logits, targets):
    log_p = jax.nn.log_softmax(logits.astype(jnp.float32))
    return -(targets * (1 - jnp.exp(log_p)) ** self.focal_gamma * log_p).sum(axis=-1)
'''

METRIC = '''
"""Margin: how far ahead the true class is."""

import jax.numpy as jnp

from vit_jax.tasks.metrics import metric


@metric('margin', 'Margin of the true class', 'label')
def margin(outputs, batch):
  """Logit of the true class minus the largest other one [b]."""
  logits, label = outputs['logits'], batch['label'][:, None]
  true = jnp.take_along_axis(logits, label, axis=-1)[:, 0]
  others = jnp.where(jnp.arange(logits.shape[-1]) == label, -jnp.inf, logits)
  return true - others.max(axis=-1)
'''

OPTIMIZER = '''
"""Sign descent."""

import dataclasses

import jax
import jax.numpy as jnp
import optax

from vit_jax.optimizers import OPTIMIZERS, SCHEDULES, Schedule, UpdateRule
from vit_jax.options import option


@OPTIMIZERS.register('signs')
@dataclasses.dataclass(frozen=True)
class Signs(UpdateRule):
  """The sign of the gradient, scaled."""

  signs_scale: float = option(0.5, 'signs: size of each update', above=0)

  def transforms(self):
    return [optax.stateless(lambda u, _: jax.tree.map(lambda x: self.signs_scale * jnp.sign(x), u))]


@SCHEDULES.register('staircase')
@dataclasses.dataclass(frozen=True)
class Staircase(Schedule):
  """Halved a few times."""

  staircase_stairs: int = option(2, 'staircase: how often the rate is halved', low=1)

  def __call__(self, since, decay_steps):
    return 0.5 ** jnp.floor(since * self.staircase_stairs / decay_steps)
'''

TASK = '''
"""Ordinal regression: classes in an order."""

import dataclasses

import jax
import jax.numpy as jnp

from vit_jax.options import option
from vit_jax.tasks.base import TASKS
from vit_jax.tasks.classify import Classify


@TASKS.register('ordinal')
@dataclasses.dataclass(frozen=True)
class Ordinal(Classify):
  """Classification with targets that spread to neighbouring classes."""

  ordinal_width: float = option(1.0, 'ordinal: width of the targets, in classes', above=0)

  def targets(self, batch):
    distance = jnp.arange(self.num_classes) - batch['label'][:, None]
    return jax.nn.softmax(-jnp.square(distance / self.ordinal_width), axis=-1)
'''

MODEL = '''
"""A linear classifier of pixels."""

import flax.linen as nn
import jax.numpy as jnp

from vit_jax.models.base import DTYPES, register
from vit_jax.models.layers import head, headless
from vit_jax.options import option


class Pixels(nn.Module):
  """One dense layer on all pixels, then the head."""

  num_classes: int
  width: int = option(7, 'features', low=1, high=1000)
  dtype: str = option('float32', 'precision of the computation', choices=DTYPES)

  @nn.compact
  def __call__(self, images, train=False):
    x = nn.relu(nn.Dense(self.width, name='dense')(images.reshape(len(images), -1)))
    if not self.num_classes:
      return headless(self, x, images)
    return head(self.num_classes, self.dtype, 'head')(x).astype(jnp.float32)


register('pixels', Pixels)
'''

COMMAND = '''
"""Says how many parameters a model has: `vit_jax size MODEL`."""

import argparse


def main(argv=None):
  parser = argparse.ArgumentParser(prog='vit_jax size')
  parser.add_argument('model')
  args = parser.parse_args(argv)
  import vit_jax
  from vit_jax import tree

  print(sum(x.size for x in tree.flatten(vit_jax.load(args.model).variables).values()))
  return 0
'''

TRACKER = '''
"""Rows in a table for a spreadsheet."""

from vit_jax.trackers import TRACKERS, Tracker


@TRACKERS.register('table')
class Table(Tracker):
  """Appends to table.csv in the run's folder."""

  def start(self, run):
    self._path = run.folder / 'table.csv'
    return run.id or run.name

  def log(self, metrics, step):
    with open(self._path, 'a') as f:
      f.writelines(f'{step},{name},{value}\\n' for name, value in metrics.items())

  def finish(self, ending, report):
    with open(self._path, 'a') as f:
      f.write(f'{ending},{report.name}')
'''

FILES = {
  'focal': LOSS, 'margin': METRIC, 'signs': OPTIMIZER, 'ordinal': TASK, 'pixels': MODEL,
  'size': COMMAND, 'table': TRACKER,
}  # fmt: skip


@pytest.fixture(scope='module')
def run(tmp_path_factory):
  """Runs a command with the plugins."""
  folder = tmp_path_factory.mktemp('plugins')
  for name, text in FILES.items():
    (folder / f'{name}.py').write_text(text)
  plugins = os.pathsep.join(str(folder / f'{name}.py') for name in FILES)
  environment = {**os.environ, 'VIT_JAX_PLUGINS': plugins}

  def call(*words, status=0):
    done = subprocess.run(
      [sys.executable, '-m', 'vit_jax', *map(str, words)],
      env=environment, cwd=ROOT, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == status, done.stdout + done.stderr
    return done.stdout + done.stderr

  return call


def _train(run, workdir, *words, status=0):
  return run(
    'train',
    f'--config={ROOT}/configs/vit_digits.py',
    f'--workdir={workdir}',
    '--config.model.name=pixels',
    '--config.total=30 steps',
    '--config.log.tensorboard=false',
    *words,
    status=status,
  )


def test_they_train_are_logged_and_reported(run, tmp_path):
  words = (
    '--config.task.name=ordinal',
    '--config.task.ordinal_width=0.5',
    '--config.task.loss=focal',
    '--config.task.focal_gamma=1.5',
    '--config.optimizer.name=signs',
    '--config.optimizer.signs_scale=0.25',
    '--config.schedule.name=staircase',
    '--config.schedule.staircase_stairs=3',
    '--config.schedule.warmup=0 steps',
    '--config.optimizer.learning_rate=0.01',
    '--config.checkpoint.best=margin',
    '--config.log.every=10 steps',
    '--config.log.to=table',
  )
  _train(run, tmp_path / 'a', *words)
  rows = read_metrics(tmp_path / 'a')
  assert {row['split'] for row in rows} == {'train', 'val', 'test'}
  assert all(np.isfinite(row['margin']) for row in rows)
  rates = [row['learning_rate'] for row in rows if row['split'] == 'train']
  assert rates == pytest.approx([0.01, 0.005, 0.0025])  # of steps 9, 19 and 29
  saved = json.loads((tmp_path / 'a' / 'config.json').read_text())
  assert saved['task']['focal_gamma'] == 1.5 and saved['optimizer']['signs_scale'] == 0.25
  assert saved['task']['name'] == 'ordinal' and saved['task']['ordinal_width'] == 0.5
  table = [line.split(',') for line in (tmp_path / 'a' / 'table.csv').read_text().splitlines()]
  assert ['30', 'test/margin', str(rows[-1]['margin'])] in table
  assert table[-1] == ['finished', 'report.html'] and len(table) == 1 + sum(
    len(r) - 2 for r in rows
  )
  page = (tmp_path / 'a' / 'report' / 'report.html').read_text()
  assert 'Margin of the true class' in page
  out = run('evaluate', tmp_path / 'a', '--json')
  assert json.loads(out.splitlines()[-1])['margin'] == pytest.approx(rows[-1]['margin'], abs=1e-5)
  assert int(run('size', tmp_path / 'a')) == 16 * 16 * 3 * 7 + 7 + 7 * 10 + 10


def test_options_are_checked_and_described(run, tmp_path):
  out = run('train', '--help=all')
  for name in ('task.focal_gamma=2.0', 'optimizer.signs_scale=0.5', 'task.ordinal_width=1.0'):
    assert f'--config.{name}' in out
  assert 'staircase' in out and 'ordinal' in out
  out = _train(run, tmp_path / 'c', '--config.task.focal_gamma=-1', status=1)
  assert 'focal_gamma' in out and 'at least 0' in out and not (tmp_path / 'c').exists()
  out = _train(run, tmp_path / 'c', '--config.task.focal_gama=1', status=1)
  assert "'task.focal_gamma'" in out


def test_without_the_file_the_name_is_unknown(run, tmp_path):
  assert 'Says how many parameters' in run('--help')
  environment = {**os.environ, 'VIT_JAX_PLUGINS': str(tmp_path / 'gone.py')}
  done = subprocess.run(
    [sys.executable, '-m', 'vit_jax', 'train', '--help'],
    env=environment, cwd=ROOT, capture_output=True, text=True,
  )  # fmt: skip
  assert done.returncode == 1 and 'gone.py' in done.stderr
