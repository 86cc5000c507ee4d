"""TFDS datasets through TFDS's own reader, made and read without TensorFlow."""

import importlib.util
import io
import json
import shlex

import numpy as np
import pytest
from PIL import Image

from tests.support import raises
from vit_jax.data import (
  decode_image,
  eval_batches,
  open_dataset,
  parse_transform,
  train_batches,
)
from vit_jax.data.sources import preparation
from vit_jax.data.sources import tfds as tfds_module
from vit_jax.data.sources.published import DATASETS, PublishedDataset
from vit_jax.data.sources.tfds import _by_our_names
from vit_jax.errors import DatasetError, ImageError

tfds = pytest.importorskip('tensorflow_datasets')
writers = pytest.importorskip('array_record.python.array_record_module')

COUNTS = {'train': 17, 'validation': 5}
NAMES = ('ash', 'birch', 'cedar')


def jpeg(red):
  out = io.BytesIO()
  Image.new('RGB', (13, 11), (red, 0, 0)).save(out, 'JPEG', quality=100, subsampling=0)
  return out.getvalue()


@pytest.fixture
def data_dir(tmp_path):
  """A prepared dataset `trees` of 22 images; image i has label i % 3 and red value 10 i."""
  return prepare(tmp_path, lambda split, i: i % 3)


def prepare(tmp_path, kind):
  """Writes the dataset.

  Args:
    tmp_path: data folder.
    kind: the label by split and index.
  """
  from tensorflow_datasets.proto import tf_example_pb2

  root = tmp_path / 'trees' / '1.0.0'
  root.mkdir(parents=True)
  for split, count in COUNTS.items():
    writer = writers.ArrayRecordWriter(
      str(root / f'trees-{split}.array_record-00000-of-00001'), 'group_size:1'
    )
    for i in range(count):
      example = tf_example_pb2.Example()
      feature = example.features.feature
      feature['photo'].bytes_list.value.append(jpeg(10 * i))
      feature['kind'].int64_list.value.append(kind(split, i))
      feature['height'].int64_list.value.append(i)
      feature['tags'].int64_list.value.extend(range(i % 3))  # none, the first, the first two
      feature['objects/kind'].int64_list.value.extend([i % 3, 2])
      feature['objects/size'].int64_list.value.extend([i, i])
      writer.write(example.SerializeToString())
    writer.close()
  features = tfds.features.FeaturesDict(
    {
      'photo': tfds.features.Image(shape=(None, None, 3), encoding_format='jpeg'),
      'kind': tfds.features.ClassLabel(names=list(NAMES)),
      'height': tfds.features.Scalar(np.int64),
      'tags': tfds.features.Sequence(tfds.features.ClassLabel(names=list(NAMES))),
      'objects': tfds.features.Sequence(
        {
          'kind': tfds.features.ClassLabel(names=list(NAMES)),
          'size': tfds.features.Scalar(np.int64),
        }
      ),
    }
  )
  (root / 'features.json').write_text(json.dumps(features.to_json()))
  for feature in ('kind', 'tags', 'objects-kind'):
    (root / f'{feature}.labels.txt').write_text('\n'.join(NAMES))
  write_info(root, 'array_record')
  return tmp_path


def write_info(root, kind):
  keys = [{'featureKey': 'photo'}, {'featureKey': 'kind'}]
  (root / 'dataset_info.json').write_text(
    json.dumps(
      {
        'name': 'trees',
        'version': '1.0.0',
        'fileFormat': kind,
        'supervisedKeys': {'tuple': {'items': keys}},
        'splits': [
          {
            'name': s,
            'shardLengths': [str(n)],
            'numBytes': '1000',
            'filepathTemplate': '{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}',
          }
          for s, n in COUNTS.items()
        ],
      }
    )
  )


@pytest.mark.parametrize('name', ['trees', 'tfds:trees', 'trees:1.0.0', 'folder', 'version'])
def test_reads_what_was_written(data_dir, name):
  if name in ('folder', 'version'):
    dataset = open_dataset(str(data_dir / 'trees' / ('1.0.0' if name == 'version' else '')))
  else:
    dataset = open_dataset(name, data_dir=str(data_dir))
  assert (dataset.kind, dataset.classes) == ('tfds', NAMES)
  assert dataset.splits == {'train': 17, 'val': 5} and not dataset.made_split
  examples = dataset.split('train[50%:]+validation[:2]')
  assert len(examples) == 11
  for i, source in enumerate([*range(8, 17), 0, 1]):
    example = examples[i]
    assert isinstance(example['image'], bytes)
    assert abs(int(decode_image(example['image'])[0, 0, 0]) - 10 * source) <= 1
    assert example['label'] == source % 3
    assert example['id'] == f'{"train" if i < 9 else "validation"}/{source}'
  np.testing.assert_array_equal(examples.labels, [*(np.arange(8, 17) % 3), 0, 1])


def test_choice_by_class_and_count(data_dir):
  dataset = open_dataset('trees', data_dir=str(data_dir), classes=('cedar', 'ash'), per_class=3)
  assert dataset.splits == {'train': 6, 'val': 3}
  assert np.bincount(dataset.split('train').labels).tolist() == [3, 3]
  names = {'cedar': 0, 'ash': 1}
  for i in range(6):
    example = dataset.split('train')[i]
    source = int(example['id'].split('/')[1])
    assert example['label'] == names[NAMES[source % 3]]


def test_resplit(data_dir):
  dataset = open_dataset('trees', data_dir=str(data_dir), resplit=True, split_fractions=(0.5, 0.5))
  assert sum(dataset.splits.values()) == 22 and dataset.made_split


def test_batches(data_dir):
  examples = open_dataset('trees', data_dir=str(data_dir)).split('train')
  transform = parse_transform('decode|resize(3)|flip_lr', train=True)
  for workers in (0, 1):
    with train_batches(examples, transform, batch_size=5, seed=0, workers=workers) as batches:
      batch = next(batches)
    red = batch['image'][:, 0, 0, 0].astype(int)
    assert np.abs(red - 10 * batch['index']).max() <= 1


def test_other_features_by_name(data_dir):
  dataset = open_dataset('trees', data_dir=str(data_dir), image_key='photo', label_key='kind')
  assert dataset.classes == NAMES
  with raises(DatasetError, 'image_key', 'label_key', "did you mean 'kind'") as e:
    open_dataset('trees', data_dir=str(data_dir), image_key='imag', label_key='kinds')
  assert len(e.value.problems) == 2
  with raises(DatasetError, "'height'", "label_key to one of ['kind', 'tags']"):
    open_dataset('trees', data_dir=str(data_dir), label_key='height')


@pytest.mark.parametrize(
  'key, wanted',
  [
    ('tags', lambda i: [i % 3 > 0, i % 3 > 1, False]),
    ('objects/kind', lambda i: [i % 3 == 0, i % 3 == 1, True]),
  ],
)
def test_several_classes_per_image(data_dir, key, wanted):
  dataset = open_dataset('trees', data_dir=str(data_dir), label_key=key)
  assert dataset.classes == NAMES and dataset.labels_per_image == 'several'
  examples = dataset.split('train')
  for i in range(len(examples)):
    assert examples[i]['labels'].tolist() == wanted(i)
  with train_batches(examples, parse_transform('decode|resize(3)'), batch_size=5, seed=0) as found:
    assert next(found)['labels'].shape == (5, 3)


def test_a_split_without_labels_is_refused(tmp_path):
  dataset = open_dataset(
    'trees', data_dir=str(prepare(tmp_path, lambda split, i: i % 3 if split == 'train' else -1))
  )
  assert len(dataset.split('train')) == 17
  for spec in ('validation', 'val[:2]', 'train+val'):
    with raises(DatasetError, 'trees', "'val'", 'no labels'):
      dataset.split(spec)


@pytest.fixture
def partly(tmp_path):
  """Every fifth image has no label."""
  return str(prepare(tmp_path, lambda split, i: i % 3 if i % 5 else -1))


@pytest.mark.parametrize('batches', [train_batches, eval_batches])
def test_images_without_labels_are_refused_or_skipped(partly, batches):
  examples = open_dataset('trees', data_dir=partly).split('train')
  options = {'batch_size': 17, 'threads': 0} | ({'seed': 0} if batches is train_batches else {})
  transform = parse_transform('decode|resize(3)')
  with raises(ImageError, 'no label', 'train/0', '--config.dataset.on_error=skip'):
    list(zip(range(1), batches(examples.take(np.arange(1)), transform, **options)))
  found = batches(examples, transform, on_error='skip', **options)
  batch = next(iter(found))
  assert found.skipped == 4 and set(found.unreadable) == {f'train/{i}' for i in (0, 5, 10, 15)}
  assert batch['label'].min() == 0 and batch.get('mask', np.ones(13)).sum() == 13


def test_images_without_labels_are_left_out_of_a_choice(partly, caplog):
  dataset = open_dataset('trees', data_dir=partly, resplit=True, split_fractions=(0.5, 0.5))
  assert sum(dataset.splits.values()) == 22 - 4 - 1
  assert '5 of 22 images have no label' in caplog.text


@pytest.mark.parametrize(
  'names, ours',
  [
    (['train', 'validation'], {'train': 'train', 'validation': 'val'}),
    (['dev', 'validation'], {'dev': 'dev', 'validation': 'val'}),
    (['val', 'validation'], {'val': 'val', 'validation': 'validation'}),
    (['dev', 'testing'], {'dev': 'val', 'testing': 'test'}),
  ],
)
def test_two_splits_of_one_name_keep_apart(names, ours):
  assert _by_our_names(names) == ours


def test_not_prepared_says_what_to_type(tmp_path):
  data_dir = tmp_path / "it's & mine"
  facts = (
    'takes TensorFlow',
    'pip install tensorflow ',
    'tfds build sun397',
    '--file_format=array_record',
    shlex.join([f'--data_dir={data_dir}']),
    'stanford_dogs',
  )
  with raises(DatasetError, *facts):
    open_dataset('sun397', data_dir=str(data_dir))


@pytest.mark.parametrize('kind', ['array_record', 'tfrecord'])
def test_what_tfds_prepared_goes_before_a_download(data_dir, monkeypatch, kind):
  trees = PublishedDataset('trees', (), COUNTS, read=iter)
  monkeypatch.setattr(DATASETS, '_entries', {'trees': trees})
  monkeypatch.setattr(preparation, 'published_source', lambda dataset, *_: dataset)
  write_info(data_dir / 'trees' / '1.0.0', kind)
  if kind == 'array_record':
    assert tfds_module.tfds_source('trees', str(data_dir)).classes == NAMES
  else:  # which cannot be read at random
    assert tfds_module.tfds_source('trees', str(data_dir)) is trees


def test_unknown_name_offers_the_nearest(tmp_path):
  with raises(DatasetError, "'stanford_dog'", 'did you mean', "'stanford_dogs'"):
    open_dataset('stanford_dog', data_dir=str(tmp_path))
  with raises(DatasetError, 'TFDS cannot open', "'a b'"):
    open_dataset('tfds:a b', data_dir=str(tmp_path))


def test_a_format_without_random_access_says_how_to_convert(data_dir):
  root = data_dir / 'trees' / '1.0.0'
  write_info(root, 'tfrecord')
  next(root.glob('*train*')).rename(root / 'trees-train.tfrecord-00000-of-00001')
  next(root.glob('*valid*')).rename(root / 'trees-validation.tfrecord-00000-of-00001')
  with raises(DatasetError, 'tfrecord', 'tfds convert_format', '--out_file_format=array_record'):
    open_dataset('trees', data_dir=str(data_dir))


@pytest.mark.parametrize(
  'name, facts',
  [
    ('huggingface:mnist', ['pip install huggingface_hub']),
    ('coco/2017', ['pip install tensorflow', "'coco/2017'"]),
    ('mnist/x=1', ["'mnist/x=1'", 'unexpected keyword']),
    ('cifar10:9.9.9', ['9.9.9', '3.0.2']),
    ('eurosat/rbg', ['rbg not found', "did you mean 'rgb'"]),
    ('CIFAR10', ["did you mean 'cifar10'"]),
  ],
)
def test_names_that_tfds_cannot_open_are_one_line(name, facts, capsys):
  if name in ('huggingface:mnist', 'coco/2017'):
    package = {'h': 'huggingface_hub', 'c': 'tensorflow'}[name[0]]
    if importlib.util.find_spec(package):
      pytest.skip(f'{package} is installed')
  with raises(DatasetError, *facts) as e:
    open_dataset(f'tfds:{name}')
  assert '\n' not in str(e.value) and capsys.readouterr().out == ''


_ONE_FILE = 'trees-train.array_record-00000-of-00001'


@pytest.mark.parametrize('size', [None, 0, 3000, 65536, 65537, 100_000, -1])
def test_files_that_are_missing_or_cut_short_are_found_at_once(data_dir, size):
  path = data_dir / 'trees' / '1.0.0' / _ONE_FILE
  data = path.read_bytes()
  path.unlink()
  if size is not None:
    path.write_bytes(data[:size])
  with raises(
    DatasetError, path.name, 'missing' if size is None else 'damaged', 'prepare it again'
  ):
    open_dataset('trees', data_dir=str(data_dir))


def test_a_file_of_another_dataset_is_found_at_once(data_dir):
  folder = data_dir / 'trees' / '1.0.0'
  other = folder / 'trees-validation.array_record-00000-of-00001'
  (folder / _ONE_FILE).write_bytes(other.read_bytes())
  with raises(DatasetError, _ONE_FILE, '5 images', '17'):
    open_dataset('trees', data_dir=str(data_dir))


def test_damage_within_a_file_is_that_of_its_images(data_dir):
  path = data_dir / 'trees' / '1.0.0' / _ONE_FILE
  data = bytearray(path.read_bytes())
  for position in range(4000, 4600):
    data[position] ^= 0x55
  path.write_bytes(data)
  examples = open_dataset('trees', data_dir=str(data_dir)).split('train')
  read, problems = 0, []
  for row in range(len(examples)):
    try:
      read += examples[row]['image'] == jpeg(10 * row)
    except ImageError as e:
      problems.append(str(e))
  assert read + len(problems) == len(examples) and 0 < len(problems) < 5
  assert all(problem.startswith('image train/') for problem in problems)
