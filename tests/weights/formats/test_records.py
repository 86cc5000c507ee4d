"""What the JSON files of Hugging Face and timm state, read and written."""

import json

from tests.support import raises
from vit_jax.data import Preprocess, parse_transform
from vit_jax.errors import WeightsError
from vit_jax.weights.formats import hf, timm
from vit_jax.weights.mapping.family import FAMILIES


def test_preprocessing_is_the_same_after_the_others_records():
  for transform in (
    'decode|resize_small(72, bicubic)|central_crop(64)',
    'decode|resize_small(256)|central_crop(224)',
    'decode|resize_small(248, bicubic)|central_crop(224)',
    'decode|resize(224, bicubic)',
    'decode|resize(256)|central_crop(224)',
  ):
    original = Preprocess(str(parse_transform(transform, train=False)), (0.1,) * 3)
    record = json.loads(json.dumps(hf.write_preprocess(original)))
    assert hf.read_preprocess(record, None) == original
    if 'resize_small' in transform:
      record = json.loads(json.dumps(timm.write_preprocess(original)))
      assert timm.read_preprocess(record) == original


def test_preprocessing_that_a_record_cannot_describe_is_refused():
  caffe = FAMILIES['ResNet'].preprocess('resnet50', 'keras', (224, 224))
  for write in (timm.write_preprocess, hf.write_preprocess):
    with raises(WeightsError, 'rgb', 'bgr'):
      write(caffe)
    with raises(WeightsError, 'resize_small', 'decode|central_crop(32)'):
      write(Preprocess('decode|central_crop(32)'))


def test_the_folder_of_hugging_face():
  config = {
    'hidden_act': 'gelu',
    'image_size': 384,
    'patch_size': 16,
    'num_attention_heads': 3,
    'layer_norm_eps': 1e-12,
    'id2label': {'1': 'bee', '0': 'ant'},
  }
  record = hf.record_of(config, {'size': 384, 'resample': 2, 'do_resize': True})
  assert record.classes == ('ant', 'bee')
  assert record.known == {
    'gelu': 'exact', 'num_heads': 3, 'norm_epsilon': 1e-12, 'grid': (24, 24)
  }  # fmt: skip
  assert record.preprocess.transform == 'decode|resize(384)'


def test_the_folder_of_timm():
  config = {'pretrained_cfg': {'input_size': [3, 224, 224], 'crop_pct': 0.9, 'mean': [0.5] * 3}}
  config['model_args'] = {'act_layer': 'gelu_tanh'}
  record = timm.record_of(config)
  assert record.known['gelu'] == 'tanh'
  assert 'resize_small(248' in record.preprocess.transform
