"""The command from files to figures, on small random models, and what it says of mistakes."""

import base64
import re
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from tests.models import small
from vit_jax.data import Preprocess
from vit_jax.errors import UserError
from vit_jax.inference.loaded import Loaded
from vit_jax.visualization import command, page
from vit_jax.visualization.images import variables_for, whole_size
from vit_jax.visualize import main, request

CLASSES = ('ant', 'bee', 'cat', 'dog', 'eel')


@pytest.fixture
def folder(tmp_path):
  """Three pictures of different shapes in a folder."""
  rng = np.random.default_rng(13)
  pictures = tmp_path / 'pictures'
  pictures.mkdir()
  for name, (h, w) in {'one': (37, 53), 'two': (61, 41), 'three': (32, 32)}.items():
    pixels = rng.integers(0, 255, (h, w, 3), np.uint8)
    Image.fromarray(pixels).save(pictures / f'{name}.png')
  return pictures


@pytest.fixture
def visualize(monkeypatch, tmp_path):
  """Runs the command on a small random model; returns its status and the names of the PNGs."""
  pytest.importorskip('matplotlib')

  def run(name, *arguments):
    module = small.build(name)
    side = 2 * getattr(module, 'patch_size', (32, 32))[0]
    preprocess = Preprocess(f'decode|resize_small({side})|central_crop({side})')
    loaded = Loaded(module, small.variables(module, 2, 2), {}, CLASSES, preprocess)
    monkeypatch.setattr('vit_jax.load', lambda *_, **__: loaded, raising=False)
    out = tmp_path / 'out'
    status = main([name, *map(str, arguments), f'--out={out}'])
    return status, sorted(p.stem for p in out.glob('*.png')), (out / 'index.html').read_text()

  return run


def test_all_that_a_vit_has(visualize, folder, capsys):
  status, names, html = visualize('vit_ti16', folder / 'one.png', '--gallery', folder)
  assert status == 0
  own = ('attention_class', 'channels', 'gradient', 'rollout')
  assert names == sorted(
    [f'one_{n}' for n in own]
    + ['attention_distance', 'nearest', 'patch_filters', 'position_embeddings', 'token_colours']
  )
  embedded = re.findall(r'src="data:image/png;base64,([^"]+)"', html)
  assert len(embedded) == len(names)
  assert base64.b64decode(embedded[0])[:4] == b'\x89PNG'
  assert '://' not in html  # no network
  assert 'index.html' in capsys.readouterr().out


def test_whole_pictures_chosen_patches_and_classes(visualize, folder):
  options = '--patch=0,1 --patch=1,0 --block=1 --head=2,0 --class=Cat --class=4 --fusion=max'
  status, names, _ = visualize(
    'deit_ti16_distilled',
    folder / 'two.png',
    '--image_size=whole',
    '--what=attention,rollout,gradient',
    '--discard=0.5',
    *options.split(),
  )
  assert status == 0 and len(names) == 5
  assert 'two_attention_patch_0_1' in names and 'two_rollout_patch_1_0' in names


def test_cnns_have_neighbours_and_say_what_they_lack(visualize, folder, capsys):
  status, names, html = visualize('resnet50', folder, '--count=1')
  assert (status, names) == (0, ['nearest'])
  assert 'neither tokens nor attention' in capsys.readouterr().err
  assert 'neither tokens nor attention' in html
  with pytest.raises(UserError, match='no attention'):
    visualize('resnet50', folder, '--what=attention')


def test_mixers_have_tokens_but_no_attention(visualize, folder, capsys):
  status, names, _ = visualize('mixer_s16', folder / 'one.png', '--what=colours,filters,rollout')
  assert names == ['patch_filters', 'token_colours']
  assert status == 1 and 'rollout: ' in capsys.readouterr().err  # asked for, and not there


def test_unreadable_pictures_are_named_and_left_out(visualize, folder, capsys):
  (folder / 'broken.png').write_bytes(b'no picture')
  status, names, _ = visualize('vit_ti16', folder, '--what=nearest')
  assert status == 1 and names == ['nearest']
  assert 'broken.png' in capsys.readouterr().err


@pytest.mark.parametrize(
  'argument, message',
  [
    ('--patch=5,0', 'patch 5,0 is outside the grid: rows 0 to 1'),
    ('--block=2', '--block=2: there are 2, 0 to 1'),
    ('--head=3', '--head=3: there are 3'),
    ('--class=dgo', "did you mean 'dog'"),
    ('--class=5', 'class 5 is not one of 5'),
  ],
)
def test_mistakes_about_the_model(visualize, folder, argument, message):
  with pytest.raises(UserError, match=re.escape(message)):
    visualize('vit_ti16', folder / 'one.png', '--what=attention,gradient', argument)


def test_mistakes_on_the_command_line_are_told_all_at_once(folder):
  arguments = ['m', str(folder / 'none.png'), f'--out={folder}', '--what=rolout', '--patch=3']
  with pytest.raises(UserError) as caught:
    request([*arguments, '--discard=1', '--block=a', '--fusion=sum'])
  problems = caught.value.problems
  assert len(problems) == 6
  assert any("did you mean 'rollout'" in p for p in problems)
  assert any('no such picture' in p for p in problems)


def test_help_is_quick_and_brings_neither_jax_nor_matplotlib():
  code = (
    'import sys, vit_jax.visualize as m\n'
    'try: m.main(["--help"])\n'
    'except SystemExit: pass\n'
    'assert not {"jax", "matplotlib"} & set(sys.modules)\n'
  )
  subprocess.run([sys.executable, '-c', code], check=True, stdout=subprocess.DEVNULL)


def test_a_missing_matplotlib_is_told(monkeypatch):
  monkeypatch.setitem(sys.modules, 'matplotlib', None)
  with pytest.raises(UserError, match=r'pip install vit_jax\[figures\]'):
    command.figures.new_figure(1, 1, '', '')


def test_whole_size_keeps_the_shape_in_patches():
  assert whole_size((400, 600), (224, 224), (16, 16)) == (224, 336)
  assert whole_size((1000, 37), (32, 32), (8, 8)) == (864, 32)


def test_position_embeddings_follow_the_picture():
  module = small.build('vit_ti16')
  variables = small.variables(module, 2, 2)
  resized = variables_for(module, variables, (16, 40), (16, 16))
  table = resized['params']['position_embedding']
  assert table.shape == (1, 11, 24)
  own = np.asarray(variables['params']['position_embedding'])
  np.testing.assert_array_equal(table[:, 0], own[:, 0])  # the class token's
  np.testing.assert_allclose(table[0, [1, 5]], own[0, [1, 2]], atol=1e-6)  # corners stay
  assert variables_for(module, variables, (16, 16), (16, 16)) is variables


def test_many_figures_stand_beside_the_page(tmp_path, monkeypatch):
  Image.new('RGB', (3, 5)).save(tmp_path / 'a b.png')
  entries = [page.Entry(tmp_path / 'a b.png', 'group', '<title>', 'caption')]
  monkeypatch.setattr(page, '_MOST_INLINE', 10)
  text = page.write_page(tmp_path, 'Title', entries).read_text()
  assert 'src="a%20b.png"' in text and '&lt;title&gt;' in text
