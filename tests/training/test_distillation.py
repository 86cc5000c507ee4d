"""Distillation from a run: the teacher sees what the student sees, and its answers are kept."""

import pathlib
import subprocess
import sys

import numpy as np
import pytest

import vit_jax
from vit_jax import config, parallel, rng
from vit_jax.errors import UserError
from vit_jax.metric_writer import read_metrics
from vit_jax.training import distillation, experiment, loop

ROOT = pathlib.Path(__file__).resolve().parents[2]
TINY = {
  'model.width': '16',
  'model.depth': '1',
  'model.num_heads': '2',
  'model.mlp_dim': '24',
  'batch_size': '16',
  'total': '6 steps',
  'log.every': '2 steps',
  'schedule.warmup': '2 steps',
  'evaluation.every': '3 steps',
  'checkpoint.every': '3 steps',
  'log.tensorboard': 'false',
  'dataset.test': '',
}


def _config(**overrides):
  named = {name.replace('__', '.'): value for name, value in overrides.items()}
  return config.load(str(ROOT / 'configs/vit_digits.py'), TINY | named)


@pytest.fixture(scope='module')
def teacher_run(tmp_path_factory):
  """Of other pixels than its students: 24 instead of 16."""
  path = tmp_path_factory.mktemp('teacher') / 'run'
  loop.train(
    _config(input__train_transform='decode|resize(24)', input__eval_transform='decode|resize(24)'),
    str(path),
  )
  return str(path)


def _student(teacher_run, **overrides):
  return _config(task__name='distill', task__teacher=teacher_run, **overrides)


@pytest.mark.parametrize('name', ['data', 'pmap'])
def test_the_teacher_answers_the_pictures_of_the_batch(teacher_run, name):
  """Enlarged to its own size, in its own value range."""
  run = experiment.prepare(_student(teacher_run))
  placement = parallel.make(name)
  examples = [run.train_transform(run.train[i], np.random.default_rng(0)) for i in range(8)]
  images = np.stack([e['image'] for e in examples])
  batch = placement.put_batch({'image': images, 'label': np.zeros(8, np.int32)})
  logits = distillation.start(run, placement)(0, batch, rng.stream(0, 'dropout'))
  loaded = vit_jax.load(teacher_run)
  import jax

  large = jax.image.resize(images.astype(np.float32), (8, 24, 24, 3), 'bicubic').clip(0, 255)
  expected = loaded.module.apply(loaded.variables, loaded.preprocess.normalize(large))
  np.testing.assert_allclose(placement.get_examples(logits), expected, atol=1e-5)


def _rows(path):
  timed = ('img_sec', 'input_wait', 'seconds', 'mfu')
  return [{k: v for k, v in row.items() if k not in timed} for row in read_metrics(path)]


def test_kept_answers_give_the_same_run(teacher_run, tmp_path, monkeypatch):
  """Cut short after 3 of 6 steps' answers: the rest is computed and added."""
  options = {'mixing__mixup': '0.5', 'mixing__cutmix': '1.0'}
  cache = tmp_path / 'answers'
  kept = options | {'task__teacher_cache': str(cache)}
  loop.train(_student(teacher_run, **options), str(tmp_path / 'plain'))
  loop.train(_student(teacher_run, **kept), str(tmp_path / 'first'))
  (file,) = cache.iterdir()
  whole = file.read_bytes()
  assert len(whole) == 6 * 16 * 10 * 4
  file.write_bytes(whole[: 3 * 16 * 10 * 4 + 7])
  loop.train(_student(teacher_run, **kept), str(tmp_path / 'second'))
  assert file.read_bytes() == whole

  def none(*_):
    raise AssertionError('computed again')

  monkeypatch.setattr(parallel.DataPlacement, 'compile_with_step', lambda self, f: none)
  loop.train(_student(teacher_run, **kept), str(tmp_path / 'third'))
  for name in ('first', 'second', 'third'):
    assert _rows(tmp_path / name) == _rows(tmp_path / 'plain')
  monkeypatch.undo()
  loop.train(_student(teacher_run, **kept, seed='1'), str(tmp_path / 'other'))
  assert len(list(cache.iterdir())) == 2  # other crops, other answers


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


@pytest.mark.parametrize(
  'overrides, words',
  [
    ({'task__name': 'distill'}, 'config.task.teacher=MODEL need each other'),
    ({'task__teacher': 'x.npz'}, 'config.task.teacher=MODEL need each other'),
  ],
)
def test_a_task_and_its_teacher_go_together(overrides, words):
  with pytest.raises(UserError, match=words):
    _config(**overrides)


def test_a_teacher_of_other_classes_is_refused_in_one_line(teacher_run, tmp_path):
  pictures = tmp_path / 'pictures'
  for name in ('cat', 'dog'):
    (pictures / name).mkdir(parents=True)
    for i in range(16):
      from PIL import Image

      Image.new('RGB', (16, 16), (i, 0, 0)).save(pictures / name / f'{i}.png')
  run = subprocess.run(
    [
      sys.executable,
      '-m',
      'vit_jax.main',
      f'--config={ROOT}/configs/vit_digits.py',
      f'--workdir={tmp_path / "run"}',
      '--config.task.name=distill',
      '--config.batch_size=8',
      f'--config.task.teacher={teacher_run}',
      f'--config.dataset.name={pictures}',
    ],
    cwd=ROOT,
    capture_output=True,
    text=True,
  )
  assert run.returncode == 1 and run.stderr.count('\n') == 1
  assert "does not know 2 of the dataset's 2, such as 'cat'" in run.stderr


def test_the_cache_folder_must_be_writable(teacher_run, tmp_path):
  (tmp_path / 'file').write_text('')
  run = experiment.prepare(_student(teacher_run, task__teacher_cache=str(tmp_path / 'file' / 'a')))
  with pytest.raises(UserError, match='cannot keep answers'):
    distillation.start(run, parallel.make('data'))
