"""The notebooks: stored without outputs, and run from top to bottom on embedded data."""

import json
import pathlib
import re

import pytest

from tests.models import small
from vit_jax import convert
from vit_jax.data import Preprocess

ROOT = pathlib.Path(__file__).resolve().parents[1]
NOTEBOOKS = {path.stem: path for path in sorted((ROOT / 'colabs').glob('*.ipynb'))}

# Overrides with which the notebooks' experiments run on digits, with tiny fresh models.
_DIGITS = {
  'init_from': '',
  'freeze': '',
  'total': '40 steps',
  'batch_size': '20',
  'dataset.per_class': '40',
  'input.image_size': '16',
  'input.train_transform': 'decode|resize',
  'input.eval_transform': 'decode|resize',
  'optimizer.learning_rate': '3e-3',
  'evaluation.every': '20 steps',
  'checkpoint.every': '20 steps',
  'log.tensorboard': 'false',
}
_VIT = {
  'model.name': 'vit_ti16',
  'model.patch_size': '4,4',
  'model.width': '32',
  'model.depth': '2',
  'model.num_heads': '2',
  'model.mlp_dim': '48',
  'model.pool': 'gap',
}
_CNN = {'model.width': '8', 'model.blocks': '1,1,1'}


def test_there_are_three():
  assert list(NOTEBOOKS) == ['fine_tune', 'quickstart', 'vit_vs_cnn']


@pytest.mark.parametrize('name', NOTEBOOKS)
def test_stored_without_outputs_and_installed_by_one_cell(name):
  cells = json.loads(NOTEBOOKS[name].read_text())['cells']
  codes = [''.join(cell['source']) for cell in cells if cell['cell_type'] == 'code']
  for cell in cells:
    assert not cell.get('outputs') and cell.get('execution_count') is None
  assert ["'pip', 'install'" in code for code in codes] == [True] + [False] * (len(codes) - 1)
  assert cells[0]['cell_type'] == 'markdown' and cells[0]['source'][0].startswith('# ')


def _run(name, folder, monkeypatch, **environment):
  """The executed notebook, with its own folder to work in."""
  nbclient = pytest.importorskip('nbclient')
  import nbformat

  values = {'PYTHONPATH': str(ROOT), 'JAX_PLATFORMS': 'cpu', 'XLA_FLAGS': '', 'MPLBACKEND': None}
  for key, value in {**values, **environment}.items():
    if value is None:
      monkeypatch.delenv(key, raising=False)
    else:
      monkeypatch.setenv(key, value)
  notebook = nbformat.read(NOTEBOOKS[name], 4)
  resources = {'metadata': {'path': folder}}
  nbclient.NotebookClient(notebook, timeout=600, startup_timeout=300, resources=resources).execute()
  return notebook


def _images(notebook):
  outputs = [o for cell in notebook.cells for o in cell.get('outputs', ())]
  return sum('image/png' in o.get('data', {}) for o in outputs)


def _text(notebook):
  outputs = [o for cell in notebook.cells for o in cell.get('outputs', ())]
  return ''.join(o.get('text', '') for o in outputs)


def test_quickstart(tmp_path, monkeypatch):
  module = small.build('vit_ti16', 5)
  file = tmp_path / 'weights.safetensors'
  convert.write(
    file,
    small.variables(module, 3, 3),
    module,
    'vit_jax',
    model=convert.description(module, 'vit_ti16'),
    classes=['ant', 'bee', 'cat', 'dog', 'eel'],
    preprocess=Preprocess('decode|resize_small(24)|central_crop(24)'),
  )
  notebook = _run('quickstart', tmp_path, monkeypatch, VIT_JAX_WEIGHTS=str(file))
  assert 'ViT of 5 classes' in _text(notebook)
  assert _images(notebook) == 4


def test_fine_tune(tmp_path, monkeypatch):
  options = json.dumps(_DIGITS | _VIT)
  notebook = _run('fine_tune', tmp_path, monkeypatch, VIT_JAX_OPTIONS=options)
  assert _images(notebook) >= 3
  assert re.search(r'\d \(\d+%\)', _text(notebook))  # classes with their probabilities
  metrics = json.loads((tmp_path / 'runs/mine/report/metrics.json').read_text())
  assert metrics['accuracy'] > 0.3  # of ten classes, after 40 steps


def test_vit_vs_cnn(tmp_path, monkeypatch):
  options = json.dumps({'both': _DIGITS, 'vit': _VIT, 'cnn': _CNN})
  notebook = _run(
    'vit_vs_cnn', tmp_path, monkeypatch, VIT_JAX_OPTIONS=options, VIT_JAX_PICTURES='digits'
  )
  assert 'vit - cnn: ' in _text(notebook) and _images(notebook) >= 3
  table = json.loads((tmp_path / 'runs/comparison/compare.json').read_text())
  assert [run['model'].split(' (')[0] for run in table['runs']] == ['vit_ti16', 'resnet50']
  assert table['pictures'] == 300  # the digits' own test split, 30 of each
