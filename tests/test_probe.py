"""The command that evaluates frozen features, on tiny images."""

import json
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

import vit_jax
from tests.models import small
from tests.support import raises
from vit_jax import convert, evaluate
from vit_jax import probe as command
from vit_jax.data import Preprocess
from vit_jax.data.sources import preparation
from vit_jax.errors import ConfigError, DatasetError, ImageError, WeightsError
from vit_jax.weights import hub

PREPROCESS = Preprocess('decode|resize(16, 24)')
COLOURS = {'green': (20, 200, 60), 'red': (210, 30, 40), 'violet': (120, 40, 200)}


@pytest.fixture(scope='module')
def images(tmp_path_factory):
  """A folder of noisy colours without splits, seven images of each class."""
  root = tmp_path_factory.mktemp('colours')
  rng = np.random.default_rng(0)
  for name, colour in COLOURS.items():
    (root / name).mkdir()
    for i in range(7):
      pixels = np.clip(rng.normal(colour, 20, (13, 17, 3)), 0, 255).astype(np.uint8)
      Image.fromarray(pixels).save(root / name / f'{i}.png')
  return root


@pytest.fixture(scope='module')
def weights(tmp_path_factory):
  module = small.build('vit_ti16')
  path = tmp_path_factory.mktemp('weights') / 'w.safetensors'
  convert.write(
    path,
    small.variables(module),
    module,
    'vit_jax',
    preprocess=PREPROCESS,
    model=convert.description(module, 'vit_ti16'),
  )
  return path


def run(capsys, weights, images, folder, *words):
  arguments = [str(weights), f'--dataset={images}', f'--cache_dir={folder}', '--json', *words]
  assert command.main(arguments) == 0
  return json.loads(capsys.readouterr().out)


def test_it_writes_a_model_that_evaluate_and_predict_take(
  tmp_path, capsys, caplog, weights, images
):
  out = tmp_path / 'probe.safetensors'
  words = ('--split_fractions=0.6,0,0.4', f'--out={out}')
  first = run(capsys, weights, images, tmp_path, *words)
  assert (first['accuracy'], first['examples'], first['computed']) == (1.0, 9, 21)
  again = run(capsys, weights, images, tmp_path, *words)
  assert again['computed'] == 0
  assert (again['loss'], again['c']) == (first['loss'], first['c'])

  assert evaluate.main([str(out), '--json']) == 0  # the same split, without any flag
  scored = json.loads(capsys.readouterr().out)
  assert (scored['accuracy'], scored['examples']) == (1.0, 9)
  assert scored['loss'] == pytest.approx(first['loss'], rel=1e-3)
  loaded = vit_jax.load(out)
  assert loaded.classes == ('green', 'red', 'violet')
  assert loaded.preprocess == PREPROCESS
  assert loaded.predict(images / 'red' / '3.png', 1)[0][0].name == 'red'
  assert 'trained on' not in caplog.text
  assert evaluate.main([str(out), f'--dataset={images}']) == 0  # all of the folder
  assert f'12 of 21 images were trained on, says {out}' in caplog.text
  caplog.clear()
  capsys.readouterr()
  run(capsys, out, images, tmp_path, '--seed=1', '--method=knn', '--neighbours=1', words[0])
  assert f'of 9 test images were trained on, says {out}' in caplog.text


def test_an_image_that_cannot_be_decoded_is_named_or_left_out(tmp_path, capsys, weights, images):
  for name in COLOURS:
    (tmp_path / 'p' / name).mkdir(parents=True)
    for i in range(3):
      source = images / name / f'{i}.png'
      (tmp_path / 'p' / name / f'{i}.png').write_bytes(source.read_bytes())
  (tmp_path / 'p/red/broken.png').write_bytes(b'\x89PNG nothing')
  words = ('--train=train', '--test=train', '--split_fractions=1,0,0', '--c=1')
  with raises(ImageError, 'red/broken.png: ', '--on_error=skip'):
    run(capsys, weights, tmp_path / 'p', tmp_path, *words)
  result = run(capsys, weights, tmp_path / 'p', tmp_path, *words, '--on_error=skip')
  assert (result['skipped'], result['examples'], result['computed']) == (1, 9, 9)


def test_the_text_names_what_it_states(tmp_path, capsys, weights, images):
  words = [str(weights), f'--dataset={images}', f'--cache_dir={tmp_path}', '--c=1']
  assert command.main([*words, '--split_fractions=0.6,0,0.4']) == 0
  lines = capsys.readouterr().out.splitlines()
  facts = {line[:20].strip(): line[20:] for line in lines[1:]}
  assert list(facts) == ['accuracy', 'training accuracy', 'c', 'seconds']
  assert '%' in facts['training accuracy'] and 'images computed' in facts['seconds']


def test_few_shots_compute_only_the_images_drawn(tmp_path, capsys, weights, images):
  words = ('--split_fractions=0.6,0,0.4', '--method=fewshot', '--shots=1,2', '--draws=1')
  first = run(capsys, weights, images, tmp_path, *words)
  assert (first['trained_on'], first['examples'], first['computed']) == (6, 9, 15)
  assert first['scores'].keys() == {'fewshot_1', 'fewshot_2'}
  assert first['scores']['fewshot_2'] == {'accuracy': 1.0}  # colours are easy; one draw, no std
  again = run(capsys, weights, images, tmp_path, *words)
  assert again['computed'] == 0 and again['scores'] == first['scores']
  text = command.main([str(weights), f'--dataset={images}', f'--cache_dir={tmp_path}', *words])
  assert text == 0 and 'fewshot_2  100.0 %' in capsys.readouterr().out


def test_k_nearest_neighbours(tmp_path, capsys, weights, images):
  words = ('--split_fractions=0.6,0,0.4', '--method=knn', '--neighbours=1,5')
  result = run(capsys, weights, images, tmp_path, *words)
  assert result['scores'] == {'knn_1': {'accuracy': 1.0}, 'knn_5': {'accuracy': 1.0}}
  with raises(ConfigError, '--neighbours=13', '12 '):
    run(capsys, weights, images, tmp_path, *words[:2], '--neighbours=13')
  with raises(DatasetError, '5 shots', 'has 4'):
    run(capsys, weights, images, tmp_path, words[0], '--method=fewshot', '--shots=5')


@pytest.mark.parametrize(
  'words, kind, facts',
  [
    (['--method=knn', '--out=probe.safetensors'], ConfigError, ['--out', '--method=linear']),
    (['--shots=1,0'], ConfigError, ['--shots', 'at least 1', '(1, 0)']),
    (['--neighbours='], ConfigError, ['--neighbours is empty', 'integers']),
    (['--l2=much'], ConfigError, ['--l2', "'much'"]),
    (['--temperature=0'], ConfigError, ['--temperature']),
    (['--draws=0'], ConfigError, ['--draws']),
    (['--batch_size=0'], ConfigError, ['--batch_size', '0']),
    (['--out=probe.npz'], ConfigError, ['--out', '.safetensors', 'probe.npz']),
    (['--out=no/such/probe.safetensors'], ConfigError, ['--out', 'no/such']),
    (['--c=0'], ConfigError, ['--c', '0.0']),
    (['--split_fractions=most'], ConfigError, ['--split_fractions', 'most']),
    (['--split_fractions=1,0,0'], ConfigError, ['--train', '--test', '--resplit']),
    (['--classes=red,geen'], DatasetError, ["'geen'", "'green'"]),
    (['--test=tset'], DatasetError, ["'tset'", "'test'"]),
  ],
)
def test_mistakes_are_reported(words, kind, facts, images):
  with raises(kind, *facts):
    command.main(['absent.npz', f'--dataset={images}', *words])


def test_help_waits_for_neither_jax_nor_scikit_learn():
  code = (
    'import sys, vit_jax.probe as m\n'
    'assert not {"jax", "sklearn", "scipy"} & set(sys.modules)\n'
    'm.main(["--help"])\n'
  )
  done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
  assert done.returncode == 0 and 'example' in done.stdout, done.stderr


@pytest.mark.parametrize(
  'name',
  [
    'cait_xxs24',
    't2t_vit_7',
    'mixer_s32',
    'bit_r50x1',
    'mobilenet_v2',
    'resnet50',
  ],
)
def test_every_family_can_be_probed(name, tmp_path, capsys, images):
  module = small.build(name)
  sized = Preprocess('decode|resize(32)')
  path = tmp_path / 'w.safetensors'
  rows = 32 // getattr(module, 'patch_size', (32, 32))[0]  # a Mixer's tokens are counted
  convert.write(
    path,
    small.variables(module, rows, rows),
    module,
    'vit_jax',
    preprocess=sized,
    model=convert.description(module, name),
  )
  words = ('--split_fractions=0.6,0,0.4',)
  found = run(capsys, path, images, tmp_path, *words, '--c=1')
  assert found['computed'] == 21 and found['train_accuracy'] > 1 / 3
  for method in ('fewshot', 'knn'):
    options = ('--shots=4', '--neighbours=3', f'--method={method}')
    found = run(capsys, path, images, tmp_path, *words, *options)
    assert (found['computed'], found['examples'], found['trained_on']) == (0, 9, 12)
    assert all(score['accuracy'] > 1 / 9 for score in found['scores'].values())


def test_a_mistake_in_one_name_costs_no_download_of_the_other(tmp_path, monkeypatch):
  pytest.importorskip('tensorflow_datasets')
  monkeypatch.setenv('VIT_JAX_CACHE', str(tmp_path / 'cache'))
  monkeypatch.setattr(hub, 'fetch', None)
  monkeypatch.setattr(preparation, '_prepare', None)
  with raises(DatasetError, tmp_path / 'none'):
    command.main(['vit_b16.i21k', f'--dataset={tmp_path / "none"}'])
  with raises(WeightsError, tmp_path / 'none.npz'):
    command.main([str(tmp_path / 'none.npz'), '--dataset=food101'])
