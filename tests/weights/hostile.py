"""Weight files that somebody broke on purpose: seeds of every format, and a seeded way to break them.

`python -m tests.weights.hostile FOLDER SEED FIRST LAST` tries cases in a process of little memory
and prints one JSON line for each.
"""

import copy
import io
import json
import pathlib
import random
import signal
import struct
import sys
import time
import zipfile
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

MOST_SECONDS = 10
MOST_BYTES = 1500 << 20  # of address space, beyond what the program has before a case
SIZE = (24, 24)


class Seed(NamedTuple):
  """A good file or folder.

  Args:
    files: name to content.
    target: the file to read; '' for the folder.
    checked: whether what is read is told from what was written by checksums.
    format: to read it as.
  """

  files: dict[str, bytes]
  target: str
  checked: bool = False
  format: str = 'auto'


def seeds(folder: pathlib.Path) -> dict[str, Seed]:
  """The same small ViT in every container and format."""
  import h5py

  from tests.weights import oracle
  from tests.weights.containers.test_damaged_files import torch_bytes
  from vit_jax import convert, tree
  from vit_jax.data import Preprocess
  from vit_jax.models.shapes import description, variable_specs
  from vit_jax.weights import saving

  module = oracle.ours(gelu='tanh')
  variables = tree.unflatten(oracle.scattered_specs(variable_specs(module, SIZE)))
  options: dict[str, Any] = {
    'model': description(module, 'vit_ti16'),
    'classes': ('ant', 'bee', 'cat', 'dog', 'eel'),
    'preprocess': Preprocess('decode|resize_small(28)|central_crop(24)', (0.4, 0.5, 0.6)),
  }
  found: dict[str, Seed] = {}

  def written(name: str, target: str, format: str, checked: bool = False) -> dict[str, bytes]:
    place = folder / name
    place.mkdir()
    convert.write(place / target, variables, module, format, **options)
    root = place / target if (place / target).is_dir() else place
    files = {p.name: p.read_bytes() for p in sorted(root.iterdir())}
    found[name] = Seed(files, '' if root != place else target, checked)
    return files

  written('npz', 'w.npz', 'npz', True)
  written('own', 'w.safetensors', 'vit_jax')
  written('timm folder', 'w', 'timm')
  hf = written('hf folder', 'w', 'hf')
  packed = io.BytesIO()
  with zipfile.ZipFile(packed, 'w', zipfile.ZIP_DEFLATED) as z, zipfile.ZipFile(
    io.BytesIO(found['npz'].files['w.npz'])
  ) as old:
    for name in old.namelist():
      z.writestr(name, old.read(name))
  found['packed'] = Seed({**found['npz'].files, 'w.npz': packed.getvalue()}, 'w.npz', True)
  timm = saving.to_tensors(variables, module, 'timm', SIZE)
  timm = {k: np.ascontiguousarray(v) for k, v in timm.items()}
  found['pth'] = Seed({'w.pth': torch_bytes(timm)}, 'w.pth', True)
  found['legacy'] = Seed({'w.pth': torch_bytes(timm, zipped=False)}, 'w.pth')
  arrays = saving.to_tensors(variables, module, 'vit_jax', SIZE)
  record = found['own'].files['w.safetensors']
  length = struct.unpack('<Q', record[:8])[0]
  own = json.loads(record[8 : 8 + length])['__metadata__']['vit_jax'].encode()
  made = io.BytesIO()
  with h5py.File(made, 'w') as f:
    for name, array in arrays.items():
      f.create_dataset(name, data=array, **({'compression': 'gzip'} if array.ndim > 1 else {}))
  found['h5'] = Seed({'w.h5': made.getvalue(), 'w.h5.json': own}, 'w.h5')
  found['keras'] = Seed({'w.keras': keras_archive()}, 'w.keras', format='keras')
  found['hf parts'] = Seed(_in_parts(hf), '')
  return found


def _in_parts(files: Mapping[str, bytes]) -> dict[str, bytes]:
  """A folder of Hugging Face with its tensors in two files and an index."""
  content = files['model.safetensors']
  length = struct.unpack('<Q', content[:8])[0]
  header, data = json.loads(content[8 : 8 + length]), content[8 + length :]
  header.pop('__metadata__', None)
  parts: list[dict[str, bytes]] = [{}, {}]
  made = {k: v for k, v in files.items() if k.endswith('.json')}
  weight_map = {}
  for i, (name, entry) in enumerate(header.items()):
    begin, end = entry['data_offsets']
    parts[i % 2][name] = data[begin:end]
    weight_map[name] = f'model-{i % 2}.safetensors'
  for i, part in enumerate(parts):
    entries, at = {}, 0
    for name, body in part.items():
      entries[name] = {**header[name], 'data_offsets': [at, at + len(body)]}
      at += len(body)
    text = json.dumps(entries).encode()
    made[f'model-{i}.safetensors'] = struct.pack('<Q', len(text)) + text + b''.join(part.values())
  index = {'metadata': {'total_size': len(data)}, 'weight_map': weight_map}
  made['model.safetensors.index.json'] = json.dumps(index).encode()
  return made


def keras_archive(config: Any = None) -> bytes:
  """A `.keras` file of the beginning of a MobileNetV2."""
  import h5py

  rng = np.random.default_rng(0)
  made = io.BytesIO()
  with h5py.File(made, 'w') as f:
    f['Conv1/kernel'] = rng.normal(size=(3, 3, 3, 8)).astype(np.float32)
    f['predictions/kernel'] = rng.normal(size=(8, 5)).astype(np.float32)
    f['predictions/bias'] = rng.normal(size=5).astype(np.float32)
    f['normalization/mean'] = np.full(3, 0.5, np.float32)
    f['normalization/variance'] = np.full(3, 0.25, np.float32)

  def layer(kind: str, name: str, **options: Any) -> dict[str, Any]:
    return {'class_name': kind, 'config': {'name': name, **options}, 'inbound_nodes': []}

  layers = [
    layer('InputLayer', 'input', batch_shape=[None, 96, 96, 3]),
    layer('Rescaling', 'rescaling', scale=1 / 127.5, offset=-1.0),
    layer('Normalization', 'normalization'),
    layer('Conv2D', 'Conv1'),
    layer('BatchNormalization', 'bn_Conv1', epsilon=1e-3),
    layer('GlobalAveragePooling2D', 'pool'),
    layer('Dense', 'predictions', units=5, activation='softmax'),
  ]
  stated = {'class_name': 'Functional', 'config': {'name': 'net', 'layers': layers}}
  stated['compile_config'] = {'loss': 'categorical_crossentropy'}
  out = io.BytesIO()
  with zipfile.ZipFile(out, 'w') as z:
    z.writestr('config.json', json.dumps(stated if config is None else config))
    z.writestr('metadata.json', '{}')
    z.writestr('model.weights.h5', made.getvalue())
  return out.getvalue()


# Mutations --------------------------------------------------------------------------------------

WRONG = (
  None, True, False, -1, 0, 1, 2.5, 10**12, -(10**12), 10**400, 1e308, float('nan'), float('inf'),
  float('-inf'), '', 'x', '0', '../../../etc/passwd', '\x00', '\ud800', 'é' * 70000, [], {}, [None],
  [[]], [1, 2], [0, 0], [-1, -1, -1], [10**12] * 3, ['a'] * 3, [float('nan')] * 3, {'a': 1},
  {'shape': [1]}, list(range(3000)), [[1, 2], [3, 4]], '@deep list', '@deep dict', '@long number',
)  # fmt: skip


def json_text(value: Any) -> bytes:
  """JSON, in which some words stand for what json.dumps does not write."""
  text = json.dumps(value)
  text = text.replace('"@deep list"', '[' * 100_000 + ']' * 100_000)
  text = text.replace('"@deep dict"', '{"a":' * 100_000 + '1' + '}' * 100_000)
  return text.replace('"@long number"', '9' * 5000).encode()


def places(value: Any, at: tuple = ()) -> list[tuple]:
  """Where each value of a JSON tree is."""
  found = [at]
  items = value.items() if isinstance(value, dict) else ()
  items = enumerate(value) if isinstance(value, list) else items
  for key, inner in items:
    found += places(inner, (*at, key))
  return found


def replaced(value: Any, at: tuple, new: Any) -> Any:
  """A JSON tree with another value at a place."""
  if not at:
    return new
  value = copy.deepcopy(value)
  holder = value
  for key in at[:-1]:
    holder = holder[key]
  holder[at[-1]] = new
  return value


def wrong_json(content: bytes, rng: random.Random) -> bytes:
  """JSON with a field that is wrong, missing or there twice."""
  value = json.loads(content)
  at = rng.choice(places(value))
  kind = rng.randrange(12)
  if kind == 0 and at and isinstance(at[-1], str):
    text = json.dumps(value)
    return text.replace('{', f'{{"{at[-1]}": {json.dumps(rng.choice(WRONG[:20]))}, ', 1).encode()
  if kind == 1 and at:
    holder = value
    for key in at[:-1]:
      holder = holder[key]
    del holder[at[-1]]
    return json.dumps(value).encode()
  if kind == 2:
    return rng.choice((b'', b'{', b'\xff\xfe', b'[]', b'1', b'null', content[:-1], content * 2))
  if at and at[-1] == 'vit_jax':  # our record is JSON in JSON
    return json_text(replaced(value, at, wrong_json(_inner(value, at).encode(), rng).decode(
      'utf-8', 'replace')))  # fmt: skip
  return json_text(replaced(value, at, rng.choice(WRONG)))


def _inner(value: Any, at: tuple) -> Any:
  for key in at:
    value = value[key]
  return value


def broken_bytes(content: bytes, rng: random.Random) -> bytes:
  """An accident: cut, changed bytes, a hole, something in front, behind or twice."""
  made = bytearray(content)
  kind, at = rng.randrange(8), rng.randrange(max(1, len(made)))
  if kind == 0:
    return bytes(made[:at])
  if kind == 1:
    del made[at : at + rng.randrange(1, 5000)]
  elif kind == 2:
    made += rng.randbytes(rng.choice((1, 7, 4096)))
  elif kind == 3:
    made[:0] = rng.randbytes(rng.randrange(1, 30))
  elif kind == 4:
    made[at:at] = made[at // 2 : at]
  else:
    for _ in range(rng.randrange(1, 12)):
      span = rng.choice((64, 2000, len(made)))
      where = rng.randrange(min(span, len(made)))
      where = len(made) - 1 - where if rng.random() < 0.3 else where
      made[where] = rng.choice((0, 255, made[where] ^ 1 << rng.randrange(8)))
  return bytes(made)


def wrong_safetensors(content: bytes, rng: random.Random) -> bytes:
  """Another header: fields changed, offsets moved, tensors over each other or there twice."""
  length = struct.unpack('<Q', content[:8])[0]
  text, data = content[8 : 8 + length], content[8 + length :]
  header = json.loads(text)
  names = [name for name in header if name != '__metadata__']
  a, b = rng.sample(names, 2)
  kind = rng.randrange(8)
  if kind == 0:
    header[a]['data_offsets'] = header[b]['data_offsets']
  elif kind == 1:
    header[a]['shape'] = [*header[a]['shape'][::-1], rng.choice((1, 0, -1, 1 << 62))]
  elif kind == 2:
    header[a]['dtype'] = rng.choice(('F16', 'BF16', 'F64', 'I32', 'F8_E4M3', 'O', ''))
  elif kind == 3:
    header[a]['data_offsets'] = [n + rng.choice((-4, 4)) for n in header[a]['data_offsets']]
  elif kind == 4:
    header[rng.choice(('', '../x', 'x' * 100_000, '\x00', '\ud800'))] = header.pop(a)
  text = json.dumps(header).encode()
  if kind == 5:
    text = text[:-1] + f', "{a}": {json.dumps(header[a])}}}'.encode()
  elif kind > 5:
    text = wrong_json(text, rng)
  length = len(text) if rng.random() < 0.9 else rng.choice((0, 1, 1 << 26, 1 << 63, len(text) - 1))
  return struct.pack('<Q', length) + text + data


def wrong_zip(content: bytes, rng: random.Random) -> bytes:
  """Another directory of a zip: a field of it changed, members twice, far away, or bombs."""
  made = bytearray(content)
  directory = made.find(b'PK\x01\x02')
  entries = [directory]
  while (at := made.find(b'PK\x01\x02', entries[-1] + 4)) > 0:
    entries.append(at)
  kind = rng.randrange(6)
  if kind < 3:
    # Offsets and widths in a member's entry: flags, method, checksum, sizes, lengths, offset.
    at, width = rng.choice(((8, 2), (10, 2), (16, 4), (20, 4), (24, 4), (28, 2), (30, 2), (42, 4)))
    place = rng.choice(entries) + at
    value = rng.choice((0, 1, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFF0, rng.randrange(1 << 32)))
    made[place : place + width] = (value % (1 << 8 * width)).to_bytes(width, 'little')
    return bytes(made)
  if kind == 3:  # of the end of the directory
    place = made.rfind(b'PK\x05\x06') + rng.choice((8, 10, 12, 16, 20))
    made[place : place + 2] = rng.choice((b'\0\0', b'\xff\xff', b'\1\0'))
    return bytes(made)
  out = io.BytesIO(content)
  with zipfile.ZipFile(out, 'a', rng.choice((zipfile.ZIP_DEFLATED, zipfile.ZIP_LZMA))) as z:
    name = rng.choice(z.namelist())
    other = rng.choice(('../../canary', '/tmp/canary.npy', 'a\x00b.npy', name, name, 'bomb.npy'))
    body = b'\x93NUMPY\1\0' + rng.choice((b'canary', bytes(rng.choice((1 << 10, 1 << 24)))))
    import warnings

    with warnings.catch_warnings():
      warnings.simplefilter('ignore')
      z.writestr(other, z.read(name) if rng.random() < 0.5 else body)
  return out.getvalue()


def with_member(content: bytes, end: str, change: Callable[[bytes], bytes]) -> bytes:
  """A zip in which the content of one member is another."""
  out = io.BytesIO()
  with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(out, 'w') as new:
    for member in old.infolist():
      body = old.read(member)
      new.writestr(member.filename, change(body) if member.filename.endswith(end) else body)
  return out.getvalue()


def wrong_npy(content: bytes, rng: random.Random) -> bytes:
  """An array with another header."""
  length = struct.unpack('<H', content[8:10])[0]
  header = content[10 : 10 + length].decode()
  pairs = (
    ("'<f4'", "'>f4'"), ("'<f4'", "'|O'"), ("'<f4'", "'<f8'"), ("'<f4'", "'<i4'"),
    ("'<f4'", "[('a', '<f4')]"), ("'<f4'", "'<U1'"), ('False', 'True'), ('False', 'None'),
    ("'shape': (", "'shape': (1, "), ("'shape': (", "'shape': (-1, "),
    ("'shape': (", "'shape': (True, "), ("'shape': (", "'shape': (10**9, "),
    ("'shape': (", "'shape': (0, "), ("'shape': (", "'shape': ((((((1), "),
    ("'shape': (", "'shape': (1.0, "), ('{', '{' * 200), ("'descr'", "'order'"),
    ("'<f4'", "'<f4,' + 'f4'"), ("'shape': (", "'shape': (9999999999999999999, "),
  )  # fmt: skip
  text = header.replace(*rng.choice(pairs)).encode()
  return content[:8] + struct.pack('<H', len(text)) + text + content[10 + length :]


def wrong_pickle(content: bytes, rng: random.Random) -> bytes:
  """Opcodes changed, or something beside the weights that is endless, deep or foreign code."""
  made = bytearray(content)
  if rng.random() < 0.5:
    ops = b'(.012FGIJKLMNPRSTUVXabcdeghijlopqrstu]}\x80\x81\x82\x85\x86\x87\x88\x8a\x8b\x8c\x93\x94'
    for _ in range(rng.randrange(1, 4)):
      at = rng.randrange(2, len(made))
      if rng.random() < 0.5:
        made[at] = rng.choice(ops)
      else:
        made.insert(at, rng.choice(ops))
    return bytes(made)
  return bytes(made[:2]) + rng.choice(NASTY) + bytes(made[2:])


_N = 100_000
NASTY = (  # what a pickle may begin with; the rest of it follows
  b'cos\nsystem\n(X\x0c\x00\x00\x00touch canarytR0',
  b'cbuiltins\nexec\n(X\x18\x00\x00\x00open("canary","w").close()tR0',
  b'}' + b')' + b'\x85' * _N + b'Ns0',
  b']' * _N + b'a' * (_N - 1) + b'0',
  b'}(' + b''.join(b'K\x01' + b'K\x02' for _ in range(_N)) + b'u0',
  b']q\x00(' + b'h\x00' * 1000 + b'e' + b']q\x01(' + b'h\x00' * 1000 + b'e' + b'00',
  b'}' + b')q\x05' + b''.join(b'h\x05h\x05\x86q\x05' for _ in range(60)) + b'h\x05Ns00',
  b'\x8a\xff' + b'\x7f' * 255 + b'0',
  b'\x8b' + struct.pack('<I', _N) + b'\x7f' * _N + b'0',
  b'L' + b'9' * 5000 + b'L\n0',
  b'(' * _N + b'1' * 0,
)


def wrong_h5(content: bytes, rng: random.Random) -> bytes:
  """HDF5 cut off or changed, or with a dataset that is huge, foreign or no array of numbers."""
  import h5py

  kind = rng.randrange(10)
  if kind < 5:
    return broken_bytes(content, rng)
  made = io.BytesIO(content)
  with h5py.File(made, 'a') as f:
    names: list[str] = []
    f.visititems(lambda n, x: names.append(n) if isinstance(x, h5py.Dataset) else None)
    name = rng.choice(names)
    if rng.random() < 0.5:
      del f[name]
    else:
      name = 'extra/kernel'
    if kind == 5:
      f.create_dataset(name, (1 << 20, 1 << 20), 'f4', chunks=(1 << 10, 1 << 10))
    elif kind == 6:
      f[name] = rng.choice((h5py.SoftLink('/' + names[0]), h5py.SoftLink('/x'),
                            h5py.ExternalLink('/etc/passwd', '/')))  # fmt: skip
    elif kind == 7:
      f.create_dataset(name, data=np.zeros(1 << 24, np.float32), compression='gzip')
    elif kind == 8:
      f[name] = rng.choice((['a', 'b'], np.zeros(2, [('a', 'f4')]), h5py.Empty('f4'), np.int8(3)))
    else:
      f.attrs['model_config'] = rng.choice(('{', '[]', 'null', '[' * 60_000, '{"config": 1}'))
  return made.getvalue()


def mutant(found: Mapping[str, Seed], number: int, seed: int) -> tuple[str, Seed]:
  """The case of a number: the seed's name and what became of it."""
  rng = random.Random(f'{seed} {number}')
  name = rng.choice(sorted(found))
  base = found[name]
  file = rng.choice(sorted(base.files))
  content = base.files[file]
  if rng.random() < 0.25 or name == 'legacy':
    content = broken_bytes(content, rng) if rng.random() < 0.5 else _wrong(name, content, file, rng)
  else:
    content = _wrong(name, content, file, rng)
  return f'{name}: {file}', base._replace(files={**base.files, file: content})


def _wrong(name: str, content: bytes, file: str, rng: random.Random) -> bytes:
  if file.endswith('.json'):
    return wrong_json(content, rng)
  if file.endswith('.safetensors'):
    return wrong_safetensors(content, rng)
  if file.endswith('.h5'):
    return wrong_h5(content, rng)
  if name == 'legacy':
    at = [i for i in range(200) if content[i : i + 2] == b'\x80\x02'][3]
    end = content.index(b'.', at + 1000)
    return content[:at] + wrong_pickle(content[at:end], rng) + content[end:]
  if rng.random() < 0.5:
    return wrong_zip(content, rng)
  if name == 'pth':
    return with_member(content, 'data.pkl', lambda body: wrong_pickle(body, rng))
  if name == 'keras':
    if rng.random() < 0.3:
      return with_member(content, '.h5', lambda body: wrong_h5(body, rng))
    return with_member(content, 'config.json', lambda body: wrong_json(body, rng))
  with zipfile.ZipFile(io.BytesIO(content)) as z:
    chosen = rng.choice(z.namelist())
  return with_member(content, chosen, lambda body: wrong_npy(body, rng))


def json_cases(found: Mapping[str, Seed]) -> list[tuple[str, Seed]]:
  """Every field of every JSON file with wrong values, in an order that does not change."""
  cases = []
  for name, base in found.items():
    for file, content in base.files.items():
      if file.endswith('.json'):
        value = json.loads(content)
        for at in places(value):
          for new in WRONG:
            text = json_text(replaced(value, at, new))
            cases.append((f'{name}: {file} {at} {new!r:.30}', base._replace(
              files={**base.files, file: text})))  # fmt: skip
  random.Random(0).shuffle(cases)
  return cases


# Trials -----------------------------------------------------------------------------------------


def attempt(place: pathlib.Path, case: Seed, reference: Mapping[str, np.ndarray]) -> str:
  """'loaded' or 'refused: ...' where all is well; else what went wrong."""
  from vit_jax import convert, tree
  from vit_jax.errors import UserError

  place.mkdir()
  for name, content in case.files.items():
    (place / name).write_bytes(content)
  path = place / case.target if case.target else place
  try:
    weights = convert.read(path, case.format)
    arrays = {name: weights.tensors[name] for name in weights.tensors}
    if weights.model and weights.format != 'keras':
      size = weights.preprocess.image_size if weights.preprocess else SIZE
      variables, report = convert.fit(weights, convert.build(weights), size)
      adapted = {line.split(' ')[0] for line in report.resized}
      arrays = {k: v for k, v in tree.flatten(variables).items() if k not in adapted}
      for name, array in arrays.items():
        if not np.isfinite(array).all():
          return f'WRONG: {name} is not finite'
        if case.checked and reference[name].tobytes() != array.tobytes():
          return f'WRONG: {name} has other values'
  except UserError as e:
    text = ' | '.join(e.problems)
    if isinstance(e.__cause__, MemoryError):
      return f'MEMORY: {text}'
    if str(place) not in text:
      return f'NAMELESS: {type(e).__name__} {text}'
    if '\n' in text or len(text) > 3000:
      return f'LONG: {text[:300]!r}'
    return f'refused: {text}'
  except _TooLong:
    return 'HANG'
  except BaseException as e:
    import traceback

    frame = traceback.extract_tb(e.__traceback__)[-1]
    return f'TRACEBACK: {type(e).__name__} {str(e)[:100]} ({frame.filename[-40:]}:{frame.lineno})'
  return 'loaded'


class _TooLong(BaseException):
  pass


def _limit_memory() -> None:
  try:
    import resource
  except ImportError:
    return
  pages = pathlib.Path('/proc/self/statm')
  if pages.is_file():
    used = int(pages.read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + MOST_BYTES, used + MOST_BYTES))


def main(argv: list[str]) -> None:
  import logging
  import os
  import shutil

  folder, seed, first, last = pathlib.Path(argv[0]), *argv[1:4]
  os.environ.setdefault('JAX_PLATFORMS', 'cpu')
  logging.disable(logging.CRITICAL)
  (folder / 'seeds').mkdir(parents=True)
  found = seeds(folder / 'seeds')
  reference: dict[str, np.ndarray] = {}
  from vit_jax import convert, tree

  for name, base in found.items():  # imports and traces what all cases need
    result = attempt(folder / 'good', base._replace(checked=False), {})
    assert result == 'loaded', f'{name}: {result}'
    if name == 'npz':
      path = folder / 'good' / base.target
      weights = convert.read(path)
      reference = tree.flatten(convert.fit(weights, convert.build(weights), SIZE)[0])
    shutil.rmtree(folder / 'good')
  _limit_memory()
  os.chdir(folder)
  cases = json_cases(found) if seed == 'json' else None

  def stop(*args: Any) -> None:
    raise _TooLong

  if hasattr(signal, 'SIGALRM'):
    signal.signal(signal.SIGALRM, stop)
  for number in range(int(first), int(last)):
    name, case = cases[number] if cases else mutant(found, number, int(seed))
    print(json.dumps({'case': number, 'name': name}), flush=True)
    began = time.monotonic()
    if hasattr(signal, 'alarm'):
      signal.alarm(MOST_SECONDS)
    result = attempt(folder / 'case', case, reference)
    if hasattr(signal, 'alarm'):
      signal.alarm(0)
    if any(folder.rglob('canary*')):
      result = 'CANARY: foreign code ran or a file was unpacked'
    seconds = time.monotonic() - began
    print(json.dumps({'result': result, 'seconds': round(seconds, 2)}), flush=True)
    shutil.rmtree(folder / 'case')


if __name__ == '__main__':
  main(sys.argv[1:])
