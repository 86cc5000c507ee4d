"""Datasets, runs and weights in stores, as paths on this machine."""

import io
import pathlib
import shutil

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import save_file

from tests.remote.stores import write_checkpoint
from tests.support import raises
from vit_jax import remote
from vit_jax.data import open_dataset
from vit_jax.data.sources import needs_download
from vit_jax.errors import ConfigError, StorageError, UserError
from vit_jax.files import is_remote, path_of
from vit_jax.remote.store import Store

URL = 'flaky://bucket/data/pets'


def put(store, files, below='/bucket/data/pets'):
  for name, content in files.items():
    store().pipe_file(f'{below}/{name}', content)


def fetched(store):
  """The names that were fetched since the last call."""
  names = [path.rpartition('/')[2] for what, path in store.log if what == 'get']
  store.log.clear()
  return sorted(names)


def content(path):
  path = pathlib.Path(path)
  return {p.relative_to(path).as_posix(): p.read_bytes() for p in path.rglob('*') if p.is_file()}


def test_a_copy_follows_what_changes_in_the_store(store):
  put(store, {'a/1': b'one', 'a/2': b'two', 'b/3': b'three', 'b/.hidden': b''})
  store.store['/bucket/data/pets/c/'] = store.store['/bucket/data/pets/b/.hidden']  # of a folder
  copy = remote.local(URL)
  assert content(copy) == {'a/1': b'one', 'a/2': b'two', 'b/3': b'three'}
  assert fetched(store) == ['1', '2', '3']
  assert remote.local(f'{URL}/') == copy and fetched(store) == []
  put(store, {'a/1': b'new', 'a/4': b'four'})  # of the same size
  store().rm_file('/bucket/data/pets/b/3')
  pathlib.Path(copy, 'a/2').write_bytes(b'bad')
  pathlib.Path(copy, 'a/mine').write_bytes(b'')
  assert content(remote.local(URL)) == {'a/1': b'new', 'a/2': b'two', 'a/4': b'four'}
  assert fetched(store) == ['1', '2', '4']
  assert not pathlib.Path(copy, 'b').exists()  # an empty class


def test_an_interrupted_copy_goes_on_with_the_files_that_are_missing(store, monkeypatch):
  put(store, {f'a/{i}': b'x' * i for i in range(20)})
  copy = remote.local(URL)
  put(store, {f'a/{i}': b'x' * i for i in range(20, 40)})
  with monkeypatch.context() as broken:
    broken.setattr(store, 'refuses', lambda what, path: path.endswith('/27'))
    with raises(StorageError, f'{URL}/a/27', 'the network is down'):
      remote.local(URL)
  here = {name.removeprefix('a/') for name in content(copy)}
  assert len(here) >= 20 and '27' not in here
  fetched(store)
  assert len(content(remote.local(URL))) == 40
  assert set(fetched(store)) == {str(i) for i in range(40)} - here


def test_a_file_that_comes_short_is_not_taken(store, tmp_path, monkeypatch):
  put(store, {'a/1': b'whole'})
  monkeypatch.setattr(store, 'get_file', lambda self, _, target, **k: open(target, 'wb').close())
  with raises(StorageError, f'{URL}/a/1', '0 bytes of 5'):
    remote.local(URL)
  assert not list(tmp_path.rglob('1'))


@pytest.mark.parametrize('name', ['../outside', 'a/../../outside', 'a\\b'])
def test_a_name_that_leads_out_is_refused(store, name):
  put(store, {'a/1': b''})
  store.store[f'/bucket/data/pets/{name}'] = store.store['/bucket/data/pets/a/1']
  with raises(StorageError, URL, repr(name)):
    remote.local(URL)


def test_no_room_and_nothing_there(store, monkeypatch):
  with raises(StorageError, URL, 'nothing'):
    remote.local(URL)
  assert not remote.copy_of(URL).exists()
  put(store, {'a/1': b'one'})
  monkeypatch.setattr(shutil, 'disk_usage', lambda _: shutil._ntuple_diskusage(0, 0, 1000))
  with raises(StorageError, URL, 'VIT_JAX_CACHE'):
    remote.local(URL)


def test_a_dataset_is_read_from_its_copy(store):
  image = io.BytesIO()
  Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(image, 'PNG')
  put(store, {f'{label}/{i}.png': image.getvalue() for label in ('cat', 'dog') for i in range(10)})
  assert needs_download(URL)
  dataset = open_dataset(URL)
  assert (dataset.name, dataset.classes) == (URL, ('cat', 'dog'))
  assert sum(dataset.splits.values()) == 20


def test_a_weights_file_comes_with_what_describes_it(store, tmp_path):
  from vit_jax.weights.reading import read

  file = tmp_path / 'model.safetensors'
  save_file({'params/head/bias': np.arange(3, dtype=np.float32)}, file)
  beside = {'config.json': b'{}', 'model.safetensors.json': b'{}', 'other.json': b'', 'x.npz': b''}
  put(store, {'model.safetensors': file.read_bytes(), **beside})
  weights = read(f'{URL}/model.safetensors', 'vit_jax')
  np.testing.assert_array_equal(weights.tensors['params/head/bias'], [0, 1, 2])
  assert fetched(store) == ['config.json', 'model.safetensors', 'model.safetensors.json']


def test_of_a_run_all_is_copied_but_what_resumes_it(store, tmp_path):
  write_checkpoint(tmp_path, 5)
  (tmp_path / 'events.out.tfevents.1.host').write_text('')
  (tmp_path / 'config.json').write_text('{}')
  put(store, content(tmp_path))
  here = content(remote.local(URL))
  kept = {'config.json', 'checkpoints/5/variables/d/data', 'checkpoints/5/checksums.json'}
  assert kept < set(here)
  assert not [name for name in here if 'training' in name or 'events' in name]
  one = pathlib.Path(remote.local(f'{URL}/checkpoints/5'))
  assert (one.parent.name, one.name) == ('checkpoints', '5')  # as `load_run` recognises it
  assert (one / 'variables/d/data').exists() and not (one / 'training').exists()


def test_which_texts_are_urls():
  for text in ('gs://a/b', 's3://a', 'memory://x', 'S3://A'):
    assert is_remote(text) and path_of('x', text, remote=True) == text
    with raises(ConfigError, 'x=', text, 'copy'):
      path_of('x', text)
  for text in ('C:\\runs', 'c:/runs', 'runs/a', 'https://a.b/c', 'HTTP://a.b', 'tfds:x', ''):
    assert not is_remote(text)
  with raises(ConfigError, 'https://a.b/c.npz'):
    path_of('x', 'https://a.b/c.npz', remote=True)
  assert remote.inside('gs://a/b/c', 'gs://a/b/') and not remote.inside('gs://a/bc', 'gs://a/b')
  assert not remote.inside('b/c', 'b')


def test_what_a_store_refuses_is_one_line(store, monkeypatch):
  def refuse(*_, **__):
    raise RuntimeError('no credentials\nfound')

  monkeypatch.setattr(store, 'find', refuse)
  with raises(StorageError, URL, 'no credentials found'):
    Store(URL).listing()
  with pytest.raises(UserError, match='nosuch://'):
    Store('nosuch://bucket/a')
