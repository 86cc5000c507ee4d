"""Published datasets from a loopback server: downloaded, verified, unpacked, read."""

import contextlib
import dataclasses
import errno
import io
import json
import os
import pickle
import shutil
import tarfile
import threading
import zipfile

import numpy as np
import pytest

from tests.data.miniatures import MINIATURES, install, number_of, tar
from tests.loopback import QUICK, files
from tests.support import raises
from vit_jax import console
from vit_jax.data import decode_image, open_dataset
from vit_jax.data.sources import needs_download, preparation, unpacking
from vit_jax.data.sources.published import DATASETS, listed_archives
from vit_jax.data.sources.unpacking import Unpacker
from vit_jax.errors import DatasetError, DownloadError, StorageError

pytest.importorskip('tensorflow_datasets')
CALTECH = {'train': 119, 'test': 24}
_DOGS = ('lists.tar', 'images.tar')


@pytest.fixture
def made(server, tmp_path, monkeypatch):
  """A function that writes a miniature and puts it on the server; gives what it holds."""
  monkeypatch.setenv('VIT_JAX_CACHE', str(tmp_path / 'cache'))
  monkeypatch.setenv('TFDS_DATA_DIR', str(tmp_path / 'tfds'))
  monkeypatch.setattr(preparation, '_RETRY', dataclasses.replace(QUICK, keep=True))

  def make(name, behaviour='breaks'):
    folder = tmp_path / 'archives'
    folder.mkdir(exist_ok=True)
    wanted = MINIATURES[name].write(folder)
    counts = {split: len(rows) for split, rows in wanted.items()}
    if name == 'caltech101':
      counts = CALTECH
    for path in folder.iterdir():
      server.files[f'{name.split("/")[0]}/{path.name}'] = path.read_bytes()
    install(name, folder, counts, f'{server.url}/{behaviour}', monkeypatch.setattr)
    return wanted

  return make


def numbers(examples):
  """(number, label) of every image."""
  found = []
  for i in range(len(examples)):
    data = examples[i]['image']
    pixels = data if isinstance(data, np.ndarray) else decode_image(data)
    found.append((number_of(pixels[-1, -1]), examples[i]['label']))
  return found


@pytest.mark.parametrize('name', [n for n in MINIATURES if n not in ('caltech101', 'imagenet2012')])
def test_an_archive_that_breaks_off_becomes_the_dataset(made, server, tmp_path, name):
  wanted = made(name)
  dataset = open_dataset(name)
  ours = {'validation': 'val'}
  assert dataset.splits == {ours.get(s, s): len(rows) for s, rows in wanted.items()}
  for split, rows in wanted.items():
    found = [(k, dataset.classes[label]) for k, label in numbers(dataset.split(split))]
    assert sorted(found) == sorted(rows), split
    assert len(rows) < 8 or found != sorted(found)  # shuffled, as TFDS does
  asked = len(server.log)
  assert asked == 2 * len(DATASETS[name].archives)  # each broke off once
  assert len([r for _, r in server.log if r]) == asked // 2 and not dataset.made_split
  again = open_dataset(name)
  assert again.manifest() == dataset.manifest() and len(server.log) == asked
  assert not [f for f in files(tmp_path / 'cache') if f.startswith('.')]


def test_the_draw_of_caltech101(made):
  wanted = made('caltech101')
  dataset = open_dataset('caltech101')
  assert dataset.classes[4] == 'background_google' and len(dataset.classes) == 102
  found = {s: numbers(dataset.split(s)) for s in ('train', 'test')}
  both = [(k, dataset.classes[label]) for rows in found.values() for k, label in rows]
  assert sorted(both) == wanted['all']
  counts = np.bincount([label for _, label in found['train']], minlength=102)
  assert sorted(counts[counts > 0]) == [29, 30, 30, 30]  # a file that is no image was drawn


def test_a_draw_may_differ_from_the_catalogue_but_not_the_sum(made, monkeypatch):
  made('caltech101', 'ok')
  for counts, fails in (({'train': 120, 'test': 24}, True), ({'train': 120, 'test': 23}, False)):
    dataset = dataclasses.replace(DATASETS['caltech101'], counts=counts)
    monkeypatch.setitem(DATASETS._entries, 'caltech101', dataset)
    with raises(DatasetError, 119, 120) if fails else contextlib.nullcontext():
      assert open_dataset('caltech101').splits == CALTECH


def test_pixels_and_superclasses_of_cifar(made):
  made('cifar100', 'ok')
  dataset = open_dataset('cifar100')
  examples = dataset.split('train')
  first = examples[0]['image']
  assert (
    first.shape == (32, 32, 3) and (first[0, :, 0] == 255).all() and (first[1:, 0, 0] < 255).all()
  )
  copy = pickle.loads(pickle.dumps(examples))
  assert numbers(copy) == numbers(examples) and len(pickle.dumps(examples)) < 5000
  coarse = open_dataset('cifar100', label_key='coarse_label')
  assert len(coarse.classes) == 20
  assert all(label == k % 20 for k, label in numbers(coarse.split('test')))
  with raises(DatasetError, "'coarse'", "did you mean 'coarse_label'"):
    open_dataset('cifar100', label_key='coarse')


def test_slices_and_subsets(made):
  made('stanford_dogs', 'ok')
  dataset = open_dataset('tfds:stanford_dogs')
  whole = numbers(dataset.split('train'))
  assert numbers(dataset.split('train[:90%]')) + numbers(dataset.split('train[90%:]')) == whole
  assert len(dataset.split('train+test')) == 151
  few = open_dataset('stanford_dogs', classes=dataset.classes[3:5], per_class=1)
  assert few.splits == {'train': 2, 'test': 1} or few.splits['train'] == 2


def test_what_nobody_may_download_says_what_to_put_where(made, tmp_path):
  wanted = made('imagenet2012')
  folder = tmp_path / 'cache' / 'datasets' / 'downloads' / 'imagenet2012'
  facts = ('ILSVRC2012_img_train.tar', 'ILSVRC2012_img_val.tar', folder, 'image-net.org')
  with raises(DownloadError, *facts):
    open_dataset('imagenet2012')
  for path in (tmp_path / 'archives').iterdir():
    shutil.copy(path, folder)
  dataset = open_dataset('imagenet2012')
  assert len(dataset.classes) == 1000
  for split, rows in wanted.items():
    found = [(k, dataset.classes[label]) for k, label in numbers(dataset.split(split))]
    assert sorted(found) == sorted(rows)


@pytest.mark.parametrize('above', [False, True])
def test_offline_with_copies_put_there_by_hand(made, server, tmp_path, above):
  made('stanford_dogs', '404')
  folder = tmp_path / 'cache' / 'datasets' / 'downloads' / 'stanford_dogs'
  with raises(DownloadError, *_DOGS, '404', folder, '/404/stanford_dogs/images.tar') as e:
    open_dataset('stanford_dogs')
  assert '\n' not in str(e.value) and files(tmp_path / 'cache') == []
  asked = len(server.log)
  for file in _DOGS:
    shutil.copy(tmp_path / 'archives' / file, folder.parent if above else folder)
  assert open_dataset('stanford_dogs').splits['train'] == 131 and len(server.log) == asked


def test_a_wrong_file_put_there_by_hand_is_named_and_left(made, server, tmp_path):
  made('stanford_dogs')
  folder = tmp_path / 'cache' / 'datasets' / 'downloads' / 'stanford_dogs'
  folder.mkdir(parents=True)
  size = (tmp_path / 'archives' / 'lists.tar').stat().st_size
  for content in (b'cut short', bytes(size)):
    (folder / 'lists.tar').write_bytes(content)
    with raises(DatasetError, folder / 'lists.tar', f'{size:,}'):
      open_dataset('stanford_dogs')
  assert server.log == []


def test_a_mirror_is_asked_first_and_the_owner_next(made, server, monkeypatch):
  made('stanford_dogs', 'ok')
  monkeypatch.setenv('VIT_JAX_DATASETS_MIRROR', f'{server.url}/403/')
  open_dataset('stanford_dogs')
  asked = [path for path, _ in server.log]
  assert asked == [f'/{w}/stanford_dogs/{f}' for f in _DOGS for w in ('403', 'ok')]


@pytest.mark.parametrize(
  'change, kind, facts',
  [
    (lambda a: dataclasses.replace(a, sha256='0' * 64), DownloadError, ['checksum']),
    (lambda a: dataclasses.replace(a, size=a.size + 1), DownloadError, ['bytes, not']),
  ],
)
def test_other_bytes_than_published_leave_nothing(made, tmp_path, monkeypatch, change, kind, facts):
  made('stanford_dogs', 'ok')
  listed = preparation.listed_archives
  monkeypatch.setattr(preparation, 'listed_archives', lambda d: [change(a) for a in listed(d)])
  with raises(kind, 'lists.tar', *facts) as e:
    open_dataset('stanford_dogs')
  assert '\n' not in str(e.value) and files(tmp_path / 'cache') == []


def test_a_connection_that_fails_for_good_is_resumed_by_the_next_attempt(made, server, tmp_path):
  made('food101', 'half')
  with raises(DownloadError, 'food-101.tar.gz', 'broke after'):
    open_dataset('food101')
  left = files(tmp_path / 'cache')
  assert len(left) == 2 and all(f.startswith('.food-101.tar.gz.') for f in left)
  asked, size = len(server.log), len(server.files['food101/food-101.tar.gz'])
  server.behaves = {'half': 'ok'}
  open_dataset('food101')
  assert [r for _, r in server.log[asked:]] == [f'bytes={size // 2}-']


def onto_full_disk(path, mode):
  return open('/dev/full' if mode == 'wb' else path, mode)


@pytest.mark.parametrize('when', ['before', 'download', 'unpacking', 'index'])
def test_a_full_disk(made, tmp_path, monkeypatch, when):
  made('cifar10' if when == 'index' else 'stanford_dogs', 'ok')
  name = 'cifar10' if when == 'index' else 'stanford_dogs'

  def full(*args, **kwargs):
    raise OSError(errno.ENOSPC, 'No space left on device')

  if when == 'before':
    usage = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(shutil, 'disk_usage', lambda folder: usage)
  elif when == 'download':
    monkeypatch.setattr(console._ByteLines, 'update', full)
  elif when == 'unpacking':
    if not os.path.exists('/dev/full'):
      pytest.skip('this system has no /dev/full')
    monkeypatch.setattr(unpacking, 'open', onto_full_disk, raising=False)
  else:
    monkeypatch.setattr(np, 'save', full)
  with raises(StorageError, tmp_path) as e:
    open_dataset(name)
  assert '\n' not in str(e.value)
  kept = {'before': 0, 'download': 0, 'unpacking': 4, 'index': 2}[when]  # whole archives, records
  left = files(tmp_path / 'cache')
  assert len(left) == kept and not [f for f in left if f.startswith('.')]
  monkeypatch.undo()


@pytest.mark.parametrize('name', ['../x.jpg', '/x.jpg', 'a/../../x.jpg', 'C:x.jpg', '..\\x.jpg'])
@pytest.mark.parametrize('kind', ['tar', 'zip'])
def test_an_archive_that_leads_out_of_its_folder(tmp_path, kind, name):
  path = tmp_path / 'archive'
  with tarfile.open(path, 'w:gz') if kind == 'tar' else zipfile.ZipFile(path, 'w') as archive:
    if kind == 'tar':
      archive.addfile(tarfile.TarInfo(name))
    else:
      archive.writestr(name, b'')
  with raises(DatasetError, path, 'leads out'):
    Unpacker(tmp_path / 'in' / 'folder', '.*').unpack(path)
  assert files(tmp_path) == ['archive']


def test_links_are_passed_over_and_bombs_refused(tmp_path, monkeypatch):
  monkeypatch.setattr(unpacking, '_ALWAYS_BYTES', 1 << 20)
  path, folder = tmp_path / 'archive', tmp_path / 'folder'
  with tarfile.open(path, 'w:gz') as archive:
    for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE):
      info = tarfile.TarInfo(f'link{kind.decode()}')
      info.type, info.linkname = kind, '/etc/passwd'
      archive.addfile(info)
    archive.addfile(tarfile.TarInfo('file'))
    big = tarfile.TarInfo('big')
    big.size = 2 << 20
    archive.addfile(big, io.BytesIO(bytes(big.size)))
  Unpacker(folder, 'file|link.*').unpack(path)
  assert [p.name for p in folder.iterdir()] == ['file']
  with raises(DatasetError, path, 'far more'):
    Unpacker(folder, '.*').unpack(path)


@pytest.mark.parametrize('cut', [10, 2000, -1])
def test_a_damaged_archive(tmp_path, cut):
  path = tmp_path / 'archive'
  noise = np.random.default_rng(0).bytes(9000)
  tar(path, [('a/b', noise)], 'w:gz')
  path.write_bytes(path.read_bytes()[:cut] if cut > 0 else b'no archive at all')
  with raises(DatasetError, path):
    Unpacker(tmp_path / 'folder', '.*').unpack(path)


def test_two_processes_prepare_once(made, server):
  made('food101', 'ok')
  found = []
  threads = [
    threading.Thread(target=lambda: found.append(open_dataset('food101').manifest()))
    for _ in range(3)
  ]
  for thread in threads:
    thread.start()
  for thread in threads:
    thread.join()
  assert len(found) == 3 and found[0] == found[1] == found[2]
  assert len(server.log) == 1


def test_what_a_kill_left_is_replaced(made, tmp_path):
  made('food101', 'ok')
  assert needs_download('food101') and needs_download('tfds:food101')
  old = tmp_path / 'cache' / 'datasets' / 'food101' / '.2.0.0.preparing'
  old.mkdir(parents=True)
  (old / 'index.json').write_text('{')
  (old.parent / '2.0.0').mkdir()
  (old.parent / '2.0.0' / 'index.json').write_text(json.dumps({'format': 0}))
  assert open_dataset('food101').splits == {'train': 46, 'val': 15}
  assert [p.name for p in old.parent.iterdir()] == ['2.0.0'] and not needs_download('food101')


@pytest.mark.parametrize('name', ['cifar10', 'food101'])
@pytest.mark.parametrize('damage', ['cut', 'lost', 'labels', 'splits', 'classes', 'number'])
def test_a_prepared_folder_that_is_damaged_is_made_anew(
  made, server, tmp_path, caplog, name, damage
):
  made(name, 'ok')
  whole = open_dataset(name).manifest()
  (path,) = (tmp_path / 'cache').rglob('index.json')
  index, asked = json.loads(path.read_text()), len(server.log)
  array = path.parent / 'train.npy'
  if damage == 'cut' and array.exists():
    array.write_bytes(array.read_bytes()[:-1])
  elif damage == 'lost' and array.exists():
    array.unlink()
  elif damage == 'labels':
    index['splits']['train']['labels']['label'].pop()
  elif damage == 'number':
    index['splits']['train'] = 5
  elif damage in index:
    del index[damage]
  else:
    del index['splits']['train']['files']
  path.write_text(json.dumps(index))
  assert needs_download(name)
  assert open_dataset(name).manifest() == whole and str(path.parent) in caplog.text
  assert len(server.log) == asked  # the archives are here


@pytest.mark.parametrize('counts', [{'train': 45, 'validation': 15}])
def test_other_counts_than_published(made, tmp_path, monkeypatch, counts):
  made('food101', 'ok')
  dataset = dataclasses.replace(DATASETS['food101'], counts=counts)
  monkeypatch.setitem(DATASETS._entries, 'food101', dataset)
  with raises(DatasetError, 'food101', 45, 46, 'train'):
    open_dataset('food101')
  assert 'index.json' not in files(tmp_path / 'cache')


@pytest.mark.parametrize('name', sorted(DATASETS))
def test_the_installed_tfds_lists_every_archive_and_class(name):
  import tensorflow_datasets as tfds

  rows = listed_archives(DATASETS[name])
  assert [row.file for row in rows] == list(DATASETS[name].archives)
  for row in rows:
    assert row.url.startswith('http') and row.size > 100 and len(row.sha256) == 64
  builder = tfds.builder(name)
  assert builder.name == name.split('/')[0]
  assert builder.info.supervised_keys == ('image', 'label')


def test_a_version_of_tfds_that_lists_other_archives():
  dataset = dataclasses.replace(DATASETS['food101'], archives=('food-102.tar.gz',))
  with raises(DatasetError, 'food-102.tar.gz', 'food101'):
    listed_archives(dataset)


@pytest.mark.parametrize(
  'name', ['', 'digits', './none', 'no_such_name', 'tfds:none', 'mnist', 'eurosat/all']
)
def test_what_is_never_downloaded(name):
  assert not needs_download(name)
