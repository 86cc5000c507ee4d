"""The notebooks: stored without outputs, addressed alike, run from top to bottom, outputs checked.

A cell with the tag `parameters` has all that a reader changes; a cell put in behind it has the
values that make a notebook small here: WEIGHTS (a model trained below), IMAGES and OPTIONS. With
VIT_JAX_KERNEL=PYTHON they run in another environment, on what is installed there.
"""

import io
import json
import os
import pathlib
import re
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

import release
from tests.support import made_once, xla_flags
from vit_jax import data
from vit_jax.data import boxes

ROOT = pathlib.Path(__file__).resolve().parents[1]
NOTEBOOKS = {path.stem: path for path in sorted((ROOT / 'colabs').glob('*.ipynb'))}
_SMALL = {
  'total': '7 epochs',
  'model.width': 48,
  'model.depth': 3,
  'model.mlp_dim': 96,
  'evaluation.every': '20 epochs',
  'checkpoint.every': '20 epochs',
  'log.tensorboard': False,
}


def _cells(name):
  return json.loads(NOTEBOOKS[name].read_text('utf-8'))['cells']


def test_there_are_six():
  assert set(NOTEBOOKS) == {
    'quickstart', 'fine_tune', 'vit_vs_cnn', 'inside_a_vit', 'classes_and_boxes', 'weights',
  }  # fmt: skip


@pytest.mark.parametrize('name', NOTEBOOKS)
def test_stored_without_outputs_and_installed_by_one_cell(name):
  cells = _cells(name)
  codes = [''.join(cell['source']) for cell in cells if cell['cell_type'] == 'code']
  for cell in cells:
    assert not cell.get('outputs') and cell.get('execution_count') is None
  assert ["'pip', 'install'" in code for code in codes] == [True] + [False] * (len(codes) - 1)
  assert codes[0] == ''.join(_cells('quickstart')[1]['source'])
  assert cells[0]['cell_type'] == 'markdown' and cells[0]['source'][0].startswith('# ')
  tags = [cell['metadata'].get('tags') for cell in cells if cell['cell_type'] == 'code']
  assert tags == [None, ['parameters']] + [None] * (len(codes) - 2)
  assert all(len(line) <= 130 for code in codes for line in code.splitlines())


@pytest.mark.parametrize('name', NOTEBOOKS)
def test_badge_and_address_are_those_of_this_version(name):
  """A release writes them (release.py); the range of JAX is that of pyproject.toml."""
  repository, version = release.repository_of(ROOT), release.version_of(ROOT)
  text = NOTEBOOKS[name].read_text('utf-8')
  assert text == release.addressed(name, text, repository, version, release.jax_range(ROOT))


def test_links_between_notebooks_lead_somewhere():
  for name in NOTEBOOKS:
    text = ''.join(''.join(cell['source']) for cell in _cells(name))
    for target in re.findall(r'\]\((\w+)\.ipynb\)', text):
      assert target in NOTEBOOKS, name


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
  """A small ViT that knows the drawn shapes better than chance does."""
  folder = made_once(tmp_path_factory, 'trained_shapes', _train) / 'run'
  rows = [json.loads(line) for line in (folder / 'metrics.jsonl').read_text().splitlines()]
  assert [row for row in rows if row['split'] == 'val'][-1]['accuracy'] > 0.3  # of six classes
  return str(folder)


def _train(folder):
  options = [f'--config.{key}={value}' for key, value in {**_SMALL, 'dataset.test': ''}.items()]
  command = [sys.executable, '-m', 'vit_jax.main', '--config=vit_shapes', f'--workdir={folder}/run']
  on_one_device = {**os.environ, 'XLA_FLAGS': xla_flags()}  # as the notebooks have
  subprocess.run([*command, '--quiet', *options], cwd=ROOT, env=on_one_device, check=True)


@pytest.fixture
def run(tmp_path, monkeypatch):
  """Executes a notebook in a folder of its own: (name, values, first, last lines) -> its cells."""
  nbclient = pytest.importorskip('nbclient')
  import nbformat

  python = os.environ.get('VIT_JAX_KERNEL', '')
  values = {
    'JAX_PLATFORMS': 'cpu',
    'XLA_FLAGS': xla_flags(),
    'PYTHONPATH': '' if python else str(ROOT),
  }
  for key, value in values.items():
    monkeypatch.setenv(key, value)
  monkeypatch.delenv('MPLBACKEND', raising=False)
  options = {}
  if python:
    kernel = tmp_path / 'jupyter/kernels/another'
    kernel.mkdir(parents=True)
    command = [os.path.abspath(python), '-m', 'ipykernel_launcher', '-f', '{connection_file}']
    about = {'argv': command, 'display_name': 'another', 'language': 'python'}
    (kernel / 'kernel.json').write_text(json.dumps(about))
    monkeypatch.setenv('JUPYTER_PATH', str(tmp_path / 'jupyter'))
    options['kernel_name'] = 'another'

  def execute(name, parameters, first='', last=''):
    notebook = nbformat.read(NOTEBOOKS[name], 4)
    place = next(i for i, c in enumerate(notebook.cells) if c.metadata.get('tags'))
    lines = [first, *(f'{key} = {value!r}' for key, value in parameters.items())]
    notebook.cells.insert(place + 1, nbformat.v4.new_code_cell('\n'.join(lines)))
    notebook.cells.append(nbformat.v4.new_code_cell(last))
    folder = tmp_path / 'notebook'
    folder.mkdir()
    resources = {'metadata': {'path': folder}}
    nbclient.NotebookClient(
      notebook, timeout=300, startup_timeout=120, resources=resources, **options
    ).execute()
    kept = os.environ.get('VIT_JAX_KEEP_NOTEBOOKS')
    if kept:  # to look at
      pathlib.Path(kept).mkdir(parents=True, exist_ok=True)
      nbformat.write(notebook, pathlib.Path(kept) / f'{name}.ipynb')
    return notebook.cells

  return execute


def _outputs(cells):
  return [output for cell in cells for output in cell.get('outputs', ())]


def _text(cells):
  return ''.join(output.get('text', '') for output in _outputs(cells))


def _images(cells):
  """Every figure as pixels; one that is of one colour shows nothing."""
  import base64

  found = [o['data']['image/png'] for o in _outputs(cells) if 'image/png' in o.get('data', {})]
  images = [np.asarray(Image.open(io.BytesIO(base64.b64decode(png))).convert('L')) for png in found]
  assert all(image.std() > 5 and min(image.shape) > 100 for image in images)
  return images


_OFFLINE = """
import os
from vit_jax.download import RetryPolicy
from vit_jax.weights import hub

os.environ['https_proxy'] = 'http://127.0.0.1:9'  # where nobody answers
hub.fetch.__kwdefaults__['retry'] = RetryPolicy(attempts=1)
"""


def test_quickstart_without_a_network(run):
  options = {**_SMALL, 'dataset.test': '', 'total': '1 epoch', 'dataset.per_class': 20}
  cells = run('quickstart', {'OPTIONS': options}, _OFFLINE)
  text = _text(cells)
  assert 'no source gave the weights' in text and 'Instead, a small ViT is trained' in text
  assert 'vit_ti16, 6 classes such as cross, disc, ring' in text
  assert len(_images(cells)) == 4


def test_fine_tune(run, trained, tmp_path):
  small = {name: value for name, value in _SMALL.items() if name.startswith(('model', 'log'))}
  cells = run(
    'fine_tune',
    {
      'OPTIONS': {
        **small,
        'model.name': 'vit_ti16',
        'model.patch_size': (8, 8),
        'model.num_heads': 4,
        'init_from': trained,
        'input.image_size': (64,),
        'input.train_transform': 'decode|resize(64)|flip_lr',
        'total': '2 epochs',
        'batch_size': 24,
        'optimizer.learning_rate': 5e-4,
      }
    },
  )
  folder = tmp_path / 'notebook'
  assert len(list((folder / 'shapes_by_class').glob('*/*.png'))) == 480
  metrics = json.loads((folder / 'runs/mine/report/metrics.json').read_text())
  assert metrics['examples'] == 48 and metrics['accuracy'] > 0.35  # of six classes
  assert "{'train': '384 images', 'val': '48 images', 'test': '48 images'} of 6 classes" in _text(
    cells
  )
  tables = [
    o['data']['text/markdown'] for o in _outputs(cells) if 'text/markdown' in o.get('data', {})
  ]
  assert tables[0].startswith('| class') and tables[0].count('\n') == 7
  assert len(_images(cells)) in (4, 5)  # with mistakes or without


def test_vit_vs_cnn(run, tmp_path):
  options = {
    'both': {**_SMALL, 'total': '2 epochs', 'dataset.per_class': 20},
    'vit': {},
    'cnn': {'model.width': 8, 'model.blocks': (1, 1)},
  }
  for name in ('model.depth', 'model.mlp_dim', 'model.width'):
    options['vit'][name] = options['both'].pop(name)
  last = """
for file, values in EXPERIMENTS['pretrained'].values():  # what the networks in use are asked for
  print(*config.load(file, values=values).freeze, file)
"""
  cells = run('vit_vs_cnn', {'IMAGES': 'shapes', 'OPTIONS': options}, last=last)
  assert 'backbone vit_b16_dogs\nbackbone resnet50_dogs' in _text(cells)
  found = re.search(r'vit - cnn: ([+-][\d.]+) points, 95 % interval ([+-][\d.]+) to', _text(cells))
  table = json.loads((tmp_path / 'notebook/runs/comparison/compare.json').read_text())
  assert [run['model'].split(' (')[0] for run in table['runs']] == ['vit_ti16', 'resnet50']
  assert table['pictures'] == 120
  vit, cnn = (run['accuracy'] for run in table['runs'])
  assert float(found[1]) == pytest.approx(100 * (vit - cnn), abs=0.051)
  assert len(_images(cells)) == 4  # three figures of the page, and the disagreements


def test_inside_a_vit(run, trained):
  cells = run('inside_a_vit', {'WEIGHTS': trained, 'PATCH': (3, 4)})
  text = _text(cells)
  assert 'vit_ti16: 8 x 8 patches of (8, 8) pixels, 3 blocks' in text
  share = re.search(r'12 channels; the three largest explain (\d+)% of', text)
  assert 25 <= int(share[1]) <= 100  # three of twelve, the largest ones
  assert len(_images(cells)) == 6


def test_classes_and_boxes(run, tmp_path):
  options = {**_SMALL, 'total': '2 epochs', 'task.head_hidden': 48}
  cells = run('classes_and_boxes', {'OPTIONS': options})
  text = _text(cells)
  assert "Dataset('shapes', shapes, 6 classes" in text
  metrics = json.loads((tmp_path / 'notebook/runs/boxes/report/metrics.json').read_text())
  assert f'240 test images: accuracy {metrics["accuracy"]:.1%}' in text
  dataset = data.open_dataset('shapes')
  known, held_out = (
    np.stack([examples[i]['box'] for i in range(240)])
    for examples in (dataset.split('train'), dataset.split('test'))
  )
  assert metrics['mean_iou'] > boxes.iou(known.mean(axis=0)[None], held_out).mean() + 0.05
  assert len(_images(cells)) == 5


def test_weights(run, trained, tmp_path):
  cells = run('weights', {'WEIGHTS': trained})
  text = _text(cells)
  differences = re.findall(r'(\w+): largest difference of a logit ([\d.e-]+)', text)
  assert [name for name, _ in differences] == ['timm', 'hf', 'vit_jax']
  assert max(float(value) for _, value in differences) < 1e-4
  assert 'blocks.0.attn.qkv.weight (144, 48)' in text and 'as mixer_b16: ' in text
  assert (tmp_path / 'notebook/exported/hf/config.json').exists()
  assert 'nothing to compare with' in text or re.search(r'timm: largest difference [\d.e-]+', text)
