"""The command that shows what differs between two configs."""

import json
import pathlib

import pytest

from tests.support import raises
from vit_jax import config, diff
from vit_jax.errors import ConfigError

ROOT = pathlib.Path(__file__).resolve().parents[1]
DIGITS = str(ROOT / 'configs/vit_digits.py')


@pytest.fixture
def run(tmp_path):
  options = config.load(DIGITS, {'batch_size': '32', 'model.width': '32', 'freeze': 'head,stem'})
  (tmp_path / 'config.json').write_text(json.dumps(options.to_json()))
  return str(tmp_path)


def _changed(capsys, *words):
  assert diff.main([*words, '--json']) == 0
  return json.loads(capsys.readouterr().out)


def test_a_file_and_a_run(run, capsys):
  expected = {'batch_size': [64, 32], 'freeze': [[], ['head', 'stem']], 'model.width': [64, 32]}
  assert _changed(capsys, DIGITS, run) == expected
  assert _changed(capsys, DIGITS, f'{run}/config.json') == expected
  assert _changed(capsys, run, run) == {}
  overrides = ['--config.batch_size=64', '--config.freeze', '', '--config.model.width=64']
  assert _changed(capsys, DIGITS, run, *overrides) == {}
  assert _changed(capsys, run, DIGITS, '--config.model.width=32', '--config.freeze=head,stem') == {
    'batch_size': [32, 64]
  }


def test_the_table_is_aligned(run, capsys):
  assert diff.main([DIGITS, run]) == 0
  lines = capsys.readouterr().out.splitlines()
  assert [line.split() for line in lines] == [
    ['option', DIGITS, run],
    ['batch_size', '64', '32'],
    ['freeze', '-', 'head,stem'],
    ['model.width', '64', '32'],
  ]
  assert len({line.rindex(line.split()[-1]) for line in lines}) == 1
  assert diff.main([run, run]) == 0 and len(capsys.readouterr().out.splitlines()) == 1


def test_one_is_compared_with_the_defaults(run, capsys):
  changed = _changed(capsys, run, '--config.model.name=mixer_s16')
  assert changed['batch_size'] == [64, 32] and 'model.width' not in changed
  assert changed['model.name'] == ['vit_ti16', 'mixer_s16']
  assert changed['optimizer.name'] == ['sgd', 'adamw']


def test_fields_of_a_model_are_compared_with_what_they_are_otherwise(capsys):
  words = [DIGITS, DIGITS, '--config.model.mlp_dim=128', '--config.model.dropout=0.0']
  assert _changed(capsys, *words) == {}


@pytest.mark.parametrize(
  'words, facts',
  [
    (['no.json', DIGITS], ['no.json']),
    (['.', DIGITS], ['config.json']),
    ([DIGITS, DIGITS, DIGITS], ['3']),
    ([DIGITS, '--config.batch_size=0'], ['config.batch_size']),
    ([DIGITS, '--config.batch_size', '--jsn'], ['--config.batch_size', '--jsn']),
    ([], ['A']),
  ],
)
def test_mistakes(tmp_path, monkeypatch, words, facts):
  monkeypatch.chdir(tmp_path)
  with raises(ConfigError, *facts):
    diff.main(words)
