"""Hostile weight files made by hand: one clear line, quickly, that names the file and the cause."""

import io
import json
import os
import struct
import time
import tracemalloc
import zipfile

import h5py
import numpy as np
import pytest

from tests.support import raises
from tests.weights import oracle
from tests.weights.containers.test_damaged_files import torch_bytes
from tests.weights.hostile import keras_archive
from tests.weights.mutations import NASTY
from vit_jax import convert, tree
from vit_jax.data import Preprocess
from vit_jax.errors import ModelError, UserError, WeightsError
from vit_jax.models.shapes import description, variable_specs
from vit_jax.weights.containers import npz, safetensors
from vit_jax.weights.containers.torch_checkpoint import TorchCheckpoint

MODEL = oracle.ours()


def packed(header, data=b''):
  text = header if isinstance(header, bytes) else json.dumps(header).encode()
  return struct.pack('<Q', len(text)) + text + data


def entry(begin, end, shape=(1,)):
  return {'dtype': 'F32', 'shape': list(shape), 'data_offsets': [begin, end]}


def check_refused(path, *facts, kind=WeightsError, **options):
  began = time.process_time()
  with raises(kind, path, *facts) as e:
    convert.read(path, **options)
  assert time.process_time() - began < 5
  assert '\n' not in str(e.value) and len(str(e.value)) < 2000


DEEP = b'[' * 100_000 + b']' * 100_000
SAFETENSORS = {
  'overlap': (packed({'a': entry(0, 4), 'b': entry(0, 4)}, bytes(4)), 'byte 0'),
  'hole': (packed({'a': entry(0, 4), 'b': entry(8, 12)}, bytes(12)), 'byte 8'),
  'behind': (packed({'a': entry(0, 4)}, bytes(9)), '5 bytes behind'),
  'twice': (packed(b'{"a":1,"a":' + json.dumps(entry(0, 4)).encode() + b'}', bytes(4)), 'twice'),
  'deep': (packed(b'{"a":' + DEEP + b'}'), 'deeply'),
  'surrogate': (packed({'\ud800': entry(0, 4)}, bytes(4)), 'damaged'),
  'line': (packed({'a\nb': entry(0, 4)}, bytes(4)), 'name'),
  'long name': (packed({'a' * 5000: entry(0, 4)}, bytes(4)), '5,000 characters'),
  'bool': (packed({'a': entry(0, 4, [True])}, bytes(4)), 'True'),
  'axes': (packed({'a': entry(0, 4, [1] * 100_000)}, bytes(4)), '100,000 axes'),
  'many': (
    packed({str(i): entry(0, 0, [0]) for i in range(300_000)}),
    '300,000 names',
  ),
  'metadata': (packed({'__metadata__': {'vit_jax': 1}, 'a': entry(0, 4)}, bytes(4)), 'metadata'),
}


@pytest.mark.parametrize('name', list(SAFETENSORS))
def test_safetensors(tmp_path, name):
  content, fact = SAFETENSORS[name]
  (tmp_path / 'w.safetensors').write_bytes(content)
  check_refused(tmp_path / 'w.safetensors', fact)


@pytest.mark.parametrize('number', range(len(NASTY)))
@pytest.mark.parametrize('zipped', [True, False])
def test_pickles(tmp_path, monkeypatch, number, zipped):
  """Foreign code, keys that nest, lists that share lists, numbers of a megabyte."""
  monkeypatch.chdir(tmp_path)
  pickled = b'\x80\x02' + NASTY[number] + b'.'
  path = tmp_path / 'w.pth'
  if zipped:
    with zipfile.ZipFile(path, 'w') as z:
      z.writestr('archive/data.pkl', pickled)
  else:
    path.write_bytes(pickled)
  check_refused(path)
  assert os.listdir(tmp_path) == ['w.pth']


def test_a_pickle_of_lists_that_share_lists_is_never_printed(tmp_path):
  shared = b']q\x00' + b''.join(b'](h%ch%ceq%c' % (i, i, i + 1) for i in range(60))
  for end in (b'K\x01R.', b'Q.', b'h\x3c\x93.', b'}h\x3cK\x01s.', b'h\x3ch\x3c\x86R.'):
    (tmp_path / 'w.pth').write_bytes(b'\x80\x02' + shared + end)
    check_refused(tmp_path / 'w.pth')


def test_a_pickle_of_endless_operations(tmp_path):
  with zipfile.ZipFile(tmp_path / 'w.pth', 'w', zipfile.ZIP_DEFLATED) as z:
    z.writestr('archive/data.pkl', b'\x80\x02' + b'N0' * 1_500_000 + b'.')
  with raises(WeightsError, tmp_path / 'w.pth', '2,000,000'):
    convert.read(tmp_path / 'w.pth')


@pytest.mark.skipif(not hasattr(os, 'mkfifo'), reason='this system has no pipes with names')
@pytest.mark.parametrize('name', ['w.npz', 'w.safetensors', 'w.pth', 'w.h5'])
def test_a_pipe_is_not_waited_for(tmp_path, name):
  os.mkfifo(tmp_path / name)
  check_refused(tmp_path / name, 'pipe')


@pytest.mark.skipif(not hasattr(os, 'mkfifo'), reason='this system has no pipes with names')
def test_pipes_beside_weights(tmp_path):
  npz.write(tmp_path / 'w.npz', {'a': np.zeros(3, np.float32)})
  os.mkfifo(tmp_path / 'w.npz.json')
  check_refused(tmp_path / 'w.npz', 'w.npz.json', 'pipe')
  folder = tmp_path / 'folder'
  folder.mkdir()
  os.mkfifo(folder / 'part')
  index = {'weight_map': {'a': 'part'}}
  (folder / 'model.safetensors.index.json').write_text(json.dumps(index))
  check_refused(folder, 'part', 'pipe')


@pytest.mark.parametrize(
  'weight_map', [{'a': '../x'}, {'a': '..\\x'}, {'a': '/etc/passwd'}, {'a': 1}, [1], 'x', {'a': []}]
)
def test_an_index_names_files_of_its_folder_alone(tmp_path, weight_map):
  index = {'weight_map': weight_map}
  (tmp_path / 'model.safetensors.index.json').write_text(json.dumps(index))
  check_refused(tmp_path, 'index.json')


def test_a_tensor_in_two_parts(tmp_path):
  for part in 'xy':
    safetensors.write(tmp_path / part, {'a': np.zeros(3, np.float32)}, {})
  index = {'weight_map': {'a': 'x', 'b': 'y'}}
  (tmp_path / 'model.safetensors.index.json').write_text(json.dumps(index))
  check_refused(tmp_path, "'a'")


def test_a_name_that_no_file_system_has():
  with pytest.raises(UserError, match='too long|no weights'):
    convert.read('x/' * 3 + 'y' * 5000)


def npy(array):
  out = io.BytesIO()
  np.save(out, array)
  return out.getvalue()


def test_zips_whose_members_lie_over_each_other(tmp_path):
  path = tmp_path / 'w.npz'
  with zipfile.ZipFile(path, 'w') as z:
    z.writestr('a.npy', npy(np.zeros(300, np.float32)))
    z.writestr('b.npy', npy(np.ones(300, np.float32)))
  good = path.read_bytes()
  entries = [i for i in range(len(good)) if good[i : i + 4] == b'PK\x01\x02']
  for at, value, fact in ((42, bytes(4), 'overlaps'), (46, b'a', 'twice')):
    made = bytearray(good)
    made[entries[1] + at : entries[1] + at + len(value)] = value
    path.write_bytes(made)
    check_refused(path, fact)
  path.write_bytes(good + b'more')
  check_refused(path)


def test_a_zip_of_300_000_members(tmp_path):
  with zipfile.ZipFile(tmp_path / 'w.npz', 'w') as z:
    z.writestr('a.npy', npy(np.zeros(3, np.float32)))
    z.filelist *= 60_000  # in its directory
  check_refused(tmp_path / 'w.npz', '60,000')


@pytest.mark.parametrize('name', ['w.npz', 'w.h5'])
def test_numbers_in_big_endian_order_load(tmp_path, name):
  flat, _ = oracle.official()
  big = {k: v.astype('>f4') for k, v in flat.items()}
  if name == 'w.npz':
    np.savez(tmp_path / name, **big)
  else:
    with h5py.File(tmp_path / name, 'w') as f:
      for key, value in big.items():
        f[key] = value
  loaded = convert.load(tmp_path / name, MODEL, (24, 24), format='npz')
  np.testing.assert_array_equal(loaded['params']['head']['kernel'], flat['head/kernel'])
  assert {v.dtype.str for v in tree.flatten(loaded).values()} == {np.dtype(np.float32).str}


def test_a_checkpoint_of_a_big_endian_machine_loads(tmp_path):
  array = np.arange(6, dtype=np.float32).reshape(2, 3)
  content = torch_bytes({'a.b': array})
  with (
    zipfile.ZipFile(io.BytesIO(content)) as old,
    zipfile.ZipFile(tmp_path / 'w.pth', 'w') as new,
  ):
    for name in old.namelist():
      body = old.read(name)
      new.writestr(name, np.frombuffer(body, '<f4').astype('>f4').tobytes() if '/data/' in name
                   else body)  # fmt: skip
    new.writestr('archive/byteorder', 'big')
  np.testing.assert_array_equal(TorchCheckpoint(tmp_path / 'w.pth')['a.b'], array)


def test_hdf5_that_claims_more_than_it_holds(tmp_path):
  with h5py.File(tmp_path / 'w.h5', 'w') as f:
    f.create_dataset('conv1/kernel', (1 << 20, 1 << 20), 'f4', chunks=(1 << 10, 1 << 10))
  tracemalloc.start()
  check_refused(tmp_path / 'w.h5', 'claims')
  assert tracemalloc.get_traced_memory()[1] < 50e6
  tracemalloc.stop()


def ours(tmp_path, change):
  """Our own file with its record changed."""
  variables = tree.unflatten(oracle.scattered_specs(variable_specs(MODEL, (24, 24))))
  path = tmp_path / 'w.safetensors'
  convert.write(
    path, variables, MODEL, 'vit_jax', model=description(MODEL, 'vit_ti16'),
    classes=tuple('abcde'), preprocess=Preprocess('decode|resize(24)'),
  )  # fmt: skip
  content = path.read_bytes()
  length = struct.unpack('<Q', content[:8])[0]
  header = json.loads(content[8 : 8 + length])
  record = json.loads(header['__metadata__']['vit_jax'])
  change(record)
  header['__metadata__']['vit_jax'] = json.dumps(record)
  path.write_bytes(packed(header, content[8 + length :]))
  return path


@pytest.mark.parametrize(
  'field,value,kind',
  [
    ('depth', 10**12, ModelError),
    ('depth', 1000, WeightsError),
    ('width', 10**12, ModelError),
    ('num_heads', 'x', ModelError),
    ('patch_size', [0, 0], ModelError),
    ('name', None, WeightsError),
    ('name', 3, WeightsError),
    ('name', [], WeightsError),
  ],
)
def test_fields_of_a_model_that_nobody_has(tmp_path, field, value, kind):
  def change(record):
    record['config']['model'][field] = value

  check_refused(ours(tmp_path, change), field, kind=kind)


@pytest.mark.parametrize(
  'field,value',
  [
    ('std', [float('inf')] * 3),
    ('std', [0.0] * 3),
    ('std', [float('nan')] * 3),
    ('mean', [float('nan')] * 3),
    ('std', [1e-300] * 3),
    ('transform', 'decode|resize(1000000000000)'),
    ('transform', None),
    ('transform', 7),
  ],
)
def test_preprocessing_that_is_not_finite(tmp_path, field, value):
  def change(record):
    record['preprocess'][field] = value

  with raises_naming(tmp_path / 'w.safetensors'):
    convert.read(ours(tmp_path, change))


def raises_naming(path):
  return pytest.raises(UserError, match=str(path).replace('\\', '.'))


@pytest.mark.parametrize(
  'field,value',
  [
    ('classes', 'abcde'),
    ('classes', [1, 2]),
    ('num_classes', 10**12),
    ('num_classes', '5'),
    ('format', 3),
    ('format', 'x'),
    ('config', []),
    ('config', {'model': []}),
    ('preprocess', 'decode'),
    ('version', [1]),
  ],
)
def test_fields_of_our_record(tmp_path, field, value):
  with raises_naming(tmp_path / 'w.safetensors'):
    convert.read(ours(tmp_path, lambda record: record.update({field: value})))


@pytest.mark.parametrize('config', [[], {}, {'config': 1}, {'config': {'layers': [1]}}])
def test_configs_of_keras(tmp_path, config):
  (tmp_path / 'w.keras').write_bytes(keras_archive(config))
  check_refused(tmp_path / 'w.keras', format='keras')


def test_block_numbers_that_no_file_has(tmp_path):
  flat = {f'resnet/root_block/{i}': np.zeros(3, np.float32) for i in range(3)}
  flat['resnet/block1000000000000/unit01/a'] = np.zeros(3, np.float32)
  flat['Transformer/encoderblock_1000000000000/x'] = np.zeros(3, np.float32)
  npz.write(tmp_path / 'w.npz', flat)
  began = time.process_time()
  with pytest.raises(UserError, match='w.npz'):
    convert.load(tmp_path / 'w.npz', MODEL, (24, 24))
  assert time.process_time() - began < 5
