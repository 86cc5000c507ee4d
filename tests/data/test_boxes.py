"""Boxes follow their picture, and come out of every annotation format."""

import json

import numpy as np
import pytest
from PIL import Image

from tests.support import SHARED, needs_shared
from vit_jax.data import boxes, open_dataset, parse_transform, train_batches
from vit_jax.errors import UserError

HW = (40, 80)
BOX = np.float32([0.25, 0.5, 0.25, 0.5])  # pixels 10..30 across, 10..30 down


def test_corners():
  np.testing.assert_allclose(boxes.to_xyxy(BOX, HW), [10, 10, 30, 30])
  np.testing.assert_allclose(boxes.from_xyxy(np.array([10, 10, 30, 30]), HW), BOX)
  np.testing.assert_allclose(
    boxes.from_xyxy(np.array([-5, 30, 40, 99]), HW), [0.25, 0.875, 0.5, 0.25]
  )


def picture():
  """A black picture in which the box is white."""
  image = np.zeros((*HW, 3), np.uint8)
  image[10:30, 10:30] = 255
  return {'image': image, 'box': BOX, 'has_box': True}


@pytest.mark.parametrize(
  'spec, expected',
  [
    ('resize(20)', [0.25, 0.5, 0.25, 0.5]),
    ('flip_lr(1)', [0.75, 0.5, 0.25, 0.5]),
    ('central_crop(40)', [0.125, 0.5, 0.25, 0.5]),  # columns 20..60: half of the box is left
    ('pad(10)', [0.3, 0.5, 0.2, 1 / 3]),
    ('pad_square', [0.25, 0.5, 0.25, 0.25]),
    ('resize_small(20)|central_crop(20)', [0.125, 0.5, 0.25, 0.5]),
    ('tighten_box(0)', [0.25, 0.5, 0.25, 0.5]),
    # 20 x 20 pixels were s x s before each side grew by tan(10 degrees) of the other.
    ('tighten_box(10)', [0.25, 0.5, 0.25 / 1.176327, 0.5 / 1.176327]),
  ],
)
def test_ops_move_the_box(spec, expected):
  transform = parse_transform(f'decode|{spec}', train=True, fixed_size=False)
  result = transform(picture(), np.random.default_rng(0))
  np.testing.assert_allclose(result['box'], expected, atol=1e-6)
  assert result['has_box']


def white(image):
  """The box around what is brighter than half."""
  bright = image[..., 0] > 127
  ys, xs = np.flatnonzero(bright.any(1)), np.flatnonzero(bright.any(0))
  return np.array([xs[0], ys[0], xs[-1] + 1, ys[-1] + 1])


@pytest.mark.parametrize(
  'op',
  [
    'inception_crop(61, 30, object_min=60)|flip_lr',
    'random_crop((31, 53))|flip_lr',
  ],
)
def test_random_ops_keep_the_box_on_the_object(op):
  transform = parse_transform(f'decode|{op}', train=True)
  for seed in range(41):
    result = transform(picture(), np.random.default_rng(seed))
    if result['has_box']:
      corners = boxes.to_xyxy(result['box'], result['image'].shape[:2])
      np.testing.assert_allclose(corners, white(result['image']), atol=1.01)


def test_tightening_undoes_turning():
  box, hw, degrees = np.float32([0.5, 0.5, 0.4, 0.3]), (50, 80), 7
  sine, cosine = np.sin(np.radians(degrees)), np.cos(np.radians(degrees))
  centre = np.array([40, 25])
  turn = np.array([[cosine, -sine], [sine, cosine]])
  loose = boxes.affine(box, hw, np.concatenate([turn, (centre - turn @ centre)[:, None]], axis=1))
  assert loose[2] > 0.41 and loose[3] > 0.36
  np.testing.assert_allclose(boxes.tighten(loose, hw, degrees), box, rtol=0.008)  # 1 - cosine
  # A needle turned by more than its box can tell loses half, not all.
  thin = boxes.tighten(np.float32([0.5, 0.5, 0.02, 0.9]), hw, 20)
  np.testing.assert_allclose(thin, [0.5, 0.5, 0.01, thin[3]])


@pytest.mark.parametrize(
  'change, value',
  [
    ('rotate', 30),
    ('rotate', -90),
    ('shear_x', 0.3),
    ('shear_y', -0.2),
    ('translate_x', 0.2),
    ('translate_y', -0.3),
  ],
)
def test_turned_boxes_surround_the_object(change, value):
  from vit_jax.data.transforms import augment

  example = picture()
  # A square turned inside its box is looser; a disc would be too. Corners decide, so compare those.
  result = augment.change(example, change, value)
  outside = result['image'][..., 0] != 128
  corners = boxes.to_xyxy(result['box'], HW)
  found = white(np.where(outside[..., None], result['image'], 0))
  np.testing.assert_allclose(corners, found, atol=1.6)


def test_a_box_that_left_is_none():
  transform = parse_transform('decode|central_crop(40, 10)', fixed_size=False)
  result = transform(picture())
  assert not result['has_box']
  assert np.isfinite(result['box']).all()


def test_object_min_keeps_the_object():
  transform = parse_transform('decode|inception_crop(31, 5, 30, object_min=90)', train=True)
  for seed in range(41):
    result = transform(picture(), np.random.default_rng(seed))
    assert result['has_box'] and (result['image'] > 200).any()


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
  'line, said',
  [
    ('0 0.5 0.5 0.2', 'line 1: expected 4 numbers'),
    ('0 0.5 0.5 0.2 1.7', 'line 1: expected 4 numbers from 0 to 1'),
    ('2 0.5 0.5 0.2 0.2', 'class 2, but there are 2 classes'),
    ('cat 0.5 0.5 0.2 0.2', "expected 'class cx cy w h'"),
  ],
)
def test_yolo_mistakes(yolo, line, said):
  (yolo / 'train' / 'labels' / 'a.txt').write_text(line)
  with pytest.raises(UserError, match=rf'a\.txt.*{said}'):
    open_dataset(str(yolo))


def test_yolo_without_names(yolo):
  (yolo / 'data.yaml').write_text('nc: 2')
  with pytest.raises(UserError, match="no readable list 'names'"):
    open_dataset(str(yolo))
  (yolo / 'data.yaml').unlink()
  with pytest.raises(UserError, match='names no classes'):
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
  with pytest.raises(UserError, match="no COCO file: KeyError 'categories'"):
    open_dataset(str(tmp_path))
  path.write_text(json.dumps(coco_table()))
  with pytest.raises(UserError, match=r'names picture b\.jpg, which is not in'):
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
  with pytest.raises(UserError, match=r'b\.xml is no Pascal VOC file'):
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
