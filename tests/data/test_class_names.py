"""ImageNet's class names by number, and classifiers that are kept for some of their classes."""

import pathlib

import numpy as np
import pytest

from tests.models import small
from tests.support import raises
from vit_jax import config, convert, models, tree
from vit_jax.data import Preprocess, class_names
from vit_jax.errors import DatasetError, UserError
from vit_jax.training.experiment import build_experiment

DIGITS = str(pathlib.Path(__file__).resolve().parents[2] / 'configs/digits.py')


@pytest.mark.parametrize('count', [21843, 21841, 11221, 10450, 11821])
def test_variants_of_imagenet21k_have_their_number_of_classes_in_order(count):
  names = class_names.by_count(count)
  ids = [class_names.normalize(name) for name in names]
  assert len(set(ids)) == count and ids == sorted(ids)
  assert set(names) <= set(class_names.by_count(21843))


def test_known_classes_by_hand():
  every = class_names.by_count(21843)
  assert every[0] == 'n00004475_organism' and every[1] == 'n00005787_benthos'
  assert set(every) - set(class_names.by_count(21841)) == {'n03931044_picture', every[15027]}
  assert 'n02084071_dog' in every
  assert class_names.by_count(1000)[0] == 'tench' and class_names.by_count(999) == ()


def test_imagenet_classes():
  names = class_names.imagenet1k()
  assert len(names) == 1000 and names[0] == 'tench' and names[2] == 'great white shark'
  index = class_names.index_of(names)
  for word in ('tench', 'n01440764', 'n01440764_tench', 'n01440764-tench'):
    assert index[class_names.normalize(word)] == 0
  assert class_names.normalize('Great_White shark') == 'great_white_shark'
  assert 'crane' not in index and index['n03126707'] == 517 and index['n02012849'] == 134
  assert class_names.index_of(['ant', 'Bee']) == {'ant': 0, 'bee': 1}


def test_a_dataset_of_one_variant_finds_its_classes_in_another():
  folders = tuple(class_names.normalize(name) for name in class_names.by_count(11221))  # ids alone
  found = class_names.align(folders, class_names.by_count(21843))
  assert [class_names.by_count(21843)[i] for i in found] == list(class_names.by_count(11221))
  words = class_names.align(
    ('tench', 'n01443537', 'great white shark'), class_names.by_count(21841)
  )
  assert [class_names.by_count(21841)[i][:9] for i in words] == [
    'n01440764',
    'n01443537',
    'n01484850',
  ]
  with raises(DatasetError, 'does not know 1 ', "'n03931044'", '21841'):
    class_names.align(('n03931044',), class_names.by_count(21841))


@pytest.mark.parametrize('count', [21843, 1000])
def test_foreign_weights_get_the_names_of_their_number(count, tmp_path):
  module = models.build('vit_ti16', num_classes=count)
  path = tmp_path / 'w.npz'
  sized = Preprocess('decode|resize(32, 48)')
  convert.write(
    path,
    small.variables(module),
    module,
    'npz',
    preprocess=sized,
    model=convert.description(module, 'vit_ti16'),
  )
  for other in set(tmp_path.iterdir()) - {path}:
    other.unlink()  # what we write beside it says everything
  assert convert.read(path).classes == class_names.by_count(count)


@pytest.fixture(scope='module')
def weights(tmp_path_factory):
  """A classifier of five digits, in an order of its own."""
  module = small.build('vit_ti16')
  path = tmp_path_factory.mktemp('weights') / 'w.safetensors'
  convert.write(
    path,
    small.variables(module),
    module,
    'vit_jax',
    preprocess=Preprocess('decode|resize(16, 24)'),
    classes=('7', '3', '1', '9', '0'),
    model=convert.description(module, 'vit_ti16'),
  )
  return path, tree.flatten(small.variables(module))


def _kept(path, classes):
  options = config.load(
    DIGITS,
    {
      'init_from': str(path),
      'head': 'keep',
      'dataset.classes': classes,
      'input.image_size': '16,24',
    },
  )
  return {
    k: np.asarray(v) for k, v in tree.flatten(build_experiment(options).variables()[0]).items()
  }


@pytest.mark.parametrize('classes, rows', [('1,3,0', [2, 1, 4]), ('7,3,1,9,0', [0, 1, 2, 3, 4])])
def test_a_kept_classifier_keeps_the_datasets_classes_by_name(weights, classes, rows):
  path, before = weights
  after = _kept(path, classes)
  for part in ('kernel', 'bias'):
    np.testing.assert_array_equal(
      after[f'params/head/{part}'], before[f'params/head/{part}'][..., rows]
    )
  names = [n for n in before if 'block_00' in n]
  assert names and all((after[n] == before[n]).all() for n in names)


def test_classes_that_a_kept_classifier_does_not_know_are_refused(weights):
  with pytest.raises(UserError, match=r"head='keep': .*such as '2'.*head='reset'"):
    _kept(weights[0], '1,2')


@pytest.mark.parametrize(
  'names, ordered',
  [
    (('0', '1', '10', '2'), ('0', '1', '2', '10')),
    (('01', '02', '10'), ('01', '02', '10')),
    (('0', '1', '10', 'x'), ('0', '1', '10', 'x')),
    ((), ()),
  ],
)
def test_numbers_are_ordered_by_value(names, ordered):
  assert class_names.in_order_of_numbers(names) == ordered


def test_names_match_in_any_unicode_form():
  assert class_names.align(('cafe\u0301', 'tea'), ('tea', 'caf\u00e9')).tolist() == [1, 0]


def test_folders_of_an_id_and_a_word_match_a_model_of_words():
  model = ('cat', 'Chihuahua', 'crane')
  assert list(class_names.align(('n02085620-Chihuahua',), model)) == [1]
  with raises(DatasetError, 'crane'):  # two classes of one word
    class_names.align(('n02012849-crane', 'n03126707-crane'), model)
