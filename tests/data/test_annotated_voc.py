"""Pascal VOC files as strangers write them: read right, told of, or refused by name."""

import pytest

from tests.data.annotations import BOX, assert_told, image, read, size, text, thing, voc, xml
from tests.support import raises
from vit_jax.errors import DatasetError

RIGHT = {'a': ('cat', BOX)}


@pytest.mark.parametrize(
  'head, facts',
  [
    (size('40.0', '80.0'), ()),
    ('', ('a.xml', 'height')),
    (size('', ''), ('a.xml', 'height')),
    (size('?', '80'), ('a.xml', 'height')),
    (size(-40, 80), ('a.xml', 'height')),
    (size(80, 40), ('a.xml', 'width', 'height')),
  ],
)
def test_sizes_that_are_missing_or_changed_over(tmp_path, head, facts):
  voc(tmp_path, {'a': xml(thing(), head=head)})
  what = read(tmp_path)
  assert what.found == RIGHT
  assert_told(what, *facts)


def test_a_size_of_the_same_shape_scales_the_boxes(tmp_path):
  voc(tmp_path, {'a': xml(thing(box=(21, 21, 60, 60)), head=size(80, 160))})
  what = read(tmp_path)
  assert what.found == RIGHT
  assert_told(what, 'a.xml', 'size')


def test_a_size_of_another_image_is_refused(tmp_path):
  voc(tmp_path, {'a': xml(thing(), head=size(333, 500))})
  with raises(DatasetError, 'a.xml', '500 x 333', '80 x 40'):
    read(tmp_path)


def test_boxes_of_an_image_that_was_turned_since_are_refused(tmp_path):
  voc(tmp_path, {'a': xml(thing(box=(11, 51, 30, 70)), head=size(80, 40))})
  with raises(DatasetError, 'a.xml', '40 x 80', '80 x 40'):
    read(tmp_path)


@pytest.mark.parametrize(
  'corners, box, facts',
  [
    ((11.0, '1.1e1', ' 30 ', '30.'), BOX, ()),
    ((30, 30, 11, 11), (11, 11, 30, 30), None),
    ((30, 11, 11, 30), (11, 11, 30, 30), None),
    ((11, 11, 81, 41), (10, 10, 80, 40), ()),  # by one pixel: rounding
    ((11, 11, 300, 30), (10, 10, 80, 30), ('a.xml', 'beyond')),
    ((-20, 11, 30, 30), (0, 10, 30, 30), ('a.xml', 'beyond')),
    ((11, 11, 11, 30), None, ('a.xml', 'area')),
    ((90, 11, 99, 30), None, ('a.xml', 'outside')),
  ],
)
def test_corners(tmp_path, corners, box, facts):
  voc(tmp_path, {'a': xml(thing(box=corners))})
  what = read(tmp_path)
  if facts is None:  # reversed
    assert_told(what, 'a.xml', 'reversed')
    box = BOX
  else:
    assert_told(what, *facts)
  assert what.found == {'a': ('cat', box)}


@pytest.mark.parametrize(
  'corners',
  [('nan', 1, 2, 3), (1, 'inf', 2, 3), ('ten', 1, 20, 20), ('1,5', 1, 2, 3), ('', 1, 2, 3)],
)
def test_corners_that_are_no_numbers(tmp_path, corners):
  voc(tmp_path, {'a': xml(thing(box=corners))})
  with raises(DatasetError, 'a.xml', 'xmin'):
    read(tmp_path)


def test_relative_corners_are_refused(tmp_path):
  voc(tmp_path, {'a': xml(thing(box=(0.125, 0.25, 0.375, 0.75)))})
  with raises(DatasetError, 'a.xml', 'relative'):
    read(tmp_path)


@pytest.mark.parametrize(
  'content',
  [
    xml('<object><name>cat</name><polygon><x1>1</x1></polygon></object>'),
    xml('<object><bndbox/></object>'),
    xml(thing(' ')),
    xml(thing('a\x7fb')),
    '<svg><rect/></svg>',
    '',
    '<annotation>',
    'a b c',
    b'\xff\xfe\x00',
    xml(thing('café')).encode('latin-1'),
    '<?xml version="1.0" encoding="no-such"?>' + xml(thing()),
    '<a>' * 100_000,
    '<!DOCTYPE a [<!ENTITY b "bbbbbbbb">'
    + ''.join(f'<!ENTITY {c} "{f"&{p};" * 20}">' for p, c in zip('bcdefgh', 'cdefghi'))
    + ']><annotation>&i;</annotation>',
  ],
)
def test_files_that_are_refused(tmp_path, content):
  voc(tmp_path, {'a': content})
  with raises(DatasetError, 'a.xml'):
    read(tmp_path)


@pytest.mark.parametrize('encoding', ['utf-8-sig', 'utf-16', 'latin-1'])
def test_encodings(tmp_path, encoding):
  head = f'<?xml version="1.0" encoding="{encoding.removesuffix("-sig")}"?>\r\n'
  voc(tmp_path, {'a': (head + xml(thing('\n café\n '))).encode(encoding)})
  assert read(tmp_path, ('café',)).found == {'a': ('café', BOX)}


def test_classes_that_differ_in_case(tmp_path):
  voc(tmp_path, {'a': xml(thing('Cat')), 'b': xml(thing('cat'))}, 'ab')
  assert_told(read(tmp_path, ('Cat', 'cat')), "'Cat'", "'cat'")


def test_files_without_their_counterpart_are_counted(tmp_path):
  voc(tmp_path, {n: xml(thing()) for n in 'auvwxyz'}, 'abcdef')
  what = read(tmp_path)
  assert what.found == RIGHT and len(what.told) == 2
  assert [line for line in what.told if 'u.xml' in line and 'and 3 more' in line]
  assert [line for line in what.told if 'b.png' in line and 'and 2 more' in line]


def test_an_annotation_without_objects_is_said(tmp_path):
  voc(tmp_path, {'a': xml(thing()), 'b': xml()}, 'ab')
  what = read(tmp_path)
  assert what.found == RIGHT and what.told == [] and 'b.png' in what.said[0]
  assert what.said[0].startswith('note: ')


@pytest.mark.parametrize(
  'filename', ['a.png', 'A.PNG', 'a.jpg', r'C:\photos\a.jpg', '/home/x/a.jpeg', 'a']
)
def test_an_image_is_found_by_its_stated_name(tmp_path, filename):
  voc(tmp_path, {'0001': xml(thing(), head=f'<filename>{filename}</filename>{size()}')})
  assert read(tmp_path).found == RIGHT


def test_a_stated_name_of_another_image_is_told(tmp_path):
  stale = xml(thing(), head=f'<filename>b.png</filename>{size()}')
  voc(tmp_path, {'a': stale, 'b': stale}, 'ab')
  what = read(tmp_path)
  assert set(what.found) == {'a', 'b'}
  assert_told(what, 'a.xml', 'name')


def test_two_images_of_one_name(tmp_path):
  voc(tmp_path)
  image(tmp_path / 'images' / 'a.bmp', box=(50, 10, 70, 30))
  with raises(DatasetError, 'a.xml', 'a.png', 'a.bmp'):
    read(tmp_path)
  text(tmp_path / 'annotations' / 'a.xml', xml(thing(), head=f'<filename>a.png</filename>{size()}'))
  what = read(tmp_path)
  assert what.found == RIGHT
  assert_told(what, 'a.bmp')


def test_two_files_for_one_image(tmp_path):
  voc(tmp_path, {'a': xml(thing()), 'x': xml(thing(), head=f'<filename>a.png</filename>{size()}')})
  with raises(DatasetError, 'a.xml', 'x.xml'):
    read(tmp_path)


def test_annotations_in_folders_as_their_images(tmp_path):
  voc(tmp_path, names=('cats/1', 'dogs/1'), files={'cats/1': xml(thing())})
  text(tmp_path / 'annotations' / 'dogs' / '1.xml', xml(thing(box=(51, 11, 70, 30))))
  image(tmp_path / 'images' / 'dogs' / '1.png', box=(50, 10, 70, 30))
  image(tmp_path / 'images' / 'dogs' / '2.png')
  image(tmp_path / 'images' / '3.png')
  what = read(tmp_path, ('cats', 'dogs'))
  assert what.found['1'] in (('cats', BOX), ('dogs', (50, 10, 70, 30)))
  assert what.found['2'] == ('dogs', None) and what.said == []
  assert_told(what, '3.png')


def official(root, lists, names='abcdef'):
  voc(root, names=names)
  (root / 'images').rename(root / 'JPEGImages')
  (root / 'annotations').rename(root / 'Annotations')
  for name, content in lists.items():
    text(root / 'ImageSets' / 'Main' / f'{name}.txt', content)


@pytest.mark.parametrize(
  'lists, splits, facts',
  [
    ({'train': 'a\nb\nc\n', 'val': 'd\ne\nf\n'}, {'train': 'abc', 'val': 'def'}, ()),
    ({'trainval': 'a\nb\nc\n', 'test': 'd\ne\nf\n'}, {'train': 'abc', 'test': 'def'}, ()),
    ({'trainval': 'a\nb\nc\nd\ne\nf\n', 'val': 'd\ne\n'}, {'train': 'abcf', 'val': 'de'}, ()),
    (
      {'trainval': 'a\nb\nc\n', 'train': 'a\nb\n', 'val': 'c\n', 'test': 'd\ne\nf\n'},
      {'train': 'ab', 'val': 'c', 'test': 'def'},
      (),
    ),
    (
      {'train': 'a 1\r\nb -1\r\nc  0\r\n', 'valid': 'd.png\ne\nf\n', 'cat_train': 'f\n'},
      {'train': 'abc', 'val': 'def'},
      (),
    ),
    (
      {'train': 'a\nb\nc\nd\ne\nf\nx\ny\n'},
      {'train': 'abcdef'},
      ('train.txt line 7', 'train.txt line 8'),
    ),
    ({'train': 'a\nb\n', 'val': 'c\nd\n'}, {'train': 'ab', 'val': 'cd'}, ('e.png', 'f.png')),
    (
      {'train': 'a\nb\nc\n', 'val': 'c\nd\ne\nf\n'},
      {'train': 'abc', 'val': 'cdef'},
      ('c.png', 'train', 'val'),
    ),
    ({'train': '\ufeffa\nb\nc\na\n', 'val': 'd\ne\nf'}, {'train': 'abc', 'val': 'def'}, ()),
  ],
)
def test_image_sets(tmp_path, lists, splits, facts):
  official(tmp_path, lists)
  what = read(tmp_path)
  assert what.splits == {name: list(names) for name, names in splits.items()}
  assert_told(what, *facts)


def test_split_folders(tmp_path):
  voc(tmp_path / 'one', names=('train/a', 'val/b'), files={})
  for name in ('train/a', 'val/b'):
    text(tmp_path / 'one' / 'annotations' / f'{name}.xml', xml(thing()))
  voc(tmp_path / 'two' / 'train')
  voc(tmp_path / 'two' / 'valid', names='b')
  for root in (tmp_path / 'one', tmp_path / 'two'):
    assert read(root, ('cat',)).splits == {'train': ['a'], 'val': ['b']}


@pytest.mark.parametrize('ending', ['xml', 'txt'])
def test_annotations_beside_images_are_refused(tmp_path, ending):
  for split in ('train', 'valid'):
    image(tmp_path / split / 'a.png')
    text(tmp_path / split / f'a.{ending}', xml(thing()))
  with raises(DatasetError, tmp_path / 'train', f'a.{ending}'):
    read(tmp_path)


def test_a_folder_too_high_is_refused(tmp_path):
  voc(tmp_path / 'VOC2012')
  with raises(DatasetError, tmp_path / 'VOC2012'):
    read(tmp_path)


def test_two_formats_in_one_folder(tmp_path):
  voc(tmp_path)
  text(tmp_path / 'labels' / 'a.txt', '0 0.25 0.5 0.25 0.5')
  text(tmp_path / 'classes.txt', 'dog')
  what = read(tmp_path, ('dog',))
  assert_told(what, 'voc', 'yolo')


@pytest.mark.parametrize('orientation', range(2, 9))
@pytest.mark.parametrize('ending', ['jpg', 'png', 'webp', 'tif'])
def test_boxes_turn_with_their_image(tmp_path, orientation, ending):
  voc(tmp_path, ending=ending, orientation=orientation)
  (where,) = read(tmp_path).found.values()
  upright = {2: (50, 10, 70, 30), 3: (50, 10, 70, 30), 4: BOX, 5: BOX, 6: BOX}
  upright |= {7: (10, 50, 30, 70), 8: (10, 50, 30, 70)}
  told = orientation < 5  # stored and upright have one size: taken as upright
  assert where == ('cat', BOX if told else upright[orientation])
  assert_told(read(tmp_path), *(['EXIF', f'a.{ending}'] if told else []))


@pytest.mark.parametrize('orientation', [5, 6, 7, 8])
def test_boxes_of_the_upright_image_stay(tmp_path, orientation):
  voc(tmp_path, {'a': xml(thing(), head=size(80, 40))}, orientation=orientation)
  what = read(tmp_path)
  assert what.found == RIGHT
  assert_told(what)


def test_an_orientation_without_a_size_is_told(tmp_path):
  voc(tmp_path, {'a': xml(thing(), head='')}, orientation=6)
  what = read(tmp_path)
  assert what.found == RIGHT
  assert [line for line in what.told if 'EXIF' in line and 'a.png' in line]
