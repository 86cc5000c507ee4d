"""Images with boxes come out of every annotation format."""

import json

import numpy as np
import pytest
from PIL import Image

from tests.support import SHARED, needs_shared, raises
from vit_jax.data import open_dataset, parse_transform, train_batches
from vit_jax.errors import DatasetError


def save(path, hw=(20, 30)):
  path.parent.mkdir(parents=True, exist_ok=True)
  Image.new('RGB', hw[::-1]).save(path)


@pytest.fixture
def yolo(tmp_path):
  for split, name, lines in (
    ('train', 'a', '0 0.5 0.5 0.2 0.2\n'),
    ('train', 'b', '1 0.5 0.5 0.1 0.1\n0 0.25 0.5 0.5 0.4\n'),
    ('train', 'empty', ''),
    ('valid', 'c', '1 0.1 0.2 0.2 0.3\n'),
  ):
    save(tmp_path / split / 'images' / f'{name}.jpg')
    labels = tmp_path / split / 'labels'
    labels.mkdir(exist_ok=True)
    (labels / f'{name}.txt').write_text(lines)
  (tmp_path / 'data.yaml').write_text('names: [cat, dog]\nnc: 2\n')
  return tmp_path


def by_name(examples):
  return {examples.id(i).split('/')[-1].split('.')[0]: examples[i] for i in range(len(examples))}


def test_yolo(yolo):
  dataset = open_dataset(str(yolo))
  assert (dataset.kind, dataset.classes) == ('yolo', ('cat', 'dog')) and dataset.has_boxes
  assert dataset.splits == {'train': 2, 'val': 1}
  found = by_name(dataset.split('all'))
  assert {k: v['label'] for k, v in found.items()} == {'a': 0, 'b': 0, 'c': 1}
  np.testing.assert_allclose(found['b']['box'], [0.25, 0.5, 0.5, 0.4])  # the largest
  transform = parse_transform('decode|resize(8)')
  with train_batches(dataset.split('train'), transform, batch_size=3, seed=0) as batches:
    batch = next(batches)
  assert batch['box'].shape == (3, 4) and batch['box'].dtype == np.float32
  assert batch['has_box'].dtype == bool and batch['has_box'].all()


@pytest.mark.parametrize(
  'line, facts',
  [
    ('0 0.5 0.5 0.2', ['line 1', '4 numbers']),
    ('0 0.5 0.5 0.2 1.7', ['line 1', '4 numbers from 0 to 1']),
    ('2 0.5 0.5 0.2 0.2', ['line 1', 'class 2', '2 classes']),
    ('cat 0.5 0.5 0.2 0.2', ['line 1', "'class cx cy w h'"]),
  ],
)
def test_yolo_mistakes(yolo, line, facts):
  (yolo / 'train' / 'labels' / 'a.txt').write_text(line)
  with raises(DatasetError, 'a.txt', *facts):
    open_dataset(str(yolo))


def test_yolo_without_names(yolo):
  (yolo / 'data.yaml').write_text('nc: 2')
  with raises(DatasetError, 'data.yaml', "'names'"):
    open_dataset(str(yolo))
  (yolo / 'data.yaml').unlink()
  with raises(DatasetError, yolo, 'data.yaml', 'classes.txt'):
    open_dataset(str(yolo))
  (yolo / 'classes.txt').write_text('cat\ndog\n')
  assert open_dataset(str(yolo)).classes == ('cat', 'dog')


def coco_table():
  return {
    'categories': [{'id': 0, 'name': 'pet'}, {'id': 7, 'name': 'dog'}, {'id': 3, 'name': 'cat'}],
    'images': [
      {'id': i, 'file_name': f'{n}.jpg', 'height': 20, 'width': 30} for i, n in enumerate('abc')
    ],
    'annotations': [
      {'id': 1, 'image_id': 0, 'category_id': 7, 'bbox': [3, 4, 6, 10]},
      {'id': 2, 'image_id': 1, 'category_id': 7, 'bbox': [0, 0, 1, 1]},
      {'id': 3, 'image_id': 1, 'category_id': 3, 'bbox': [0, 0, 30, 20]},
    ],
  }


@pytest.mark.parametrize('layout', ['standard', 'beside', 'single'])
def test_coco(tmp_path, layout):
  folder, path = {
    'standard': ('train2017', 'annotations/instances_train2017.json'),
    'beside': ('train', 'train/_annotations.coco.json'),
    'single': ('images', 'annotations/all.json'),
  }[layout]
  for name in 'abc':
    save(tmp_path / folder / f'{name}.jpg')
  (tmp_path / path).parent.mkdir(exist_ok=True)
  (tmp_path / path).write_text(json.dumps(coco_table()))
  dataset = open_dataset(str(tmp_path), split_fractions=(1, 0, 0))
  assert dataset.kind == 'coco' and dataset.classes == ('cat', 'dog')
  found = by_name(dataset.split('train'))
  assert {k: v['label'] for k, v in found.items()} == {'a': 1, 'b': 0}
  np.testing.assert_allclose(found['a']['box'], [6 / 30, 9 / 20, 6 / 30, 10 / 20], rtol=1e-6)
  np.testing.assert_allclose(found['b']['box'], [0.5, 0.5, 1, 1])


def test_coco_mistakes(tmp_path):
  save(tmp_path / 'images' / 'a.jpg')
  path = tmp_path / 'annotations' / 'all.json'
  path.parent.mkdir()
  path.write_text('{"images": []}')
  with raises(DatasetError, path, 'COCO', "'categories'"):
    open_dataset(str(tmp_path))
  path.write_text(json.dumps(coco_table()))
  with raises(DatasetError, path, 'b.jpg', 'images'):
    open_dataset(str(tmp_path))


def voc_text(name, corners, hw=(20, 30)):
  box = ''.join(f'<{k}>{v}</{k}>' for k, v in zip(('xmin', 'ymin', 'xmax', 'ymax'), corners))
  return (
    f'<annotation><size><width>{hw[1]}</width><height>{hw[0]}</height></size>'
    f'<object><name>{name}</name><bndbox>{box}</bndbox></object></annotation>'
  )


@pytest.mark.parametrize('names', [('JPEGImages', 'Annotations'), ('images', 'annotations')])
def test_voc(tmp_path, names):
  for name in 'abc':
    save(tmp_path / names[0] / f'{name}.jpg')
  (tmp_path / names[1]).mkdir()
  (tmp_path / names[1] / 'a.xml').write_text(voc_text('dog', (1, 1, 30, 20)))
  (tmp_path / names[1] / 'b.xml').write_text(voc_text('cat', (4, 5, 9, 14)))
  dataset = open_dataset(str(tmp_path), split_fractions=(1, 0, 0))
  found = by_name(dataset.split('train'))
  assert dataset.classes == ('cat', 'dog') and set(found) == {'a', 'b'}
  np.testing.assert_allclose(found['a']['box'], [0.5, 0.5, 1, 1])  # pixels count from 1
  np.testing.assert_allclose(found['b']['box'], [6 / 30, 9 / 20, 6 / 30, 10 / 20], rtol=1e-6)
  (tmp_path / names[1] / 'b.xml').write_text('<annotation>')
  with raises(DatasetError, 'b.xml', 'Pascal VOC'):
    open_dataset(str(tmp_path))


@needs_shared
def test_real_annotations():
  letters = open_dataset(str(SHARED / 'asl_letters'))
  assert letters.splits == {'train': 1512, 'val': 144, 'test': 72}
  assert letters.classes == tuple('ABCDEFGHIJKLMNOPQRSTUVWXYZ')
  assert len(set(letters.split('test').labels)) == 24
  pets = open_dataset(str(SHARED / 'pets3'), split_fractions=(0.8, 0.2, 0)).split('all')
  known = [pets[i]['box'] for i in range(len(pets)) if pets[i]['has_box']]
  assert len(pets) == 300 and len(known) == 146
  assert (np.array(known)[:, 2:] > 0).all()
