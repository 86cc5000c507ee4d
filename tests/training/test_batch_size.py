"""`batch_size=auto`: the search, and runs whose batch it finds."""

import json

import jax
import pytest

from tests.support import raises
from tests.training.runs import options
from vit_jax import config, machine
from vit_jax.errors import ConfigError
from vit_jax.training import batch_size, loop
from vit_jax.training.preparation import prepared


@pytest.mark.parametrize('limit, size', [(1000, 88), (1009, 88), (1010, 89), (209, 8), (210, 9)])
def test_the_largest_that_fits_is_found_by_a_line(limit, size):
  """120 bytes and 10 for each example: 10 x 88 + 120 = 1000. In units of 1 and of 3."""
  found = batch_size.largest(lambda n: 120 + 10 * n, 1, 10**6, limit)
  assert found.batch_size <= size <= found.batch_size * 1.02
  assert found.needed == 120 + 10 * found.batch_size <= limit and len(found.tried) <= 6
  found = batch_size.largest(lambda n: 120 + 10 * n, 3, 3 * 10**5, limit)
  assert size - 3 < found.batch_size * 1.02 and found.batch_size % 3 == 0 and found.needed <= limit


def test_steps_and_ends_of_the_range():
  """Memory that jumps; all that is wanted fits; nothing fits."""

  def jumps(n):
    return 100 * (n // 10 + 1)

  found = batch_size.largest(jumps, 1, 1000, 555)
  assert found.batch_size in (48, 49) and found.needed == 500
  assert batch_size.largest(jumps, 2, 50, 10**9).batch_size == 50
  assert batch_size.largest(jumps, 8, 8, 10**9).batch_size == 8
  with raises(ConfigError, 'batch_size=auto', '7', 'remat'):
    batch_size.largest(jumps, 7, 70, 99)


def test_on_the_host_compiling_takes_of_what_is_free(monkeypatch):
  monkeypatch.setattr(machine, 'free_memory_bytes', lambda: 1000)
  (device, *_) = jax.devices('cpu')
  assert batch_size.free_bytes(device) == 920
  assert batch_size.free_bytes(device, 250) == 690 and batch_size.free_bytes(device, 1001) == 0


@pytest.mark.parametrize(
  'parallel', ['data', *(pytest.param(p, marks=pytest.mark.slow) for p in ('pmap', 'fsdp'))]
)
def test_a_run_finds_its_batch_and_keeps_it(tmp_path, monkeypatch, capsys, parallel):
  """A limit between what 24 and 40 examples need; the second attempt has less memory."""
  named = {'parallel': parallel, 'total': '2 steps', 'dataset__test': '', 'dataset__val': ''}
  fixed = options(batch_size='24', **named)
  with prepared(fixed, tmp_path / 'run') as plan:
    needs = {
      size: batch_size._needed(options(batch_size=str(size), **named), plan, size)
      for size in (24, 40)
    }
  assert needs[24] < needs[40]
  monkeypatch.setattr(batch_size, 'free_bytes', lambda *_: (needs[24] + needs[40]) // 2)
  auto = options(batch_size='auto', **named)
  loop.train(auto, str(tmp_path / 'run'))
  chosen = json.loads((tmp_path / 'run' / 'config.json').read_text())['batch_size']
  assert chosen % 4 == 0 and 24 <= chosen < 40
  assert f'auto: {chosen} (4 devices' in capsys.readouterr().out
  monkeypatch.setattr(batch_size, 'free_bytes', lambda *_: 1)
  assert batch_size.resolved(auto, tmp_path / 'run').batch_size == chosen
  with raises(ConfigError, 'auto', 4):
    loop.train(auto, str(tmp_path / 'other'))
  assert not (tmp_path / 'other').exists()


def test_the_word_is_for_files_and_command_lines_and_stands_for_nothing_else(tmp_path):
  file = tmp_path / 'auto.py'
  file.write_text(
    'from vit_jax import config\n\ndef get_config():\n  options = config.default()\n'
    "  options.batch_size = 'auto'\n  return options\n"
  )
  assert config.load(str(file)).batch_size == config.AUTO
  assert config.load(str(file), {'batch_size': '32'}).batch_size == 32
  for wrong in ('0', '-1', 'all', 'AUTO', '2.5'):
    with raises(ConfigError, 'config.batch_size'):
      options(batch_size=wrong)
