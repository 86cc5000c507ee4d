"""The command that converts weights."""

import ast
import json
import re
import subprocess
import sys

import numpy as np
import pytest

from tests.support import raises
from tests.weights import oracle
from vit_jax import convert
from vit_jax.errors import ConfigError, StorageError


def test_the_command(tmp_path, capsys):
  np.savez(tmp_path / 'w.npz', **oracle.official()[0])
  source = str(tmp_path / 'w.npz')
  out = str(tmp_path / 'out.safetensors')
  assert convert.main([source, out, '--set=num_heads=3']) == 0
  assert 'every tensor used as it is' in capsys.readouterr().out
  assert convert.main([out, str(tmp_path / 'hf'), '--to=hf', '--image_size', '40', '16']) == 0
  assert 'resized' in capsys.readouterr().out
  assert json.loads((tmp_path / 'hf' / 'config.json').read_text())['image_size'] == [40, 16]
  reset = [out, str(tmp_path / 'r.npz'), '--head=reset', '--num_classes=3']
  assert convert.main(reset) == 0
  assert convert.read(tmp_path / 'r.npz').num_classes == 3


def test_bad_arguments_are_refused(tmp_path):
  np.savez(tmp_path / 'w.npz', **oracle.official()[0])
  source, out = str(tmp_path / 'w.npz'), str(tmp_path / 'out.safetensors')
  for arguments, error, *facts in (
    ([source], ConfigError, 'SOURCE and TARGET'),
    ([source, 'x.what'], ConfigError, 'x.what', '--to=', 'npz'),
    ([source, out, '--model=vit_b17'], ConfigError, 'vit_b17', 'did you mean'),
    ([source, out, '--set=depth'], ConfigError, 'depth', 'FIELD=VALUE'),
    ([source, out, '--image_size', '1', '2', '3'], ConfigError, '--image_size', '3'),
    ([source, str(tmp_path / 'none' / 'x.npz')], StorageError, 'cannot write', 'x.npz'),
    ([source, 'x.pth'], ConfigError, '.pth', '.safetensors', '--to'),
    ([source, 'x.pth', '--to=timm'], ConfigError, 'x.pth', 'x.safetensors or x'),
    ([source, 'x.PT', '--to=timm'], ConfigError, 'x.PT', 'x.safetensors or x'),
    ([source, 'x.ckpt', '--to=hf'], ConfigError, 'x.ckpt', 'folder', 'name it x'),
    ([source, 'x.safetensors', '--to=hf'], ConfigError, 'x.safetensors', 'folder'),
    ([source, 'x.h5', '--to=npz'], ConfigError, 'x.h5', 'x.npz'),
    ([source, 'x.pth.tar', '--to=big_vision'], ConfigError, 'x.pth.tar', 'name it x.npz'),
    ([source, 'x.npz', '--to=vit_jax'], ConfigError, 'x.npz', 'name it x.safetensors'),
    ([source, 'x.weights.h5'], ConfigError, 'name it x.h5'),
  ):
    with raises(error, *facts):
      convert.main(arguments)


@pytest.mark.parametrize(
  'to, target, lost',
  [
    ('npz', 'out.npz', 'out.npz'),
    ('npz', 'out.npz', 'out.npz.json'),
    ('vit_jax', 'out.safetensors', 'out.safetensors'),
    ('timm', 'out.safetensors', 'out.safetensors'),
    ('timm', 'folder', 'folder/config.json'),
    ('hf', 'folder', 'folder/preprocessor_config.json'),
  ],
)
def test_no_file_is_replaced_unless_that_is_asked_for(tmp_path, capsys, to, target, lost):
  np.savez(tmp_path / 'w.npz', **oracle.official()[0])
  (tmp_path / 'folder').mkdir()
  (tmp_path / 'folder' / 'README').write_text('kept')  # what is not replaced may be there
  (tmp_path / lost).write_text('mine')
  words = [str(tmp_path / 'w.npz'), str(tmp_path / target), f'--to={to}']
  with raises(StorageError, str(tmp_path / lost), '--overwrite'):
    convert.main(words)
  assert (tmp_path / lost).read_text() == 'mine'
  assert convert.main([*words, '--overwrite']) == 0
  assert (tmp_path / lost).read_bytes() != b'mine'
  assert (tmp_path / 'folder' / 'README').read_text() == 'kept'
  assert convert.read(tmp_path / target).format == to


def test_a_name_with_a_slash_is_a_folder_and_dots_are_allowed(tmp_path):
  np.savez(tmp_path / 'w.npz', **oracle.official()[0])
  for target in ('x.pth/', 'vit.v2'):
    assert convert.main([str(tmp_path / 'w.npz'), str(tmp_path) + f'/{target}', '--to=timm']) == 0
    assert (tmp_path / target / 'config.json').is_file()


def test_help_tells_what_kind_of_target_each_format_has(capsys):
  with pytest.raises(SystemExit):
    convert.main(['--help'])
  text = ' '.join(capsys.readouterr().out.split())
  for kind in ('hf: folder', 'timm: .safetensors file or folder', 'keras: .h5 file', 'npz: .npz'):
    assert kind in text, kind


@pytest.mark.parametrize(
  'to,gelu,note',
  [
    ('npz', 'exact', 'exact GELU'),
    ('npz', 'tanh', ''),
    ('timm', 'tanh', 'gelu_tanh'),
    ('timm', 'exact', ''),
  ],
)
def test_what_another_program_would_compute_otherwise_is_noted(tmp_path, capsys, to, gelu, note):
  np.savez(tmp_path / 'w.npz', **oracle.official()[0])
  target = str(tmp_path / ('out.npz' if to == 'npz' else 'out'))
  convert.main([str(tmp_path / 'w.npz'), target, f'--to={to}', f'--set=gelu={gelu}'])
  notes = [line for line in capsys.readouterr().out.splitlines() if line.startswith('note: ')]
  assert len(notes) == bool(note) and all(note in line for line in notes)


def test_a_single_file_for_timm_comes_with_the_call_that_builds_its_model(tmp_path, capsys):
  np.savez(tmp_path / 'w.npz', **oracle.official()[0])
  target = tmp_path / 'out.safetensors'
  convert.main([str(tmp_path / 'w.npz'), str(target), '--to=timm', '--set=gelu=tanh'])
  out = capsys.readouterr().out
  assert 'config.json' not in out and b'config.json' not in target.read_bytes()
  [call] = re.findall(r'timm\.create_model\(.*?\)', out)
  words = {w.arg: ast.literal_eval(w.value) for w in ast.parse(call).body[0].value.keywords}
  assert words['checkpoint_path'] == str(target) and words['act_layer'] == 'gelu_tanh'
  assert (words['img_size'], words['num_classes'], words['depth']) == ([24, 24], 5, 2)


@pytest.mark.parametrize('module', ['convert', 'predict', 'features'])
def test_help_starts_no_jax(module):
  code = (
    f'import sys, runpy; sys.argv = ["x", "--help"]\n'
    f'try: runpy.run_module("vit_jax.{module}", run_name="__main__", alter_sys=True)\n'
    f'except SystemExit as e: assert not e.code\n'
    f'assert "jax" not in sys.modules and "numpy" not in sys.modules\n'
  )
  subprocess.run([sys.executable, '-c', code], check=True, capture_output=True)
