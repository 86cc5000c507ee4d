"""A model of ours timed in turns with another program."""

import json
import os
import sys

import pytest

from tests.support import raises
from vit_jax import bench
from vit_jax.benchmark import side_by_side
from vit_jax.errors import ConfigError, DependencyError, ModelError, WeightsError

_WORDS = {'batch': 6, 'size': 8, 'classes': 3, 'dtype': 'float32'}
_SLEEPS = (
  'import time\ndef train(): time.sleep({})\ndef infer(): assert images.shape == (6, 8, 8, 3)'
)


def test_rates_are_of_the_batch_and_the_median():
  codes = {name: (sys.executable, _SLEEPS.format(s), '') for name, s in (('a', 0.02), ('b', 0.2))}
  timings = side_by_side.time_in_turns(codes, _WORDS, 3)
  assert 6 / 0.2 * 0.5 < timings['b'].rates['train'] <= 6 / 0.2
  assert timings['a'].rates['train'] > 2 * timings['b'].rates['train']
  assert timings['a'].first_steps['train'] >= 0.02 and timings['a'].memory_mib > 1
  shown = side_by_side.table(timings).splitlines()
  assert shown[0].split() == ['a', 'b'] and 'x' in shown[2]


@pytest.mark.parametrize('code', ['import no_such_library', 'def train(): raise OSError("gone")'])
def test_a_peer_that_fails_says_why(code):
  with raises(DependencyError, 'other', 'no_such_library' if 'no_such' in code else 'gone'):
    side_by_side.time_in_turns({'other': (sys.executable, code, '')}, _WORDS, 2)


def test_an_interpreter_is_found_from_here_or_named(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  with raises(DependencyError, 'other', str(tmp_path / 'bin' / 'python')):
    side_by_side.time_in_turns({'other': ('bin/python', '', '')}, _WORDS, 1)
  python = os.path.relpath(sys.executable)
  codes = {'other': (python, 'def train(): pass\ndef infer(): pass', '')}
  assert side_by_side.time_in_turns(codes, _WORDS, 1)['other'].rates['train'] > 0


def test_the_command_compares_with_what_the_peer_says(monkeypatch, capsys):
  assert set(side_by_side.PEERS) == {'timm', 'timm_compiled'}
  stands_in = (
    'def train(): pass\ndef infer(): assert words["architecture"] == "vit_tiny_patch16_224"'
  )
  monkeypatch.setitem(side_by_side.PEERS, 'timm', stands_in)
  words = ['--compare=timm', '--batch_size=1', '--image_size=16', '--steps=1', '--set', 'depth=1']
  assert bench.main(['vit_ti16', *words, '--json=-']) == 0
  (row,) = json.loads(capsys.readouterr().out.splitlines()[-1])
  assert list(row['peers']) == ['vit_jax', 'timm'] and row['cores'] >= 1
  for timing in row['peers'].values():
    assert set(timing['rates']) == {'train', 'infer'} and timing['rates']['infer'] > 0


@pytest.mark.parametrize(
  'words, kind, facts',
  [
    (['vit_ti16', '--compare=tim'], ConfigError, ["'tim'", "'timm'"]),
    (['t2t_vit_14', '--compare=timm'], WeightsError, ['timm']),
    (['vit_ti16', '--compare=timm', '--image_size=7'], ModelError, ['16']),
    (['vit_ti16', '--compare=timm', '--only=input'], ConfigError, ['input']),
  ],
)
def test_mistakes_are_reported(words, kind, facts):
  with raises(kind, *facts):
    bench.main(words)
