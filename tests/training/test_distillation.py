"""Distillation from a run: the teacher sees what the student sees, and its logits are cached."""

import errno
import os
import subprocess
import sys

import jax
import numpy as np
import pytest
from PIL import Image

import vit_jax
from tests.support import error_line, raises
from tests.training import runs
from vit_jax import parallel, rng
from vit_jax.data.records import Place
from vit_jax.errors import ConfigError, StorageError
from vit_jax.training import distillation, loop
from vit_jax.training.experiment import build_experiment

SHORT = {
  'total': '6 steps',
  'log__every': '2 steps',
  'schedule__warmup': '2 steps',
  'evaluation__every': '3 steps',
  'checkpoint__every': '3 steps',
  'dataset__test': '',
}


@pytest.fixture(scope='module')
def teacher_run(tmp_path_factory):
  """Its input has 24 pixels a side, that of its students 16."""
  path = tmp_path_factory.mktemp('teacher') / 'run'
  sized = dict.fromkeys(('input__train_transform', 'input__eval_transform'), 'decode|resize(24)')
  loop.train(runs.options(**SHORT, **sized), str(path))
  return str(path)


def _student(teacher_run, **overrides):
  task = {'task__name': 'distill', 'task__teacher': teacher_run}
  return runs.options(**SHORT | task | overrides)


@pytest.mark.parametrize('name', ['fsdp', 'pmap'])
def test_the_teacher_computes_logits_of_the_batch(teacher_run, name):
  """Enlarged to its own size, in its own value range."""
  config = _student(teacher_run)
  run, placement = build_experiment(config), parallel.make(name)
  examples = [run.train_transform(run.train[i], np.random.default_rng(0)) for i in range(8)]
  images = np.stack([e['image'] for e in examples])
  batch = placement.put_batch({'image': images, 'label': np.zeros(8, np.int32)})
  opened = distillation.open_teacher(config, run)
  teacher = distillation.start(config, run, placement, opened)
  logits = teacher(0, batch, rng.stream(0, 'dropout'))
  loaded = vit_jax.load(teacher_run)
  large = jax.image.resize(images.astype(np.float32), (8, 24, 24, 3), 'bicubic').clip(0, 255)
  expected = loaded.module.apply(loaded.variables, loaded.preprocess.normalize(large))
  np.testing.assert_allclose(placement.get_examples(logits), expected, atol=1e-5)


def test_a_run_without_a_teacher_starts_none():
  config = runs.options(**SHORT)
  run = build_experiment(config)
  opened = distillation.open_teacher(config, run)
  assert distillation.start(config, run, parallel.make('data'), opened) is None


def test_cached_logits_give_the_same_run(teacher_run, tmp_path, monkeypatch):
  """Damaged and cut short after the logits of 3 of 6 steps: the others are computed and added."""
  mixing = {'mixing__mixup': '0.5', 'mixing__cutmix': '1.0'}
  cache = tmp_path / 'cache'
  cached = mixing | {'task__teacher_cache': str(cache)}
  loop.train(_student(teacher_run, **mixing), str(tmp_path / 'plain'))
  loop.train(_student(teacher_run, **cached), str(tmp_path / 'first'))
  (file,) = cache.iterdir()
  whole = file.read_bytes()
  batch = 16 * 10 * 4 + 4
  assert len(whole) == 6 * batch
  # A power cut left zeros where the second was, and cut the fourth short.
  file.write_bytes(whole[:batch] + bytes(batch) + whole[2 * batch : 3 * batch + 7])
  loop.train(_student(teacher_run, **cached), str(tmp_path / 'second'))
  assert file.read_bytes() == whole

  def none(*_):
    raise AssertionError('computed again')

  monkeypatch.setattr(parallel.DataPlacement, 'compile_with_step', lambda self, f: none)
  loop.train(_student(teacher_run, **cached), str(tmp_path / 'third'))
  for name in ('first', 'second', 'third'):
    assert runs.timeless_rows(tmp_path / name) == runs.timeless_rows(tmp_path / 'plain')
  monkeypatch.undo()
  loop.train(_student(teacher_run, **cached, seed='1'), str(tmp_path / 'other'))
  assert len(list(cache.iterdir())) == 2  # other crops, other logits


def test_other_images_of_the_same_names_are_others(tmp_path):
  """Which a cache of logits is not to be taken for."""

  class Named:
    def id(self, index):
      return 'a.png'

    def place(self, index):
      return Place(str(tmp_path / 'a.png'))

  found = []
  for text, time in (('one', 1), ('three', 1), ('three', 2), ('three', 2)):
    (tmp_path / 'a.png').write_text(text)
    os.utime(tmp_path / 'a.png', (time, time))
    found.append(distillation._identity(Named(), 0))
  assert len(set(found)) == 3 and found[2] == found[3]


def test_a_cache_of_logits_on_a_full_disk_is_one_warning(
  teacher_run, tmp_path, monkeypatch, capsys
):
  config = _student(teacher_run, task__teacher_cache=str(tmp_path / 'cache'))

  def full(data):
    if writes.append(1) or len(writes) > 2:
      raise OSError(errno.ENOSPC, 'No space left on device')
    return crc(data)

  writes, crc = [], distillation._crc
  monkeypatch.setattr(distillation, '_crc', full)
  monkeypatch.setattr(distillation._LogitsCache, 'read', lambda *_: None)
  loop.train(config, str(tmp_path / 'run'))
  (file,) = (tmp_path / 'cache').iterdir()
  (line,) = capsys.readouterr().err.splitlines()
  assert str(file) in line and 'No space left' in line and len(writes) == 3
  assert file.stat().st_size == 2 * (16 * 10 * 4 + 4)


def test_a_distilled_model_learns_with_its_second_head(teacher_run, tmp_path):
  metrics = loop.train(
    _student(
      teacher_run,
      task__distillation='hard',
      model__name='deit_ti16_distilled',
      model__patch_size='(4, 4)',
    ),
    str(tmp_path / 'run'),
  )
  assert np.isfinite(metrics['loss'])


@pytest.mark.parametrize('overrides', [{'task__name': 'distill'}, {'task__teacher': 'x.npz'}])
def test_a_task_and_its_teacher_go_together(overrides):
  with raises(ConfigError, 'config.task.teacher', 'config.task.name', "'distill'"):
    runs.options(**overrides)


def test_a_teacher_of_other_classes_is_refused_in_one_line(teacher_run, tmp_path):
  images = tmp_path / 'images'
  for name in ('cat', 'dog'):
    (images / name).mkdir(parents=True)
    for i in range(16):
      Image.new('RGB', (16, 16), (i, 0, 0)).save(images / name / f'{i}.png')
  run = subprocess.run(
    [
      sys.executable,
      '-m',
      'vit_jax.main',
      f'--config={runs.DIGITS}',
      f'--workdir={tmp_path / "run"}',
      '--config.task.name=distill',
      '--config.batch_size=8',
      f'--config.task.teacher={teacher_run}',
      f'--config.dataset.name={images}',
    ],
    cwd=runs.ROOT,
    capture_output=True,
    text=True,
  )
  line = error_line(run.returncode, run.stderr)
  assert f'config.task.teacher={teacher_run}' in line and "'cat'" in line
  assert [text.split(':')[0] for text in run.stderr.splitlines()].count('error') == 1


def test_the_cache_folder_must_be_writable(teacher_run, tmp_path):
  (tmp_path / 'file').write_text('')
  folder = tmp_path / 'file' / 'cache'
  config = _student(teacher_run, task__teacher_cache=str(folder))
  with raises(StorageError, f'config.task.teacher_cache={folder}'):
    distillation.open_teacher(config, build_experiment(config))
