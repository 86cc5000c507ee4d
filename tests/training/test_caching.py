"""A run that keeps its images in memory is the run that reads them anew."""

import logging
import re

import numpy as np
import pytest
from PIL import Image

from tests.support import raises
from tests.training.runs import options, timeless_rows
from vit_jax import checkpoint, parallel
from vit_jax.data import Examples
from vit_jax.errors import ConfigError
from vit_jax.optimizers import frozen_names
from vit_jax.training import display, loop
from vit_jax.training.caching import make_caching
from vit_jax.training.experiment import build_experiment

TRAIN = 'decode|inception_crop(16)|flip_lr'
COUNT = 40


class _PowerCut(Exception):
  pass


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  """40 JPEGs of two classes, light and dark."""
  root = tmp_path_factory.mktemp('data') / 'set'
  rng = np.random.default_rng(0)
  for i in range(COUNT):
    path = root / 'ab'[i % 2] / f'{i:02d}.jpg'
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = rng.integers(0, 128, (61, 83, 3)) + 127 * (i % 2)
    Image.fromarray(pixels.astype(np.uint8)).save(path)
  return root


def of(folder):
  return {
    'dataset__name': str(folder),
    'dataset__test': '',
    'input__train_transform': TRAIN,
    'total': '18 steps',
    'batch_size': '8',
  }


def run(folder, workdir, **overrides):
  loop.train(options(**of(folder) | overrides), str(workdir))
  return workdir


def state_bytes(workdir):
  found = checkpoint.load_run(str(workdir), 'last').variables
  return str(found).encode(), [np.asarray(x).tobytes() for x in _leaves(found)]


def _leaves(tree):
  return [leaf for v in tree.values() for leaf in (_leaves(v) if isinstance(v, dict) else [v])]


def cut_short(folder, workdir, monkeypatch, step, **overrides):
  """The run, interrupted after a step and resumed."""
  step_of = display.Text.step

  def cut(self, now):
    if now == step:
      raise _PowerCut
    step_of(self, now)

  monkeypatch.setattr(display.Text, 'step', cut)
  with pytest.raises(_PowerCut):
    run(folder, workdir, **overrides)
  monkeypatch.undo()
  assert 0 < checkpoint.load_run(workdir, 'last').step < step
  return run(folder, workdir, **overrides)


def test_decoded_images_change_nothing_and_resuming_is_exact(folder, tmp_path, monkeypatch):
  plain = run(folder, tmp_path / 'plain')
  cached = cut_short(folder, tmp_path / 'cached', monkeypatch, 14, input__cache='decoded')
  assert state_bytes(cached) == state_bytes(plain)
  assert timeless_rows(cached) == timeless_rows(plain)
  assert 'decoded images of train and val' in (cached / 'plan.txt').read_text()


def test_what_does_not_fit_is_decoded_again_with_one_warning(folder, caplog):
  config = options(**of(folder), input__cache='decoded', input__cache_gib='1e-4')
  with caplog.at_level(logging.WARNING):
    kept = make_caching(config, build_experiment(config), parallel.make('data'), frozenset())
  assert kept.cache.limit_bytes == int(1e-4 * 2**30) and 'train and val' in kept.text
  (found,) = [r.getMessage() for r in caplog.records if 'cache' in r.getMessage()]
  assert 'config.input.cache_gib' in found and ' %' in found


def test_worker_processes_are_refused():
  with raises(ConfigError, 'config.input.workers=0', 'decoded'):
    options(input__cache='decoded', input__workers='2')


FROZEN = {
  'freeze': 'backbone',
  'input__train_transform': 'decode|resize(16)',
  'model__dropout': '0',
  'model__drop_path_rate': '0',
  'ema__decay': '0.9',
  'optimizer__sam_rho': '0.05',
  'accumulate': '2',
}


def test_features_give_the_same_run_and_resuming_is_exact(folder, tmp_path, monkeypatch):
  plain = run(folder, tmp_path / 'plain', **FROZEN)
  cached = run(folder, tmp_path / 'cached', input__cache='features', **FROZEN)
  read = Examples.__getitem__

  def counted(self, index):
    reads.append(index)
    return read(self, index)

  reads = []
  monkeypatch.setattr(Examples, '__getitem__', counted)
  broken = cut_short(
    folder, tmp_path / 'broken', monkeypatch, 14, input__cache='features', **FROZEN
  )
  assert len(reads) < 2 * COUNT  # of the first attempt: 'undo' took the count away
  for one, other in zip(timeless_rows(plain), timeless_rows(cached), strict=True):
    assert one.keys() == other.keys() and one.pop('split') == other.pop('split')
    assert one == pytest.approx(other, rel=1e-3, abs=1e-5)
  assert state_bytes(broken) == state_bytes(cached)
  assert timeless_rows(broken) == timeless_rows(cached)
  assert 'features of train and val' in (cached / 'plan.txt').read_text()


@pytest.mark.parametrize(
  'change, fact',
  [
    ({'input__train_transform': 'decode|resize(16)|flip_lr'}, 'flip_lr'),
    ({'mixing__mixup': '0.2', 'mixing__cutmix': '0.3'}, 'config.mixing'),
    ({'freeze': 'blocks:1'}, '--config.freeze=backbone'),
    ({'model__dropout': '0.1', 'model__drop_path_rate': '0.1'}, 'dropout'),
  ],
)
def test_what_stands_against_features_ends_with_what_to_type(folder, change, fact):
  frozen = of(folder) | FROZEN | {'input__cache': 'features'}
  config = options(**frozen | change)
  with raises(ConfigError, 'features', fact) as e:
    _caching(config)
  words = re.findall(r"--config\.(\S+?)=('[^']*'|\S+)", str(e.value))
  typed = {name.replace('.', '__'): value.strip("';") for name, value in words}
  assert typed.keys() >= change.keys()
  assert _caching(options(**frozen | change | typed)).of_features


def _caching(config):
  experiment = build_experiment(config)
  frozen = frozen_names(experiment.shapes['params'], config.freeze)
  return make_caching(config, experiment, parallel.make('data'), frozen)


@pytest.mark.parametrize(
  'change, fact',
  [
    ({'model__distilled': 'True', 'model__pool': 'token'}, 'head_distillation'),
    ({'input__cache_gib': '1e-6'}, 'config.input.cache_gib'),
  ],
)
def test_what_stands_against_features_is_named(folder, change, fact):
  config = options(**of(folder) | FROZEN | {'input__cache': 'features'} | change)
  with raises(ConfigError, 'features', fact):
    _caching(config)
