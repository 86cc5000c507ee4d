"""A loaded model predicts from pictures of any kind and size, and gives features."""

import json

import jax
import numpy as np
import pytest
from PIL import Image

import vit_jax
from tests.weights import oracle
from vit_jax import convert
from vit_jax.data import Preprocess
from vit_jax.errors import UserError
from vit_jax.inference.loaded import Loaded, Prediction
from vit_jax.weights import loading

PREPROCESS = Preprocess('decode|resize_small(28)|central_crop(24)')


def make(tmp_path=None, classes=('ant', 'bee', 'cat', 'dog', 'eel'), seed=0, **overrides):
  module = oracle.ours(len(classes), **overrides)
  specs = loading.variable_specs(module, (24, 24))
  variables = loading.tree.unflatten(oracle.scattered_specs(specs, seed))
  model = loading.description(module, 'vit_ti16')
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


def picture(h=31, w=37, seed=0):
  return np.random.default_rng(seed).integers(0, 256, (h, w, 3), dtype=np.uint8)


def test_pictures_of_every_kind_give_the_same_answer(tmp_path):
  loaded, pixels = make(), picture()
  Image.fromarray(pixels).save(tmp_path / 'p.png')
  kinds = [
    pixels,
    Image.fromarray(pixels),
    tmp_path / 'p.png',
    str(tmp_path / 'p.png'),
    (tmp_path / 'p.png').read_bytes(),
  ]
  logits = loaded.logits(kinds)
  assert logits.shape == (5, 5)
  np.testing.assert_allclose(logits, np.repeat(logits[:1], 5, 0), atol=1e-5)
  np.testing.assert_allclose(loaded.logits(pixels), logits[:1], atol=1e-5)
  assert loaded.logits(pixels[None]).shape == (1, 5)


def test_logits_are_the_modules_on_normalized_pixels():
  loaded, pixels = make(), picture(24, 24)
  loaded.preprocess = Preprocess('decode|resize(24)')
  x = loaded.read(pixels)[None].astype(np.float32) / 127.5 - 1
  expected = loaded.module.apply(loaded.variables, x)
  np.testing.assert_allclose(loaded.logits(pixels), expected, atol=1e-5)


def test_predictions_are_sorted_and_named():
  loaded = make()
  (answers,) = loaded.predict(picture(), top_k=3)
  assert [type(a) for a in answers] == [Prediction] * 3
  probabilities = np.asarray(jax.nn.softmax(loaded.logits(picture())[0]))
  best = np.argsort(-probabilities)[:3]
  assert [a.index for a in answers] == best.tolist()
  assert [a.name for a in answers] == [loaded.classes[i] for i in best]
  np.testing.assert_allclose([a.probability for a in answers], probabilities[best], rtol=1e-5)
  assert len(loaded.predict(picture(), top_k=50)[0]) == 5


def test_sigmoid_models_answer_for_each_class_alone():
  loaded = make()
  loaded.config['task'] = {'loss': 'sigmoid'}
  answers = loaded.predict(picture(), top_k=5)[0]
  logits = loaded.logits(picture())[0]
  np.testing.assert_allclose(answers[0].probability, 1 / (1 + np.exp(-logits.max())), rtol=1e-5)


def test_any_number_of_pictures_compiles_at_most_three_sizes():
  loaded = make()
  pictures = [picture(20 + i, 30, seed=i) for i in range(13)]
  everything = loaded.logits(pictures)
  for n in (1, 2, 3, 5, 7, 11, 13):
    np.testing.assert_allclose(loaded.logits(pictures[:n]), everything[:n], atol=1e-5)
  assert loaded._compiled('outputs')._cache_size() <= 3


def test_one_bad_picture_does_not_stop_the_others(tmp_path):
  loaded = make()
  (tmp_path / 'bad.jpg').write_bytes(b'no picture')
  pictures = [picture(), tmp_path / 'bad.jpg', tmp_path / 'none.png', picture(seed=1)]
  answers = loaded.predict(pictures, on_error='return')
  assert isinstance(answers[0], list) and isinstance(answers[3], list)
  assert 'bad.jpg' in str(answers[1]) and 'none.png' in str(answers[2])
  with pytest.raises(UserError, match='bad.jpg'):
    loaded.predict(pictures)
  problems = {}
  assert loaded.features(pictures, problems=problems).shape == (2, 12)
  assert sorted(problems) == [1, 2]


def test_features_are_what_the_model_computes_inside():
  loaded, pixels = make(), picture()
  pooled = loaded.features(pixels)
  head = loaded.variables['params']['head']
  np.testing.assert_allclose(
    pooled @ head['kernel'] + head['bias'], loaded.logits(pixels), atol=1e-4
  )
  tokens = loaded.features([pixels, pixels], 'tokens')
  assert tokens.shape == (2, 1 + 9, 12)
  np.testing.assert_allclose(tokens[:, 0], np.repeat(pooled, 2, 0), atol=1e-5)
  grid = loaded.features(pixels, 'grid')
  assert grid.shape == (1, 3, 3, 12)
  np.testing.assert_allclose(grid[0, 1, 2], tokens[0, 1 + 5], atol=1e-5)
  assert loaded.features(pixels, 'block_00').shape == (1, 10, 12)
  with pytest.raises(UserError, match="did you mean 'block_01'"):
    loaded.features(pixels, 'block_1')


@pytest.mark.parametrize(
  'bad', [np.zeros((3, 3), np.float32), np.zeros((2, 3, 4, 5, 6), np.uint8), 7, []]
)
def test_what_is_no_picture_is_told(bad):
  with pytest.raises(UserError):
    make().logits(bad)


def test_a_file_says_everything_itself(tmp_path):
  path = make(tmp_path)
  loaded = vit_jax.load(path)
  assert loaded.classes == ('ant', 'bee', 'cat', 'dog', 'eel')
  assert loaded.preprocess == PREPROCESS
  np.testing.assert_array_equal(loaded.logits(picture()), make().logits(picture()))
  assert loaded.config['model']['depth'] == 2
  json.dumps(loaded.config)


def test_another_size_and_other_names_on_request(tmp_path):
  path = make(tmp_path)
  loaded = vit_jax.load(path, image_size=(40, 16), classes=list('abcde'))
  assert loaded.preprocess.image_size == (40, 16)
  assert loaded.features(picture(), 'grid').shape == (1, 5, 2, 12)
  assert loaded.classes == tuple('abcde')
  with pytest.raises(UserError, match='3 class names'):
    vit_jax.load(path, classes=list('abc'))


def test_nothing_there():
  with pytest.raises(UserError, match='no weights at'):
    vit_jax.load('nowhere/w.npz')
  with pytest.raises(UserError, match='unknown weights'):
    vit_jax.load('vit_b17.i21k')
