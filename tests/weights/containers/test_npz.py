"""NumPy archives that are no weights: one clear line each, nothing run, nothing large allocated."""

import io
import os
import tracemalloc
import zipfile

import numpy as np
import pytest

from tests.support import raises
from tests.weights import oracle
from vit_jax import convert
from vit_jax.errors import StorageError, WeightsError
from vit_jax.weights.containers import npz


class Evil:
  def __reduce__(self):
    return os.mkdir, ('evil-ran',)


def check_refused(path, *facts):
  with raises(WeightsError, path, *facts) as e:
    convert.load(path, oracle.ours(), (24, 24))
  assert '\n' not in str(e.value)


@pytest.fixture
def good(tmp_path):
  np.savez(tmp_path / 'good.npz', **oracle.official()[0])
  return (tmp_path / 'good.npz').read_bytes()


@pytest.mark.parametrize(
  'content,fact',
  [
    (b'', 'empty'),
    (b'hello', 'not a .npz'),
    (b'<!DOCTYPE html><html>404', 'web page'),
    (b'version https://git-lfs.github.com/spec/v1\noid', 'Git LFS'),
  ],
)
def test_a_file_that_is_no_archive(tmp_path, content, fact):
  (tmp_path / 'x.npz').write_bytes(content)
  check_refused(tmp_path / 'x.npz', fact)


def test_a_missing_file(tmp_path):
  check_refused(tmp_path / 'none.npz', 'no weights at')


@pytest.mark.parametrize('part', [0.1, 0.5, 0.9, 0.999])
def test_cut_off(tmp_path, good, part):
  (tmp_path / 'x.npz').write_bytes(good[: int(len(good) * part)])
  check_refused(tmp_path / 'x.npz', 'cut off')


def test_changed_bytes_fail_the_checksum(tmp_path, good):
  content = bytearray(good)
  with zipfile.ZipFile(io.BytesIO(good)) as z:
    offset = z.getinfo('head/kernel.npy').header_offset
  content[offset + 300] ^= 255
  (tmp_path / 'x.npz').write_bytes(content)
  check_refused(tmp_path / 'x.npz', 'damaged')


def test_object_arrays_are_refused_without_running_anything(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  flat = {**oracle.official()[0], 'cls': np.array([Evil()], object)}
  np.savez('x.npz', **flat)
  check_refused(tmp_path / 'x.npz', 'cls', 'Python objects')
  assert not os.path.exists('evil-ran')


def test_zip_bombs_are_refused_with_little_memory(tmp_path):
  header = io.BytesIO()
  shape = (1 << 30,)
  np.lib.format.write_array_header_1_0(
    header, {'shape': shape, 'fortran_order': False, 'descr': '<f4'}
  )
  with (
    zipfile.ZipFile(tmp_path / 'x.npz', 'w', zipfile.ZIP_DEFLATED) as z,
    z.open('head/kernel.npy', 'w', force_zip64=True) as f,
  ):
    f.write(header.getvalue())
    for _ in range(1 << 7):
      f.write(bytes(1 << 20))
  tracemalloc.start()
  try:
    check_refused(tmp_path / 'x.npz')
    assert tracemalloc.get_traced_memory()[1] < 20e6
  finally:
    tracemalloc.stop()


def test_a_header_that_lies_about_its_size_is_refused(tmp_path):
  flat = oracle.official()[0]
  array = io.BytesIO()
  np.lib.format.write_array_header_1_0(
    array, {'shape': (1 << 40,), 'fortran_order': False, 'descr': '<f4'}
  )
  np.savez(tmp_path / 'x.npz', **flat)
  with zipfile.ZipFile(tmp_path / 'x.npz', 'a') as z:
    z.writestr('extra.npy', array.getvalue())
  check_refused(tmp_path / 'x.npz', 'extra', 'holds')


def test_arrays_of_any_order_and_size_are_read(tmp_path):
  arrays = {
    'fortran': np.asfortranarray(np.arange(6, dtype=np.float32).reshape(2, 3)),
    'empty': np.zeros((0, 3), np.float32),
    'scalar': np.float64(7.0),
  }
  np.savez_compressed(tmp_path / 'x.npz', **arrays)
  read = npz.Npz(tmp_path / 'x.npz')
  assert read.keys() == arrays.keys()
  for name, array in arrays.items():
    np.testing.assert_array_equal(read[name], array)
    assert read.specs[name].shape == array.shape


def test_written_files_are_whole_and_the_same_every_time(tmp_path):
  arrays = {'a/b': np.arange(6, dtype=np.float32).reshape(2, 3), 'c': np.zeros((), np.float32)}
  npz.write(tmp_path / '1.npz', arrays)
  npz.write(tmp_path / '2.npz', dict(reversed(arrays.items())))
  assert (tmp_path / '1.npz').read_bytes() == (tmp_path / '2.npz').read_bytes()
  with np.load(tmp_path / '1.npz') as z:
    np.testing.assert_array_equal(z['a/b'], arrays['a/b'])
    assert z['c'].shape == ()
  assert sorted(p.name for p in tmp_path.iterdir()) == ['1.npz', '2.npz']
  with raises(StorageError, 'cannot write', tmp_path / 'no' / 'x.npz'):
    npz.write(tmp_path / 'no' / 'x.npz', arrays)
