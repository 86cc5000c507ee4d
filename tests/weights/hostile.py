"""Weight files that somebody broke on purpose, each tried in a process of little memory.

`python -m tests.weights.hostile FOLDER SEED FIRST LAST` prints two JSON lines for a case.
"""

import io
import json
import pathlib
import random
import signal
import struct
import sys
import time
import zipfile
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from tests.weights import mutations
from tests.weights.mutations import with_member

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
  with (
    zipfile.ZipFile(packed, 'w', zipfile.ZIP_DEFLATED) as z,
    zipfile.ZipFile(io.BytesIO(found['npz'].files['w.npz'])) as old,
  ):
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


def mutant(found: Mapping[str, Seed], number: int, seed: int) -> tuple[str, Seed]:
  """The case of a number: the seed's name and what became of it."""
  rng = random.Random(f'{seed} {number}')
  name = rng.choice(sorted(found))
  base = found[name]
  file = rng.choice(sorted(base.files))
  content = base.files[file]
  if rng.random() < 0.25 or name == 'legacy':
    content = (
      mutations.broken_bytes(content, rng)
      if rng.random() < 0.5
      else _wrong(name, content, file, rng)
    )
  else:
    content = _wrong(name, content, file, rng)
  return f'{name}: {file}', base._replace(files={**base.files, file: content})


def _wrong(name: str, content: bytes, file: str, rng: random.Random) -> bytes:
  if file.endswith('.json'):
    return mutations.wrong_json(content, rng)
  if file.endswith('.safetensors'):
    return mutations.wrong_safetensors(content, rng)
  if file.endswith('.h5'):
    return mutations.wrong_h5(content, rng)
  if name == 'legacy':
    at = [i for i in range(200) if content[i : i + 2] == b'\x80\x02'][3]
    end = content.index(b'.', at + 1000)
    return content[:at] + mutations.wrong_pickle(content[at:end], rng) + content[end:]
  if rng.random() < 0.5:
    return mutations.wrong_zip(content, rng)
  if name == 'pth':
    return with_member(content, 'data.pkl', lambda body: mutations.wrong_pickle(body, rng))
  if name == 'keras':
    if rng.random() < 0.3:
      return with_member(content, '.h5', lambda body: mutations.wrong_h5(body, rng))
    return with_member(content, 'config.json', lambda body: mutations.wrong_json(body, rng))
  with zipfile.ZipFile(io.BytesIO(content)) as z:
    chosen = rng.choice(z.namelist())
  return with_member(content, chosen, lambda body: mutations.wrong_npy(body, rng))


def json_cases(found: Mapping[str, Seed]) -> list[tuple[str, Seed]]:
  """Every field of every JSON file with wrong values, in an order that does not change."""
  cases = []
  for name, base in found.items():
    for file, content in base.files.items():
      if file.endswith('.json'):
        value = json.loads(content)
        for at in mutations.places(value):
          for new in mutations.WRONG:
            text = mutations.json_text(mutations.replaced(value, at, new))
            cases.append((f'{name}: {file} {at} {new!r:.30}', base._replace(
              files={**base.files, file: text})))  # fmt: skip
  random.Random(0).shuffle(cases)
  return cases


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
