"""A run in a folder that holds one: resumed, or refused where options or data are others."""

import logging
import shlex
import shutil

import pytest
from PIL import Image

from tests.support import raises
from tests.training import runs
from vit_jax import checkpoint, evaluate
from vit_jax.errors import CheckpointError
from vit_jax.training import loop, starting


def _options(folder, **overrides):
  named = {
    'dataset__name': str(folder),
    'batch_size': '4',
    'total': '2 steps',
    'checkpoint__every': '2 steps',
    'evaluation__every': '2 steps',
    'schedule__warmup': '0 steps',
    'log__every': '',
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


def test_the_weights_of_another_run_are_named_as_one_types_them(tmp_path):
  path = tmp_path / "it's mine"
  words = shlex.join([f'--config.init_from={path}'])
  with raises(CheckpointError, words, 'config.seed is 1 and was 0'):
    starting._refuse_other_run(runs.options(seed='0'), runs.options(seed='1'), path)


def test_a_longer_run_is_resumed_with_a_warning(run, caplog):
  with caplog.at_level(logging.WARNING, 'vit_jax'):
    logging.getLogger('vit_jax').addHandler(caplog.handler)
    try:
      assert _resume(run) == 4
    finally:
      logging.getLogger('vit_jax').removeHandler(caplog.handler)
  (warning,) = {r.getMessage() for r in caplog.records if 'config.total' in r.getMessage()}
  assert "'2 steps'" in warning and "'4 steps'" in warning
  rows = runs.timeless_rows(run[1])
  assert [row['step'] for row in rows if row['split'] == 'train'] == [1, 2, 3, 4]


def test_options_that_do_not_change_training_may_change(run):
  changed = {'parallel': 'fsdp', 'mesh__data': '2', 'log__every': '1 step', 'checkpoint__keep': '5'}
  assert _resume(run, dataset__test='val', input__threads='2', **changed) == 4


@pytest.mark.parametrize(
  'overrides, facts',
  [
    ({'optimizer__learning_rate': '0.1'}, ['config.optimizer.learning_rate', '0.1', '0.002']),
    ({'seed': '3', 'batch_size': '8'}, ['config.seed', 'config.batch_size is 8 and was 4']),
    ({'model__depth': '2'}, ['config.model']),
    ({'dataset__val': 'test'}, ['config.dataset.val', "'test'", "'val'"]),
    ({'init_from': 'vit_b16.i21k'}, ["config.init_from is 'vit_b16.i21k' and was ''"]),
    ({'seed': '3', 'batch_size': 'auto'}, ['config.seed is 3 and was 0']),
  ],
)
def test_other_options_are_another_run(run, overrides, facts, monkeypatch):
  monkeypatch.setattr(loop, 'prepared', None)  # nothing is opened, downloaded or computed before
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


@pytest.fixture(scope='module')
def first_split_run(tmp_path_factory):
  """A run of two steps on a folder that the run itself has split."""
  folder = tmp_path_factory.mktemp('split')
  for name, first in (('ant', 0), ('bee', 100)):
    _add_images(folder / 'images', '', name, first, 20)
  loop.train(_options(folder / 'images'), str(folder / 'run'))
  return folder


@pytest.fixture
def split_run(first_split_run, tmp_path):
  """(its dataset, a copy of its workdir)."""
  shutil.copytree(first_split_run / 'run', tmp_path / 'run')
  return first_split_run / 'images', tmp_path / 'run'


_DESCRIPTION = ('config.json', 'classes.json', 'split.json')
_CUTS = (
  lambda path: path.unlink(),
  lambda path: path.write_bytes(path.read_bytes()[:-9]),
  lambda path: path.write_text('[1]'),
)


@pytest.mark.parametrize('turn', range(len(_CUTS)))
def test_lost_and_damaged_descriptions_are_written_again(split_run, capsys, turn):
  folder, workdir = split_run
  whole = {name: (workdir / name).read_bytes() for name in _DESCRIPTION}
  rows = runs.timeless_rows(workdir)
  for k, name in enumerate(_DESCRIPTION):
    _CUTS[(k + turn) % len(_CUTS)](workdir / name)
  (workdir / 'metrics.jsonl').unlink()
  assert evaluate.main([str(workdir)]) == 0
  capsys.readouterr()
  loop.train(_options(folder), str(workdir))
  said = capsys.readouterr().err
  missing = [n for n in (*_DESCRIPTION, 'metrics.jsonl') if str(workdir / n) not in said]
  assert not missing, said
  assert {name: (workdir / name).read_bytes() for name in _DESCRIPTION} == whole
  assert runs.timeless_rows(workdir) == rows


def test_a_start_over_lost_checkpoints_is_said(split_run, capsys):
  folder, workdir = split_run
  rows = runs.timeless_rows(workdir)
  shutil.rmtree(workdir / 'checkpoints')
  (workdir / 'checkpoints').mkdir()
  with raises(CheckpointError, str(workdir)):
    evaluate.main([str(workdir)])
  capsys.readouterr()
  loop.train(_options(folder), str(workdir))
  assert f'{workdir} has metrics and no checkpoint' in capsys.readouterr().err
  assert runs.timeless_rows(workdir) == rows


def test_a_damaged_split_hides_no_other_images(split_run):
  folder, workdir = split_run
  (workdir / 'split.json').write_text('{')
  _add_images(folder, '', 'ant', 30, 5)
  try:
    with raises(CheckpointError, workdir, folder):
      loop.train(_options(folder), str(workdir))
  finally:
    for i in range(30, 35):
      (folder / f'ant/{i}.png').unlink()


def test_a_run_of_version_0_1_whose_split_is_damaged_is_named(split_run, monkeypatch, capsys):
  folder, workdir = split_run
  (workdir / 'split.json').write_text('{')
  read = checkpoint.Checkpointer.read_newest

  def without_fingerprint(self):
    saved = read(self)
    del saved.meta['dataset']
    return saved

  monkeypatch.setattr(checkpoint.Checkpointer, 'read_newest', without_fingerprint)
  loop.train(_options(folder), str(workdir))
  said = capsys.readouterr().err.splitlines()
  assert len([line for line in said if str(workdir / 'split.json') in line and '0.1' in line]) == 1
  assert not any('unchanged' in line for line in said)
