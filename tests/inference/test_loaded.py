"""A loaded model predicts from images of any kind and size, and gives features."""

import json

import jax
import numpy as np
import pytest
from PIL import Image

import vit_jax
from tests.support import raises
from tests.weights import oracle
from vit_jax import convert, tree
from vit_jax.data import Preprocess
from vit_jax.errors import ConfigError, ImageError, WeightsError
from vit_jax.inference.loaded import Loaded, Prediction
from vit_jax.models.heads import ClassAndBox
from vit_jax.models.shapes import description, variable_specs

PREPROCESS = Preprocess('decode|resize_small(28)|central_crop(24)')


def make(tmp_path=None, classes=('ant', 'bee', 'cat', 'dog', 'eel'), seed=0, **overrides):
  module = oracle.ours(len(classes), **overrides)
  specs = variable_specs(module, (24, 24))
  variables = tree.unflatten(oracle.scattered_specs(specs, seed))
  model = description(module, 'vit_ti16')
  if tmp_path is None:
    return Loaded(module, variables, {'model': model}, classes, PREPROCESS, batch_size=5)
  convert.write(
    tmp_path / 'w.safetensors',
    variables,
    module,
    'vit_jax',
    model=model,
    classes=classes,
    preprocess=PREPROCESS,
  )
  return tmp_path / 'w.safetensors'


def pixels(h=31, w=37, seed=0):
  return np.random.default_rng(seed).integers(0, 256, (h, w, 3), dtype=np.uint8)


def test_images_of_every_kind_give_the_same_logits(tmp_path):
  loaded, image = make(), pixels()
  Image.fromarray(image).save(tmp_path / 'p.png')
  kinds = [
    image,
    Image.fromarray(image),
    tmp_path / 'p.png',
    str(tmp_path / 'p.png'),
    (tmp_path / 'p.png').read_bytes(),
  ]
  logits = loaded.logits(kinds)
  assert logits.shape == (5, 5)
  np.testing.assert_allclose(logits, np.repeat(logits[:1], 5, 0), atol=1e-5)
  np.testing.assert_allclose(loaded.logits(image), logits[:1], atol=1e-5)
  assert loaded.logits(image[None]).shape == (1, 5)


def test_logits_are_the_modules_on_normalized_pixels():
  loaded, image = make(), pixels(24, 24)
  loaded.preprocess = Preprocess('decode|resize(24)')
  x = loaded.read(image)[None].astype(np.float32) / 127.5 - 1
  expected = loaded.module.apply(loaded.variables, x)
  np.testing.assert_allclose(loaded.logits(image), expected, atol=1e-5)


def test_predictions_are_sorted_and_named():
  loaded = make()
  (found,) = loaded.predict(pixels(), top_k=3)
  assert [type(p) for p in found] == [Prediction] * 3
  probabilities = np.asarray(jax.nn.softmax(loaded.logits(pixels())[0]))
  best = np.argsort(-probabilities)[:3]
  assert [p.index for p in found] == best.tolist()
  assert [p.name for p in found] == [loaded.classes[i] for i in best]
  np.testing.assert_allclose([p.probability for p in found], probabilities[best], rtol=1e-5)
  assert len(loaded.predict(pixels(), top_k=50)[0]) == 5


def test_sigmoid_models_predict_each_class_on_its_own():
  loaded = make()
  loaded.config['task'] = {'loss': 'sigmoid'}
  found = loaded.predict(pixels(), top_k=5)[0]
  logits = loaded.logits(pixels())[0]
  np.testing.assert_allclose(found[0].probability, 1 / (1 + np.exp(-logits.max())), rtol=1e-5)


def test_the_most_probable_class_is_that_of_the_reports_where_probabilities_round_to_one():
  """Sigmoids of 20 and 30 are both 1 in float32; the report takes the greater logit."""
  loaded = make()
  loaded.config['task'] = {'loss': 'sigmoid'}
  bias = np.arange(len(loaded.classes), dtype=np.float32) * 10 + 20
  loaded.variables['params']['head']['bias'] = bias
  loaded.variables['params']['head']['kernel'] = np.zeros_like(
    loaded.variables['params']['head']['kernel']
  )
  found = loaded.predict(pixels(), top_k=3)[0]
  last = len(bias) - 1
  assert [p.index for p in found] == [last, last - 1, last - 2]


def test_any_number_of_images_compiles_at_most_three_sizes():
  loaded = make()
  images = [pixels(20 + i, 30, seed=i) for i in range(13)]
  everything = loaded.logits(images)
  for n in (1, 2, 3, 5, 7, 11, 13):
    np.testing.assert_allclose(loaded.logits(images[:n]), everything[:n], atol=1e-5)
  assert loaded._compiled('outputs')._cache_size() <= 3


def test_one_bad_image_does_not_stop_the_others(tmp_path):
  loaded = make()
  (tmp_path / 'bad.jpg').write_bytes(b'no image')
  images = [pixels(), tmp_path / 'bad.jpg', tmp_path / 'none.png', pixels(seed=1)]
  found = loaded.predict(images, on_error='return')
  assert isinstance(found[0], list) and isinstance(found[3], list)
  assert isinstance(found[1], ImageError) and 'bad.jpg' in str(found[1])
  assert isinstance(found[2], ImageError) and 'none.png' in str(found[2])
  with raises(ImageError, 'bad.jpg'):
    loaded.predict(images)
  problems = {}
  assert loaded.features(images, problems=problems).shape == (2, 12)
  assert sorted(problems) == [1, 2]


def test_features_are_the_models_intermediates():
  loaded, image = make(), pixels()
  pooled = loaded.features(image)
  head = loaded.variables['params']['head']
  np.testing.assert_allclose(
    pooled @ head['kernel'] + head['bias'], loaded.logits(image), atol=1e-4
  )
  tokens = loaded.features([image, image], 'tokens')
  assert tokens.shape == (2, 1 + 9, 12)
  np.testing.assert_allclose(tokens[:, 0], np.repeat(pooled, 2, 0), atol=1e-5)
  grid = loaded.features(image, 'grid')
  assert grid.shape == (1, 3, 3, 12)
  np.testing.assert_allclose(grid[0, 1, 2], tokens[0, 1 + 5], atol=1e-5)
  assert loaded.features(image, 'block_00').shape == (1, 10, 12)
  with raises(ConfigError, "'block_1'", "'block_01'"):
    loaded.features(image, 'block_1')


@pytest.mark.parametrize(
  'bad', [np.zeros((3, 3), complex), np.zeros((2, 3, 4, 5, 6), np.uint8), 7, []]
)
def test_what_is_no_image_is_refused(bad):
  with raises(ImageError):
    make().logits(bad)


def test_a_file_describes_itself(tmp_path):
  path = make(tmp_path)
  loaded = vit_jax.load(path)
  assert loaded.classes == ('ant', 'bee', 'cat', 'dog', 'eel')
  assert loaded.preprocess == PREPROCESS
  np.testing.assert_array_equal(loaded.logits(pixels()), make().logits(pixels()))
  assert loaded.config['model']['depth'] == 2
  json.dumps(loaded.config)


def test_another_image_size_and_other_class_names(tmp_path):
  path = make(tmp_path)
  loaded = vit_jax.load(path, image_size=(40, 16), classes=list('abcde'))
  assert loaded.preprocess.image_size == (40, 16)
  assert loaded.features(pixels(), 'grid').shape == (1, 5, 2, 12)
  assert loaded.classes == tuple('abcde')
  with raises(ConfigError, '3 class names', '5 classes'):
    vit_jax.load(path, classes=list('abc'))


def test_nothing_there(tmp_path):
  (tmp_path / 'mine').mkdir()
  with raises(WeightsError, tmp_path / 'mien', f"did you mean '{tmp_path / 'mine'}'?"):
    vit_jax.load(tmp_path / 'mien')
  with raises(WeightsError, 'no weights at', 'nowhere/w.npz'):
    vit_jax.load('nowhere/w.npz')
  with raises(ConfigError, 'vit_b17.i21k', 'vit_b16.i21k'):
    vit_jax.load('vit_b17.i21k')


@pytest.mark.parametrize(
  'format, target', [('vit_jax', 'w.safetensors'), ('timm', 'timm'), ('hf', 'hf')]
)
def test_what_is_saved_predicts_the_same(tmp_path, format, target):
  loaded = make(pool='token')
  files = loaded.save(tmp_path / target, format)
  assert all(file.is_file() for file in files)
  again = vit_jax.load(tmp_path / target)
  assert again.classes == loaded.classes
  np.testing.assert_allclose(again.logits(pixels()), loaded.logits(pixels()), atol=1e-5)


def test_what_has_no_place_in_a_format_is_not_saved(tmp_path):
  module = ClassAndBox(oracle.ours(0), 5, hidden=7)
  loaded = Loaded(module, {}, {'model': description(module, 'vit_ti16')}, (), PREPROCESS)
  with raises(WeightsError, 'heads', 'timm'):
    loaded.save(tmp_path / 'timm', 'timm')
  with raises(ConfigError, "'timn'", "'timm'"):
    loaded.save(tmp_path / 'timm', 'timn')
