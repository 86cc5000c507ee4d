"""COCO's json files as strangers write them: read right, told of, or refused by name."""

import json

import pytest

from tests.data.annotations import BOX, assert_told, coco, image, read, table, text, voc
from tests.support import raises
from vit_jax.data import open_dataset
from vit_jax.errors import DatasetError

RIGHT = {'a': ('cat', BOX)}
POLYGON = [[10, 10, 30, 12, 28, 30, 12, 29]]


@pytest.mark.parametrize(
  'row',
  [
    {'bbox': ['10', ' 10.0', '2e1', 20]},
    {'category_id': '1'},
    {'category_id': 1.0, 'image_id': '0'},
    {'image_id': 0.0},
    {'bbox': 'DROP', 'segmentation': POLYGON},
    {'bbox': None, 'segmentation': POLYGON},
    {'bbox': [], 'segmentation': [[10, 10, 20, 10, 20, 30], [20, 20, 30, 20, 30, 30]]},
    {'iscrowd': 0},
    {'iscrowd': '0'},
    {'iscrowd': None},
    {'iscrowd': False, 'id': 'DROP'},
    {'area': None, 'attributes': {'a': [1]}},
  ],
)
def test_annotations_in_other_words(tmp_path, row):
  coco(tmp_path, table([row]))
  what = read(tmp_path)
  assert what.found == RIGHT
  assert_told(what)


@pytest.mark.parametrize(
  'row, fact',
  [
    ({'image_id': 7}, '7'),
    ({'image_id': 'DROP'}, 'None'),
    ({'image_id': [0]}, '[0]'),
    ({'image_id': True}, 'True'),
    ({'category_id': 5}, '5'),
    ({'category_id': None}, 'None'),
    ({'category_id': {}}, '{}'),
    ({'bbox': 'DROP'}, 'bbox'),
    ({'bbox': None}, 'None'),
    ({'bbox': []}, '[]'),
    ({'bbox': [10, 10, 20]}, '[10, 10, 20]'),
    ({'bbox': [10, 10, 20, None]}, 'None'),
    ({'bbox': [10, 10, 20, float('nan')]}, 'nan'),
    ({'bbox': [10, 10, float('inf'), 20]}, 'inf'),
    ({'bbox': [10, 10, 20, True]}, 'True'),
    ({'bbox': [[10, 10], [20, 20]]}, 'bbox'),
    ({'bbox': {'x': 10, 'y': 10, 'w': 20, 'h': 20}}, 'bbox'),
    ({'bbox': '10 10 20 20'}, 'bbox'),
    ({'bbox': [10, 10, 20, 10**400]}, 'bbox'),
    ({'bbox': None, 'segmentation': {'counts': [1, 2], 'size': [40, 80]}}, 'bbox'),
    ({'bbox': None, 'segmentation': [[1, 2, 3]]}, 'bbox'),
    ({'bbox': None, 'segmentation': [[1, 2, 3, 4, 5, 'x']]}, 'bbox'),
    ({'bbox': [0.125, 0.25, 0.25, 0.5]}, 'relative'),
  ],
)
def test_annotations_that_are_refused(tmp_path, row, fact):
  coco(tmp_path, table([row]))
  with raises(DatasetError, 'all.json annotation 0', fact):
    read(tmp_path)


@pytest.mark.parametrize(
  'bbox, box, fact',
  [
    ([30, 30, -20, -20], BOX, 'reversed'),
    ([70, 10, 20, 20], (70, 10, 80, 30), 'beyond'),
    ([70, 10, 11, 20], (70, 10, 80, 30), None),
    ([10, 10, 0, 20], None, 'area'),
    ([-30, -30, 20, 20], None, 'outside'),
    ([1e308, 10, 1e308, 20], None, 'outside'),
    ([10, 10, 1e-30, 20], None, 'area'),
  ],
)
def test_boxes_at_and_beyond_the_edge(tmp_path, bbox, box, fact):
  coco(tmp_path, table([{'bbox': bbox}]))
  what = read(tmp_path)
  assert what.found == {'a': ('cat', box)}
  assert_told(what, *([fact, 'all.json annotation 0'] if fact else []))


@pytest.mark.parametrize(
  'row, fact',
  [
    ({'height': '40', 'width': 80.0}, None),
    ({'height': 'DROP', 'width': 'DROP'}, 'height'),
    ({'height': None, 'width': 80}, 'height'),
    ({'height': 0, 'width': 0}, 'height'),
    ({'height': 'x', 'width': [80]}, 'height'),
    ({'height': 80, 'width': 40}, 'height'),
    ({'file_name': 'images/a.png'}, None),
    ({'file_name': './a.png'}, None),
    ({'file_name': '../pets/a.png'}, None),
    ({'file_name': '/home/me/pets/images/a.png'}, None),
    ({'file_name': 'C:\\pets\\images\\a.png'}, None),
    ({'file_name': ' a.png'}, None),
    ({'file_name': 'A.PNG'}, 'case'),
    ({'file_name': 'a.jpg'}, 'ending'),
    ({'file_name': 'a'}, 'ending'),
    ({'id': '0'}, None),
  ],
)
def test_images_in_other_words(tmp_path, row, fact):
  coco(tmp_path, table(images=[row]))
  what = read(tmp_path)
  assert what.found == RIGHT
  assert_told(what, *(['all.json image', fact] if fact else []))


@pytest.mark.parametrize(
  'rows, fact',
  [
    ([{'height': 333, 'width': 500}], '500 x 333'),
    ([{'file_name': 'b.png'}], 'b.png'),
    ([{'file_name': ''}], 'file_name'),
    ([{'file_name': None}], 'file_name'),
    ([{'file_name': 3}], 'file_name'),
    ([{'file_name': 'a\0.png'}], 'a\0.png'),
    ([{'file_name': '\ud800.png'}], 'images'),
    ([{'file_name': '.'}], "'.'"),
    ([{'id': 'DROP'}], 'id'),
    ([{'id': [0]}], 'id'),
    ([{'id': 0}, {'id': 0, 'file_name': 'b.png'}], "'b.png'"),
  ],
)
def test_images_that_are_refused(tmp_path, rows, fact):
  coco(tmp_path, table(images=rows))
  with raises(DatasetError, 'all.json', fact.strip("'")):
    read(tmp_path)


def test_an_image_with_two_entries_is_one(tmp_path):
  rows = [{}, {'bbox': [10, 10, 30, 30], 'category_id': 2, 'image_id': 1}]
  coco(tmp_path, table(rows, [{}, {'file_name': 'a.png'}, {'id': 0, 'file_name': 'a.png'}]))
  assert read(tmp_path).found == {'a': ('dog', (10, 10, 40, 40))}


def test_two_images_that_would_be_one_are_refused(tmp_path):
  rows = [{'file_name': 'x/a.png'}, {'file_name': 'y/a.png'}]
  coco(tmp_path, table([{}, {'image_id': 1}], rows))
  with raises(DatasetError, 'x/a.png', 'y/a.png'):
    read(tmp_path)
  for name in 'xy':
    image(tmp_path / 'images' / name / 'a.png')
  assert read(tmp_path).splits == {'train': ['a', 'a']}


@pytest.mark.parametrize(
  'categories, class_, told',
  [
    ([{'id': 2, 'name': 'dog'}, {'id': 1, 'name': 'cat'}], 'cat', ()),
    ([{'id': '1', 'name': ' cat\n'}, {'id': '0', 'name': 'animal'}], 'cat', ()),
    ([{'id': 1, 'name': 5}], '5', ()),
    ([{'id': 1, 'name': 'cat'}, {'id': 1, 'name': 'cat'}], 'cat', ()),
    ([{'id': 1, 'name': 'cat'}, {'id': 3, 'name': 'cat'}], 'cat', ("'cat'", 'two')),
  ],
)
def test_categories(tmp_path, categories, class_, told):
  coco(tmp_path, table(categories=categories))
  what = read(tmp_path, (class_,))
  assert what.found == {'a': (class_, BOX)}
  assert_told(what, *told)


@pytest.mark.parametrize(
  'categories',
  [
    [{'id': 1, 'name': 'cat'}, {'id': 1, 'name': 'dog'}],
    [{'id': 1}],
    [{'id': 1, 'name': None}],
    [{'id': 1, 'name': ''}],
    [{'id': 1, 'name': ['cat']}],
    [{'id': 1, 'name': '\ud800'}],
    [{'name': 'cat'}],
    [],
    ['cat'],
    'cat',
    None,
  ],
)
def test_categories_that_are_refused(tmp_path, categories):
  content = {**table(), 'categories': categories}
  coco(tmp_path, content)
  with raises(DatasetError, 'all.json'):
    read(tmp_path)


def test_an_image_of_a_crowd_alone_is_left_out(tmp_path):
  rows = [{}, {'iscrowd': '1'}, {'iscrowd': True, 'image_id': 1, 'bbox': None}]
  coco(tmp_path, table(rows, [{}, {}]), 'ab')
  what = read(tmp_path)
  assert what.found == RIGHT and what.told == []
  assert 'crowd' in what.said[0]


@pytest.mark.parametrize(
  'content',
  [
    *('', '{', '[]', '3', 'null', '{}', '[' * 200_000, '{"images":' * 100_000),
    *('{"images": {}, "annotations": [], "categories": []}', b'\xff\xfe\x00'),
    json.dumps(table())[:-30],
    json.dumps(table()).replace('cat', 'café').encode('latin-1'),
    json.dumps(table()).replace('"id": 0', '"id": ' + '9' * 5000),
    json.dumps({'images': [], 'annotations': [{'caption': 'a cat'}]}),
  ],
)
def test_files_that_are_refused(tmp_path, content):
  coco(tmp_path, content)
  with raises(DatasetError, 'all.json'):
    read(tmp_path)


@pytest.mark.parametrize('encoding', ['utf-8-sig', 'utf-16', 'utf-32'])
def test_encodings(tmp_path, encoding):
  text_ = json.dumps(table(categories=[{'id': 1, 'name': 'café'}]), ensure_ascii=False)
  coco(tmp_path, text_.encode(encoding))
  assert read(tmp_path, ('café',)).found == {'a': ('café', BOX)}


@pytest.mark.parametrize(
  'paths, splits',
  [
    (('annotations/train.json', 'annotations/val.json'), {'train': ['a'], 'val': ['b']}),
    (('annotations/pets_train.json', 'annotations/pets_val.json'), {'train': ['a'], 'val': ['b']}),
    (
      ('annotations/instances_train2014.json', 'annotations/instances_valid.json'),
      {'train': ['a'], 'val': ['b']},
    ),
    (('instances_train.json', 'test.json'), {'train': ['a'], 'test': ['b']}),
  ],
)
@pytest.mark.parametrize('folders', [True, False])
def test_files_by_split(tmp_path, paths, splits, folders):
  for path, name, split in zip(paths, 'ab', splits):
    coco(tmp_path, table(images=[{'file_name': f'{name}.png'}]), (), path)
    image(tmp_path / 'images' / (split if folders else '') / f'{name}.png')
  for name in ('captions_train', 'person_keypoints_val') if '/' in paths[0] else ():
    text(tmp_path / 'annotations' / f'{name}.json', '{"images": [], "annotations": []}')
  assert read(tmp_path).splits == splits


@pytest.mark.parametrize(
  'names',
  [
    ('instances_train2014', 'instances_train2017'),
    ('one', 'two'),
    ('instances_default', 'instances_other'),
    ('train_old', 'train_new', 'val'),
  ],
)
def test_several_files_of_one_split_are_refused(tmp_path, names):
  for name in names:
    coco(tmp_path, path=f'annotations/{name}.json')
  with raises(DatasetError, f'{names[0]}.json', f'{names[1]}.json'):
    read(tmp_path)


def test_images_without_objects_are_counted(tmp_path):
  coco(tmp_path, table(images=[{}, {}]), 'abc')
  what = read(tmp_path)
  assert what.found == RIGHT and 'image 1' in what.said[0]
  assert_told(what, 'c.png')


def test_keypoints_alone_have_boxes(tmp_path):
  coco(tmp_path, names=(), path='annotations/person_keypoints_train2017.json')
  image(tmp_path / 'train2017' / 'a.png')
  assert read(tmp_path).splits == {'train': ['a']}


def test_a_split_folder_without_a_file_is_told(tmp_path):
  for split in ('train', 'valid'):
    image(tmp_path / split / 'a.png')
  coco(tmp_path, names=(), path='train/_annotations.coco.json')
  what = read(tmp_path)
  assert what.splits == {'train': ['a']}
  assert_told(what, 'valid')


def test_other_json_files_beside_pascal_voc(tmp_path):
  voc(tmp_path)
  for name in ('one', 'two'):
    text(tmp_path / 'annotations' / f'{name}.json', '{}')
  what = read(tmp_path)
  assert what.found == RIGHT
  assert_told(what)


def test_captions_alone_are_refused(tmp_path):
  coco(tmp_path, json.dumps({'images': [], 'annotations': []}), path='annotations/captions_x.json')
  with raises(DatasetError, 'captions_x.json', "'categories'"):
    read(tmp_path)


def test_a_file_beside_class_folders_is_not_read(tmp_path):
  for split in ('train', 'val'):
    for class_ in ('cat', 'dog'):
      image(tmp_path / split / class_ / 'a.png')
    coco(tmp_path, table([{'bbox': 'DROP'}]), (), f'{split}.json')
  dataset = open_dataset(str(tmp_path))
  assert (dataset.kind, dataset.classes) == ('folder', ('cat', 'dog'))


@pytest.mark.parametrize('hw, told', [((40, 80), False), ((80, 40), False), (None, True)])
def test_boxes_turn_with_their_image(tmp_path, hw, told):
  row = {'height': hw[0], 'width': hw[1]} if hw else {'height': 0}
  coco(tmp_path, table([{'bbox': [10, 10, 10, 20]}], [row]), orientation=6)
  what = read(tmp_path)
  assert what.found == {'a': ('cat', (10, 10, 30, 20) if hw == (40, 80) else (10, 10, 20, 30))}
  assert bool(what.told) == told
