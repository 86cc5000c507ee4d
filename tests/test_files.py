"""Files appear whole or not at all."""

import csv
import json
import re

import numpy as np
import pytest

from tests.support import raises
from vit_jax import files
from vit_jax.errors import StorageError


def test_a_file_is_replaced_when_the_block_ends(tmp_path):
  path = tmp_path / 'x.txt'
  path.write_text('old')
  with files.replacing(path) as temporary:
    temporary.write_text('new')
    assert path.read_text() == 'old' and temporary.parent == tmp_path
  assert path.read_text() == 'new'
  assert list(tmp_path.iterdir()) == [path]


def test_an_error_leaves_the_old_file_alone(tmp_path):
  path = tmp_path / 'x.txt'
  path.write_text('old')
  with pytest.raises(ValueError, match='seven'), files.replacing(path) as temporary:
    temporary.write_text('half')
    raise ValueError('seven')
  assert path.read_text() == 'old'
  assert list(tmp_path.iterdir()) == [path]


def test_what_a_kill_left_half_written_is_removed_and_nothing_else(tmp_path):
  (tmp_path / '.folder.12.tmp').mkdir()
  for name in ('.a.png.12.tmp', '.b c.json.7.tmp', 'a.png', '.lock', '.mine.tmp', 'x.1.tmp'):
    (tmp_path / name).write_text('x')
  files.remove_temporaries(tmp_path)
  left = {p.name for p in tmp_path.iterdir()}
  assert left == {'a.png', '.lock', '.mine.tmp', 'x.1.tmp', '.folder.12.tmp'}
  files.remove_temporaries(tmp_path / 'absent')


@pytest.mark.parametrize('named', ['gs://bucket/cache', '~no_such_user_of_any_system/cache'])
def test_a_cache_that_is_no_folder_here_is_named(monkeypatch, named):
  monkeypatch.setenv('VIT_JAX_CACHE', named)
  with raises(StorageError, named):
    files.cache_folder()


@pytest.mark.parametrize('parent', ['missing', 'file'])
def test_what_the_system_refuses_names_the_file(tmp_path, parent):
  (tmp_path / 'file').write_text('')
  path = tmp_path / parent / 'x.json'
  with raises(StorageError, 'cannot write', path):
    files.write_json(path, {})


def test_folders_are_made_with_their_parents(tmp_path):
  assert files.make_folder(tmp_path / 'a' / 'b').is_dir()
  (tmp_path / 'file').write_text('')
  with raises(StorageError, tmp_path / 'file' / 'a'):
    files.make_folder(tmp_path / 'file' / 'a')


def test_json_keeps_letters_or_escapes_them(tmp_path):
  for ascii_only, text in ((False, 'bée'), (True, 'b\\u00e9e')):
    files.write_json(tmp_path / 'x.json', {'a': 'bée'}, ascii_only)
    content = (tmp_path / 'x.json').read_text(encoding='utf-8')
    assert content == '{\n  "a": "' + text + '"\n}\n' and json.loads(content) == {'a': 'bée'}


def test_tables_leave_what_is_no_number_empty(tmp_path):
  rows = [[1 / 3, np.float32(1 / 3), 7, True, 'x'], [float('nan'), np.float32('inf'), None, 0, '']]
  files.write_csv(tmp_path / 'x.csv', list('abcde'), rows)
  assert (tmp_path / 'x.csv').read_text().splitlines() == [
    'a,b,c,d,e',
    '0.333333,0.333333,7,True,x',
    ',,,0,',
  ]


def test_texts_that_a_spreadsheet_would_run_are_texts(tmp_path):
  texts = ['=1+1', '+1', '-cat', '@sum', '\t=1', '\r=1', '\n=1', '＝1', "'=1", "''-1"]
  others = ["'tis", 'a=b', ' =1', '', '1', "'"]
  files.write_csv(tmp_path / 'x.csv', [*texts, *others], [[*texts, *others], [-1, -0.5, -1e-9]])
  with open(tmp_path / 'x.csv', newline='', encoding='utf-8') as f:
    header, row, numbers = csv.reader(f)
  assert header == row == ["'" + text for text in texts] + others
  assert numbers == ['-1', '-0.5', '-1e-09']
  assert [re.sub("^'(?='*[=+@\t\r\n＝-])", '', cell) for cell in row] == [*texts, *others]


@pytest.mark.parametrize(
  'name', ['猫' * 200, 'x' * 300, '../../x', 'a\nb', 'C:\\x', 'caf\udce9' * 90]
)
def test_a_figures_name_stays_in_its_folder_and_is_a_file_name(tmp_path, name):
  stem = files.unique_stem(name, set())
  (tmp_path / f'{stem}_attention_rollout.png').write_bytes(b'')
  assert len(list(tmp_path.iterdir())) == 1 and not set(stem) & set('/\\:\n')
  used = {stem.casefold()}
  assert files.unique_stem(name, used) == f'{stem}_2'


def test_names_are_unique_where_case_makes_no_difference():
  used: set[str] = set()
  wished = ['a', 'A', 'a_2', 'a', 'b', 'STRASSE', 'straße']
  found = [files.unique_stem(stem, used) for stem in wished]
  assert found == ['a', 'A_2', 'a_2_2', 'a_3', 'b', 'STRASSE', 'straße_2']


def test_file_names_of_other_systems_are_escaped_and_read_back(tmp_path):
  name = 'caf\udce9.png'
  files.write_json(tmp_path / 'x.json', [name, 'é'])
  assert json.loads((tmp_path / 'x.json').read_text('utf-8')) == [name, 'é']
  files.write_csv(tmp_path / 'x.csv', ['image'], [[name]])
  files.write_text(tmp_path / 'x.txt', name)
  for path in ('x.csv', 'x.txt'):
    assert 'caf\\udce9.png' in (tmp_path / path).read_text('utf-8')
