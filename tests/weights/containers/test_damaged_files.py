"""200 damaged weight files: one clear line each; no code is run and memory is bounded."""

import io
import json
import pickle
import random
import struct
import time
import tracemalloc
import zipfile

import numpy as np
import pytest

from tests.weights import oracle
from vit_jax import convert, tree
from vit_jax.errors import WeightsError
from vit_jax.models.shapes import variable_specs
from vit_jax.weights import saving
from vit_jax.weights.containers import npz, safetensors

MODEL = oracle.ours()
SIZE = (24, 24)
MOST_SECONDS, MOST_BYTES = 5.0, 80e6


def variables(seed=0):
  specs = variable_specs(MODEL, SIZE)
  return tree.unflatten(oracle.scattered_specs(specs, seed))


class _Kind:
  """A class that pickles as another module's global, to write PyTorch's files without PyTorch."""

  def __init__(self, module, name):
    self.module, self.name = module, name


class _Pickler(pickle._Pickler):
  def save(self, obj, save_persistent_id=True):
    if isinstance(obj, _Kind):
      self.write(pickle.GLOBAL + f'{obj.module}\n{obj.name}\n'.encode())
    elif isinstance(obj, _Call):
      self.save(obj.function)
      self.save(obj.arguments)
      self.write(pickle.REDUCE)
    elif isinstance(obj, _Persistent):
      self.save(obj.content)
      self.write(pickle.BINPERSID)
    else:
      super().save(obj, save_persistent_id)


class _Call:
  def __init__(self, function, *arguments):
    self.function, self.arguments = function, arguments


class _Persistent:
  def __init__(self, *content):
    self.content = content


def torch_bytes(arrays, zipped=True, extra=None):
  """A checkpoint as torch.save writes it; dictionaries may lie in `arrays`."""
  storages = {}

  def entry(value):
    if isinstance(value, dict):
      return {name: entry(inner) for name, inner in value.items()}
    key = str(len(storages))
    storages[key] = value
    kind = _Kind('torch', 'FloatStorage')
    storage = _Persistent('storage', kind, key, 'cpu', value.size, *([] if zipped else [None]))
    strides = tuple(s // 4 for s in value.strides)
    rebuild = _Kind('torch._utils', '_rebuild_tensor_v2')
    return _Call(rebuild, storage, 0, value.shape, strides, False, None)

  entries = entry(arrays)
  if extra is not None:
    entries['extra'] = extra

  def dump(value):
    out = io.BytesIO()
    _Pickler(out, protocol=2).dump(value)
    return out.getvalue()

  out = io.BytesIO()
  if zipped:
    with zipfile.ZipFile(out, 'w') as z:
      z.writestr('archive/data.pkl', dump(entries))
      for key, array in storages.items():
        z.writestr(f'archive/data/{key}', array.tobytes())
      z.writestr('archive/version', '3\n')
  else:
    for value in (0x1950A86A20F9469CFC6C, 1001, {'little_endian': True}, entries, list(storages)):
      out.write(dump(value))
    for array in storages.values():
      out.write(struct.pack('<q', array.size) + array.tobytes())
  return out.getvalue()


def good_files(folder):
  """The same weights in every container, with the ending that each has."""
  made = {}
  npz.write(folder / 'a.npz', saving.to_tensors(variables(), MODEL, 'npz', SIZE))
  made['npz'] = (folder / 'a.npz').read_bytes()
  timm = saving.to_tensors(variables(), MODEL, 'timm', SIZE)
  safetensors.write(folder / 'a.safetensors', timm, {})
  made['safetensors'] = (folder / 'a.safetensors').read_bytes()
  contiguous = {k: np.ascontiguousarray(v) for k, v in timm.items()}
  made['pth'] = torch_bytes(contiguous)
  made['bin'] = torch_bytes(contiguous, zipped=False)
  return made


@pytest.fixture(scope='module')
def good(tmp_path_factory):
  return good_files(tmp_path_factory.mktemp('good'))


def attempt(path):
  """Loads; a WeightsError in one line is its result too, any other error fails the test."""
  tracemalloc.start()
  began = time.process_time()
  try:
    return convert.load(path, MODEL, SIZE)
  except WeightsError as e:
    text = ' | '.join(e.problems)
    assert '\n' not in text and len(text) < 2000, text
    return text
  finally:
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < MOST_BYTES, f'{peak:,} bytes'
    assert time.process_time() - began < MOST_SECONDS


def same(loaded, reference):
  a, b = tree.flatten(loaded), tree.flatten(reference)
  return a.keys() == b.keys() and all(np.array_equal(a[k], b[k]) for k in a)


def test_undamaged_files_load(good, tmp_path):
  for ending, content in good.items():
    (tmp_path / f'w.{ending}').write_bytes(content)
    assert same(attempt(tmp_path / f'w.{ending}'), variables()), ending


def damage(content, rng):
  """One random accident: cut, changed bytes, a hole, something in front, a part twice."""
  content = bytearray(content)
  kind = rng.randrange(5)
  at = rng.randrange(len(content))
  if kind == 0:
    return bytes(content[:at])
  if kind == 1:
    for _ in range(rng.randrange(1, 20)):
      # Half of the changes hit the headers, where they hurt most.
      where = rng.randrange(min(4000, len(content)) if rng.random() < 0.5 else len(content))
      content[where] = rng.randrange(256)
    return bytes(content)
  if kind == 2:
    content[at : at + rng.randrange(1, 5000)] = b''
    return bytes(content)
  if kind == 3:
    return bytes(rng.randrange(256) for _ in range(rng.randrange(1, 30))) + bytes(content)
  return bytes(content[:at] + content[at // 2 :])


@pytest.mark.parametrize('ending', ['npz', 'safetensors', 'pth', 'bin'])
def test_random_accidents(good, tmp_path, ending):
  rng = random.Random(ending)
  refused = 0
  for i in range(40):
    path = tmp_path / f'{i}.{ending}'
    path.write_bytes(damage(good[ending], rng))
    result = attempt(path)
    refused += isinstance(result, str)
    if ending in ('npz', 'pth') and not isinstance(result, str):
      assert same(result, variables())  # what was hit is not part of the weights
  # .safetensors and the older PyTorch format have no checksums: a changed number goes unseen.
  assert refused >= 20


def _tensors():
  return saving.to_tensors(variables(), MODEL, 'npz', SIZE)


def _set(name, value):
  return {**_tensors(), name: value}


def _bad_arrays():
  flat = _tensors()
  kernel = flat['head/kernel']
  yield 'nan', _set('cls', np.full((1, 1, 12), np.nan, np.float32))
  yield 'infinite', _set('head/kernel', np.full(kernel.shape, np.inf, np.float32))
  yield 'too large for float32', _set('cls', np.full((1, 1, 12), 1e300))
  for dtype in (np.int32, np.complex64, bool, 'S4', 'U4', 'M8[s]'):
    yield f'dtype {dtype}', _set('head/kernel', np.zeros(kernel.shape, dtype))
  yield 'object', _set('head/kernel', np.array([{'a': 1}], object))
  yield 'structured', _set('cls', np.zeros((1, 1, 12), [('a', 'f4')]))
  yield 'empty', _set('cls', np.zeros((0,), np.float32))
  yield 'scalar', _set('cls', np.float32(1))
  yield 'transposed', _set('head/kernel', kernel.T.copy())
  yield 'nameless', {**flat, '': np.zeros(1, np.float32)}
  yield 'dots', {**flat, '../../up': np.zeros(1, np.float32)}
  for name in ('cls', 'embedding/kernel', 'Transformer/encoder_norm/scale'):
    yield f'without {name}', {k: v for k, v in flat.items() if k != name}
    yield f'renamed {name}', {k + ('x' if k == name else ''): v for k, v in flat.items()}
  yield (
    'position of 5 tokens',
    _set('Transformer/posembed_input/pos_embedding', np.zeros((1, 4, 12), np.float32)),
  )
  yield 'nothing', {}


@pytest.mark.parametrize(
  'name,arrays', list(_bad_arrays()), ids=lambda v: v if type(v) is str else ''
)
def test_arrays_that_do_not_fit(tmp_path, name, arrays):
  np.savez(tmp_path / 'w.npz', **arrays)
  assert isinstance(attempt(tmp_path / 'w.npz'), str)


@pytest.mark.parametrize('zipped', [True, False], ids=['zip', 'older'])
@pytest.mark.parametrize(
  'function',
  [
    'os.system',
    'posix.system',
    'builtins.eval',
    'builtins.exec',
    'subprocess.Popen',
    'torch.load',
    'torch.hub.load',
    'pickle.loads',
    'numpy.load',
    '__builtin__.getattr',
  ],
)
def test_pickles_that_would_run_code(tmp_path, monkeypatch, zipped, function):
  monkeypatch.chdir(tmp_path)
  module, name = function.rsplit('.', 1)
  evil = _Call(_Kind(module, name), 'touch ran')
  (tmp_path / 'w.pth').write_bytes(torch_bytes({'a': np.zeros(2, np.float32)}, zipped, evil))
  text = attempt(tmp_path / 'w.pth')
  assert function in text and 'nothing was run' in text
  assert not (tmp_path / 'ran').exists()


def test_pickles_that_would_fill_memory(tmp_path):
  huge = {
    # A length field of 2 GB, a memo index of 2^31, and a list that doubles itself.
    'length': b'\x80\x02X\xff\xff\xff\x7f' + b'a' * 100 + b'.',
    'bytearray': b'\x80\x05\x96' + struct.pack('<Q', 1 << 40) + b'.',
    'memo': b'\x80\x02}r\xff\xff\xff\x7f.',
    'list': b'\x80\x02]q\x00' + b'(h\x00h\x00e' * 40 + b'.',
  }
  for name, pickled in huge.items():
    (tmp_path / f'{name}.bin').write_bytes(pickled)
    assert isinstance(attempt(tmp_path / f'{name}.bin'), str)
    with zipfile.ZipFile(tmp_path / f'{name}.pth', 'w') as z:
      z.writestr('archive/data.pkl', pickled)
    assert isinstance(attempt(tmp_path / f'{name}.pth'), str)


def test_tensors_that_claim_more_than_they_hold(tmp_path, good):
  header = {'a': {'dtype': 'F32', 'shape': [1 << 40], 'data_offsets': [0, 1 << 42]}}
  text = json.dumps(header).encode()
  (tmp_path / 'w.safetensors').write_bytes(struct.pack('<Q', len(text)) + text)
  assert 'cut off' in attempt(tmp_path / 'w.safetensors')
  (tmp_path / 'v.safetensors').write_bytes(struct.pack('<Q', 1 << 26) + b'{')
  assert 'cut off' in attempt(tmp_path / 'v.safetensors')
  # A tensor of a single number that is stretched by strides of zero.
  storage = _Persistent('storage', _Kind('torch', 'FloatStorage'), '0', 'cpu', 1)
  wide = _Call(
    _Kind('torch._utils', '_rebuild_tensor_v2'), storage, 0, (1 << 20, 1 << 20), (0, 0), False, None
  )
  (tmp_path / 'w.pth').write_bytes(torch_bytes({'cls_token': np.zeros(1, np.float32)}, True, wide))
  assert isinstance(attempt(tmp_path / 'w.pth'), str)
