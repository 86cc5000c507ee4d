"""The command that converts weights."""

import json
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
  ):
    with raises(error, *facts):
      convert.main(arguments)


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


@pytest.mark.parametrize('module', ['convert', 'predict', 'features'])
def test_help_starts_no_jax(module):
  code = (
    f'import sys, runpy; sys.argv = ["x", "--help"]\n'
    f'try: runpy.run_module("vit_jax.{module}", run_name="__main__", alter_sys=True)\n'
    f'except SystemExit as e: assert not e.code\n'
    f'assert "jax" not in sys.modules and "numpy" not in sys.modules\n'
  )
  subprocess.run([sys.executable, '-c', code], check=True, capture_output=True)
