"""Tar files as people bring them: right labels and splits, or a line that names what is wrong."""

import dataclasses
import gzip
import io
import json
import logging
import os
import pickle
import tarfile

import numpy as np
import pytest
from PIL import Image

from tests.support import raises
from vit_jax.data import check_whole, decode_image, image_files, open_dataset
from vit_jax.data.duplicates import warn_of_duplicates
from vit_jax.data.sources.shards import finding
from vit_jax.data.sources.shards import index as index_module
from vit_jax.data.sources.shards import members as members_module
from vit_jax.data.sources.shards.finding import split_of
from vit_jax.data.sources.shards.members import Keys, read_members
from vit_jax.errors import DatasetError, ImageError


def picture(red, ending='jpg'):
  """An image file of one colour."""
  out = io.BytesIO()
  kind = {'jpg': 'JPEG', 'jpeg': 'JPEG', 'png': 'PNG', 'webp': 'WEBP'}[ending.lower()]
  Image.new('RGB', (9, 7), (red, 0, 0)).save(out, kind)
  return out.getvalue()


def write(path, members, **options):
  """Writes a tar file.

  Args:
    path: of it.
    members: contents by name; None for a picture whose colour is its position.
    **options: of `tarfile.open`.
  """
  path.parent.mkdir(parents=True, exist_ok=True)
  with tarfile.open(path, 'w', **options) as archive:
    for k, (name, content) in enumerate(members.items()):
      content = picture(k % 250, name.rpartition('.')[2]) if content is None else content
      info = tarfile.TarInfo(name)
      info.size = len(content)
      archive.addfile(info, io.BytesIO(content))
  return path


def samples(labels, start=0, ending='jpg'):
  """WebDataset's: 0003.jpg and 0003.cls for each label."""
  members = {}
  for k, label in enumerate(labels, start):
    members[f'{k:04}.{ending}'] = None
    members[f'{k:04}.cls'] = str(label).encode()
  return members


def labels_of(dataset, split='all'):
  """Class name by id, and that every image decodes."""
  examples = dataset.split(split)
  read = [examples[i] for i in range(len(examples))]
  assert all(decode_image(e['image']).shape == (7, 9, 3) for e in read)
  assert [e['label'] for e in read] == examples.labels.tolist()
  return {e['id']: dataset.classes[e['label']] if e['label'] >= 0 else None for e in read}


@dataclasses.dataclass
class Case:
  """A folder of tar files, and what it means.

  Args:
    files: members by tar file, or bytes.
    classes: that are read.
    splits: examples by name; None where they are made here.
    labels: class by id, of some.
    told: facts of a warning, several separated by blanks; '' for no warning at all.
  """

  files: dict
  classes: tuple
  splits: dict | None
  labels: dict = dataclasses.field(default_factory=dict)
  told: str = ''


CASES = {
  'timm': Case(
    {
      'in1k-train-0000.tar': samples([3, 0]),
      'in1k-train-0001.tar': samples([3, 1], 2),
      'in1k-validation-00.tar': samples([1, 0]),
    },
    ('0', '1', '3'),
    {'train': 4, 'val': 2},
    {'in1k-train-0001.tar/0002.jpg': '3', 'in1k-validation-00.tar/0001.jpg': '0'},
  ),
  'CLIP benchmark': Case(
    {
      'classnames.txt': b'ash\nbirch\nash\n',
      'train/0.tar': samples([0, 2], ending='webp'),
      'train/1.tar': samples([1, 1], 2, 'webp'),
      'train/nshards.txt': b'2\n',
      'test/0.tar': samples([2], ending='webp'),
      'test/nshards.txt': b'1\n',
    },
    ('ash (0)', 'birch', 'ash (2)'),
    {'train': 4, 'test': 1},
    {'train/1.tar/0003.webp': 'birch', 'test/0.tar/0000.webp': 'ash (2)'},
  ),
  'json': Case(
    {'a.tar': {'x.jpg': None, 'x.json': b'{"label": "elm", "w": 3}', 'y.jpg': None,
               'y.json': b'{"cls": "oak"}'}},
    ('elm', 'oak'),
    None,
    {'a.tar/x.jpg': 'elm', 'a.tar/y.jpg': 'oak'},
  ),
  'cls before json': Case(
    {'a.tar': {'x.json': b'{"label": 7}', 'x.jpg': None, 'x.cls': b'1', 'y.jpg': None,
               'y.cls': b'0\n'}},
    ('0', '1'),
    None,
    {'a.tar/x.jpg': '1'},
  ),
  'words in a list of classes': Case(
    {'data.tar': samples(['oak', 'elm']), 'classes.json': b'["yew", "oak", "elm"]'},
    ('yew', 'oak', 'elm'),
    None,
    {'data.tar/0000.jpg': 'oak'},
  ),
  'numbers by value': Case(
    {'data.tar': samples([10, 9, 2])}, ('2', '9', '10'), None, {'data.tar/0000.jpg': '10'}
  ),
  'dots in names': Case(
    {'a.tar': {'i.2020.jpg': None, 'i.2020.cls': b'0', 'i.2021.jpg': None, 'i.2021.cls': b'1'}},
    ('0', '1'),
    None,
    {'a.tar/i.2021.jpg': '1'},
  ),
  'a mask beside': Case(
    {'a.tar': {'0.jpg': None, '0.seg.png': None, '0.cls': b'a', '1.jpg': None, '1.cls': b'b',
               '1.seg.png': None}},
    ('a', 'b'),
    None,
    {'a.tar/0.jpg': 'a'},
  ),
  'capitals': Case(
    {'a.tar': {'A.JPEG': None, 'A.CLS': b'0', 'B.Jpg': None, 'B.cls': b'1'}},
    ('0', '1'),
    None,
    {'a.tar/A.JPEG': '0'},
  ),
  'class folders': Case(
    {'trees.tar': {'./ash/1.jpg': None, './ash/deep/2.jpg': None, './elm/1.jpg': None}},
    ('ash', 'elm'),
    None,
    {'trees.tar/./ash/deep/2.jpg': 'ash'},
  ),
  'splits within': Case(
    {'all.tar': {f'trees/{s}/{c}/{k}.jpg': None for s in ('train', 'valid') for c in 'ab'
                 for k in range(3)}},
    ('a', 'b'),
    {'train': 6, 'val': 6},
    {'all.tar/trees/valid/b/1.jpg': 'b'},
  ),
  'a tar for each split': Case(
    {f'{s}.tar': {f'{s}/{c}/1.jpg': None for c in 'ab'} for s in ('train', 'test')},
    ('a', 'b'),
    {'train': 2, 'test': 2},
  ),
  'a tar for each class': Case(
    {f'{s}/{c}.tar': {'1.jpg': None, '2.jpg': None} for s in ('train', 'val')
     for c in ('n01440764', 'n01443537')},
    ('n01440764', 'n01443537'),
    {'train': 4, 'val': 4},
    {'val/n01443537.tar/2.jpg': 'n01443537'},
  ),
  'wrapped': Case(
    {'archive/data/train-0.tar': samples([0, 1]), 'archive/data/test-0.tar': samples([0])},
    ('0', '1'),
    {'train': 2, 'test': 1},
  ),
  'what macOS adds': Case(
    {'a.tar': {'._0.jpg': b'x', '0.jpg': None, '0.cls': b'0', '__MACOSX/0.jpg': b'x', '1.jpg': None,
               '1.cls': b'1'}},
    ('0', '1'),
    None,
  ),
  'contest': Case(
    {'train-0.tar': samples([0, 1]), 'test-0.tar': samples([-1, -1])},
    ('0', '1'),
    {'train': 2},
    told='2 test-0.tar/0000.jpg',
  ),
  'a gap': Case(
    {f'x-{k:03}.tar': samples([0, 1]) for k in (0, 1, 4)},
    ('0', '1'),
    None,
    told='2 x-002.tar x-003.tar',
  ),
  'fewer than are stated': Case(
    {'test/0.tar': samples([0, 1]), 'test/1.tar': samples([1]), 'test/nshards.txt': b'3'},
    ('0', '1'),
    {'test': 3},
    told='1 test/2.tar missing',
  ),
  'fewer than are listed': Case(
    {
      'a-train-0.tar': samples([0, 1]),
      '_info.json': json.dumps(
        {'splits': {'train': {'filenames': ['a-train-0.tar', 'a-train-1.tar']}}}
      ).encode(),
    },
    ('0', '1'),
    {'train': 2},
    told='1 a-train-1.tar missing',
  ),
  'new classes': Case(
    {'train.tar': samples(['a', 'b']), 'test.tar': samples(['a', 'c'])},
    ('a', 'b', 'c'),
    {'train': 2, 'test': 2},
    told="'c' test",
  ),
  'images beside': Case(
    {'train.tar': samples([0, 1]), 'a/b/c/d/x.jpg': b'x'},
    ('0', '1'),
    {'train': 2},
    told='1 a/b/c/d/x.jpg',
  ),
  'unread images': Case(
    {'a.tar': {**samples([0, 1]), '7.raw': b'x', '7.cls': b'0'}},
    ('0', '1'),
    None,
    told='1 .raw a.tar/7.raw',
  ),
}  # fmt: skip


def make(root, files):
  for name, content in files.items():
    if isinstance(content, bytes):
      (root / name).parent.mkdir(parents=True, exist_ok=True)
      (root / name).write_bytes(content)
    else:
      write(root / name, content)
  return root


@pytest.mark.parametrize('name', CASES)
def test_layout(name, tmp_path, caplog):
  case = CASES[name]
  caplog.set_level(logging.WARNING)
  dataset = open_dataset(str(make(tmp_path, case.files)))
  assert (dataset.kind, dataset.classes) == ('tar', case.classes)
  if case.splits is not None:
    assert dataset.splits == case.splits
  assert dataset.made_split == (case.splits is None)
  found = labels_of(dataset)
  assert {key: found[key] for key in case.labels} == case.labels
  told = ' '.join(record.getMessage() for record in caplog.records)
  assert all(fact in told for fact in case.told.split()), told
  assert bool(told) == bool(case.told), told
  again = open_dataset(str(tmp_path))  # from the index that was kept
  assert labels_of(again) == found
  assert again.found == dataset.found


REFUSED = {
  'no labels': ({'a.tar': {'1.jpg': None}, 'b.tar': b''}, 'b.tar empty'),
  'only images': ({f'x-{k}.tar': {'1.jpg': None} for k in (0, 1)}, 'x-0.tar/1.jpg KEY.cls'),
  'unlabelled splits': ({'train.tar': {'1.jpg': None}, 'val.tar': {'2.jpg': None}}, 'KEY.cls'),
  'some without a label': ({'a.tar': {**samples([0, 1]), '9.jpg': None}}, '1 3 a.tar/9.jpg skip'),
  'some in no folder': ({'a.tar': {'a/1.jpg': None, '2.jpg': None}}, 'a.tar/2.jpg folder'),
  'two images': ({'a.tar': {'0.l.jpg': None, '0.r.jpg': None, '0.cls': b'1'}}, '0.l.jpg 0.r.jpg'),
  'twice': ({'a.tar': samples([0])}, 'a.tar/0000.jpg twice'),
  'an empty label': ({'a.tar': {'0.jpg': None, '0.cls': b'\n'}}, 'a.tar/0.jpg empty'),
  'bytes for a label': ({'a.tar': {'0.jpg': None, '0.cls': b'\x80\x03K.'}}, 'a.tar/0.jpg UTF-8'),
  'lines for a label': ({'a.tar': {'0.jpg': None, '0.cls': b'1\n2'}}, 'a.tar/0.jpg one'),
  'several labels': (
    {'a.tar': {'0.jpg': None, '0.json': b'{"label": [1, 2]}'}},
    'a.tar/0.jpg [1, one',
  ),
  'out of range': ({'a.tar': samples([0, 3]), 'classes.txt': b'a\nb\nc\n'}, '3 a.tar'),
  'unknown words': ({'a.tar': samples(['a', 'z']), 'classes.txt': b'a\nb\n'}, "'z'"),
  'one split alone': ({'train-0.tar': samples([0]), 'more-0.tar': samples([1])}, 'more-0.tar'),
  'no images': ({'a.tar': {'readme.txt': b'x', 'b.tar': b'y'}}, '.tar a.tar'),
  'gzip': ({'a.tar': gzip.compress(bytes(2000))}, 'a.tar gunzip'),
  'zip': ({'a.tar': b'PK\x03\x04' + bytes(600)}, 'a.tar zip'),
  'LFS': ({'a.tar': b'version https://git-lfs.github.com/spec/v1\noid sha256:0'}, 'lfs'),
  'HTML': ({'a.tar': b'\n<!doctype html>' + b' ' * 600}, 'a.tar HTML'),
  'noise': ({'a.tar': b'x' * 2000}, 'a.tar damaged'),
}  # fmt: skip


@pytest.mark.parametrize('name', REFUSED)
def test_refused(name, tmp_path):
  files, facts = REFUSED[name]
  make(tmp_path, files)
  if name == 'twice':
    with tarfile.open(tmp_path / 'a.tar', 'a') as archive:
      info = tarfile.TarInfo('0000.jpg')
      info.size = 3
      archive.addfile(info, io.BytesIO(b'abc'))
  with raises(DatasetError, *facts.split()):
    open_dataset(str(tmp_path))


def test_labels_that_are_missing_are_skipped(tmp_path, caplog):
  more = {'8.jpg': None, '8.json': b'{"label": null}', '9.jpg': None}
  make(tmp_path, {'a.tar': {**samples([0, 1]), **more}})
  dataset = open_dataset(str(tmp_path), on_error='skip')
  assert labels_of(dataset).keys() == {'a.tar/0000.jpg', 'a.tar/0001.jpg'}
  assert '2 of 4' in caplog.text and 'a.tar/8.jpg' in caplog.text


def test_numbers_of_a_table_with_gaps_are_whole(tmp_path):
  members = {'0.jpg': None, '0.json': b'{"label": 1.0}', '1.jpg': None, '1.json': b'{"label": 12}'}
  make(tmp_path, {'a.tar': members})
  assert open_dataset(str(tmp_path)).classes == ('1', '12')
  make(tmp_path / 'b', {'a.tar': {'0.jpg': None, '0.json': b'{"label": 1.5}'}})
  with raises(DatasetError, 'a.tar/0.jpg', '1.5'):
    open_dataset(str(tmp_path / 'b'))


@pytest.mark.parametrize('format', [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_names_of_any_length_and_letters(tmp_path, format):
  folders = ['Bäume', 'x' * 120, 'short']
  names = [f'{folder}/{k}{"y" * 60}.jpg' for k, folder in enumerate(folders)]
  write(tmp_path / 'a.tar', dict.fromkeys(names), format=format)
  found = labels_of(open_dataset(str(tmp_path)))
  assert found == {f'a.tar/{name}': name.partition('/')[0] for name in names}


def test_a_global_header_holds_for_all_that_follow(tmp_path):
  write(
    tmp_path / 'a.tar', samples([0, 1]), format=tarfile.PAX_FORMAT, pax_headers={'comment': 'x'}
  )
  assert set(labels_of(open_dataset(str(tmp_path))).values()) == {'0', '1'}


def test_headers_are_read_as_tarfile_reads_them(tmp_path):
  rng = np.random.default_rng(0)
  for format in (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
    members = {
      f'{"d/" * rng.integers(3)}{"n" * rng.integers(1, 90)}{k}.jpg': bytes(rng.integers(0, 2000))
      for k in range(60)
    }
    path = write(tmp_path / f'{format}.tar', members, format=format)
    with tarfile.open(path) as archive:
      expected = [(m.name, m.offset_data, m.size) for m in archive.getmembers()]
    found = read_members(str(path), 'a', Keys())
    assert list(zip(found.names, found.starts, found.sizes)) == expected


def add_links(path, links):
  """Adds (name, kind, target)."""
  with tarfile.open(path, 'a') as archive:
    for name, kind, target in links:
      info = tarfile.TarInfo(name)
      info.type, info.linkname = kind, target
      archive.addfile(info)


def test_links_within_are_followed_and_others_said(tmp_path, caplog):
  links = [
    ('p/8.jpg', tarfile.SYMTYPE, '../0000.jpg'),
    ('p/8.cls', tarfile.SYMTYPE, './../0001.cls'),
    ('9.jpg', tarfile.LNKTYPE, '0001.jpg'),
    ('9.cls', tarfile.LNKTYPE, '0000.cls'),
    ('out.jpg', tarfile.SYMTYPE, '/elsewhere/0000.jpg'),
    ('README', tarfile.SYMTYPE, 'NEWS'),
  ]
  add_links(write(tmp_path / 'a.tar', samples(['oak', 'elm'])), links)
  dataset = open_dataset(str(tmp_path))
  assert labels_of(dataset) == {
    'a.tar/0000.jpg': 'oak', 'a.tar/0001.jpg': 'elm', 'a.tar/9.jpg': 'oak', 'a.tar/p/8.jpg': 'elm'
  }  # fmt: skip
  read = {e['id']: e['image'] for e in map(dataset.split('all').__getitem__, range(4))}
  assert read['a.tar/9.jpg'] == read['a.tar/0001.jpg'] != read['a.tar/p/8.jpg']
  assert '1 links, such as a.tar/out.jpg' in caplog.text and 'README' not in caplog.text


@pytest.mark.parametrize('cut', [0.3, 0.5, 0.7, 0.95])
def test_cut_short(tmp_path, caplog, cut):
  path = write(tmp_path / 'a.tar', samples([0, 1] * 20))
  whole = path.read_bytes()
  end = whole.rindex(b'.cls')  # of the last member's header; zeros follow its content
  path.write_bytes(whole[: int(cut * end)])
  with raises(DatasetError, 'a.tar', 'cut', 'skip'):
    open_dataset(str(tmp_path))
  dataset = open_dataset(str(tmp_path), on_error='skip')
  assert 0 < sum(dataset.splits.values()) <= 40 * cut + 1
  labels_of(dataset)
  assert 'a.tar' in caplog.text
  path.write_bytes(whole)
  assert sum(open_dataset(str(tmp_path)).splits.values()) == 40


def test_damage_in_a_header_is_not_an_end(tmp_path):
  path = write(tmp_path / 'a.tar', samples([0, 1] * 20))
  content = bytearray(path.read_bytes())
  content[content.index(b'0010.jpg')] ^= 255
  path.write_bytes(content)
  with raises(DatasetError, 'a.tar', 'damaged'):
    open_dataset(str(tmp_path))


def test_archives_one_after_another_are_not_cut_at_the_first(tmp_path):
  first, second = (write(tmp_path / f'{k}.tar', samples([0, 1], k)) for k in (0, 10))
  first.write_bytes(first.read_bytes() + second.read_bytes())
  second.unlink()
  with raises(DatasetError, '0.tar'):
    open_dataset(str(tmp_path))


def test_no_end_mark_is_warned_of(tmp_path, caplog):
  path = write(tmp_path / 'a.tar', samples([0, 1]))
  path.write_bytes(path.read_bytes().rstrip(b'\0') + bytes(511))
  path.write_bytes(path.read_bytes()[: len(path.read_bytes()) // 512 * 512])
  assert len(labels_of(open_dataset(str(tmp_path)))) == 2
  assert 'a.tar has no end' in caplog.text


@pytest.mark.parametrize('seed', range(30))
def test_noise_is_a_line(tmp_path, seed):
  path = write(tmp_path / 'a.tar', samples([0, 1] * 5), format=seed % 3)
  content = bytearray(path.read_bytes())
  rng = np.random.default_rng(seed)
  for place in rng.integers(0, len(content), 40):
    content[place] = rng.integers(256)
  path.write_bytes(content)
  try:
    open_dataset(str(tmp_path), on_error='skip')
  except DatasetError as e:
    assert 'a.tar' in str(e)


def test_the_index_is_kept_until_a_file_changes(tmp_path, monkeypatch):
  path = write(tmp_path / 'a.tar', samples(['a', 'b']))
  open_dataset(str(tmp_path))
  monkeypatch.setattr(index_module, 'read_members', lambda *_: pytest.fail('read again'))
  assert open_dataset(str(tmp_path)).classes == ('a', 'b')
  monkeypatch.undo()
  write(path, samples(['a', 'c']))
  os.utime(path, ns=(1, 1))
  assert open_dataset(str(tmp_path)).classes == ('a', 'c')


def test_a_damaged_index_is_made_anew(tmp_path, monkeypatch):
  monkeypatch.setenv('VIT_JAX_CACHE', str(tmp_path / 'cache'))
  write(tmp_path / 'set' / 'a.tar', samples(['a', 'b']))
  open_dataset(str(tmp_path / 'set'))
  (kept,) = (tmp_path / 'cache' / 'shards').iterdir()
  whole = kept.read_bytes()
  for content in (b'', whole[: len(whole) // 2], b'x' * len(whole)):
    kept.write_bytes(content)
    assert open_dataset(str(tmp_path / 'set')).classes == ('a', 'b')
    assert kept.read_bytes() == whole


def test_an_index_that_cannot_be_kept_stops_nothing(tmp_path, monkeypatch):
  (tmp_path / 'file').write_text('')
  monkeypatch.setenv('VIT_JAX_CACHE', str(tmp_path / 'file' / 'cache'))
  write(tmp_path / 'set' / 'a.tar', samples(['a', 'b']))
  assert open_dataset(str(tmp_path / 'set')).classes == ('a', 'b')


def test_a_file_that_changes_meanwhile(tmp_path):
  path = write(tmp_path / 'a.tar', samples([0, 1]))
  examples = open_dataset(str(tmp_path)).split('all')
  path.write_bytes(path.read_bytes()[:100])
  with raises(ImageError, 'a.tar', 'changed'):
    examples[0]
  path.unlink()
  with raises(ImageError, 'a.tar'):
    examples[0]


def test_a_file_that_is_replaced_by_one_of_its_size(tmp_path):
  path = write(tmp_path / 'a.tar', samples([0, 1]))
  examples = open_dataset(str(tmp_path)).split('all')
  data = path.read_bytes()
  path.unlink()
  path.write_bytes(data)
  os.utime(path, (1, 1))
  with raises(ImageError, 'a.tar', 'changed'):
    examples[0]


def both(root):
  """Classes and splits of tar files, the first time and from the index."""
  first, second = open_dataset(str(root)), open_dataset(str(root))
  assert (first.classes, first.splits, first.found) == (second.classes, second.splits, second.found)
  assert labels_of(first) == labels_of(second)
  return first


def paths(*folders):
  return {f'{folder}/{k}.jpg': None for folder in folders for k in range(2)}


@pytest.mark.parametrize(
  'folders',
  [
    'cat dog',
    'data/cat data/dog',
    'train/cat train/dog val/cat val/dog',
    'seg_train/seg_train/cat seg_train/seg_train/dog seg_test/seg_test/cat seg_test/seg_test/dog',
    'd/training_set/cat d/training_set/dog d/test_set/cat d/test_set/dog',
    'archive/train/train/cat archive/train/train/dog archive/test/test/cat archive/test/test/dog',
    'train/cat train/dog test',
    'train/cat train/dog extra/cat',
    't/train/cat/images t/train/dog/images t/val/images t/test/images',
    'cat/train cat/val dog/train dog/val',
    'train val',
    'cat cat/deep dog',
    'Bär Ba\u0308r dog',
    'train/a_b train/dog val/A-B val/dog',
  ],
)
def test_folders_in_tar_files_are_read_as_on_disk(tmp_path, folders, caplog):
  members = paths(*folders.split())
  for k, name in enumerate(members):
    path = tmp_path / 'disk' / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(picture(k))
  write(tmp_path / 'tar' / 'x.tar', {**members, 'LICENSE.txt': b'x'})
  found = {}
  for kind in ('disk', 'tar'):
    caplog.clear()
    try:
      dataset = both(tmp_path / kind) if kind == 'tar' else open_dataset(str(tmp_path / kind))
      result = dataset.classes, dataset.splits
    except DatasetError as e:
      result = str(e)
    said = sorted({record.getMessage() for record in caplog.records})
    found[kind] = json.dumps([result, said]).replace(str(tmp_path / kind), '')
  assert found['disk'] == found['tar']


@pytest.mark.parametrize(
  ('files', 'classes', 'splits'),
  [
    ({'imagenet_train/0.tar': 'cat dog', 'imagenet_val/0.tar': 'cat dog'}, 'cat dog', 'train val'),
    ({f'a_{s}/n0000000{k}.tar': '.' for s in ('train', 'val') for k in (1, 2)},
     'n00000001 n00000002', 'train val'),
    ({'train.tar': 'cat dog', 'val.tar': 'val/cat val/dog'}, 'cat dog', 'train val'),
    ({'train.tar': 'd/train/cat d/train/dog', 'test.tar': 'd/test/cat'}, 'cat dog', 'train test'),
    ({'cat.tar': 'images', 'dog.tar': 'images'}, 'cat dog', ''),
    ({'cat.tar': 'train val', 'dog.tar': 'train val'}, 'cat dog', ''),
    ({'cat.tar': '.', 'bullet_train.tar': '.', 'dog.tar': '.'}, 'bullet_train cat dog', ''),
    ({'cat.tar': 'cat', 'bullet_train.tar': 'bullet_train'}, 'bullet_train cat', ''),
    ({'n01440764.tar': 'n01440764', 'n15075141.tar': 'n15075141'}, 'n01440764 n15075141', ''),
    ({'x.tar': 'cat'}, 'cat', ''),
    ({'x.tar': '../img/cat ../img/dog'}, 'cat dog', ''),
  ],
)  # fmt: skip
def test_classes_and_splits_of_several_tar_files(tmp_path, files, classes, splits, caplog):
  for file, folders in files.items():
    members = {name.removeprefix('./'): None for name in paths(*folders.split())}
    write(tmp_path / file, {**members, 'LICENSE.txt': b'x', 'notes.csv': b'x'})
  dataset = both(tmp_path)
  assert dataset.classes == tuple(classes.split())
  made = sorted(splits.split()) or sorted(set(dataset.splits))
  assert sorted(dataset.splits) == made and sum(dataset.splits.values()) == sum(
    2 * len(folders.split()) for folders in files.values()
  )
  assert 'missing' not in caplog.text


@pytest.mark.parametrize(
  ('names', 'missing'),
  [
    ('n01440764 n01440765 n15075141', ''),
    ('s-1700000000123 s-1700086400456', ''),
    ('s-20240101120000 s-20251231235959', ''),
    ('s-0 s-1 s-3', 's-2.tar'),
    ('s-00000-of-00004 s-00001-of-00004 s-00003-of-00004', 's-00002-of-00004.tar'),
    ('s-00000-of-00002', 's-00001-of-00002.tar'),
  ],
)
def test_gaps_in_series_are_said_and_dates_are_none(tmp_path, names, missing, caplog):
  for name in names.split():
    write(tmp_path / f'{name}.tar', samples([0, 1]))
  open_dataset(str(tmp_path))
  assert ('may be missing' in caplog.text) == bool(missing) and missing in caplog.text


def test_archives_and_images_beside_are_said(tmp_path, caplog):
  write(tmp_path / 'train-0.tar', samples([0, 1]))
  for name in ('train-1.tar.gz', 'train-2.tar.incomplete', 'banner.png', 'docs/a.png'):
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_bytes(picture(0, 'png'))
  (tmp_path / 'logs').mkdir()
  assert open_dataset(str(tmp_path)).splits == {'train': 2}
  assert '2 archives' in caplog.text and 'train-1.tar.gz' in caplog.text
  assert '2 images beside the tar files' in caplog.text
  caplog.clear()
  make(tmp_path / 'more', {'a/0.png': picture(0, 'png'), 'b/0.png': picture(1, 'png')})
  write(tmp_path / 'more' / 'x.tar', samples([0, 1]))
  assert open_dataset(str(tmp_path / 'more')).classes == ('a', 'b')
  assert 'left out 1 tar file' in caplog.text and '*.tar' in caplog.text


def test_a_plugin_of_pillow_is_taken_into_account(tmp_path, monkeypatch):
  write(tmp_path / 'a.tar', {**samples([0, 1]), '9.heic': picture(1, 'png'), '9.cls': b'1'})
  assert both(tmp_path).splits == {'train': 2}
  heic = {*image_files.SUFFIXES, '.heic'}.__contains__
  for module in (index_module, members_module):
    monkeypatch.setattr(module, 'is_image', heic)
  assert both(tmp_path).splits == {'train': 3}


@pytest.mark.parametrize(
  ('members', 'facts'),
  [
    (samples([-1, -1]), 'below'),
    ({'0.jpg': None, '0.json': b'{"label": "\\ud800"}'}, 'a.tar/0.jpg UTF-8'),
    ({'0.jpg': None, '0.json': b'{"label": '}, 'a.tar/0.jpg JSON'),
    ({'x.tar': b'x' * 600}, 'unpack the tar files in them'),
  ],
)
def test_one_line_of_odd_content(tmp_path, members, facts):
  write(tmp_path / 'a.tar', members)
  with raises(DatasetError, *facts.split()):
    open_dataset(str(tmp_path))


def test_members_without_a_name_and_labels_twice(tmp_path):
  path = write(tmp_path / 'a.tar', {**samples([0, 1]), '': b'x'})
  assert both(tmp_path).splits == {'train': 2}
  with tarfile.open(path, 'a') as archive:
    info = tarfile.TarInfo('0001.cls')
    info.size = 1
    archive.addfile(info, io.BytesIO(b'0'))
  with raises(DatasetError, 'a.tar/0001.cls', 'twice'):
    open_dataset(str(tmp_path))


def test_times_in_extended_headers_change_nothing(tmp_path):
  """What Python's tarfile writes by default, with a name that needs such a header among others."""
  members = samples([0, 1]) | samples([1], start=7) | {'x' * 120 + '.jpg': None}
  members['x' * 120 + '.cls'] = b'0'
  with tarfile.open(tmp_path / 'a.tar', 'w', format=tarfile.PAX_FORMAT) as archive:
    for k, (name, content) in enumerate(members.items()):
      info = tarfile.TarInfo(name)
      content = picture(k) if content is None else content
      info.size, info.mtime = len(content), 1.25
      archive.addfile(info, io.BytesIO(content))
  found = labels_of(both(tmp_path))
  assert found['a.tar/0007.jpg'] == '1' and found[f'a.tar/{"x" * 120}.jpg'] == '0'
  assert len(found) == 4


def test_a_pattern_lies_in_data_dir(tmp_path):
  write(tmp_path / 'x-0.tar', samples([0, 1]))
  for pattern in ('x-{0..0}.tar', 'x-*.tar', 'x-0.tar'):
    assert open_dataset(pattern, data_dir=str(tmp_path)).splits == {'train': 2}


def test_one_file_a_range_and_a_glob(tmp_path):
  for split in ('train', 'val'):
    for k in range(9, 12):
      write(tmp_path / f'{split}-{k:03}.tar', samples([0, 1], k))
  one = open_dataset(str(tmp_path / 'train-010.tar'))
  assert set(labels_of(one)) == {'train-010.tar/0010.jpg', 'train-010.tar/0011.jpg'}
  some = open_dataset(str(tmp_path / 'train-{009..010}.tar'))
  assert some.splits == {'train': 4}
  assert open_dataset(str(tmp_path / '*-01*.tar')).splits == {'train': 4, 'val': 4}
  with raises(DatasetError, '2', 'train-012.tar', 'train-013.tar'):
    open_dataset(str(tmp_path / 'train-{009..013}.tar'))
  with raises(DatasetError, 'no-*.tar'):
    open_dataset(str(tmp_path / 'no-*.tar'))


def test_a_store_has_files_and_folders_but_no_patterns(tmp_path):
  path = write(tmp_path / 'd' / 'train-0.tar', samples([4, 7]))
  for part in (path.parent, path):
    dataset = open_dataset(f'file://{part}')
    assert sorted(labels_of(dataset).values()) == ['4', '7']
  for pattern in ('*.tar', 'train-{0..0}.tar'):
    name = f'file://{path.parent}/{pattern}'
    with raises(DatasetError, name, 'patterns are of files on this machine'):
      open_dataset(name)


def test_a_name_that_is_not_there_and_files_that_are_packed(tmp_path):
  path = write(tmp_path / 'd' / 'train-0.tar', samples([4, 7]))
  with raises(DatasetError, f'file {path.parent}/train-1.tar', repr(str(path))):
    open_dataset(str(path.parent / 'train-1.tar'))
  packed = tmp_path / 'packed' / 'train-0.tar.gz'
  packed.parent.mkdir()
  packed.write_bytes(gzip.compress(path.read_bytes()))
  with raises(DatasetError, packed.parent, 'train-0.tar.gz has to be unpacked first'):
    open_dataset(str(packed.parent))


@pytest.mark.parametrize(
  ('pattern', 'names'),
  [
    ('x-{0..2}.tar', 'x-0 x-1 x-2'),
    ('x-{2..0}.tar', 'x-2 x-1 x-0'),
    ('x-{00..2}.tar', 'x-00 x-01 x-02'),
    ('{a,b}-{8..10}.tar', 'a-8 a-9 a-10 b-8 b-9 b-10'),
    ('{train/x,y}.tar', 'train/x y'),
    ('{a,b,a}-*.tar', 'a-0 a-1 b-3'),
  ],
)
def test_patterns_name_what_they_name_in_a_shell(tmp_path, pattern, names):
  for k, name in enumerate(names.split()):
    write(tmp_path / f'{name}.tar', samples([k], k))
  root, found = finding.expand(str(tmp_path / pattern))
  assert root == str(tmp_path) and found == [f'{name}.tar' for name in names.split()]


@pytest.mark.parametrize(
  ('pattern', 'facts'),
  [
    ('x-{5..1}.tar', '5 x-5.tar'),
    ('{no,none}-*.tar', '2 no-*.tar'),
    ('x-{0..99999999999}.tar', '100,000'),
    ('x-{0..999}{0..999}.tar', '100,000'),
    ('x-[.tar', 'x-[.tar'),
    ('x-{a..b}.tar', 'x-{a..b}.tar'),
  ],
)
def test_patterns_without_files(tmp_path, pattern, facts):
  with raises(DatasetError, *facts.split()):
    open_dataset(str(tmp_path / pattern))


def test_keys(tmp_path):
  members = {}
  for k in range(4):
    members |= {f'{k}.left.jpg': None, f'{k}.right.jpg': None}
    members |= {f'{k}.json': json.dumps({'kind': k % 2, 'label': 5}).encode()}
  write(tmp_path / 'a.tar', members)
  with raises(DatasetError, '0.left.jpg', '0.right.jpg'):
    open_dataset(str(tmp_path))
  dataset = open_dataset(str(tmp_path), image_key='.left.jpg', label_key='json/kind')
  assert labels_of(dataset) == {f'a.tar/{k}.left.jpg': str(k % 2) for k in range(4)}
  with raises(DatasetError, "'none'"):
    open_dataset(str(tmp_path), image_key='left.jpg', label_key='json/none')


def test_numbers_of_imagenet_have_its_names(tmp_path):
  write(tmp_path / 'imagenet1k-train-0.tar', samples(range(1000)))
  dataset = open_dataset(str(tmp_path))
  assert dataset.classes[:2] == ('n01440764', 'n01443537')
  assert labels_of(dataset)['imagenet1k-train-0.tar/0001.jpg'] == 'n01443537'
  write(tmp_path / 'imagenet1k-train-0.tar', samples(range(100)))
  assert open_dataset(str(tmp_path)).classes[:2] == ('0', '1')


def test_splits_by_class_are_those_of_the_same_folder(tmp_path):
  """What is trained on does not depend on how the images are stored."""
  members = {f'{c}/{k:02}.jpg': None for c in ('ash', 'elm') for k in range(20)}
  write(tmp_path / 'tars' / 'all.tar', members)
  for name in members:
    (tmp_path / 'folder' / name).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / 'folder' / name).write_bytes(picture(0))
  stored, plain = (open_dataset(str(tmp_path / name)) for name in ('tars', 'folder'))
  for split in plain.splits:
    ids = [name.removeprefix('all.tar/') for name in stored.manifest()[split]]
    assert ids == plain.manifest()[split]


def test_folders_that_hold_images_stay_folders(tmp_path):
  for name in ('ash/1.jpg', 'elm/1.jpg'):
    (tmp_path / name).parent.mkdir()
    (tmp_path / name).write_bytes(picture(1))
  write(tmp_path / 'ash.tar', {'1.jpg': None})
  assert open_dataset(str(tmp_path)).kind == 'folder'


def test_records_travel_to_other_processes(tmp_path):
  write(tmp_path / 'train.tar', samples([0, 1, 1]))
  examples = open_dataset(str(tmp_path)).split('train')
  there = pickle.loads(pickle.dumps(examples))
  assert [there[i] for i in range(3)] == [examples[i] for i in range(3)]


def test_images_cut_short_and_twice_are_found(tmp_path, caplog):
  whole = picture(7)
  train = {'0.jpg': whole, '0.cls': b'0', '1.jpg': None, '1.cls': b'1'}
  write(tmp_path / 'train.tar', train)
  write(tmp_path / 'test.tar', {'9.jpg': whole, '9.cls': b'0', '8.jpg': picture(9), '8.cls': b'1'})
  dataset = open_dataset(str(tmp_path))
  splits = {name: dataset.split(name) for name in ('train', 'test')}
  check_whole(splits['train'])
  warn_of_duplicates('trees', splits)
  assert "'test.tar/9.jpg' as 'train.tar/0.jpg'" in caplog.text
  write(tmp_path / 'train.tar', {**train, '1.jpg': whole[: len(whole) // 2]})
  with raises(ImageError, 'train.tar/1.jpg'):
    check_whole(open_dataset(str(tmp_path)).split('train'))


@pytest.mark.parametrize(
  ('file', 'split'),
  [
    ('imagenet1k-train-0000.tar', 'train'),
    ('imagenet1k-validation-00.tar', 'val'),
    ('val_000001.tar', 'val'),
    ('train/0.tar', 'train'),
    ('Testing/part-1.tar', 'test'),
    ('trains-0.tar', ''),
    ('latest-0.tar', ''),
    ('train-test-0.tar', ''),
    ('0.tar', ''),
  ],
)
def test_split_of(file, split):
  assert split_of(file) == split
