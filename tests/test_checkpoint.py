"""The format of checkpoints and of weights' records is stated, and a newer one is refused."""

import json
import math
import pathlib

import numpy as np
import pytest

from tests.support import raises
from vit_jax import checkpoint, load
from vit_jax.checkpoint import checksums
from vit_jax.errors import CheckpointError, WeightsError
from vit_jax.weights import record

META = {
  'data_state': {},
  'config': {'checkpoint': {'best': 'accuracy', 'best_mode': 'max'}},
  'model': {'name': 'vit_ti16'},
  'classes': ['a'],
  'preprocess': {},
}


@pytest.fixture
def saved(tmp_path):
  keeper = checkpoint.Checkpointer(tmp_path, 2, 'accuracy', 'max')
  keeper.save(3, {'params': {'w': np.ones(5)}}, {'step': np.int32(3)}, META, {})
  keeper.wait()
  keeper.close()
  return tmp_path


def _rewrite(folder, version):
  """Sets or removes the version in the metadata of a checkpoint."""
  (file,) = (p for p in pathlib.Path(folder).rglob('metadata') if p.parent.name == 'meta')
  meta = json.loads(file.read_text())
  written = meta.pop('format_version', None)
  if version is not None:
    meta['format_version'] = version
  file.write_text(json.dumps(meta))
  if version is None:  # as version 0.1 wrote it
    (file.parents[1] / checksums.FILE).unlink()
  else:
    checksums.write(file.parents[1])
  return written


def _opened(folder):
  keeper = checkpoint.Checkpointer(folder, 2, 'accuracy', 'max')
  try:
    return keeper.read_newest().meta
  finally:
    keeper.close()


def test_a_checkpoint_states_its_format(saved):
  assert _rewrite(saved, None) == checkpoint.FORMAT_VERSION == 1
  assert checkpoint.load_run(str(saved)).step == 3  # as all before had none
  assert _opened(saved)['step'] == 3


def test_the_best_step_is_the_newest_of_equal_ones():
  scores = {5: 0.7, 10: 0.9, 15: math.nan, 20: 0.9, 25: 0.7}
  assert checkpoint.best_step(scores, 'max') == 20
  assert checkpoint.best_step(scores, 'min') == 25
  assert checkpoint.best_step({5: math.nan}, 'max') is checkpoint.best_step({}, 'min') is None


def test_a_checkpoint_as_good_as_the_best_takes_its_place(tmp_path):
  keeper = checkpoint.Checkpointer(tmp_path, 1, 'loss', 'min')
  for step, loss in ((3, 0.5), (5, 0.5), (7, 0.6)):
    assert keeper.is_best(step, {'loss': loss}) == (loss < 0.6)
    keeper.save(step, {'w': np.ones(2)}, {'step': np.int32(step)}, META, {'loss': loss})
  keeper.wait()
  assert not keeper.is_best(9, {}) and not keeper.is_best(9, {'loss': math.nan})
  keeper.close()
  assert sorted(p.name for p in (tmp_path / 'checkpoints').iterdir()) == ['5', '7']


def test_a_path_may_be_relative(saved, monkeypatch):
  monkeypatch.chdir(saved.parent)
  assert checkpoint.load_run(saved.name).variables['params']['w'].tolist() == [1.0] * 5


def test_a_checkpoint_of_a_newer_format_is_refused(saved):
  _rewrite(saved, 2)
  for opened in (checkpoint.load_run, load, _opened):
    with raises(CheckpointError, 'format 2', 'checkpoints/3', 'newer') as caught:
      opened(str(saved))
    assert '\n' not in str(caught.value)


def test_a_record_states_its_format_and_a_newer_one_is_refused():
  path = pathlib.Path('w.safetensors')
  written = record.Record(format='vit_jax', num_classes=2).to_json()
  assert written['version'] == record.VERSION == 1
  assert record.Record.from_json(written, path).num_classes == 2
  older = {k: v for k, v in written.items() if k != 'version'}
  assert record.Record.from_json(older, path).num_classes == 2
  with raises(WeightsError, 'w.safetensors', 'format 7', 'newer'):
    record.Record.from_json({**written, 'version': 7}, path)
