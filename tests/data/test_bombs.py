"""Files made to take a reader's memory or time: each is decoded or refused by name, soon."""

import io
import json
import pathlib
import struct
import subprocess
import sys

import pytest
from PIL import Image

from tests.data import bombs
from tests.support import raises
from vit_jax.data import decode_image, header
from vit_jax.errors import ImageError

ROOT = pathlib.Path(__file__).resolve().parents[2]
_SECONDS, _BYTES = 10, 3 << 29  # an image may take; 1.5 GiB

# Reads each file in the order of its command line, and ends by a signal where one takes too long.
_READER = """
import json, signal, sys, time
try:
  import resource
except ImportError:  # Windows
  resource = None
from vit_jax.data import decode_image
from vit_jax.data.header import read_header
from vit_jax.errors import ImageError
from PIL import Image
Image.init()
seconds, most = int(sys.argv[1]), int(sys.argv[2])
if resource and sys.platform == 'linux':
  resource.setrlimit(resource.RLIMIT_AS, (most, most))
for path in sys.stdin.read().splitlines():
  if hasattr(signal, 'alarm'):
    signal.alarm(seconds)
  start = time.monotonic()
  print(json.dumps({'path': path}), flush=True)
  read_header(path)
  try:
    with open(path, 'rb') as f:
      found = list(decode_image(f.read(), path).shape)
  except ImageError as e:
    found = str(e)
  spent = time.monotonic() - start
  peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss if resource else 0
  print(json.dumps({'path': path, 'found': found, 'seconds': spent, 'peak': peak}), flush=True)
"""


def _read(folder: pathlib.Path, seeds) -> list[dict]:
  """What became of each bomb, one process reading them all."""
  paths = []
  for seed in seeds:
    kind, data = bombs.make(seed)
    paths.append(folder / f'{kind}_{seed}.img')
    paths[-1].write_bytes(data)
  done = subprocess.run(
    [sys.executable, '-c', _READER, str(_SECONDS), str(_BYTES)],
    input='\n'.join(map(str, paths)),
    capture_output=True,
    text=True,
    cwd=ROOT,
  )
  lines = [json.loads(line) for line in done.stdout.splitlines()]
  assert done.returncode == 0, (lines[-1:], done.returncode, done.stderr[-2000:])
  found = [line for line in lines if 'found' in line]
  assert len(found) == len(paths)
  return found


def _check(found: list[dict]) -> None:
  for line in found:
    if isinstance(line['found'], str):
      assert line['path'] in line['found'] and 'MemoryError' not in line['found'], line
      assert len(line['found'].splitlines()) == 1, line
    assert line['seconds'] < _SECONDS, line
  decoded = sum(not isinstance(line['found'], str) for line in found)
  slowest, peak = (max(line[key] for line in found) for key in ('seconds', 'peak'))
  print(f'{decoded} of {len(found)} decoded, slowest {slowest:.2f} s, peak {peak} KiB')


def test_bombs_of_each_kind(tmp_path):
  found = _read(tmp_path, range(max(40, len(bombs.MAKERS))))
  _check(found)
  assert {pathlib.Path(line['path']).name.rsplit('_', 1)[0] for line in found} == set(bombs.MAKERS)


def test_the_size_of_an_icon_is_read_from_the_image_in_it(monkeypatch):
  image = io.BytesIO()
  Image.new('RGB', (53, 37)).save(image, 'ICO', sizes=[(53, 37), (16, 16)])
  data = image.getvalue()
  assert header.icon_hw(data) == (37, 53) and decode_image(data).shape == (37, 53, 3)
  assert header.icon_hw(b'\0\0\1\0') is None and header.icon_hw(b'\x89PNG') is None
  at = data.find(b'IHDR', data.find(struct.pack('>II', 53, 37)) - 4) + 4
  large = data[:at] + struct.pack('>II', 16001, 9001) + data[at + 8 :]
  monkeypatch.setattr(Image, 'open', lambda _: pytest.fail('is opened'))
  with raises(ImageError, 'x.ico', '16,001 x 9,001'):
    decode_image(large, 'x.ico')


def test_a_jpeg_of_very_many_scans_is_refused_and_one_with_a_film_behind_it_is_not():
  image = io.BytesIO()
  Image.new('L', (2011, 1013)).save(image, 'JPEG', progressive=True)
  data = image.getvalue()
  last = data.rfind(b'\xff\xda')
  many = data[:last] + data[last:-2] * 3000
  with raises(ImageError, 'x.jpg', '3,005 scans', '2,011 x 1,013', 'VIT_JAX_MAX_PIXELS'):
    decode_image(many + b'\xff\xd9', 'x.jpg')
  assert decode_image(data + many, 'x.jpg').shape == (1013, 2011, 3)
  colours = io.BytesIO()
  Image.new('RGB', (2011, 1013)).save(colours, 'JPEG')
  one = colours.getvalue()
  at = one.rfind(b'\xff\xda')
  channel = b'\xff\xda\x00\x08\x01\x01\x00\x00\x3f\x00\x00'
  with raises(ImageError, 'x.jpg', '3,000 scans'):
    decode_image(one[:at] + channel * 3000 + b'\xff\xd9', 'x.jpg')


@pytest.mark.slow
def test_a_thousand_bombs(tmp_path):
  _check(_read(tmp_path, range(1000, 2000)))
