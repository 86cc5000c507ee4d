"""YOLO's label files and data.yaml as strangers write them: read right, told of, or refused."""

import pytest

from tests.data.annotations import BOX, LINE, assert_told, image, read, text, yolo
from tests.support import raises
from vit_jax.errors import DatasetError

RIGHT = {'a': ('cat', BOX)}
REST = LINE[1:]


@pytest.mark.parametrize(
  'names, label, class_',
  [
    ('{0: cat, 2: dog}', 2, 'dog'),
    ('{2: dog, 0: cat}', 0, 'cat'),
    ('{1: cat, 2: dog}', 1, 'cat'),
    ("{'1': cat, '2': dog, '10': ox}", 10, 'ox'),
    ('[yes, no, on]', 1, 'no'),
    ('[1e3, 001, 2020-01-01, ~, 0x10]', 1, '001'),
    ('[1e3, 001, 2020-01-01]', 2, '2020-01-01'),
    ('[1, 2, 10]', 2, '10'),
    ('[true, false]', 0, 'true'),
    ("[' cat ', dog]", 0, 'cat'),
    ('[café, 犬]', 1, '犬'),
    ('&a [cat, dog]\nnames_too: *a', 1, 'dog'),
  ],
)
def test_names(tmp_path, names, label, class_):
  yolo(tmp_path, {'a': f'{label}{REST}'}, f'names: {names}\n')
  what = read(tmp_path)
  assert what.found == {'a': (class_, BOX)}
  assert_told(what)


@pytest.mark.parametrize(
  'yaml, fact',
  [
    ('names: {1: cat, 2: dog}', 'class 0'),
    ('names: {2: cat, 4: dog}', 'class 0'),
    ('names: cat', 'cat'),
    ('names: cat, dog', 'cat, dog'),
    ('names: []', 'names'),
    ('names:', 'names'),
    ('names: 3', 'names'),
    ('names: {cat: 0, dog: 1}', 'numbers'),
    ('names: {-1: cat, 0: dog}', 'numbers'),
    ('names: {0: cat, 00: dog}', 'two names'),
    ('names: {0: cat, 0: dog}', 'twice'),
    ('names: [cat]\nnames: [dog]', 'twice'),
    ('names:\n- cat\n-\n- dog', 'empty'),
    ('names: [[cat], dog]', 'text'),
    ('names: [cat, cat ]', "'cat'"),
    ('names: {0: cat, 1: dog, 2: cat}', "'cat'"),
    ('names: [cat, dog]\nnc: 3', "'nc' is 3"),
    ('- names', 'names'),
    ('names: [cat, dog', 'YAML'),
    ('names: {0: *a}', 'YAML'),
    ('names: &a [*a]', 'YAML'),
    ('names: ' + '[' * 5_000, 'YAML'),
    ('', 'names'),
    (b'names: [caf\xe9]', 'UTF-8'),
    ('names: [a\0b]', 'zero bytes'),
    ('\n'.join(['a0: &a0 [x]', *(f'a{i + 1}: &a{i + 1} [{f"*a{i}, " * 9}]' for i in range(12))])
     + '\nnames: *a12', 'text'),
  ],
)  # fmt: skip
def test_names_that_are_refused(tmp_path, yaml, fact):
  yolo(tmp_path, yaml=yaml)
  place = 'a.txt line 1' if fact == 'class 0' else 'data.yaml'
  with raises(DatasetError, place, fact) as caught:
    read(tmp_path)
  assert len(str(caught.value)) < 1000


@pytest.mark.parametrize('encoding', ['utf-8-sig', 'utf-16', 'utf-16-le', 'utf-32'])
def test_encodings(tmp_path, encoding):
  mark = '\ufeff' if encoding == 'utf-16-le' else ''
  yolo(tmp_path, {'a': (mark + LINE + '\r\n').encode(encoding)})
  text(tmp_path / 'data.yaml', (mark + 'names: [café, dog]\r\n').encode(encoding))
  assert read(tmp_path, ('café', 'dog')).found == {'a': ('café', BOX)}


@pytest.mark.parametrize('path', ['classes.txt', 'labels/classes.txt'])
def test_classes_of_a_text_file(tmp_path, path):
  yolo(tmp_path, {'a': '1' + REST}, yaml=None)
  text(tmp_path / path, '\ufeffcat\r\ndog \r\n\r\n')
  assert read(tmp_path, ('cat', 'dog')).found == {'a': ('dog', BOX)}
  text(tmp_path / path, 'cat\n\ndog\n')
  with raises(DatasetError, 'classes.txt', 'empty'):
    read(tmp_path)
  text(tmp_path / path, '\n')
  with raises(DatasetError, 'classes.txt', 'no classes'):
    read(tmp_path)


def test_the_only_yaml_file_with_names(tmp_path):
  yolo(tmp_path, yaml=None)
  text(tmp_path / 'pets.yaml', 'names: [cat]\n')
  text(tmp_path / 'args.yaml', 'epochs: 3\n')
  assert read(tmp_path, ('cat',)).found == RIGHT


@pytest.mark.parametrize(
  'line, box, facts',
  [
    (f'\ufeff{LINE}\r\n\r\n', BOX, ()),
    (f'0.0{REST}', BOX, ()),
    ('0\t0.25 5e-1  .25\t+0.5 ', BOX, ()),
    (f'{LINE}\n{LINE}', BOX, ()),
    ('0 0.25 0.5 0.25 1.0005', (10, 0, 30, 40), ()),
    ('0 0.9 0.5 0.4 0.5', (56, 10, 80, 30), ('a.txt line 1', 'beyond')),
    ('0 0.25 0.5 0 0.5', None, ('a.txt line 1', 'area')),
    ('0 0.25 0.5 1e-40 0.5', None, ('a.txt line 1', 'area')),
    ('0 0 0 0 0', None, ('a.txt line 1', 'area')),
    ('0 0.5 0.5 0 0\n1 0.25 0.5 0.25 0.5', 'dog', ('a.txt line 1', 'area')),
  ],
)
def test_lines(tmp_path, line, box, facts):
  yolo(tmp_path, {'a': line})
  what = read(tmp_path)
  assert what.found == {'a': ('dog', BOX) if box == 'dog' else ('cat', box)}
  assert_told(what, *facts)


@pytest.mark.parametrize(
  'line',
  [
    *('0', '0 0.2 0.5 0.2', f'0{REST} 0.9', f'0{REST} 0.1 0.2', '0 .1 .1 .4 .1 .4 .6 .1 .6'),
    *('0 0,25 0,5 0,25 0,5', '0,0.25,0.5,0.25,0.5', '0;0.25;0.5;0.25;0.5', f'cat{REST}'),
    *('0 nan 0.5 0.2 0.2', '0 0.5 inf 0.2 0.2', '0 1e999 0.5 0.2 0.2', '0 0_1 0.5 0.2 0.2'),
    *(f'0.5{REST}', f'-1{REST}', f'2{REST}', f'nan{REST}', f'{"9" * 5000}{REST}'),
    *('0 -0.2 0.5 0.2 0.2', '0 0.5 0.5 -0.2 0.2', '0 1.5 0.5 0.2 0.2', '0 20 20 20 20'),
    *('0 ٣ 0.5 0.2 0.2', '# a comment', f'{LINE}\n{LINE} {LINE}', '\x00', '0x0' + REST),
  ],
)
def test_lines_that_are_refused(tmp_path, line):
  yolo(tmp_path, {'a': line})
  with raises(DatasetError, 'a.txt') as caught:
    read(tmp_path)
  assert len(str(caught.value)) < 700


def test_many_problems_are_few_sentences(tmp_path):
  yolo(tmp_path, {f'{i:03}': '0 9 9 9 9\n7 0.5 0.5 0.1 0.1' for i in range(50)})
  with raises(DatasetError, '000.txt line 1', 'and 47 more', '000.txt line 2') as caught:
    read(tmp_path)
  assert len(caught.value.problems) == 2


def test_files_without_their_counterpart_are_counted(tmp_path):
  yolo(tmp_path, {'a': LINE, 'b': None, 'c': None, 'd': '', 'e': '\n'})
  text(tmp_path / 'labels' / 'x.txt', LINE)
  what = read(tmp_path)
  assert what.found == RIGHT and len(what.told) == 2 and len(what.said) == 1
  assert [line for line in what.told if 'b.png' in line and 'c.png' in line]
  assert [line for line in what.told if 'x.txt' in line]
  assert 'd.png' in what.said[0] and 'e.png' in what.said[0]


def test_two_images_of_one_label_file(tmp_path):
  yolo(tmp_path)
  image(tmp_path / 'images' / 'a.bmp')
  with raises(DatasetError, 'a.txt', 'a.png', 'a.bmp'):
    read(tmp_path)


def test_an_orientation_is_told_once(tmp_path):
  yolo(tmp_path, dict.fromkeys('abcdef', LINE), orientation=6)
  what = read(tmp_path)
  assert what.found['a'] == ('cat', (5, 20, 15, 60))
  assert_told(what, 'EXIF', 'a.png', 'and 3 more')


PAIR = {'train/a': LINE, 'val/b': LINE}
BOTH = {'train': ['a'], 'val': ['b']}


@pytest.mark.parametrize(
  'names',
  [PAIR, {'train2017/a': LINE, 'val2017/b': LINE}, {'train/x/a': LINE, 'validation/b': LINE}],
)
def test_splits_by_folder(tmp_path, names):
  yolo(tmp_path, names)
  what = read(tmp_path)
  assert what.splits == BOTH
  assert_told(what)


@pytest.mark.parametrize(
  'entries',
  [
    'train: images/train\nval: images/val',
    'train: [images/train]\nvalid: [images/val/]',
    'path: ../datasets/pets\ntrain: ../images/train\nval: ./images/val',
    'path: /content/pets/\ntrain: /content/pets/images/train\nval: /content/pets/images/val',
    'path: C:\\pets\ntrain: C:\\pets\\images\\train\nval: images\\val',
    'train: images/train\nval: nowhere/val\n',
    'train: images/train\nval: images/val\ntest: images/test\n',
    'train: images/train\nval: images/val\ntest:\n',
    'train: images/train',
  ],
)
def test_splits_by_yaml(tmp_path, entries):
  yolo(tmp_path, PAIR, f'names: [cat]\n{entries}\n')
  what = read(tmp_path)
  assert what.splits == BOTH
  odd = 'nowhere' in entries or 'images/test' in entries
  assert_told(what, *(['data.yaml'] if odd else []))


def test_splits_of_several_folders(tmp_path):
  yolo(tmp_path, {'x/a': LINE, 'y/b': LINE, 'z/c': LINE, 'w/d': LINE})
  text(tmp_path / 'data.yaml', 'names: [cat]\ntrain: [images/x, images/y]\nval: images/z\n')
  what = read(tmp_path)
  assert what.splits == {'train': ['a', 'b'], 'val': ['c']}
  assert_told(what, 'd.png')


@pytest.mark.parametrize(
  'lines',
  [
    ('images/a.png\n', 'images/b.png'),
    ('./images/a.png\r\n', './images/b.png\r\n\r\n'),
    ('a.png', 'b.png\nb.png'),
    ('/content/pets/images/a.png', '\ufeffC:\\pets\\images\\b.png'),
  ],
)
@pytest.mark.parametrize('named', [True, False])
def test_splits_by_lists(tmp_path, lines, named):
  yolo(tmp_path, {'a': LINE, 'b': LINE})
  for name, content in zip(('train', 'valid'), lines):
    text(tmp_path / f'{name}.txt', content)
  if named:
    text(tmp_path / 'data.yaml', 'names: [cat]\ntrain: train.txt\nval: valid.txt\n')
  what = read(tmp_path)
  assert what.splits == BOTH
  assert_told(what)


def test_lists_that_name_no_image(tmp_path):
  yolo(tmp_path, {'a': LINE, 'b': LINE})
  text(tmp_path / 'data.yaml', 'names: [cat]\ntrain: t.txt\nval: v.txt\n')
  text(tmp_path / 't.txt', 'images/a.png\nimages/x.png\n')
  text(tmp_path / 'v.txt', 'images/B.PNG\n')
  what = read(tmp_path)
  assert what.splits == BOTH and len(what.told) == 2
  assert [line for line in what.told if 't.txt line 2' in line and 'not there' in line]
  assert [line for line in what.told if 'v.txt' in line and 'case' in line]
  text(tmp_path / 'v.txt', 'images/x.png\n')
  with raises(DatasetError, 'data.yaml', "'val'", 'v.txt'):
    read(tmp_path)


@pytest.mark.parametrize('value', ['nowhere', '{a: b}', '[[images]]', '7', '""x'])
def test_paths_that_are_not_there(tmp_path, value):
  yolo(tmp_path, yaml=f'names: [cat]\ntrain: images\nval: {value}\n')
  with raises(DatasetError, 'data.yaml'):
    read(tmp_path)


def test_validation_on_training_images_is_told(tmp_path):
  yolo(tmp_path, yaml='names: [cat]\ntrain: images\nval: images\n')
  what = read(tmp_path)
  assert what.splits == {'train': ['a'], 'val': ['a']}
  assert_told(what, 'a.png', 'train', 'val')


def test_labelled_images_of_no_split_are_told(tmp_path):
  yolo(tmp_path, {**PAIR, 'c': LINE, 'more/d': LINE, 'e': None})
  what = read(tmp_path)
  assert what.splits == BOTH
  assert_told(what, 'c.png', 'd.png')


def test_a_darknet_export_is_refused(tmp_path):
  image(tmp_path / 'obj_train_data' / 'a.png')
  for name in ('obj.data', 'obj.names', 'obj_train_data/a.txt'):
    text(tmp_path / name, LINE)
  with raises(DatasetError, tmp_path, 'obj.names', 'labels'):
    read(tmp_path)


def test_folders_within(tmp_path):
  for part in ('one', 'two'):
    yolo(tmp_path / part, {part: LINE}, yaml=None)
  with raises(DatasetError, tmp_path / 'one'):
    read(tmp_path)
  text(tmp_path / 'data.yaml', 'names: [cat]\ntrain: one/images\nval: two/images\n')
  assert read(tmp_path).splits == {'train': ['one'], 'val': ['two']}


def test_two_folders_for_one_split(tmp_path):
  for split in ('train', 'val', 'valid'):
    yolo(tmp_path / split, yaml=None)
  text(tmp_path / 'data.yaml', 'names: [cat]\n')
  with raises(DatasetError, "'val'", "'valid'"):
    read(tmp_path)


def test_classes_that_differ_in_case(tmp_path):
  yolo(tmp_path, yaml='names: [Cat, cat, hot dog, hot_dog]')
  assert len(read(tmp_path).told) == 2
