"""Processes that were started with different options, or in folders of their own, are refused."""

import pytest

from tests.support import raises
from tests.training.runs import options
from vit_jax import processes
from vit_jax.errors import ConfigError, StorageError
from vit_jax.processes import alike
from vit_jax.training import starting


@pytest.fixture
def beside(monkeypatch):
  """beside(*values): other processes say these of themselves."""

  def say(*values):
    for module in (alike, processes):
      monkeypatch.setattr(module, 'collected', lambda mine: [mine, *values])
    monkeypatch.setattr(processes, 'count', lambda: 1 + len(values))

  return say


def test_other_options_are_named(beside):
  given = {'--split': 'val', '--out': 3}
  beside({'--split': 'val', '--out': '3'})
  processes.refuse_unlike(given)
  beside({'--split': 'val', '--out': '3'}, {'--split': 'test', '--out': '3'})
  with raises(ConfigError, 'process 2', "--split='test'", "process 0 with --split='val'"):
    processes.refuse_unlike(given)


def test_configs_are_compared_by_what_they_mean(beside, monkeypatch):
  heard = []
  monkeypatch.setattr(alike, 'collected', lambda mine: heard.append(mine) or [mine])
  wide = options(model__width='32', batch_size='32')
  starting.refuse_unlike(wide)
  beside(*heard)
  starting.refuse_unlike(wide)
  with raises(ConfigError, 'process 1', "config.batch_size='32'", "config.model.width='16'"):
    starting.refuse_unlike(options())


def test_a_folder_that_another_process_does_not_see(beside, tmp_path):
  beside(True)
  starting.refuse_unshared(tmp_path)
  beside(True, False)
  with raises(ConfigError, 'process 2', tmp_path, 'share'):
    starting.refuse_unshared(tmp_path)
  assert list(tmp_path.iterdir()) == []
  with raises(StorageError, 'cannot write', tmp_path / 'absent'):
    starting.refuse_unshared(tmp_path / 'absent')
