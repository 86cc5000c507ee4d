"""Several models in a file, names around the model, tensors beside it: chosen, told, or refused."""

import numpy as np
import pytest

import vit_jax
from tests.support import raises
from tests.weights import strangers
from tests.weights.containers.test_damaged_files import torch_bytes
from vit_jax import convert
from vit_jax.errors import ConfigError, WeightsError

A, B = (strangers.tensors(seed=seed) for seed in (1, 2))


def under(prefix, arrays):
  return {prefix + name: array for name, array in arrays.items()}


def head_of(path, **options):
  return vit_jax.load(path, **options).variables['params']['head']['kernel']


def is_of(found, arrays):
  return np.array_equal(found, arrays['head.weight'].T)


@pytest.mark.parametrize(
  'good,other',
  [
    ('teacher.', 'student.'),
    ('module.teacher.backbone.', 'module.student.backbone.'),
    ('model_ema.', 'model.'),
    ('state_dict_ema.', 'state_dict.'),
    ('', 'teacher.'),
    ('model.', 'teacher.'),
    ('encoder_q.', 'encoder_k.'),
    ('base_encoder.', 'momentum_encoder.'),
    ('online.', 'target.'),
    ('visual.', 'text.'),
  ],
)
def test_the_one_that_is_used_by_convention_is_told(tmp_path, caplog, good, other):
  path = strangers.file(tmp_path / 'w.safetensors', under(good, A) | under(other, B))
  assert is_of(head_of(path), A)
  for name in (good.strip('.') or 'top', other.strip('.')):
    assert name in strangers.told(caplog)
  assert '--submodel' in strangers.told(caplog)
  chosen = head_of(path, submodel=other.strip('.'))
  assert is_of(chosen, B)


@pytest.mark.parametrize(
  'prefixes', [('generator.', 'discriminator.'), ('a.', 'b.'), ('model1.', 'model2.', 'model3.')]
)
def test_models_of_equal_rank_are_not_chosen_by_chance(tmp_path, prefixes):
  arrays = {}
  for prefix in prefixes:
    arrays |= under(prefix, A)
  path = strangers.file(tmp_path / 'w.safetensors', arrays)
  with raises(WeightsError, 'w.safetensors', 'submodel', *(p.strip('.') for p in prefixes)):
    vit_jax.load(path)
  with raises(ConfigError, 'submodel', 'nothing', prefixes[0].strip('.')):
    vit_jax.load(path, submodel='nothing')
  assert is_of(head_of(path, submodel=prefixes[1].strip('.')), A)


@pytest.mark.parametrize('zipped', [True, False])
@pytest.mark.parametrize(
  'good,other',
  [
    ('teacher', 'student'),
    ('state_dict_ema', 'state_dict'),
    ('model_ema', 'model'),
    ('ema', 'net'),
  ],
)
def test_several_state_dicts_of_a_checkpoint(tmp_path, caplog, good, other, zipped):
  a, b = ({k: np.ascontiguousarray(v) for k, v in x.items()} for x in (A, B))
  content = {other: b, good: a, 'optimizer': {'state': {'exp_avg': b['head.weight']}}}
  (tmp_path / 'w.pth').write_bytes(torch_bytes(content, zipped))
  assert is_of(head_of(tmp_path / 'w.pth'), a)
  assert good in strangers.told(caplog) and other in strangers.told(caplog)
  assert is_of(head_of(tmp_path / 'w.pth', submodel=other), b)


@pytest.mark.parametrize('key', ['model', 'state_dict', 'weights', 'my_net'])
def test_one_state_dict_under_any_key(tmp_path, caplog, key):
  a = {k: np.ascontiguousarray(v) for k, v in A.items()}
  (tmp_path / 'w.pth').write_bytes(torch_bytes({key: a}))
  assert is_of(head_of(tmp_path / 'w.pth'), a)
  assert 'submodel' not in strangers.told(caplog)


def test_the_commands_take_the_name(tmp_path):
  path = strangers.file(tmp_path / 'w.safetensors', under('a.', A) | under('b.', B))
  out = tmp_path / 'out.safetensors'
  convert.main([str(path), str(out), '--submodel=b', '--input_range=0,1', '--set=num_heads=3'])
  assert is_of(head_of(out), B)
  assert vit_jax.load(out).preprocess.mean == (0.0,) * 3
  with raises(ConfigError, 'out.safetensors', "submodel='b'"):
    vit_jax.load(out, submodel='b')


@pytest.mark.parametrize('range_', ['1,0', '0', '0,x', 'nan,1'])
def test_a_range_that_is_none_is_refused(tmp_path, range_):
  path = strangers.file(tmp_path / 'w.safetensors', A)
  with raises(ConfigError, 'input_range'):
    convert.main([str(path), str(tmp_path / 'o.safetensors'), f'--input_range={range_}'])


WRAPPED = ('_orig_mod.', 'module.', 'model.', '_orig_mod.module.', 'net.backbone.', 'module.model.')


@pytest.mark.parametrize('prefix', WRAPPED)
def test_names_of_wrappers(tmp_path, caplog, prefix):
  path = strangers.file(tmp_path / 'w.safetensors', under(prefix, A))
  assert is_of(head_of(path), A)
  assert 'not used' not in strangers.told(caplog)


def test_a_head_beside_the_backbone_is_told(tmp_path, caplog):
  body = {k: v for k, v in A.items() if not k.startswith('head')}
  head = {'classifier.weight': A['head.weight'], 'classifier.bias': A['head.bias']}
  path = strangers.file(tmp_path / 'w.safetensors', under('backbone.', body) | head)
  assert not vit_jax.load(path).module.num_classes
  assert 'classifier.weight' in strangers.told(caplog)


@pytest.mark.parametrize(
  'extra',
  [
    {'blocks.0.attn.relative_position_bias_table': np.zeros((9, 3), np.float32)},
    {'register_tokens': np.zeros((1, 4, 12), np.float32)},
    {'norm_pre.weight': np.ones(12, np.float32)},
    {'fc_norm.weight': np.ones(12, np.float32)},
  ],
  ids=lambda extra: next(iter(extra)),
)
def test_tensors_of_other_models_are_refused_by_name(tmp_path, extra):
  path = strangers.file(tmp_path / 'w.safetensors', A | extra)
  with raises(WeightsError, 'w.safetensors', next(iter(extra))):
    vit_jax.load(path)


def test_a_swiglu_mlp_is_refused(tmp_path):
  arrays = {k.replace('mlp.fc1', 'mlp.w12').replace('mlp.fc2', 'mlp.w3'): v for k, v in A.items()}
  with raises(WeightsError, 'w.safetensors'):
    vit_jax.load(strangers.file(tmp_path / 'w.safetensors', arrays))
  packed = dict(A)
  for i in range(2):
    weight, bias = f'blocks.{i}.mlp.fc1.weight', f'blocks.{i}.mlp.fc1.bias'
    packed[weight] = np.concatenate([A[weight]] * 2)
    packed[bias] = np.concatenate([A[bias]] * 2)
  with raises(WeightsError, 'mlp.fc2.weight'):
    vit_jax.load(strangers.file(tmp_path / 'p.safetensors', packed))


@pytest.mark.parametrize('dtype', [np.float16, np.float64])
def test_halves_and_counters(tmp_path, dtype):
  arrays = {k: v.astype(dtype) for k, v in A.items()}
  counter = {'norm.num_batches_tracked': np.zeros((), np.int64)}
  found = head_of(strangers.file(tmp_path / 'w.safetensors', arrays | counter))
  np.testing.assert_allclose(found, A['head.weight'].T, atol=1e-3)


def test_a_model_without_bias_of_queries(tmp_path):
  arrays = strangers.tensors(qkv_bias=False)
  assert not vit_jax.load(strangers.file(tmp_path / 'w.safetensors', arrays)).module.qkv_bias


@pytest.mark.parametrize('channels', [1, 4])
def test_images_of_other_channels(tmp_path, channels):
  arrays, name = dict(A), 'patch_embed.proj.weight'
  arrays[name] = np.repeat(A[name], 2, axis=1)[:, :channels]
  path = strangers.file(tmp_path / 'w.safetensors', arrays)
  if channels == 1:
    assert vit_jax.load(path).preprocess.channels == 'grey'
  else:
    with raises(WeightsError, 'w.safetensors', '4 channels'):
      vit_jax.load(path)


def test_one_output_is_told(tmp_path, caplog):
  path = strangers.file(tmp_path / 'w.safetensors', strangers.tensors(classes=1))
  vit_jax.load(path)
  assert 'always 1' in strangers.told(caplog)


@pytest.mark.parametrize('name', ['dinov2_vits14.safetensors', 'w.safetensors'])
def test_dinov2_without_a_config(tmp_path, caplog, name):
  """Its images are normalised by ImageNet's statistics, and are 518 pixels a side."""
  size = (518, 518)
  arrays = strangers.tensors(classes=0, size=size, patch_size=14, layer_scale=1e-5)
  arrays['mask_token'] = np.zeros((1, 12), np.float32)
  loaded = vit_jax.load(strangers.file(tmp_path / name, arrays))
  assert loaded.preprocess.image_size == size and loaded.module.patch_size == (14, 14)
  assert loaded.preprocess.mean == (0.485, 0.456, 0.406)
  assert loaded.module.layer_scale is not None and loaded.module.gelu == 'exact'
  assert 'assuming' in strangers.told(caplog)


def test_what_is_assumed_of_a_bare_file_is_told_once_and_may_be_given(tmp_path, caplog):
  path = strangers.file(tmp_path / 'w.safetensors', A)
  vit_jax.load(path, input_range=(0, 1), num_heads=3)
  assert 'assuming decode' not in strangers.told(caplog)
  vit_jax.load(path)
  assert strangers.told(caplog).count('assuming decode') == 1
  assert 'attention heads' in strangers.told(caplog)
