"""Folders as people bring them: right classes and splits, or a line that names what is wrong."""

import dataclasses
import logging
import os
import unicodedata

import pytest
from PIL import Image

from tests.support import raises
from vit_jax.data import open_dataset
from vit_jax.data.image_files import find_images
from vit_jax.errors import DatasetError
from vit_jax.report import page

NFC, NFD = (unicodedata.normalize(form, 'café') for form in ('NFC', 'NFD'))
RUN = ('runs/a/config.json', 'runs/a/classes.json', 'runs/a/report/')


def tree(root, spec):
  """Makes files of different bytes: 'train/cat:3.png' makes three; 'a/b' one; 'a/' a folder."""
  for text in spec:
    folder, _, rest = text.rpartition(':')
    count, _, ending = rest.partition('.')
    if not folder:
      path = root / text
      path.mkdir(parents=True) if text.endswith('/') else write(path)
      continue
    for k in range(int(count)):
      write(root / folder / f'{k}.{ending or "jpg"}')
  return root


def write(path, content=None):
  """Writes bytes that no other file has, or these."""
  try:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(repr(path).encode() if content is None else content)
  except OSError:
    pytest.skip('this file system does not store such names')
  return path


def link(path, target):
  """Makes a link to a folder."""
  try:
    path.symlink_to(target, target_is_directory=True)
  except OSError:
    pytest.skip('this user may make no links')


@dataclasses.dataclass
class Case:
  """A folder, and what it means.

  Args:
    files: see `tree`.
    classes, splits: that are read; splits are examples by name, None where they are made here.
    told: facts of a warning, several separated by blanks; '' for no warning at all.
    error: facts of the refusal.
    on_error: as the user has it.
  """

  files: str
  classes: str = 'cat dog'
  splits: dict | None = None
  told: str = ''
  error: str = ''
  on_error: str = 'raise'


PETS = 'cat:6 dog:6'
SPLIT = 'train/cat:4 train/dog:4'
CASES = {
  'flat_train_and_val': Case('train:3 val:2', error='train val class'),
  'flat_training_and_testing': Case('Training:3 Testing:2', error='Training Testing class'),
  'flat_train_and_test_images_with_a_table': Case(
    'train_images:3 test_images:2 train.csv', error='train_images test_images train.csv'
  ),
  'flat_splits_beside_a_class': Case('train:3 test:2 other:2', error='train test class'),
  'flat_train_of_real_splits': Case('train:3 val/cat:2 val/dog:2', error='train class'),
  'flat_test_of_real_splits': Case(
    f'{SPLIT} test:5', splits={'train': 8}, told="'test' 5 images"
  ),
  'flat_root_with_a_table': Case('a.jpg b.jpg labels.csv', error='labels.csv CLASS'),
  'one_flat_folder_with_a_table': Case(
    'images:4 labels.csv', classes='images', told="'images' one class labels.csv"
  ),
  'one_flat_folder_with_annotations': Case(
    'train:4 train:4.xml', error='set/train 0.xml annotations/'
  ),
  'train_is_a_class': Case('plane:3 ship:3 train:3', classes='plane ship train'),
  'dev_is_a_class': Case('dev:3 prod:3', classes='dev prod'),
  'training_testing': Case(
    'Training/cat:4 Training/dog:4 Testing/cat:2 Testing/dog:3', splits={'train': 8, 'test': 5}
  ),
  'train_validation_dev_is_val': Case(
    f'{SPLIT} validate/cat:1 validate/dog:1', splits={'train': 8, 'val': 2}
  ),
  'doubled_sets': Case(
    'training_set/training_set/cat:4 training_set/training_set/dog:4 '
    'test_set/test_set/cat:2 test_set/test_set/dog:2',
    splits={'train': 8, 'test': 4},
  ),
  'years_in_split_names': Case(
    'train2017/cat:4 train2017/dog:4 val2017/cat:2 val2017/dog:2', splits={'train': 8, 'val': 4}
  ),
  'intel_with_unlabelled_images': Case(
    'seg_train/seg_train/cat:4 seg_train/seg_train/dog:4 seg_test/seg_test/cat:2 '
    'seg_test/seg_test/dog:2 seg_pred/seg_pred:7',
    splits={'train': 8, 'test': 4},
    told="'seg_pred' 7 images",
  ),
  'splits_two_levels_down': Case(
    'archive/data/train/cat:4 archive/data/train/dog:4 archive/data/test/cat:2',
    splits={'train': 8, 'test': 2},
  ),
  'classes_two_levels_down': Case('a/b/cat:5 a/b/dog:5'),
  'images_folder_in_each_split': Case(
    'train/images/cat:4 train/images/dog:4 test/images/cat:2 test/images/dog:2',
    splits={'train': 8, 'test': 4},
  ),
  'val_and_dev': Case(f'{SPLIT} val/cat:1 dev/cat:1', error="'val' 'dev'"),
  'several_folders_named_like_each_split': Case(
    'train_images:3 train_masks:3 test_images:2 test_masks:2', error='train_images train_masks'
  ),
  'a_folder_beside_the_splits': Case(
    f'{SPLIT} extra/cat:3 test/cat:1', splits={'train': 8, 'test': 1}, told="'extra' 3 images"
  ),
  'an_empty_split': Case(f'{SPLIT} val/', splits={'train': 8}, told="'val' no images"),
  'images_beside_class_folders': Case(f'{PETS} a.jpg b.PNG', told='2 images class'),
  'images_beside_class_folders_of_a_split': Case(
    f'{SPLIT} train/a.jpg', splits={'train': 8}, told='1 images train'
  ),
  'splits_within_classes': Case(
    'cat/train:4 cat/test:2 dog/train:4 dog/test:2', told='train test pooled'
  ),
  'two_unicode_forms_in_two_splits': Case(
    f'train/{NFC}:4 train/dog:4 val/{NFD}:2', classes=f'{NFC} dog', splits={'train': 8, 'val': 2}
  ),
  'two_unicode_forms_side_by_side': Case(f'{NFC}:4 {NFD}:2 dog:3', classes=f'{NFC} dog'),
  'case_in_test': Case('train/Cat:4 train/dog:4 test/cat:2', error='train/Cat test/cat'),
  'underscore_or_hyphen': Case(
    'train/chat_noir:4 train/dog:4 val/chat-noir:2', error='chat_noir chat-noir'
  ),
  'wordnet_id_with_and_without_words': Case(
    'train/n01440764:4 train/dog:4 val/n01440764_tench:2', error='n01440764_tench'
  ),
  'capitals_are_classes_of_their_own': Case(
    'train/A:4 train/a:4 val/A:2', classes='A a', splits={'train': 8, 'val': 2}
  ),
  'class_in_test_alone': Case(
    f'{SPLIT} test/cat:2 test/fox:2',
    classes='cat dog fox',
    splits={'train': 8, 'test': 4},
    told="'fox' test",
  ),
  'val_of_other_classes_alone': Case(
    f'{SPLIT} val/images:5', splits={'train': 8}, told='val images'
  ),
  'underscores_are_classes': Case('_bg_:2 __other:2 cat:3', classes='__other _bg_ cat'),
  'folders_of_other_programs': Case(
    f'{PETS} @eaDir/cat:2 #recycle:2 lost+found:2 $RECYCLE.BIN:2 __MACOSX/cat:2 .git/x:1 '
    'cat/.ipynb_checkpoints:1 dog/@eaDir/0.jpg:1 cat/Thumbs.db cat/._0.jpg'
  ),
  'runs_inside': Case(
    f'{PETS} {" ".join(RUN)} runs/a/report:3.png runs/b/config.json runs/b/classes.json'
  ),
  'the_dataset_is_a_workdir': Case(
    f'{PETS} config.json classes.json checkpoints/5/x report/report.html'
  ),
  'a_class_of_tables': Case(
    f'{PETS} notes/a.txt', error='notes .txt --config.dataset.on_error=skip'
  ),
  'an_empty_class_that_is_skipped': Case(f'{PETS} notes/', told='notes', on_error='skip'),
  'an_empty_class_of_val_that_is_skipped': Case(
    f'{SPLIT} val/cat/ val/dog:2', splits={'train': 8, 'val': 2}, told='val/cat', on_error='skip'
  ),
  'nothing_but_empty_classes': Case('a/ b/', error='no images', on_error='skip'),
  'endings_that_are_not_read': Case(
    f'{PETS} cat:2.xyz dog:3.xyz dog:1.svg', told='5 .xyz 2 folders cat/0.xyz 1 .svg'
  ),
  'no_ending': Case(f'{PETS} dog/IMG_0001 dog/README', told='2 no ending dog/IMG_0001'),
  'numbers_for_endings': Case(
    f'{PETS} cat:2.0001 dog/scan.0002 dog/Mr.Smith_of_the_north', told='4 no ending 2 folders'
  ),
  'endings_of_many_kinds': Case(
    f'{PETS} ' + ' '.join(f'cat:1.a{letter}' for letter in 'abcdefg'), told='1 of other kinds'
  ),
  'endings_of_downloads': Case(f'{PETS} dog/a.jpg_large dog/b.JPG.txt', told='1 .jpg_large'),
  'annotations_beside_images': Case(f'{PETS} cat:6.xml dog:6.txt dog/a.csv cat/video.mp4'),
  'a_downloaded_page_beside_images': Case(f'{PETS} cat/index.html'),
  'odd_but_good_names': Case(
    'a,b:3 it\'s:3 "q":3 $x_{:3 🐱:3 [c]:3 #1:3', classes='"q" #1 $x_{ [c] a,b it\'s 🐱'
  ),
}  # fmt: skip


@pytest.mark.parametrize('case', CASES.values(), ids=CASES)
def test_layouts(tmp_path, caplog, case):
  (tmp_path / 'case').touch()
  if 'A a' in case.classes and (tmp_path / 'CASE').exists():
    pytest.skip('this file system does not tell case')
  root = tree(tmp_path / 'set', case.files.split())
  if case.error:
    with raises(DatasetError, *case.error.split()):
      open_dataset(str(root), on_error=case.on_error)
    return
  dataset = open_dataset(str(root), on_error=case.on_error)
  composed = tuple(unicodedata.normalize('NFC', name) for name in dataset.classes)
  assert composed == tuple(case.classes.split())
  if case.splits is not None:
    assert dataset.splits == case.splits
  else:
    assert dataset.made_split
  for examples in map(dataset.split, dataset.splits):
    for i in range(len(examples)):
      parts = unicodedata.normalize('NFC', examples.id(i)).split('/')
      assert composed[examples.labels[i]] in parts
  check_told(caplog, case.told)


def check_told(caplog, told):
  warnings = [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING]
  if not told:
    assert warnings == []
  else:
    assert any(all(fact in text for fact in told.split()) for text in warnings), warnings


@pytest.mark.parametrize('name, what', [('a\nb', 'line break'), ('caf\udce9', 'UTF-8')])
def test_class_names_that_cannot_be_written_are_refused(tmp_path, name, what):
  root = tree(tmp_path, ['dog:3'])
  write(root / name / '0.jpg')
  with raises(DatasetError, what, 'rename'):
    open_dataset(str(root))


LINKS = {
  # link: (where it leads, images of 6 + 6, classes)
  'cat/up': ('..', 12, 'cat dog'),
  'cat/itself': ('itself', 12, 'cat dog'),
  'cat/over': ('../dog', 12, 'cat dog'),
  'cat/out': ('../../pool/x', 15, 'cat dog'),
  'all': ('.', 12, 'cat dog'),
  'parent': ('..', 12, 'cat dog'),
  'fox': ('../pool/x', 15, 'cat dog fox'),
  'twin': ('cat', 18, 'cat dog twin'),
  'cat/gone.jpg': ('nowhere', 13, 'cat dog'),  # refused by name when it is read
}


@pytest.mark.parametrize('name', LINKS)
def test_links(tmp_path, name):
  target, images, classes = LINKS[name]
  root = tree(tmp_path / 'set', PETS.split())
  tree(tmp_path, ['pool/x:3'])
  link(tmp_path / 'pool' / 'x' / 'back', tmp_path)
  link(root / name, target)
  dataset = open_dataset(str(root))
  assert dataset.classes == tuple(classes.split())
  assert sum(dataset.splits.values()) == images


def test_a_split_may_be_a_link_to_another(tmp_path):
  root = tree(tmp_path / 'set', f'{SPLIT} test/cat:2'.split())
  link(root / 'val', 'test')
  assert open_dataset(str(root)).splits == {'train': 8, 'val': 2, 'test': 2}


@pytest.mark.parametrize('earlier', [False, True])
def test_a_page_of_figures_inside_is_left_out(tmp_path, earlier):
  root = tree(tmp_path, [*PETS.split(), 'cat/seen:3.png'])
  index = root / 'cat' / 'seen' / 'index.html'
  if earlier:
    write(index, b'<p>Made by vit_jax: 3 figures.</p>' + 9000 * b' ')
  else:
    page.write(index, 'Figures', [], [('Attention', [page.paragraph('x' * 30_000)])], 'three')
  dataset = open_dataset(str(root))
  assert sum(dataset.splits.values()) == 12 and 'reports' in dataset.found['left out']


@pytest.mark.skipif(not hasattr(os, 'mkfifo'), reason='no named pipes here')
def test_a_pipe_is_no_image(tmp_path):
  root = tree(tmp_path, PETS.split())
  os.mkfifo(root / 'cat' / 'pipe.jpg')
  assert sum(open_dataset(str(root)).splits.values()) == 12


def test_a_folder_that_cannot_be_read_is_named(tmp_path, monkeypatch):
  root = tree(tmp_path, [*PETS.split(), 'cat/deep:2'])
  scandir = os.scandir

  def refuse(path):
    if str(path).endswith('deep'):
      raise PermissionError(13, 'Permission denied', path)
    return scandir(path)

  monkeypatch.setattr(os, 'scandir', refuse)
  with raises(DatasetError, root / 'cat' / 'deep', 'Permission denied'):
    open_dataset(str(root))


def test_what_is_used_and_left_out_is_said_for_the_plan(tmp_path):
  files = 'train/cat:3 train/dog:2.png dev/cat:1 train/cat:3.xml train/dog:2.xml dev/@eaDir/a.jpg'
  found = open_dataset(str(tree(tmp_path, files.split()))).found
  for fact in ("'dev'", '4 .jpg', '2 .png', "lacks 'dog'"):
    assert fact in found['read']
  for fact in ('5 .xml', '2 folders', 'train/cat/0.xml'):
    assert fact in found['left out']


def test_pillow_says_which_optional_endings_are_images(tmp_path, monkeypatch, caplog):
  root = tree(tmp_path, [*PETS.split(), 'cat:3.heic', 'dog:1.HEIC'])
  assert sum(open_dataset(str(root)).splits.values()) == 12
  check_told(caplog, '4 .heic 2 folders')
  monkeypatch.setitem(Image.OPEN, 'HEIF', None)  # as a plugin registers itself
  monkeypatch.setitem(Image.EXTENSION, '.heic', 'HEIF')
  assert sum(open_dataset(str(root)).splits.values()) == 16
  assert len(find_images([str(root)])) == 16


def test_commands_find_what_datasets_find(tmp_path, caplog):
  files = [*PETS.split(), *RUN, 'runs/a/report:2.png', 'cat/@eaDir:2', 'dog/note.txt', 'dog:1.xyz']
  root = tree(tmp_path, files)
  link(root / 'cat' / 'up', '..')
  assert len(find_images([str(root)])) == 12
  check_told(caplog, '1 .xyz dog/0.xyz')
  assert len(find_images([str(root / '*' / '*')])) == 12
  assert find_images([str(root / '*' / '*.txt')]) == [str(root / 'dog' / 'note.txt')]
  with raises(DatasetError, root / 'runs', '.jpg'):
    find_images([str(root / 'runs')])


def test_classes_are_chosen_in_any_unicode_form(tmp_path):
  root = tree(tmp_path, [f'{NFD}:3', 'dog:3', 'fox:3'])
  assert open_dataset(str(root), classes=(NFC, 'dog')).classes == (NFD, 'dog')
