"""Our reader and writer against the public package."""

import numpy as np
import pytest
import safetensors
import safetensors.numpy

from tests.support import raises
from vit_jax.errors import StorageError, WeightsError
from vit_jax.weights.containers.safetensors import Safetensors, write

DTYPES = ('float16', 'float32', 'float64', 'int8', 'int32', 'int64', 'uint8', 'uint16', 'bool')


def arrays(dtype):
  values = np.arange(2 * 3 * 5).reshape(2, 3, 5)
  return {'a.b': values.astype(dtype), 'c': np.array(1, dtype)}


@pytest.mark.parametrize('dtype', DTYPES)
def test_the_package_reads_what_we_write(tmp_path, dtype):
  write(tmp_path / 'x.safetensors', arrays(dtype), {'format': 'pt', 'é': 'ü'})
  read = safetensors.numpy.load_file(tmp_path / 'x.safetensors')
  assert read.keys() == {'a.b', 'c'}
  for name, array in arrays(dtype).items():
    assert read[name].dtype == array.dtype
    np.testing.assert_array_equal(read[name], array)
  with safetensors.safe_open(tmp_path / 'x.safetensors', 'numpy') as f:
    assert f.metadata() == {'format': 'pt', 'é': 'ü'}


@pytest.mark.parametrize('dtype', DTYPES)
def test_we_read_what_the_package_writes(tmp_path, dtype):
  safetensors.numpy.save_file(arrays(dtype), tmp_path / 'x.safetensors', {'by': 'package'})
  read = Safetensors(tmp_path / 'x.safetensors')
  assert read.metadata == {'by': 'package'}
  for name, array in arrays(dtype).items():
    assert (read.specs[name].dtype, read.specs[name].shape) == (dtype, array.shape)
    np.testing.assert_array_equal(read[name], array)


def test_bfloat16_becomes_float32_of_the_same_value(tmp_path):
  values = np.array([1.0, -2.5, 3.140625], np.float32)  # seven bits behind the point suffice
  bits = (values.view(np.uint32) >> 16).astype(np.uint16)
  write(tmp_path / 'x.safetensors', {'w': bits}, {})
  content = (tmp_path / 'x.safetensors').read_bytes().replace(b'"U16"', b'"BF16"')
  length = int.from_bytes(content[:8], 'little') + 1
  (tmp_path / 'y.safetensors').write_bytes(length.to_bytes(8, 'little') + content[8:])
  read = Safetensors(tmp_path / 'y.safetensors')
  assert read.specs['w'].dtype == 'bfloat16'
  np.testing.assert_array_equal(read['w'], values)


def test_the_same_arrays_give_the_same_bytes(tmp_path):
  metadata = {'b': '1', 'a': '2'}
  write(tmp_path / '1.safetensors', arrays('float32'), metadata)
  reordered = dict(reversed(arrays('float32').items()))
  write(tmp_path / '2.safetensors', reordered, dict(reversed(metadata.items())))
  assert (tmp_path / '1.safetensors').read_bytes() == (tmp_path / '2.safetensors').read_bytes()
  with raises(StorageError, 'cannot write', tmp_path / 'no' / 'x.safetensors'):
    write(tmp_path / 'no' / 'x.safetensors', {}, {})


def test_a_file_that_is_shorter_than_its_header_says(tmp_path):
  write(tmp_path / 'x.safetensors', arrays('float32'), {})
  content = (tmp_path / 'x.safetensors').read_bytes()
  (tmp_path / 'x.safetensors').write_bytes(content[:-4])
  with raises(WeightsError, tmp_path / 'x.safetensors', 'cut off'):
    Safetensors(tmp_path / 'x.safetensors')
