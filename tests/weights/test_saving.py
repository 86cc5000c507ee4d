"""Out and in again by every format: the same bytes, with names and preprocessing."""

import collections
import sys

import h5py
import numpy as np
import pytest

from tests.models import small
from tests.support import raises
from tests.weights import oracle
from vit_jax import convert, models, tree
from vit_jax.data import Preprocess
from vit_jax.errors import ConfigError, DependencyError, WeightsError
from vit_jax.models.shapes import description, variable_specs
from vit_jax.weights import preprocessing, saving

CLASSES = ('ant', 'bee', 'cat', 'dog', 'eel')
PREPROCESS = Preprocess('decode|resize_small(28)|central_crop(24)', (0.4, 0.5, 0.6))
MODELS = {
  'vit': ('vit_ti16', oracle.SIZES),
  'map': ('vit_g14', {**oracle.SIZES}),
  'gap': ('vit_ti16', {**oracle.SIZES, 'pool': 'gap'}),
  'pre_logits': ('vit_ti16', {**oracle.SIZES, 'representation_size': 7}),
  'registers': (
    'vit_ti16',
    {**oracle.SIZES, 'num_registers': 2, 'position_for_class_token': False, 'qk_norm': True},
  ),
  'hybrid': ('r26_s32', {**oracle.SIZES, 'patch_size': 32}),
  'root': ('r_ti16', {**oracle.SIZES, 'patch_size': 8}),
  'deit': ('deit_ti16_distilled', oracle.SIZES),
  'deit3': ('deit3_s16', oracle.SIZES),
}
FORMATS = {
  'vit': ('npz', 'big_vision', 'timm', 'hf', 'vit_jax'),
  'map': ('big_vision', 'timm', 'vit_jax'),
  'gap': ('big_vision', 'timm', 'vit_jax'),
  'pre_logits': ('npz', 'big_vision', 'vit_jax'),
  'registers': ('timm', 'vit_jax'),
  'hybrid': ('npz', 'timm', 'vit_jax'),
  'root': ('npz', 'timm', 'vit_jax'),
  'deit': ('timm', 'hf'),
  'deit3': ('timm',),
}
ENDINGS = {'npz': '.npz', 'big_vision': '.npz', 'vit_jax': '.safetensors', 'timm': '', 'hf': ''}


def made(kind, size=(24, 24)):
  name, fields = MODELS[kind]
  module = models.build(name, 5, **fields)
  variables = tree.unflatten(oracle.scattered_specs(variable_specs(module, size)))
  if kind in ('vit', 'pre_logits') and 'position_embedding' in variables['params']:
    # A slot of zeros: what the formats without one give back.
    variables['params']['position_embedding'][:, :1] = 0
  return name, module, variables


@pytest.mark.parametrize('kind,to', [(k, f) for k in FORMATS for f in FORMATS[k]])
def test_there_and_back(tmp_path, kind, to):
  size = (32, 32) if kind in ('hybrid', 'root') else (24, 24)
  name, module, variables = made(kind, size)
  preprocess = preprocessing.at_size(PREPROCESS, size)
  model = description(module, name)
  target = tmp_path / f'w{ENDINGS[to]}'
  options = {'model': model, 'classes': CLASSES, 'preprocess': preprocess}
  files = convert.write(target, variables, module, to, **options)
  assert all(f.is_file() for f in files)
  weights = convert.read(target)
  assert weights.format == to
  assert (weights.classes, weights.preprocess) == (CLASSES, preprocess)
  assert convert.build(weights) == module
  back, report = convert.fit(weights, module, size)
  assert not (report.reinitialised or report.dropped), str(report)
  # big_vision has no place for a class token's position: it comes back as zeros.
  assert len(report.resized) == (to == 'big_vision' and module.pool == 'token'), str(report)
  a, b = tree.flatten(back), tree.flatten(variables)
  assert a.keys() == b.keys()
  for key in a:
    assert a[key].tobytes() == np.asarray(b[key]).tobytes(), key
  again = tmp_path / f'again{ENDINGS[to]}'
  convert.write(again, back, module, to, **options)
  first = target if target.is_file() else target / 'model.safetensors'
  second = again if again.is_file() else again / 'model.safetensors'
  assert first.read_bytes() == second.read_bytes()


@pytest.mark.parametrize('pool', ['token', 'gap'])
@pytest.mark.parametrize('kind', ['sincos_2d', 'sinusoid_1d'])
def test_fixed_positions_are_written_as_learned_ones(tmp_path, kind, pool):
  fields = {**oracle.SIZES, 'position_embedding': kind, 'pool': pool, 'gelu': 'exact'}
  module = models.build('vit_ti16', 5, **fields)
  variables = tree.unflatten(oracle.scattered_specs(variable_specs(module, (24, 40))))
  tensors = saving.to_tensors(variables, module, 'timm', (24, 40))
  np.savez(tmp_path / 'w.npz', **tensors)
  learned = models.build('vit_ti16', 5, **{**fields, 'position_embedding': 'learned'})
  back = convert.load(tmp_path / 'w.npz', learned, (24, 40), format='timm', source_grid=(3, 5))
  x = oracle.images(24, 40)
  np.testing.assert_allclose(
    small.apply(learned, back, x), small.apply(module, variables, x), atol=1e-5
  )


@pytest.mark.parametrize(
  'kind,to,fact',
  [
    ('gap', 'hf', "pool='token'"),
    ('pre_logits', 'timm', 'pre-logits'),
    ('registers', 'npz', 'query_norm'),
    ('deit', 'npz', 'distillation_token'),
    ('vit', 'keras', 'ViT models'),
  ],
)
def test_what_a_format_cannot_say_is_refused(tmp_path, kind, to, fact):
  name, module, variables = made(kind)
  with raises(WeightsError, fact, to):
    convert.write(
      tmp_path / 'x', variables, module, to, model={'name': name}, preprocess=PREPROCESS
    )
  assert not (tmp_path / 'x').exists()


def test_an_unknown_format_is_refused(tmp_path):
  name, module, variables = made('vit')
  with raises(ConfigError, 'npy', 'npz'):
    convert.write(
      tmp_path / 'x', variables, module, 'npy', model={'name': name}, preprocess=PREPROCESS
    )


def test_big_vision_blocks_stacked_by_scan_and_towers_beside(tmp_path):
  _, module, variables = made('gap')
  flat = saving.to_tensors(variables, module, 'big_vision', (24, 24))
  stacked = {}
  for key, value in flat.items():
    if 'encoderblock_' in key:
      block = key.replace('encoderblock_0', 'encoderblock')
      if 'encoderblock_0' in key:
        stacked[block] = np.stack([value, flat[key.replace('block_0', 'block_1')]])
    else:
      stacked[key] = value
  put = {f'params/img/{k}': v for k, v in stacked.items()}
  put['params/txt/head/kernel'] = np.zeros((2, 3), np.float32)
  put['params/t'] = np.zeros(1, np.float32)
  np.savez(tmp_path / 'w.npz', **put)
  back, report = convert.load_with_report(tmp_path / 'w.npz', module, (24, 24))
  assert report.format == 'big_vision'
  assert sorted(report.ignored) == ['params/t', 'params/txt/head/kernel']
  a, b = tree.flatten(back), tree.flatten(variables)
  assert all(a[k].tobytes() == b[k].tobytes() for k in b)


def test_a_class_slot_moves_into_the_token_where_a_format_has_none(tmp_path):
  _, module, variables = made('vit')
  rng = np.random.default_rng(1)
  slot = variables['params']['position_embedding'][:, :1] = rng.normal(size=(1, 1, 12))
  tensors = saving.to_tensors(variables, module, 'big_vision', (24, 24))
  np.testing.assert_allclose(tensors['cls'], variables['params']['class_token'] + slot, atol=1e-6)
  np.savez(tmp_path / 'w.npz', **tensors)
  back = convert.load(tmp_path / 'w.npz', module, (24, 24))
  x = oracle.images()
  np.testing.assert_allclose(module.apply(back, x), module.apply(variables, x), atol=1e-4)


KERAS = {
  'resnet50': {'stride_in_conv': 1, 'conv_bias': True, 'norm_epsilon': 1.001e-5},
  'mobilenet_v2': {'padding': 'same', 'norm_epsilon': 1e-3},
}


def written_for_keras(folder, name):
  module = models.build(name, 5, **KERAS[name])
  variables = tree.unflatten(oracle.scattered_specs(variable_specs(module, (24, 24))))
  convert.write(
    folder / 'w.h5',
    variables,
    module,
    'keras',
    model=description(module, name),
    classes=CLASSES,
    preprocess=PREPROCESS,
  )
  return module, variables


def same_variables(a, b):
  a, b = tree.flatten(a), tree.flatten(b)
  return a.keys() == b.keys() and all(a[k].tobytes() == b[k].tobytes() for k in a)


@pytest.mark.parametrize('name', list(KERAS))
def test_both_models_of_keras_there_and_back(tmp_path, name):
  module, variables = written_for_keras(tmp_path, name)
  weights = convert.read(tmp_path / 'w.h5')
  assert (weights.format, weights.classes, weights.preprocess) == ('keras', CLASSES, PREPROCESS)
  assert convert.build(weights) == module
  assert same_variables(convert.fit(weights, module, (24, 24))[0], variables)
  (tmp_path / 'w.h5.json').unlink()
  assert convert.build(convert.read(tmp_path / 'w.h5')) == module


@pytest.mark.parametrize('classifier', [True, False])
@pytest.mark.parametrize('name', list(KERAS))
def test_layers_that_keras_3_numbers_by_kind(tmp_path, name, classifier):
  module, variables = written_for_keras(tmp_path, name)
  numbers = collections.Counter()
  with h5py.File(tmp_path / 'w.h5') as old, h5py.File(tmp_path / 'new.h5', 'w') as new:
    for layer in old.attrs['layer_names']:
      kind = 'dense' if layer == 'predictions' else 'conv2d'
      if layer.lower().endswith('_bn') or layer == 'bn_Conv1':
        kind = 'batch_normalization'
      elif layer.endswith('depthwise'):
        kind = 'depthwise_conv2d'
      if kind == 'dense' and not classifier:
        continue
      group = f'{kind}_{numbers[kind]}' if numbers[kind] else kind
      numbers[kind] += 1
      for i, weight in enumerate(old[layer].attrs['weight_names']):
        new[f'layers/{group}/vars/{i}'] = old[layer][weight][()]
  weights = convert.read(tmp_path / 'new.h5')
  assert weights.format == 'keras' and weights.model['name'] == name
  if classifier:
    assert same_variables(convert.fit(weights, module, (24, 24))[0], variables)
  else:
    headless = convert.build(weights)
    assert headless.num_classes == 0
    convert.fit(weights, headless, (24, 24))


def test_layers_of_no_known_keras_model(tmp_path):
  with h5py.File(tmp_path / 'w.h5', 'w') as f:
    f['layers/conv2d/vars/0'] = np.zeros((3, 3, 3, 7), np.float32)
  with raises(WeightsError, tmp_path / 'w.h5', '1 of kind conv2d'):
    convert.read(tmp_path / 'w.h5')


def test_keras_files_have_their_ending(tmp_path):
  module = models.build('resnet50', 5, **KERAS['resnet50'])
  variables = tree.unflatten(oracle.scattered_specs(variable_specs(module, (24, 24))))
  options = {'model': description(module, 'resnet50'), 'preprocess': PREPROCESS}
  for name in ('w.weights.h5', 'w.npz'):
    with raises(ConfigError, '.h5', name):
      convert.write(tmp_path / name, variables, module, 'keras', **options)


def test_without_h5py_the_error_names_what_to_install(tmp_path, monkeypatch):
  (tmp_path / 'w.h5').write_bytes(b'\x89HDF\r\n\x1a\n' + bytes(100))
  monkeypatch.setitem(sys.modules, 'h5py', None)
  with raises(DependencyError, 'pip install h5py'):
    convert.read(tmp_path / 'w.h5')


def test_an_official_file_comes_back_under_its_own_names(tmp_path):
  """timm reads no others: those of Flax Linen are a KeyError there."""
  given = oracle.older(oracle.official()[0])
  source, other, back = (tmp_path / name for name in ('s.npz', 't.safetensors', 'b.npz'))
  np.savez(source, **given)
  for one, two in ((source, other), (other, back)):
    assert convert.main([str(one), str(two), '--image_size=24']) == 0
  with np.load(back) as found:
    assert set(found.files) == set(given)
    assert all(np.array_equal(found[name], value) for name, value in given.items())
