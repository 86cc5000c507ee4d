"""What strangers' config files state: read as they mean it, told, or refused by file and field."""

import json

import numpy as np
import pytest

import vit_jax
from tests.support import raises
from tests.weights import oracle, strangers
from vit_jax import convert
from vit_jax.errors import ConfigError, WeightsError

PROCESSOR = 'preprocessor_config.json'


def processor(tmp_path, **fields):
  return strangers.folder(tmp_path / 'm', preprocessor_config=fields)


HALF = (0.5,) * 3


@pytest.mark.parametrize(
  'fields,mean,std',
  [
    ({'image_mean': 0.5, 'image_std': 0.25}, HALF, (0.25,) * 3),
    ({'image_mean': [0.5], 'image_std': [0.25]}, HALF, (0.25,) * 3),
    ({'image_mean': [127.5] * 3, 'image_std': [127.5] * 3, 'do_rescale': False}, HALF, HALF),
    ({'do_normalize': False}, (0.0,) * 3, (1.0,) * 3),
    ({'do_normalize': False, 'do_rescale': False}, (0.0,) * 3, (1 / 255,) * 3),
    ({'do_normalize': False, 'rescale_factor': 1 / 127.5, 'rescale_offset': True}, HALF, HALF),
    ({'image_mean': HALF, 'image_std': HALF, 'rescale_factor': 2 / 255}, (0.25,) * 3, (0.25,) * 3),
    ({'image_mean': None, 'image_std': None}, HALF, HALF),
  ],
  ids=str,
)
def test_values_of_pixels(tmp_path, fields, mean, std):
  found = vit_jax.load(processor(tmp_path, **fields)).preprocess
  np.testing.assert_allclose([found.mean, found.std], [mean, std], rtol=1e-6)


@pytest.mark.parametrize(
  'fields,transform',
  [
    ({'size': 32}, 'decode|resize(32, method=bicubic)'),
    ({'size': {'height': 32, 'width': 48}}, 'decode|resize((32, 48), method=bicubic)'),
    ({'size': [32, 32]}, 'decode|resize(32, method=bicubic)'),
    ({'size': {'shortest_edge': 32}}, 'decode|resize_small(32, method=bicubic)|central_crop(32)'),
    (
      {'size': {'shortest_edge': 28}, 'do_center_crop': True, 'crop_size': 24},
      'decode|resize_small(28, method=bicubic)|central_crop(24)',
    ),
    (
      {'size': 28, 'do_center_crop': True, 'crop_size': {'height': 24, 'width': 24}},
      'decode|resize(28, method=bicubic)|central_crop(24)',
    ),
    (
      {'size': {'shortest_edge': 24}, 'crop_pct': 0.75},
      'decode|resize_small(32, method=bicubic)|central_crop(24)',
    ),
    ({'resample': 'PILImageResampling.LANCZOS'}, 'decode|resize(24, method=lanczos)'),
    ({'resample': 0}, 'decode|resize(24, method=nearest)'),
    ({'size': None, 'resample': None}, 'decode|resize(24)'),
    (
      {'resample': None, 'image_processor_type': 'DeiTImageProcessor'},
      'decode|resize(24, method=bicubic)',
    ),
  ],
  ids=str,
)
def test_sizes_and_filters(tmp_path, fields, transform):
  assert convert.read(processor(tmp_path, **fields)).preprocess.transform == transform


@pytest.mark.parametrize(
  'fields,facts',
  [
    ({'size': {'longest_edge': 32}}, ['size', 'longest_edge']),
    ({'size': {'shortest_edge': 32, 'longest_edge': 64}}, ['size', 'longest_edge']),
    ({'size': '24'}, ['size', "'24'"]),
    ({'size': [24, 48]}, ['size', '[24, 48]']),
    ({'size': {'height': 24.5, 'width': 24}}, ['size', '24.5']),
    ({'size': 0}, ['size']),
    ({'do_center_crop': True, 'crop_size': {'longest_edge': 24}}, ['crop_size', 'longest_edge']),
    ({'resample': 4}, ['resample', '4', 'bicubic']),
    ({'resample': 'box'}, ['resample', 'box']),
    ({'image_mean': [127.5] * 3, 'image_std': [127.5] * 3}, ['127.5', '255']),
    ({'image_mean': [0.5, 0.5]}, ['image_mean', '[0.5, 0.5]']),
    ({'image_mean': '0.5'}, ['image_mean', "'0.5'"]),
    ({'image_mean': ['0.5'] * 3}, ['image_mean']),
    ({'image_std': [0.5, 0.5, 0.0]}, ['positive']),
    ({'image_std': True}, ['image_std']),
    ({'rescale_factor': 0}, ['rescale_factor']),
    ({'rescale_factor': '1/255'}, ['rescale_factor']),
  ],
  ids=str,
)
def test_what_cannot_be_done_is_refused_by_file_and_field(tmp_path, fields, facts):
  with raises(WeightsError, PROCESSOR, *facts) as e:
    vit_jax.load(processor(tmp_path, **fields))
  assert len(e.value.problems) == 1 and 'damaged' not in str(e.value)


def test_images_that_are_resized_though_it_is_said_not_to_be_done_are_told(tmp_path, caplog):
  path = processor(tmp_path, do_resize=False, size=None)
  assert vit_jax.load(path).preprocess.image_size == (24, 24)
  assert 'do_resize' in strangers.told(caplog)


NAMES = ('ant', 'bee', 'cat')


@pytest.mark.parametrize(
  'fields',
  [
    {'id2label': {'0': 'ant', '1': 'bee', '2': 'cat'}},
    {'id2label': {'2': 'cat', '0': 'ant', '1': 'bee'}},
    {'id2label': {'LABEL_0': 'ant', 'LABEL_1': 'bee', 'LABEL_2': 'cat'}},
    {'id2label': ['ant', 'bee', 'cat']},
    {'id2label': {'bee': 1, 'ant': 0, 'cat': 2}},
    {'id2label': None, 'label2id': {'bee': 1, 'ant': 0, 'cat': 2}},
    {'id2label': None, 'label2id': {'bee': '1', 'ant': '0', 'cat': '2'}},
  ],
  ids=str,
)
def test_class_names_in_every_form(tmp_path, caplog, fields):
  path = strangers.folder(tmp_path / 'm', classes=3, config=fields)
  assert vit_jax.load(path).classes == NAMES
  assert 'label' not in strangers.told(caplog)


@pytest.mark.parametrize(
  'labels,fact',
  [
    ({'0': 'ant', '2': 'cat', '3': 'dog'}, 'id2label'),  # a gap
    ({'1': 'ant', '2': 'bee', '3': 'cat'}, 'id2label'),  # from 1
    ({'0': 'ant', '1': 'bee'}, '2 class names'),  # fewer than outputs
    ({'0': 'ant', '1': 'bee', '2': 'cat', '3': 'dog'}, '4 class names'),
    ('ant,bee,cat', 'id2label'),
    ({'ant': 'x', 'bee': 'y', 'cat': 'z'}, 'id2label'),
  ],
  ids=str,
)
def test_class_names_that_cannot_be_placed_are_left_out_and_told(tmp_path, caplog, labels, fact):
  path = strangers.folder(tmp_path / 'm', classes=3, config={'id2label': labels})
  assert vit_jax.load(path).classes == ()
  assert fact in strangers.told(caplog) and '--classes' in strangers.told(caplog)


def test_names_that_come_twice_and_default_names(tmp_path):
  twice = strangers.folder(tmp_path / 'a', config={'id2label': {'0': 'crane', '1': 'crane'}})
  assert vit_jax.load(twice).classes == ('crane', 'crane')
  default = {'0': 'LABEL_0', '1': 'LABEL_1'}
  path = strangers.folder(tmp_path / 'b', config={'id2label': default})
  assert vit_jax.load(path).classes == ()


@pytest.mark.parametrize(
  'content,expected',
  [
    ('ant\nbee \n', ('ant', 'bee')),
    ('\ufeffant\r\nbee\r\n', ('ant', 'bee')),
    ('["ant", "bee"]', ('ant', 'bee')),
    ('{"1": "bee", "0": "ant"}', ('ant', 'bee')),
    ('{"bee": 1, "ant": 0}', ('ant', 'bee')),
    ('ant\n\nbee', 'line 2'),
    ('', 'no class names'),
    ('["ant"', 'names'),
    ('ant', '1 class names for a model of 2'),
    ('ant\nbee\ncat', '3 class names for a model of 2'),
  ],
  ids=repr,
)
def test_a_file_of_class_names(tmp_path, capsys, content, expected):
  model = strangers.folder(tmp_path / 'm', config={'id2label': None, 'label2id': None})
  names = tmp_path / 'names.txt'
  names.write_text(content, 'utf-8', newline='')
  out = tmp_path / 'out.safetensors'
  command = [str(model), str(out), f'--classes={names}']
  if isinstance(expected, str):
    with raises(ConfigError, expected):
      convert.main(command)
    assert not out.exists()
  else:
    convert.main(command)
    assert convert.read(out).classes == expected


@pytest.mark.parametrize(
  'activation,gelu',
  [('gelu', 'exact'), ('gelu_new', 'tanh'), ('gelu_fast', 'tanh'), ('gelu_pytorch_tanh', 'tanh'),
   ('quick_gelu', ''), ('relu', ''), ('silu', '')],
)  # fmt: skip
def test_the_activation_of_hugging_face(tmp_path, activation, gelu):
  path = strangers.folder(tmp_path / 'm', config={'hidden_act': activation})
  if gelu:
    assert convert.build(convert.read(path)).gelu == gelu
  else:
    with raises(WeightsError, 'config.json', 'hidden_act', activation):
      convert.read(path)


@pytest.mark.parametrize(
  'field,value', [('gelu', 'tanh'), ('norm_epsilon', 1e-6), ('num_heads', 2)], ids=str
)
def test_a_module_of_other_fields_than_the_weights_is_told(tmp_path, caplog, field, value):
  path = strangers.folder(tmp_path / 'm', config={'layer_norm_eps': 1e-3})
  same = {'gelu': 'exact', 'norm_epsilon': 1e-3}
  convert.load(path, oracle.ours(2, **same), (24, 24))
  assert 'build' not in strangers.told(caplog)
  convert.load(path, oracle.ours(2, **{**same, field: value}), (24, 24))
  assert f'{field}=' in strangers.told(caplog) and str(value) in strangers.told(caplog)


def test_epsilon_bias_and_labels_that_a_config_states(tmp_path):
  path = strangers.folder(tmp_path / 'm', config={'layer_norm_eps': 1e-3})
  assert vit_jax.load(path).module.norm_epsilon == 1e-3
  path = strangers.folder(tmp_path / 'n', config={'layer_norm_eps': None})
  assert vit_jax.load(path).module.norm_epsilon == 1e-12  # as transformers has it
  several = strangers.folder(tmp_path / 'o', config={'problem_type': 'multi_label_classification'})
  assert vit_jax.load(several).task.activation == 'sigmoid'


def test_a_file_that_is_named_without_its_folder_has_its_config(tmp_path):
  path = strangers.folder(tmp_path / 'm')
  assert vit_jax.load(path / 'model.safetensors').classes == ('class 0', 'class 1')


def test_a_file_of_the_usual_name_without_a_config_is_what_its_arrays_are(tmp_path):
  """Hugging Face's defaults, such as an epsilon of 1e-12, are not those of timm's arrays."""
  for name in ('model.safetensors', 'other.safetensors'):
    weights = convert.read(strangers.file(tmp_path / name, strangers.tensors('timm')))
    assert convert.build(weights).norm_epsilon == 1e-6 and not weights.known


def timm(tmp_path, size=(24, 24), **fields):
  path = strangers.folder(tmp_path / 't', 'timm', size)
  config = path / 'config.json'
  content = json.loads(config.read_text())
  content['pretrained_cfg'].update(fields.pop('pretrained_cfg', {}))
  content['model_args'].update(fields.pop('model_args', {}))
  config.write_text(json.dumps({**content, **fields}))
  return path


@pytest.mark.parametrize(
  'fields,facts',
  [
    ({'pretrained_cfg': {'mean': [127.5] * 3, 'std': [127.5] * 3}}, ['127.5']),
    ({'pretrained_cfg': {'mean': [0.5, 0.5]}}, ['mean', '[0.5, 0.5]']),
    ({'pretrained_cfg': {'std': '0.5'}}, ['std']),
    ({'pretrained_cfg': {'interpolation': 'hamming'}}, ['interpolation', 'hamming']),
    ({'pretrained_cfg': {'input_size': 24}}, ['input_size', '24']),
    ({'model_args': {'act_layer': 'quick_gelu'}}, ['act_layer', 'quick_gelu']),
    ({'architecture': 'vit_base_patch16_clip_quickgelu_224'}, ['act_layer', 'quick_gelu']),
    ({'global_pool': 'avg'}, ['global_pool', 'avg']),
    ({'model_args': {'global_pool': 'avg'}}, ['global_pool', 'avg']),
  ],
  ids=str,
)
def test_a_timm_folder_is_refused_by_field(tmp_path, fields, facts):
  with raises(WeightsError, *facts) as e:
    vit_jax.load(timm(tmp_path, **fields))
  assert 'damaged' not in str(e.value)


def test_what_a_timm_folder_states(tmp_path, caplog):
  path = timm(tmp_path, pretrained_cfg={'mean': 0.4, 'std': [0.3]}, model_args={'num_heads': 4})
  loaded = vit_jax.load(path)
  assert loaded.module.num_heads == 4 and not strangers.told(caplog)
  assert loaded.preprocess.mean == (0.4,) * 3 and loaded.preprocess.std == (0.3,) * 3
  labels = timm(tmp_path, label_names={'0': 'ant', '1': 'bee'})
  assert vit_jax.load(labels).classes == ('ant', 'bee')


@pytest.mark.parametrize('to', ['hf', 'timm'])
@pytest.mark.parametrize('size', [(16, 64), (24, 40), (40, 16)], ids=str)
def test_an_oblong_grid_that_the_config_states(tmp_path, caplog, to, size):
  """16 x 64 pixels are 2 x 8 patches, as many as a square of 4 x 4."""
  path = strangers.folder(tmp_path / 'm', to, size)
  module, variables = strangers.vit(size=size)
  loaded = vit_jax.load(path)
  position = loaded.variables['params']['position_embedding']
  np.testing.assert_array_equal(position, variables['params']['position_embedding'])
  assert 'resized' not in strangers.told(caplog)


def test_positions_for_other_images_than_the_preprocessing_gives_are_told(tmp_path, caplog):
  vit_jax.load(processor(tmp_path, size=40))
  assert 'position_embedding' in strangers.told(caplog) and '40 x 40' in strangers.told(caplog)
