"""Out and in again by every format: the same bytes, with names and preprocessing."""

import json
import subprocess
import sys

import numpy as np
import pytest

from tests.weights import oracle
from vit_jax import convert, models
from vit_jax import convert as command
from vit_jax.data import Preprocess, class_names
from vit_jax.errors import UserError
from vit_jax.weights import loading, preprocessing, saving
from vit_jax.weights.formats.tensors import Arrays
from vit_jax.weights.mapping import recognise, rules, tables
from vit_jax.weights.reading import record_of

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
  'hybrid': ('npz', 'timm'),
  'root': ('npz', 'timm'),
  'deit': ('timm', 'hf'),
  'deit3': ('timm',),
}
ENDINGS = {'npz': '.npz', 'big_vision': '.npz', 'vit_jax': '.safetensors', 'timm': '', 'hf': ''}


def made(kind, size=(24, 24)):
  name, fields = MODELS[kind]
  module = models.build(name, 5, **fields)
  specs = loading.variable_specs(module, size)
  variables = loading.tree.unflatten(oracle.scattered_specs(specs))
  if kind in ('vit', 'pre_logits') and 'position_embedding' in variables['params']:
    # A slot of zeros: what the formats without one give back.
    variables['params']['position_embedding'][:, :1] = 0
  return name, module, variables


@pytest.mark.parametrize('kind,to', [(k, f) for k in FORMATS for f in FORMATS[k]])
def test_there_and_back(tmp_path, kind, to):
  size = (32, 32) if kind in ('hybrid', 'root') else (24, 24)
  name, module, variables = made(kind, size)
  preprocess = preprocessing.at_size(PREPROCESS, size)
  model = loading.description(module, name)
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
  a, b = loading.tree.flatten(back), loading.tree.flatten(variables)
  assert a.keys() == b.keys()
  for key in a:
    assert a[key].tobytes() == np.asarray(b[key]).tobytes(), key
  again = tmp_path / f'again{ENDINGS[to]}'
  convert.write(again, back, module, to, **options)
  first = target if target.is_file() else target / 'model.safetensors'
  second = again if again.is_file() else again / 'model.safetensors'
  assert first.read_bytes() == second.read_bytes()


@pytest.mark.parametrize('kind,to', [(k, f) for k in FORMATS for f in FORMATS[k]])
def test_models_are_recognised_from_tensors_alone(kind, to):
  if to == 'vit_jax' or (to == 'big_vision' and kind in ('vit', 'pre_logits')):
    return  # says it itself; comes back as the same model without a slot
  size = (32, 32) if kind in ('hybrid', 'root') else (24, 24)
  name, module, variables = made(kind, size)
  tensors = Arrays(saving.to_tensors(variables, module, to, size))
  assert recognise.format_of(list(tensors)) == to or (kind == 'gap' and to == 'npz')
  found = recognise.model_of(tensors, to, name, {'num_heads': 3})
  fields = {k: v for k, v in found['model'].items() if k != 'name'}
  built = models.build(found['model']['name'], found['num_classes'], **fields)
  for field in ('width', 'depth', 'mlp_dim', 'patch_size', 'pool', 'num_heads', 'num_registers'):
    assert getattr(built, field) == getattr(module, field), field
  assert loading.variable_specs(built, size) == loading.variable_specs(module, size)


QUICK = ('vit_ti16', 'deit_ti16', 'deit3_s16', 'r26_s32', 'cait_xxs24', 'mixer_s32', 'resnet50')
QUICK += ('bit_r50x1', 'mobilenet_v2', 't2t_vit_7', 't2t_vit_t_14', 'deit_ti16_distilled')


@pytest.mark.parametrize(
  'name',
  [n if n in QUICK else pytest.param(n, marks=pytest.mark.slow) for n in models.names()],
)
def test_every_published_model_is_recognised_by_name(name):
  module = models.build(name, 7)
  family = type(module).__name__
  size = (384, 384) if family == 'CaiT' else (224, 224)
  specs = loading.variable_specs(module, size)
  for to in ('npz', 'timm', 'hf', 'keras'):
    if (family, to) not in tables.TABLES or (to == 'hf' and tables.unfit(family, to, module)):
      continue
    if to == 'keras' or (to in ('npz', 'hf') and name.startswith('deit')):
      continue  # other arrays than timm's, or another name for the same ones
    table = tables.find(family, to, specs)
    bindings, orphans = rules.bind(table.rules, specs)
    if orphans:
      continue
    shapes = {}
    for b in bindings:
      shapes.update(zip(b.theirs, b.their_shapes([specs[n].shape for n in b.ours])))
    zeros = {k: np.broadcast_to(np.float32(0), s) for k, s in shapes.items()}
    found = recognise.model_of(Arrays(zeros), to, hint=name)
    assert found['model']['name'] == name and found['num_classes'] == 7


@pytest.mark.parametrize('pool', ['token', 'gap'])
@pytest.mark.parametrize('kind', ['sincos_2d', 'sinusoid_1d'])
def test_fixed_positions_are_written_as_learned_ones(tmp_path, kind, pool):
  fields = {**oracle.SIZES, 'position_embedding': kind, 'pool': pool, 'gelu': 'exact'}
  module = models.build('vit_ti16', 5, **fields)
  specs = loading.variable_specs(module, (24, 40))
  variables = loading.tree.unflatten(oracle.scattered_specs(specs))
  tensors = saving.to_tensors(variables, module, 'timm', (24, 40))
  np.savez(tmp_path / 'w.npz', **tensors)
  learned = models.build('vit_ti16', 5, **{**fields, 'position_embedding': 'learned'})
  back = convert.load(tmp_path / 'w.npz', learned, (24, 40), format='timm', source_grid=(3, 5))
  x = oracle.images(24, 40)
  np.testing.assert_allclose(learned.apply(back, x), module.apply(variables, x), atol=1e-5)


def test_what_a_format_cannot_say_is_refused(tmp_path):
  def problems(kind, to):
    name, module, variables = made(kind)
    with pytest.raises(UserError) as e:
      convert.write(tmp_path / 'x', variables, module, to, model={'name': name},
                    preprocess=PREPROCESS)  # fmt: skip
    assert not (tmp_path / 'x').exists()
    return str(e.value)

  assert "pool='token'" in problems('gap', 'hf')
  assert 'pre-logits' in problems('pre_logits', 'timm')
  assert 'query_norm' in problems('registers', 'npz')
  assert 'distillation_token' in problems('deit', 'npz')


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
  a, b = loading.tree.flatten(back), loading.tree.flatten(variables)
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


def test_preprocessing_is_the_same_after_the_others_records():
  for transform in (
    'decode|resize_small(72, bicubic)|central_crop(64)',
    'decode|resize_small(256)|central_crop(224)',
    'decode|resize_small(248, bicubic)|central_crop(224)',
    'decode|resize(224, bicubic)',
    'decode|resize(256)|central_crop(224)',
  ):
    original = Preprocess(str(preprocessing.parse_transform(transform, train=False)), (0.1,) * 3)
    record = json.loads(json.dumps(preprocessing.to_hugging_face(original)))
    assert preprocessing.from_hugging_face(record, None) == original
    if 'resize_small' in transform:
      record = json.loads(json.dumps(preprocessing.to_timm(original)))
      assert preprocessing.from_timm(record) == original
  with pytest.raises(UserError, match='rgb'):
    preprocessing.to_timm(preprocessing.usual('resnet50', 'keras', (224, 224)))


def test_records_of_hugging_face_and_timm_folders():
  config = {
    'hidden_act': 'gelu',
    'image_size': 384,
    'patch_size': 16,
    'num_attention_heads': 3,
    'layer_norm_eps': 1e-12,
    'id2label': {'1': 'bee', '0': 'ant'},
  }
  record = record_of(config, {'size': 384, 'resample': 2, 'do_resize': True})
  assert record['classes'] == ['ant', 'bee']
  assert record['known'] == {
    'gelu': 'exact', 'num_heads': 3, 'norm_epsilon': 1e-12, 'grid': (24, 24)
  }  # fmt: skip
  assert record['preprocess']['transform'] == 'decode|resize(384)'
  timm = {'pretrained_cfg': {'input_size': [3, 224, 224], 'crop_pct': 0.9, 'mean': [0.5] * 3}}
  timm['model_args'] = {'act_layer': 'gelu_tanh'}
  record = record_of(timm, {})
  assert record['known']['gelu'] == 'tanh'
  assert 'resize_small(248' in record['preprocess']['transform']


def test_imagenet_labels():
  names = class_names.imagenet1k()
  assert len(names) == 1000 and names[0] == 'tench' and names[2] == 'great white shark'
  index = class_names.index_of(names)
  for word in ('tench', 'n01440764', 'n01440764_tench', 'n01440764-tench'):
    assert index[class_names.normalize(word)] == 0
  assert class_names.normalize('Great_White shark') == 'great_white_shark'
  assert 'crane' not in index and index['n03126707'] == 517 and index['n02012849'] == 134
  assert class_names.index_of(['ant', 'Bee']) == {'ant': 0, 'bee': 1}


def test_the_command(tmp_path, capsys):
  np.savez(tmp_path / 'w.npz', **oracle.official()[0])
  source = str(tmp_path / 'w.npz')
  out = str(tmp_path / 'out.safetensors')
  assert command.main([source, out, '--set=num_heads=3']) == 0
  assert 'every tensor used as it is' in capsys.readouterr().out
  assert command.main([out, str(tmp_path / 'hf'), '--to=hf', '--image_size', '40', '16']) == 0
  assert 'resized' in capsys.readouterr().out
  assert json.loads((tmp_path / 'hf' / 'config.json').read_text())['image_size'] == [40, 16]
  reset = [out, str(tmp_path / 'r.npz'), '--head=reset', '--num_classes=3']
  assert command.main(reset) == 0
  assert convert.read(tmp_path / 'r.npz').num_classes == 3
  for arguments, word in (
    ([source], 'SOURCE and TARGET'),
    ([source, 'x.what'], '--to='),
    ([source, out, '--model=vit_b17'], 'did you mean'),
    ([source, out, '--set=depth'], 'FIELD=VALUE'),
    ([source, str(tmp_path / 'none' / 'x.npz')], 'cannot write'),
  ):
    with pytest.raises(UserError, match=word):
      command.main(arguments)


@pytest.mark.parametrize('module', ['convert', 'predict', 'features'])
def test_help_starts_no_jax(module):
  code = (
    f'import sys, runpy; sys.argv = ["x", "--help"]\n'
    f'try: runpy.run_module("vit_jax.{module}", run_name="__main__", alter_sys=True)\n'
    f'except SystemExit as e: assert not e.code\n'
    f'assert "jax" not in sys.modules and "numpy" not in sys.modules\n'
  )
  subprocess.run([sys.executable, '-c', code], check=True, capture_output=True)
