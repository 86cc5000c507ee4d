"""Whole Keras models: every layout, what lies around the backbone, and what is refused."""

import json

import h5py
import numpy as np
import pytest

import vit_jax
from tests.support import SHARED, needs_shared, raises
from tests.weights import keras_files, strangers
from tests.weights.keras_files import POOL, config, dense, layer
from vit_jax import convert, evaluate, models, predict, tasks, tree
from vit_jax.errors import WeightsError
from vit_jax.models.shapes import variable_specs
from vit_jax.weights import saving
from vit_jax.weights.containers.tensors import Arrays
from vit_jax.weights.mapping.family import recognise

MODULE, VARIABLES, ARRAYS = keras_files.model()
BY_PATH = keras_files.by_path(ARRAYS)


def head(units=3, activation='softmax', **more):
  return [POOL, dense(units, activation, **more)]


def saved(tmp_path, training=None, **options):
  """A whole model as .h5."""
  return keras_files.h5(tmp_path / 'm.h5', BY_PATH, config(**options), training)


@pytest.mark.parametrize(
  'ending,arrays,stated,nested',
  [
    ('h5', BY_PATH, True, True),
    ('h5', keras_files.by_path(ARRAYS, suffix=':0'), True, True),
    ('h5', keras_files.by_path(ARRAYS, nested=False), True, False),
    ('h5', keras_files.by_path(ARRAYS, head='sequential/dense'), True, True),
    ('h5', BY_PATH, False, True),
    ('h5', keras_files.by_path(ARRAYS, group=''), False, True),
    ('h5', keras_files.by_path(ARRAYS, group='', nested=False, head='my_head'), False, False),
    ('weights.h5', keras_files.by_order(ARRAYS), False, True),
    ('weights.h5', keras_files.by_order(ARRAYS, nested=False), False, False),
    ('keras', keras_files.by_order(ARRAYS), True, True),
    ('keras', keras_files.by_order(ARRAYS, nested=False), True, False),
  ],
)
def test_every_layout_gives_the_same_arrays(tmp_path, caplog, ending, arrays, stated, nested):
  path = tmp_path / f'm.{ending}'
  more = {
    'optimizer_weights/adam/dense_kernel_momentum': np.zeros((1280, 3), np.float32),
    'optimizer/vars/0': np.zeros((), np.int64),
    'layers/random_flip/seed_generator/vars/0': np.zeros(2, np.uint32),
  }
  if ending == 'keras':
    keras_files.archive(path, arrays | more, config(nested=nested))
  else:
    keras_files.h5(path, arrays | more, config(nested=nested) if stated else None)
  loaded = vit_jax.load(path)
  assert strangers.equal(loaded.variables, VARIABLES)
  assert loaded.module.padding == 'same' and loaded.module.norm_epsilon == 1e-3
  assert loaded.preprocess.image_size == ((32, 32) if stated else (224, 224))
  assert 'assuming' in strangers.told(caplog)


RGB = [{'class_name': '__keras_tensor__', 'config': {'keras_history': ['image', 0, 0]}}]
DOTS = {'class_name': '__ellipsis__', 'config': {}}
REVERSED = {'class_name': '__slice__', 'config': {'start': None, 'stop': None, 'step': -1}}
CAFFE = {'class_name': '__tensor__', 'config': {'value': [[[[-103.939, -116.779, -123.68]]]]}}


def tensors(*names):
  return [
    {'class_name': '__keras_tensor__', 'config': {'keras_history': [name, 0, 0]}} for name in names
  ]


def keras2(function, arguments, inputs='image'):
  """An operation as Keras 2 keeps it."""
  return {
    'class_name': 'TFOpLambda',
    'config': {'name': f'tf.{function}', 'function': function},
    'inbound_nodes': [[inputs, 0, 0, arguments]],
  }


@pytest.mark.parametrize(
  'stem,mean,std,channels',
  [
    ([layer('Rescaling', scale=1 / 127.5, offset=-1)], 0.5, 0.5, 'rgb'),
    ([layer('Rescaling', scale=1 / 255, offset=0.0)], 0.0, 1.0, 'rgb'),
    ([layer('Rescaling', scale=1.0, offset=0.0)], 0.0, 1 / 255, 'rgb'),
    (
      [layer('RandomFlip'), layer('RandomRotation'), layer('Rescaling', scale=1 / 255)],
      0.0, 1.0, 'rgb',
    ),
    (
      [layer('Rescaling', scale=1 / 255), layer('Normalization', mean=[0.4], variance=[0.04])],
      0.4, 0.2, 'rgb',
    ),
    (
      [layer('Normalization', mean=[[[[51.0] * 3]]], variance=[[[[102.0**2] * 3]]])],
      0.2, 0.4, 'rgb',
    ),
    (
      [
        layer('TrueDivide', 'a', call=[*RGB, 127.5]),
        layer('Subtract', call=[*tensors('a'), 1.0]),
      ],
      0.5, 0.5, 'rgb',
    ),
    (
      [
        keras2('math.truediv', {'y': 127.5}),
        keras2('math.subtract', {'y': 1.0}, 'tf.math.truediv'),
      ],
      0.5, 0.5, 'rgb',
    ),
    (
      [layer('GetItem', call=[*RGB, [DOTS, REVERSED]]), layer('Add', call=[CAFFE])],
      (103.939 / 255, 116.779 / 255, 123.68 / 255), 1 / 255, 'bgr',
    ),
    (
      [
        layer('GetItem', 'b', call=[*RGB, [DOTS, 2]]),
        layer('GetItem', 'g', call=[*RGB, [DOTS, 1]]),
        layer('GetItem', 'r', call=[*RGB, [DOTS, 0]]),
        layer('Stack', 'bgr', call=[tensors('b', 'g', 'r')], axis=-1),
        layer('Add', call=[*tensors('bgr'), CAFFE]),
      ],
      (103.939 / 255, 116.779 / 255, 123.68 / 255), 1 / 255, 'bgr',
    ),
  ],
)  # fmt: skip
def test_scaling_inside_of_the_model(tmp_path, caplog, stem, mean, std, channels):
  found = convert.read(saved(tmp_path, stem=stem)).preprocess_for('mobilenet_v2')
  expected = np.broadcast_to(mean, 3), np.broadcast_to(std, 3)
  np.testing.assert_allclose((found.mean, found.std), expected, rtol=1e-5, atol=1e-7)
  assert found.channels == channels
  assert 'assuming' not in strangers.told(caplog)


@pytest.mark.parametrize('by', ['path', 'order'])
def test_statistics_that_a_layer_has_learned_from_data(tmp_path, by):
  stem = [layer('Rescaling', scale=1 / 255), layer('Normalization', mean=None, variance=None)]
  numbers = [np.array(v, np.float32) for v in ([0.1, 0.2, 0.3], [0.01, 0.04, 0.09])]
  if by == 'path':
    names = [f'model_weights/normalization/{word}:0' for word in ('mean', 'variance')]
    path = keras_files.h5(tmp_path / 'm.h5', BY_PATH | dict(zip(names, numbers)), config(stem=stem))
  else:
    names = [f'layers/normalization/vars/{i}' for i in range(2)]
    arrays = keras_files.by_order(ARRAYS) | dict(zip(names, numbers))
    path = keras_files.archive(tmp_path / 'm.keras', arrays, config(stem=stem))
  found = convert.read(path).preprocess
  np.testing.assert_allclose(found.mean, [0.1, 0.2, 0.3], rtol=1e-6)
  np.testing.assert_allclose(found.std, [0.1, 0.2, 0.3], rtol=1e-6)


@pytest.mark.parametrize(
  'stem',
  [
    [layer('Lambda', function='code')],
    [layer('Conv2D', 'adapter')],
    [keras2('image.rgb_to_hsv', {})],
    [layer('Normalization', mean=None, variance=None)],
    [layer('CenterCrop', height=16, width=16)],
    [layer('RandomCrop', height=16, width=16)],
    [layer('ZeroPadding2D', 'border', padding=8)],
    [layer('AutoContrast')],
    [{'class_name': 'MyScaling', 'config': {'name': 'mine'}, 'registered_name': 'x>MyScaling'}],
  ],
  ids=lambda stem: stem[0]['class_name'],
)
def test_layers_in_front_that_are_unknown_are_refused_by_name(tmp_path, stem):
  with raises(WeightsError, 'm.h5', stem[0]['config']['name']):
    convert.read(saved(tmp_path, stem=stem))


@pytest.mark.parametrize(
  'behind,fact',
  [
    ([POOL, dense(64, 'relu', 'hidden'), dense()], 'hidden'),
    ([POOL, dense(64, 'softmax', 'hidden'), dense()], 'dense'),
    ([layer('GlobalMaxPooling2D'), dense()], 'globalmaxpooling2d'),
    ([layer('Flatten'), dense()], 'flatten'),
    ([POOL, layer('BatchNormalization', 'norm'), dense()], 'norm'),
    ([POOL, dense(3, 'relu')], 'dense'),
    ([POOL, dense(3, 'tanh')], 'dense'),
    ([POOL, dense(1, 'softmax')], 'dense'),
    ([POOL, dense(1, 'linear')], 'quantities'),
    ([POOL, layer('Concatenate'), dense()], 'concatenate'),
  ],
  ids=str,
)
def test_layers_behind_that_have_no_place_are_refused_by_name(tmp_path, behind, fact):
  with raises(WeightsError, 'm.h5', fact):
    convert.read(saved(tmp_path, head=behind))


@pytest.mark.parametrize(
  'behind,training,activation',
  [
    (head(), None, 'softmax'),
    (head(activation='linear'), None, 'softmax'),
    (head(activation='linear'), {'loss': 'sparse_categorical_crossentropy'}, 'softmax'),
    ([POOL, dense(3, 'linear'), layer('Activation', activation='softmax')], None, 'softmax'),
    ([POOL, dense(3, 'linear'), layer('Softmax')], None, 'softmax'),
    ([POOL, layer('Flatten'), dense()], None, 'softmax'),
    (head(activation='sigmoid'), None, 'sigmoid'),
    (head(activation='linear'), {'loss': {'class_name': 'BinaryCrossentropy'}}, 'sigmoid'),
  ],
)
def test_activations(tmp_path, behind, training, activation):
  weights = convert.read(saved(tmp_path, training, head=behind))
  assert tasks.of_config(weights.config, 3).activation == activation
  assert weights.num_classes == 3


@pytest.mark.parametrize('activation,loss', [('sigmoid', ''), ('linear', 'binary_crossentropy')])
def test_one_output_of_a_sigmoid_is_the_second_of_two_classes(tmp_path, activation, loss):
  """A sigmoid of z is the softmax of (0, z)."""
  arrays = keras_files.by_path(keras_files.model(1)[2])
  path = keras_files.h5(tmp_path / 'm.h5', arrays, config(head=head(1, activation)), {'loss': loss})
  loaded = vit_jax.load(path, classes=('cat', 'dog'))
  kernel = loaded.variables['params']['head']['kernel']
  assert kernel.shape == (1280, 2) and not kernel[:, 0].any() and loaded.classes == ('cat', 'dog')
  np.testing.assert_array_equal(kernel[:, 1:], arrays['model_weights/dense/dense/kernel'])


def test_images_are_of_the_size_that_a_layer_resizes_them_to(tmp_path):
  stem = [layer('Resizing', height=32, width=48), layer('Rescaling', scale=1 / 255)]
  found = convert.read(saved(tmp_path, stem=stem, shape=(None, None, 3))).preprocess
  assert found.image_size == (32, 48)


def test_a_quantity_is_no_class(tmp_path):
  with raises(WeightsError, 'm.h5', 'mean_squared_error'):
    vit_jax.load(saved(tmp_path, {'loss': 'mean_squared_error'}, head=head(activation='linear')))


@pytest.mark.parametrize('multiplier,width', [(0.35, 16), (0.5, 16), (1.4, 48)])
def test_multipliers_of_the_same_stem_are_told_apart(multiplier, width):
  module = models.build('mobilenet_v2', 0, width_multiplier=multiplier)
  specs = variable_specs(module, (32, 32))
  assert specs['params/stem/conv/kernel'].shape[3] == width
  empty = {k: np.broadcast_to(np.float32(0), s.shape) for k, s in specs.items()}
  named = saving.to_tensors(tree.unflatten(empty), module, 'keras', (32, 32))
  assert recognise(Arrays(named), 'keras').model['width_multiplier'] == multiplier


def test_two_backbones_or_an_unknown_one_are_refused(tmp_path):
  twice = BY_PATH | {k.replace('/mobilenetv2/', '/second/'): v for k, v in BY_PATH.items()}
  with raises(WeightsError, 'm.h5', 'twice'):
    vit_jax.load(keras_files.h5(tmp_path / 'm.h5', twice))
  other = {'class_name': 'Sequential', 'config': {'layers': [layer('Conv2D', 'mine')]}}
  arrays = {'model_weights/mine/mine/kernel:0': np.zeros((3, 3, 3, 8), np.float32)}
  with raises(WeightsError, 'o.h5', 'mine', 'MobileNetV2'):
    vit_jax.load(keras_files.h5(tmp_path / 'o.h5', arrays, other))


def test_a_model_of_several_outputs_is_refused(tmp_path):
  path = saved(tmp_path, output_layers=[['dense', 0, 0], ['box', 0, 0]])
  with raises(WeightsError, 'm.h5', '2 outputs'):
    vit_jax.load(path)


def test_a_dataset_that_lies_in_another_file_is_not_read(tmp_path):
  with h5py.File(tmp_path / 'm.h5', 'w') as f:
    f.create_dataset('Conv1/kernel', (4,), 'f4', external=[(str(tmp_path / 'x.bin'), 0, 16)])
  with raises(WeightsError, 'm.h5', 'Conv1/kernel'):
    vit_jax.load(tmp_path / 'm.h5')


@pytest.mark.parametrize('with_config', [True, False])
def test_tf_model_h5_of_hugging_face(tmp_path, with_config):
  """TensorFlow's names and axes for the arrays of PyTorch."""
  folder = strangers.folder(tmp_path / 'm')
  expected = vit_jax.load(folder)
  named = {}
  for name, array in strangers.tensors('hf').items():
    axes = {2: (1, 0), 4: (2, 3, 1, 0)}.get(array.ndim)
    words = {'weight': 'kernel' if axes else 'gamma'}
    if 'layernorm' in name:
      words['bias'] = 'beta'
    *path, last = name.split('.')
    layers = '/'.join(path).replace('layer/', 'layer_._')
    new = f'{layers}/{words.get(last, last)}:0'.lstrip('/')
    top = new.split('/')[0]
    array = np.ascontiguousarray(array.transpose(axes)) if axes and last == 'weight' else array
    named[f'{top}/tf_vi_t_for_image_classification/{new}'] = array
  (folder / 'model.safetensors').unlink()
  if not with_config:
    (folder / 'config.json').unlink()
    (folder / 'preprocessor_config.json').unlink()
  keras_files.h5(folder / 'tf_model.h5', named)
  loaded = vit_jax.load(folder, num_heads=3)
  assert strangers.equal(loaded.variables, expected.variables)
  assert loaded.classes == (expected.classes if with_config else ())


def test_safetensors_come_before_tensorflows_file(tmp_path):
  folder = strangers.folder(tmp_path / 'm')
  (folder / 'tf_model.h5').write_bytes(b'damaged')
  assert vit_jax.load(folder).classes == ('class 0', 'class 1')


DOGS = [f'dog {i}' for i in range(19)]
DOGS[0], DOGS[7] = 'Chihuahua', 'Labrador_retriever'


@needs_shared
def test_a_real_model_predicts_as_keras_does(tmp_path, capsys):
  """Probabilities of Keras 3.15 with images that Pillow's default resize squashed."""
  model = str(SHARED / 'weights' / 'dogs19_mobilenet_v2_keras.h5')
  sample = SHARED / 'imagenet_sample'
  (tmp_path / 'names.txt').write_text('\n'.join(DOGS))
  images = [
    str(sample / f'{name}.JPEG') for name in ('n02107142_Doberman', 'n02099712_Labrador_retriever')
  ]
  options = [f'--classes={tmp_path / "names.txt"}', '--batch_size=8']
  assert predict.main([model, *images, *options, '--json', '--top_k=1']) == 0
  lines = [json.loads(line)['predictions'][0] for line in capsys.readouterr().out.splitlines()]
  assert [line['class'] for line in lines] == ['Chihuahua', 'Labrador_retriever']
  found = [line['probability'] for line in lines]
  np.testing.assert_allclose(found, [0.462092, 0.993729], atol=1e-4)
  folder = tmp_path / 'images'
  for wordnet in ('n02085620-Chihuahua', 'n02099712-Labrador_retriever'):
    (folder / wordnet).mkdir(parents=True)
    for i in range(2):
      (folder / wordnet / f'{i}.jpg').write_bytes((sample / 'n02107142_Doberman.JPEG').read_bytes())
  evaluate.main([model, f'--dataset={folder}', '--json', '--batch_size=8', options[0]])
  assert json.loads(capsys.readouterr().out)['accuracy'] == 0.5
