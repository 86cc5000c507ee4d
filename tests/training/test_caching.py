"""A run that keeps its images in memory is the run that reads them anew."""

import logging

import numpy as np
import pytest
from PIL import Image

from tests.support import raises
from tests.training.runs import options, timeless_rows
from vit_jax import checkpoint
from vit_jax.errors import ConfigError
from vit_jax.training import caching, display, loop
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
    cache, text = caching.image_cache(config, build_experiment(config))
  assert cache.limit_bytes == int(1e-4 * 2**30) and 'train and val' in text
  (found,) = [r.getMessage() for r in caplog.records if 'cache' in r.getMessage()]
  assert 'config.input.cache_gib' in found and ' %' in found


def test_worker_processes_are_refused():
  with raises(ConfigError, 'config.input.workers=0', 'decoded'):
    options(input__cache='decoded', input__workers='2')
