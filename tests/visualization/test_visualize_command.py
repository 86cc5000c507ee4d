"""The command from files to figures, on small random models, and its errors."""

import base64
import io
import re
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from tests.models import small
from tests.report import fakes
from tests.support import raises
from vit_jax.data import Preprocess
from vit_jax.errors import ConfigError, DependencyError, ModelError
from vit_jax.inference.loaded import Loaded
from vit_jax.visualization import command, page
from vit_jax.visualization.images import variables_for, whole_size
from vit_jax.visualization.request import Request
from vit_jax.visualization.session import Session
from vit_jax.visualize import main, request

CLASSES = ('ant', 'bee', 'cat', 'dog', 'eel')


@pytest.fixture
def folder(tmp_path):
  """Three images of different shapes in a folder."""
  rng = np.random.default_rng(13)
  images = tmp_path / 'images'
  images.mkdir()
  for name, (h, w) in {'one': (37, 53), 'two': (61, 41), 'three': (32, 32)}.items():
    pixels = rng.integers(0, 255, (h, w, 3), np.uint8)
    Image.fromarray(pixels).save(images / f'{name}.png')
  return images


@pytest.fixture
def visualize(monkeypatch, tmp_path):
  """Runs the command on a small random model; returns its status and the names of the PNGs."""
  pytest.importorskip('matplotlib')

  def run(name, *arguments, config=None):
    module = small.build(name)
    side = 2 * getattr(module, 'patch_size', (32, 32))[0]
    preprocess = Preprocess(f'decode|resize_small({side})|central_crop({side})')
    loaded = Loaded(module, small.variables(module, 2, 2), config or {}, CLASSES, preprocess)
    monkeypatch.setattr(command, 'load', lambda *_, **__: loaded)
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
    + ['attention_distance', 'nearest', 'patch_filters', 'position_embeddings', 'token_pca']
  )
  # The figures, as PNG or where that is smaller as WebP, and the image with its prediction.
  embedded = re.findall(r'src="data:image/(\w+);base64,([^"]+)"', html)
  assert len(embedded) == len(names) + 1
  for kind, data in embedded:
    with Image.open(io.BytesIO(base64.b64decode(data))) as image:
      assert image.format.lower() == kind
  shown = fakes.Checked(html)
  fakes.check_self_contained(shown, folder)
  assert any('pred ' in image['alt'] for image in shown.images)
  assert '://' not in html  # no network
  assert 'Visualizations of vit_ti16' in html
  out = capsys.readouterr().out
  assert 'index.html' in out and 'one_rollout.png: Attention rollout' in out


def test_whole_images_chosen_patches_and_classes(visualize, folder):
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


def test_cnns_have_nearest_images_and_a_note_of_what_they_lack(visualize, folder, capsys):
  status, names, html = visualize('resnet50', folder, '--count=1')
  assert (status, names) == (0, ['nearest'])
  assert 'neither tokens nor attention' in capsys.readouterr().err
  assert 'neither tokens nor attention' in html
  with raises(ModelError, 'nor attention', 'attention'):
    visualize('resnet50', folder, '--what=attention')


def test_one_image_alone_is_no_mistake(tmp_path):
  one, two = tmp_path / 'one.png', tmp_path / 'two.png'
  for name, images, explicit, kept in (
    ('vit_ti16', (one,), False, False),
    ('vit_ti16', (one, two), False, True),
    ('vit_ti16', (one,), True, True),  # asked for: the note says what is missing
    ('resnet50', (one,), False, True),  # all that it has
  ):
    module = small.build(name)
    loaded = Loaded(module, {}, {}, CLASSES, Preprocess('decode|resize(32)'))
    session = Session(loaded, Request('m', images, tmp_path, explicit=explicit))
    assert ('nearest' in session.wanted.what) is kept, (name, images, explicit)
    assert bool(session.notes) is (name == 'resnet50')


def test_one_figure_is_called_one_figure(visualize, folder, capsys):
  status, _, html = visualize('vit_ti16', folder / 'one.png', '--what=filters')
  assert status == 0 and '1 figure: open' in capsys.readouterr().out
  assert 'Made by vit_jax: 1 figure.' in html


def test_mixers_have_tokens_but_no_attention(visualize, folder, capsys):
  status, names, _ = visualize('mixer_s16', folder / 'one.png', '--what=token_pca,filters,rollout')
  assert names == ['patch_filters', 'token_pca']
  assert status == 1 and 'rollout: ' in capsys.readouterr().err  # asked for, and not there


def test_a_file_name_may_be_no_utf8(visualize, folder):
  (folder / 'one.png').rename(folder / 'caf\udce9.png')
  status, names, html = visualize('vit_ti16', folder / 'caf\udce9.png', '--what=rollout,token_pca')
  assert status == 0 and names == ['caf\udce9_rollout', 'token_pca'] and 'caf\ufffd' in html


def test_undecodable_images_are_named_and_left_out(visualize, folder, capsys):
  (folder / 'broken.png').write_bytes(b'no picture')
  status, names, _ = visualize('vit_ti16', folder, '--what=nearest')
  assert status == 1 and names == ['nearest']
  assert 'broken.png' in capsys.readouterr().err


@pytest.mark.parametrize(
  'argument, kind, facts',
  [
    ('--patch=5,0', ModelError, ('patch 5,0', 'outside the grid', 'rows 0 to 1')),
    ('--block=2', ConfigError, ('--block=2', 'there are 2', '0 to 1')),
    ('--head=3', ConfigError, ('--head=3', 'there are 3')),
    ('--class=dgo', ConfigError, ("did you mean 'dog'",)),
    ('--class=5', ModelError, ('class 5', 'one of 5')),
  ],
)
def test_mistakes_about_the_model(visualize, folder, argument, kind, facts):
  with raises(kind, *facts):
    visualize('vit_ti16', folder / 'one.png', '--what=attention,gradient', argument)


def test_mistakes_on_the_command_line_are_reported_all_at_once(folder):
  arguments = ['m', str(folder / 'none.png'), f'--out={folder}', '--what=rolout', '--patch=3']
  with raises(ConfigError, "did you mean 'rollout'", folder / 'none.png') as caught:
    request([*arguments, '--discard=1', '--block=a', '--fusion=sum'])
  assert len(caught.value.problems) == 6


def test_help_is_quick_and_brings_neither_jax_nor_matplotlib():
  code = (
    'import sys, vit_jax.visualize as m\n'
    'try: m.main(["--help"])\n'
    'except SystemExit: pass\n'
    'assert not {"jax", "matplotlib"} & set(sys.modules)\n'
  )
  subprocess.run([sys.executable, '-c', code], check=True, stdout=subprocess.DEVNULL)


def test_a_missing_matplotlib_is_an_error(monkeypatch):
  monkeypatch.setitem(sys.modules, 'matplotlib', None)
  with raises(DependencyError, 'pip install matplotlib'):
    command.figures.new_figure(1, 1, '', '')


def test_whole_size_keeps_the_shape_in_patches():
  assert whole_size((400, 600), (224, 224), (16, 16)) == (224, 336)
  assert whole_size((1000, 37), (32, 32), (8, 8)) == (864, 32)


def test_position_embeddings_follow_the_image_size():
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


def test_the_old_name_of_token_pca_is_accepted(folder):
  arguments = ['m', str(folder / 'one.png'), '--out=x']
  assert request([*arguments, '--what=colours,filters']).what == ('token_pca', 'filters')


@pytest.mark.parametrize(
  'task, activation',
  [
    ({}, 'softmax'),
    ({'task': {'name': 'classify', 'loss': 'sigmoid'}}, 'sigmoid'),
    ({'task': {'name': 'multilabel', 'loss': 'softmax'}}, 'sigmoid'),
  ],
)
def test_probabilities_are_those_of_predictions(task, activation, tmp_path):
  module = small.build('vit_ti16')
  loaded = Loaded(module, {}, task, CLASSES, Preprocess('decode|resize(32)'))
  session = Session(loaded, Request('m', (), tmp_path))
  found = session.probabilities(np.log(np.float32([1, 2, 3, 4, 10])))
  wanted = {
    'softmax': [0.05, 0.1, 0.15, 0.2, 0.5],
    'sigmoid': [1 / 2, 2 / 3, 3 / 4, 4 / 5, 10 / 11],
  }
  np.testing.assert_allclose(found, wanted[activation], rtol=1e-6)


def test_hostile_names_are_shown_and_nothing_else(tmp_path):
  names = ('<script>x', '{{ 7 * 7 }}"', 'bell\x07')
  entries = []
  for name in names:
    path = tmp_path / f'{name}.png'
    Image.new('RGB', (3, 5)).save(path)
    entries.append(page.Entry(path, name, name, name))
  html = page.write_page(tmp_path, names[0], entries, names)
  source, seen = html.read_text(), fakes.read(html)
  assert seen.tags <= fakes.TAGS and '\x07' not in source
  fakes.check_self_contained(seen, tmp_path)
  for name in ('<script>x', '{{ 7 * 7 }}"', 'bell\ufffd'):
    assert seen.text.count(name) >= 4, name
