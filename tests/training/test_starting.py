"""A run in a folder that holds one: resumed, or refused where options or data are others."""

import json
import logging
import shutil

import pytest
from PIL import Image

from tests.support import raises
from tests.training import runs
from vit_jax import checkpoint, evaluate
from vit_jax.errors import CheckpointError
from vit_jax.training import loop


def _options(folder, **overrides):
  named = {
    'dataset__name': str(folder),
    'batch_size': '4',
    'total': '2 steps',
    'checkpoint__every': '2 steps',
    'evaluation__every': '2 steps',
    'schedule__warmup': '0 steps',
  }
  return runs.options(**named | overrides)


def _add_images(folder, split, name, first, count):
  (folder / split / name).mkdir(parents=True, exist_ok=True)
  for i in range(first, first + count):
    Image.new('RGB', (16, 16), (i, 0, 0)).save(folder / split / name / f'{i}.png')


@pytest.fixture
def run(tmp_path):
  """A run of two steps on a folder with two classes."""
  folder = tmp_path / 'images'
  for split in ('train', 'val', 'test', 'other'):
    for name in ('ant', 'bee'):
      _add_images(folder, split, name, 0, 4)
  loop.train(_options(folder), str(tmp_path / 'run'))
  return folder, tmp_path / 'run'


def _resume(run, **overrides):
  folder, workdir = run
  loop.train(_options(folder, total='4 steps', **overrides), str(workdir))
  return checkpoint.load_run(str(workdir), 'last').step


def test_a_longer_run_is_resumed_with_a_warning(run, caplog):
  with caplog.at_level(logging.WARNING, 'vit_jax'):
    logging.getLogger('vit_jax').addHandler(caplog.handler)
    try:
      assert _resume(run) == 4
    finally:
      logging.getLogger('vit_jax').removeHandler(caplog.handler)
  (warning,) = {r.getMessage() for r in caplog.records if 'config.total' in r.getMessage()}
  assert "'2 steps'" in warning and "'4 steps'" in warning


def test_options_that_do_not_change_training_may_change(run):
  changed = {'parallel': 'pmap', 'log__every': '1 step', 'checkpoint__keep': '5'}
  assert _resume(run, dataset__test='val', input__threads='2', **changed) == 4


@pytest.mark.parametrize(
  'overrides, facts',
  [
    ({'optimizer__learning_rate': '0.1'}, ['config.optimizer.learning_rate', '0.1', '0.002']),
    ({'seed': '3', 'batch_size': '8'}, ['config.seed', 'config.batch_size is 8 and was 4']),
    ({'model__depth': '2'}, ['config.model']),
    ({'dataset__val': 'test'}, ['config.dataset.val', "'test'", "'val'"]),
  ],
)
def test_other_options_are_another_run(run, overrides, facts):
  with raises(CheckpointError, run[1], *facts):
    _resume(run, **overrides)


@pytest.mark.parametrize('split', ['train', 'val', 'test'])
def test_other_images_are_refused(run, split):
  _add_images(run[0], split, 'ant', 9, 1)
  with raises(CheckpointError, run[1], run[0]):
    _resume(run)


def test_other_classes_are_refused(run):
  _add_images(run[0], 'train', 'cat', 0, 4)
  with raises(CheckpointError, run[1], "'cat'"):
    _resume(run)
  assert checkpoint.load_run(str(run[1]), 'last').step == 2


def test_images_of_a_split_that_is_not_used_may_change(run):
  _add_images(run[0], 'other', 'ant', 9, 1)
  assert _resume(run) == 4


_CUTS = {
  'deleted': lambda p: p.unlink(),
  'emptied': lambda p: p.write_bytes(b''),
  'cut': lambda p: p.write_bytes(p.read_bytes()[:-9]),
  'other': lambda p: p.write_text('[1]'),
}


def test_lost_and_damaged_descriptions_are_written_again(tmp_path, capsys):
  """Of a run that split its dataset; every loss in one folder after the other."""
  folder, workdir = tmp_path / 'images', tmp_path / 'run'
  for name in ('ant', 'bee'):
    _add_images(folder, '', name, 0, 20)
  loop.train(_options(folder), str(workdir))
  whole = {n: (workdir / n).read_bytes() for n in ('config.json', 'classes.json', 'split.json')}
  rows = runs.timeless_rows(workdir)
  capsys.readouterr()
  for cut in _CUTS.values():
    for name in (*whole, 'metrics.jsonl'):
      cut(workdir / name)
    assert not evaluate.main([str(workdir)])
    loop.train(_options(folder), str(workdir))
    said = capsys.readouterr().err
    assert all(str(workdir / name) in said for name in whole), said
    assert {n: (workdir / n).read_bytes() for n in whole} == whole
    assert runs.timeless_rows(workdir) == rows
  (workdir / 'metrics.jsonl').unlink()
  loop.train(_options(folder), str(workdir))
  assert 'metrics.jsonl' in capsys.readouterr().err
  assert json.loads(whole['classes.json']) == ['ant', 'bee']
  shutil.rmtree(workdir / 'checkpoints')
  loop.train(_options(folder), str(workdir))
  assert 'no checkpoint' in capsys.readouterr().err
  assert runs.timeless_rows(workdir) == rows


def test_a_split_of_other_images_is_still_refused(tmp_path):
  folder, workdir = tmp_path / 'images', tmp_path / 'run'
  for name in ('ant', 'bee'):
    _add_images(folder, '', name, 0, 20)
  loop.train(_options(folder), str(workdir))
  (workdir / 'split.json').write_text('{')
  _add_images(folder, '', 'ant', 30, 5)
  with raises(CheckpointError, str(workdir)):
    loop.train(_options(folder), str(workdir))
