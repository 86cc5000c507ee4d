"""Ways to break weight files on purpose: bytes, JSON, safetensors, zip, NumPy, pickle, HDF5."""

import copy
import io
import json
import random
import struct
import warnings
import zipfile
from collections.abc import Callable
from typing import Any

import numpy as np

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
    ("'<f4'", "[('a', '<f4')]"), ("'<f4'", "'<U1'"), ('False', 'None'),
    ("'shape': (", "'shape': (1, "), ("'shape': (", "'shape': (-1, "),
    ("'shape': (", "'shape': (True, "), ("'shape': (", "'shape': (10**9, "),
    ("'shape': (", "'shape': (0, "), ("'shape': (", "'shape': ((((((1), "),
    ("'shape': (", "'shape': (1.0, "), ('{', '{' * 200), ("'descr'", "'order'"),
    ("'<f4'", "'<f4,' + 'f4'"), ("'shape': (", "'shape': (9999999999999999999, "),
  )  # fmt: skip
  old, new = rng.choice(pairs)
  text, data = header.replace(old, new).encode(), content[10 + length :]
  if new == "'>f4'":
    data = np.frombuffer(data, '<f4').astype('>f4').tobytes()
  return content[:8] + struct.pack('<H', len(text)) + text + data


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
