"""Placements: batch sizes that devices can share, and the state as it is saved."""

import logging

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest

from tests.support import raises
from vit_jax import parallel, processes
from vit_jax.errors import ConfigError
from vit_jax.parallel import placements


def test_a_batch_that_cannot_be_divided_names_the_nearest():
  why = '4 devices x 2 gradient accumulation steps'
  parallel.check_batch_size('config.batch_size', 24, 8, why)
  with raises(ConfigError, 'config.batch_size=22', why, '16 or 24'):
    parallel.check_batch_size('config.batch_size', 22, 8, why)
  with raises(ConfigError, 'config.batch_size=3') as caught:
    parallel.check_batch_size('config.batch_size', 3, 8, '8 devices')
  assert str(caught.value).endswith(' 8')  # there is none below


@pytest.mark.parametrize('name', parallel.PLACEMENTS)
def test_batches_are_rounded_up_to_the_devices(name):
  assert [parallel.round_up(n, parallel.make(name)) for n in (1, 4, 5)] == [4, 4, 8]


@pytest.mark.parametrize(
  'name, mesh, parts',
  [('data', None, 1), ('pmap', None, 1), ('fsdp', (1, 4), 4), ('fsdp', (2, 2), 2)],
)
def test_a_state_of_several_copies_is_saved_from_the_first(name, mesh, parts, tmp_path, caplog):
  placement = parallel.make(name, mesh=mesh and parallel.Mesh(*mesh))
  state = {'large': np.arange(32 * 768.0, dtype=np.float32).reshape(32, 768), 'small': np.ones(3)}
  one = placement.get_state(placement.put_state(state))
  if name != 'pmap':  # which gives NumPy's
    assert {k: len(x.addressable_shards) for k, x in one.items()} == {'large': parts, 'small': 1}
  caplog.set_level(logging.DEBUG, 'jax')
  with ocp.StandardCheckpointer() as checkpointer:
    checkpointer.save(tmp_path / 'state', one)
    checkpointer.wait_until_finished()
    saved = checkpointer.restore(tmp_path / 'state', jax.tree.map(np.empty_like, state))
  assert not [r for r in caplog.records if 'XLA compilation' in r.message]  # of slices
  jax.tree.map(np.testing.assert_array_equal, saved, state)


def test_processes_that_are_not_connected_are_refused(monkeypatch):
  monkeypatch.setattr(jax, 'process_count', lambda: 2)  # as a pod's runtime says it by itself
  with raises(ConfigError, '2 processes', 'jax.distributed.initialize'):
    parallel.make('data')


def test_no_process_runs_a_step_before_all_have_compiled_it(monkeypatch):
  calls = []

  class Step:
    def lower(self, *args):
      calls.append(f'lower {args}')
      return self

    def compile(self):
      calls.append('compile')

    def __call__(self, *args):
      calls.append(f'run {args}')

  alone = Step()
  assert placements.together(alone) is alone
  monkeypatch.setattr(processes, 'count', lambda: 2)
  monkeypatch.setattr(processes, 'collected', lambda value: calls.append('all'))
  step = placements.together(Step())
  step(1)
  step(2)
  assert calls == ['lower (1,)', 'compile', 'all', 'run (1,)', 'run (2,)']
