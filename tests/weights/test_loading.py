"""Official files into a model: what fits, what is adapted because it was asked for, what fails."""

import numpy as np
import pytest
import scipy.ndimage

from tests.models import small
from tests.support import SHARED, needs_shared, raises
from tests.weights import oracle
from vit_jax import convert, models
from vit_jax.data import Preprocess
from vit_jax.errors import ConfigError, WeightsError
from vit_jax.models.shapes import description, variable_specs
from vit_jax.tree import flatten
from vit_jax.weights import resize
from vit_jax.weights.mapping import rules
from vit_jax.weights.mapping.family import FAMILIES


def save(tmp_path, flat, name='w.npz'):
  np.savez(tmp_path / name, **flat)
  return tmp_path / name


def in_our_format(tmp_path, path, model):
  variables = convert.load(path, model, (24, 24))
  record = {'model': {'name': 'vit_ti16'}, 'preprocess': Preprocess('decode|resize((24, 24))')}
  return convert.write(tmp_path / 'ours.safetensors', variables, model, 'vit_jax', **record)[0]


def check_refused(path, model, *facts):
  with raises(WeightsError, *facts) as e:
    convert.load(path, model, (24, 24))
  text = ' | '.join(e.value.problems)
  assert '\n' not in text and len(text) < 1500


@pytest.mark.parametrize('rename', [dict, oracle.older], ids=['present', 'older'])
@pytest.mark.parametrize('representation', [None, 7])
def test_official_names_give_the_same_logits(tmp_path, rename, representation):
  flat, logits = oracle.official(representation=representation)
  model = oracle.ours(representation_size=representation)
  variables, report = convert.load_with_report(save(tmp_path, rename(flat)), model, (24, 24))
  x = oracle.images()
  np.testing.assert_allclose(small.apply(model, variables, x), logits(x), atol=1e-5)
  assert report.format == 'npz' and 'every tensor used as it is' in str(report)


def test_a_head_that_does_not_fit_is_an_error_with_both_shapes(tmp_path):
  path = save(tmp_path, oracle.official()[0])
  check_refused(path, oracle.ours(11), '(12, 5)', '(12, 11)', "head='reset'")
  variables, report = convert.load_with_report(path, oracle.ours(11), (24, 24), head='reset')
  assert not np.any(variables['params']['head']['kernel'])
  assert variables['params']['head']['kernel'].shape == (12, 11)
  assert report.reinitialised == ['params/head/bias', 'params/head/kernel']
  assert report.dropped == ['head/bias', 'head/kernel']


def test_pre_logits_are_dropped_only_when_the_head_goes(tmp_path):
  path = save(tmp_path, oracle.official(representation=7)[0])
  check_refused(path, oracle.ours(), 'representation_size')
  _, report = convert.load_with_report(path, oracle.ours(), (24, 24), head='reset')
  assert set(report.dropped) >= {'pre_logits/kernel', 'pre_logits/bias'}
  kept = convert.load(path, oracle.ours(11, representation_size=7), (24, 24), head='reset')
  assert np.any(kept['params']['pre_logits']['kernel'])


def test_pre_logits_of_our_own_format_are_dropped_likewise(tmp_path):
  path = save(tmp_path, oracle.official(representation=7)[0])
  path = in_our_format(tmp_path, path, oracle.ours(representation_size=7))
  check_refused(path, oracle.ours(), 'representation_size')
  _, report = convert.load_with_report(path, oracle.ours(), (24, 24), head='reset')
  assert set(report.dropped) >= {'params/pre_logits/kernel', 'params/pre_logits/bias'}


def test_missing_unexpected_and_misshapen_are_reported_together(tmp_path):
  flat = oracle.official()[0]
  flat['strange'] = np.zeros(3, np.float32)
  del flat['Transformer/encoder_norm/bias']
  flat['Transformer/encoder_norm/scale'] = np.zeros(13, np.float32)
  path = save(tmp_path, flat)
  check_refused(path, oracle.ours(), 'encoder/norm/bias', 'strange', '(13,)', '(12,)')


def test_weights_of_another_model_say_so(tmp_path):
  path = save(tmp_path, {'a/kernel': np.zeros((2, 3), np.float32)})
  check_refused(path, oracle.ours(), 'another model or format')


def test_positions_are_resized_like_the_official_code_and_the_class_token_stands_apart(tmp_path):
  flat = oracle.official()[0]
  path = save(tmp_path, flat)
  variables, report = convert.load_with_report(path, oracle.ours(), (16, 40))
  old = flat['Transformer/posembed_input/pos_embedding']  # [1, 1 + 3 * 3, 12]
  new = variables['params']['position_embedding']
  assert new.shape == (1, 1 + 2 * 5, 12)
  np.testing.assert_array_equal(new[:, 0], old[:, 0])
  zoomed = scipy.ndimage.zoom(old[0, 1:].reshape(3, 3, 12), (2 / 3, 5 / 3, 1), order=1)
  np.testing.assert_array_equal(new[0, 1:].reshape(2, 5, 12), zoomed)
  assert report.resized == ['params/position_embedding (1, 10, 12) -> (1, 11, 12)']


def test_as_many_tokens_in_another_grid_are_resized_too(tmp_path):
  flat = oracle.official(h=32, w=32)[0]  # a 4x4 grid, 16 tokens; 2x8 has 16 as well
  variables, report = convert.load_with_report(save(tmp_path, flat), oracle.ours(), (16, 64))
  assert report.resized
  grid = variables['params']['position_embedding'][0, 1:].reshape(2, 8, 12)
  corner = flat['Transformer/posembed_input/pos_embedding'][0, 1:].reshape(4, 4, 12)[-1, -1]
  np.testing.assert_allclose(grid[-1, -1], corner, atol=1e-6)


def test_a_grid_that_is_no_square_must_be_known(tmp_path):
  path = save(tmp_path, oracle.official(h=16, w=56)[0])
  check_refused(path, oracle.ours(), 'source_grid')
  variables = convert.load(path, oracle.ours(), (24, 24), source_grid=(2, 7))
  assert variables['params']['position_embedding'].shape == (1, 10, 12)
  same = convert.load(path, oracle.ours(), (16, 56), source_grid=(2, 7))
  flat = oracle.official(h=16, w=56)[0]
  np.testing.assert_array_equal(
    same['params']['position_embedding'], flat['Transformer/posembed_input/pos_embedding']
  )


def test_bicubic_keeps_a_constant_and_differs_from_bilinear(tmp_path):
  grid = np.full((3, 5, 2), 7.0, np.float32)
  np.testing.assert_allclose(resize.resize_grid(grid, (2, 11), 'bicubic'), 7.0, rtol=1e-6)
  path = save(tmp_path, oracle.official()[0])
  a, b = (convert.load(path, oracle.ours(), (40, 40), resize=r) for r in ('bilinear', 'bicubic'))
  assert not np.allclose(a['params']['position_embedding'], b['params']['position_embedding'])


def test_patches_of_another_size_give_the_same_tokens_for_enlarged_images():
  rng = np.random.default_rng(0)
  kernel = rng.normal(size=(5, 5, 3, 2)).astype(np.float32)
  bigger = resize.patch_kernel(kernel, (7, 11))
  patch = rng.normal(size=(5, 5, 3))
  rows = resize.resize_matrix(5, 7, 'bilinear', False)
  columns = resize.resize_matrix(5, 11, 'bilinear', False)
  enlarged = np.einsum('yh,xw,hwc->yxc', rows, columns, patch)
  token = np.einsum('hwc,hwcd->d', patch, kernel)
  np.testing.assert_allclose(np.einsum('hwc,hwcd->d', enlarged, bigger), token, rtol=1e-4)


def test_patch_size_and_channels_follow_the_model(tmp_path):
  path = save(tmp_path, oracle.official()[0])
  model = oracle.ours(patch_size=12)
  variables, report = convert.load_with_report(path, model, (36, 36))
  assert variables['params']['patch_embedding']['kernel'].shape == (12, 12, 3, 12)
  assert report.resized == ['params/patch_embedding/kernel (8, 8, 3, 12) -> (12, 12, 3, 12)']
  grey = convert.load(path, oracle.ours(), (24, 24), channels=1)
  x = oracle.images(c=1)
  colour = convert.load(path, oracle.ours(), (24, 24))
  np.testing.assert_allclose(
    oracle.ours().apply(grey, x),
    oracle.ours().apply(colour, np.repeat(x, 3, -1)),
    atol=1e-5,
  )


@pytest.mark.parametrize('format', ['timm', 'vit_jax'])
@pytest.mark.parametrize('name', ['resnet50', 'bit_r50x1', 'mobilenet_v2', 'r_ti16'])
def test_a_first_convolution_takes_images_of_one_channel(tmp_path, name, format):
  """A grey image gives what its three equal channels gave."""
  module = small.build(name, gelu='exact') if name == 'r_ti16' else small.build(name)
  size = (64, 64)
  colour = small.variables(module, 8, 8) if name == 'r_ti16' else small.variables(module, 2, 2)
  model = convert.description(module, name)
  options = {'model': model, 'preprocess': Preprocess('decode|resize(64)')}
  path = convert.write(tmp_path / 'w.safetensors', colour, module, format, **options)[0]
  grey, report = convert.load_with_report(path, module, size, channels=1)
  assert [line.split(' ')[0].split('/')[-2:] for line in report.resized] == [['conv', 'kernel']]
  x = oracle.images(64, 64, c=1)
  np.testing.assert_allclose(
    small.apply(module, grey, x),
    small.apply(module, colour, np.repeat(x, 3, -1)),
    rtol=1e-3,
    atol=1e-4,
  )


def test_group_norms_with_axes_of_one_load(tmp_path):
  model = models.build('r_ti16', 3, width=12, depth=1, num_heads=3, mlp_dim=20)
  specs = variable_specs(model, (32, 32))
  table = FAMILIES['ViT'].table('npz', specs)
  bindings, orphans = rules.bind(table.rules, specs)
  assert orphans == []
  flat = {}
  for b in bindings:
    for name, shape in zip(b.theirs, b.their_shapes([specs[n].shape for n in b.ours])):
      flat[name] = np.zeros((1, 1, 1, *shape) if 'gn_' in name else shape, np.float32)
  assert flat['gn_root/scale'].shape == (1, 1, 1, 64)
  variables = convert.load(save(tmp_path, flat), model, (32, 32))
  assert flatten(variables)['params/stem/root/norm/scale'].shape == (64,)


@pytest.mark.parametrize('value', [np.nan, np.inf])
def test_values_that_are_not_finite_are_refused(tmp_path, value):
  flat = oracle.official()[0]
  flat['cls'][0, 0, 3] = value
  check_refused(save(tmp_path, flat), oracle.ours(), 'cls: 1 of 12 values')


def test_values_that_are_not_finite_are_taken_where_that_is_asked_for(tmp_path, caplog):
  flat = oracle.official()[0]
  flat['cls'][0, 0, 3] = np.nan
  path = save(tmp_path, flat)
  variables, report = convert.load_with_report(path, oracle.ours(), (24, 24), allow_invalid=True)
  assert sum(np.isnan(v).sum() for v in flatten(variables).values()) == 1
  assert len(report.invalid) == 1 and report.invalid[0] in str(report)
  (line,) = [r.getMessage() for r in caplog.records]
  assert str(path) in line and 'cls: 1 of 12 values' in line


def test_negative_variances_are_refused_unless_asked_for(tmp_path):
  model = models.build('mobilenet_v2', 3)
  flat = {
    name: np.full(spec.shape, 0.5, np.float32)
    for name, spec in variable_specs(model, (32, 32), 3).items()
  }
  name = next(n for n in flat if n.endswith('/var'))
  flat[name][[1, 4]] = -0.25
  path = str(tmp_path / 'w.npz')
  np.savez(path, **flat)
  check_refused(path, model, f'{name}: 2 of {flat[name].size} variances')
  variables = convert.load(path, model, (32, 32), allow_invalid=True)
  assert flatten(variables)[name].min() == -0.25
  flat[name][[1, 4]] = 0.0
  np.savez(path, **flat)
  convert.load(path, model, (32, 32))


@pytest.mark.parametrize('dtype', [np.float16, np.float64])
def test_other_floats_become_float32(tmp_path, dtype):
  flat = {k: v.astype(dtype) for k, v in oracle.official()[0].items()}
  variables = convert.load(save(tmp_path, flat), oracle.ours(), (24, 24))
  assert {v.dtype for v in flatten(variables).values()} == {np.dtype(np.float32)}


@needs_shared
def test_real_weights_load_whole():
  path = SHARED / 'weights' / 'Ti_16-imagenet2012-224.npz'
  variables, report = convert.load_with_report(path, models.build('vit_ti16', 1000), (224, 224))
  assert sum(v.size for v in flatten(variables).values()) == 5_717_416
  assert str(report).endswith('every tensor used as it is')


@pytest.mark.parametrize('format', ['npz', 'vit_jax'])
def test_a_model_without_the_class_token_leaves_its_position_too(tmp_path, format):
  path, tokenless = save(tmp_path, oracle.official()[0]), oracle.ours(7, pool='gap')
  if format == 'vit_jax':
    path = in_our_format(tmp_path, path, oracle.ours())
  name = {'npz': 'cls', 'vit_jax': 'params/class_token'}[format]
  check_refused(path, oracle.ours(pool='gap'), name)  # unless the head goes too
  variables, report = convert.load_with_report(path, tokenless, (24, 24), head='reset')
  positions = oracle.official()[0]['Transformer/posembed_input/pos_embedding']
  np.testing.assert_array_equal(variables['params']['position_embedding'], positions[:, 1:])
  assert name in report.dropped


def test_unknown_options_are_refused_together(tmp_path):
  path = save(tmp_path, oracle.official()[0])
  with raises(ConfigError, 'head', 'no', 'resize', 'nearest', 'bilinear'):
    convert.load(path, oracle.ours(), (24, 24), head='no', resize='nearest')
  with raises(ConfigError, 'weight format', 'npy', 'npz'):
    convert.load(path, oracle.ours(), (24, 24), format='npy')


def test_weights_of_another_registered_model_are_named_with_the_option(tmp_path):
  module = small.build('vit_ti16', 5)
  model, preprocess = description(module, 'vit_ti16'), Preprocess('decode|resize(16, 24)')
  path = tmp_path / 'w.npz'
  convert.write(path, small.variables(module), module, 'npz', model=model, preprocess=preprocess)
  other = models.build('vit_s16', 5)
  weights = convert.read(path)
  for options, option in (
    (convert.Options(model='vit_s16', model_option='--model'), '--model=vit_ti16'),
    (convert.Options(head='reset'), 'model=vit_ti16'),  # a module of a registered name
  ):
    with raises(WeightsError, 'w.npz looks like vit_ti16', 'not vit_s16', option) as caught:
      convert.fit(weights, other, (16, 32), options)
    assert len(caught.value.problems) == 1 and 'kernel' not in str(caught.value)
  # Where the weights fit no model that was recognised, the tensors are listed.
  with raises(WeightsError, '(5,)', '(7,)'):
    convert.fit(weights, small.build('vit_ti16', 7), (16, 24), convert.Options(model='vit_ti16'))
  flat = dict(oracle.official()[0])
  del flat['Transformer/encoder_norm/scale']
  with raises(WeightsError, 'not in the file', 'class_token needs (1, 1, 384)'):
    convert.load(save(tmp_path, flat, 'lacks.npz'), models.build('vit_s16', 5), (224, 224))
