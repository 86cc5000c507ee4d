"""Made-up image files that claim or unpack to more than they hold: one maker for each kind."""

import io
import struct
import warnings
import zlib
from collections.abc import Callable

import numpy as np
from PIL import Image, features

Maker = Callable[[np.random.Generator], bytes]
MAKERS: dict[str, Maker] = {}
_HUGE = (4097, 30000, 65535, 65536, 1 << 20, (1 << 31) - 1, (1 << 32) - 1)
# What Pillow both writes and reads, of which whole files are made whose sizes are then changed.
_WRITTEN = [
  'AVIF',
  'BLP',
  'BMP',
  'DDS',
  'DIB',
  'GIF',
  'ICNS',
  'ICO',
  'IM',
  'JPEG',
  'JPEG2000',
  'MPO',
  'MSP',
  'PCX',
  'PNG',
  'PPM',
  'QOI',
  'SGI',
  'SPIDER',
  'TGA',
  'TIFF',
  'WEBP',
  'XBM',
]


def maker(make: Maker) -> Maker:
  MAKERS[make.__name__] = make
  return make


def make(seed: int) -> tuple[str, bytes]:
  """The kind and the bytes of a bomb; each kind comes up in turn."""
  kinds = sorted(MAKERS)
  rng = np.random.default_rng(seed)
  kind = kinds[seed % len(kinds)]
  return kind, MAKERS[kind](rng)


def _huge(rng, bits=32):
  return int(rng.choice([n for n in _HUGE if n < 1 << bits]))


def _sizes(rng, bits=32):
  """Width and height; now and then one of them small."""
  pair = [_huge(rng, bits), _huge(rng, bits)]
  if rng.random() < 0.3:
    pair[int(rng.integers(2))] = int(rng.integers(0, 9))
  return pair


def _chunk(kind, body):
  return struct.pack('>I', len(body)) + kind + body + struct.pack('>I', zlib.crc32(kind + body))


def _zeros(megabytes):
  """So many megabytes of zeros, compressed to a thousandth."""
  packer = zlib.compressobj(9)
  parts = [packer.compress(bytes(1 << 20)) for _ in range(megabytes)]
  return b''.join(parts) + packer.flush()


def _png(w, h, before=b'', pixels=None, colour=2):
  head = struct.pack('>IIBBBBB', w, h, 8, colour, 0, 0, 0)
  pixels = zlib.compress(bytes(1000)) if pixels is None else pixels
  body = _chunk(b'IHDR', head) + before + _chunk(b'IDAT', pixels) + _chunk(b'IEND', b'')
  return b'\x89PNG\r\n\x1a\n' + body


@maker
def png_size(rng):
  return _png(*_sizes(rng, 31))


@maker
def png_pixels(rng):
  side = int(rng.integers(3000, 12000))
  return _png(side, side, pixels=_zeros((side * (3 * side + 1) >> 20) + 1))


@maker
def png_too_many_pixels(rng):
  return _png(7, 5, pixels=_zeros(int(rng.integers(50, 300))))


@maker
def png_text(rng):
  size = int(rng.integers(2, 200))
  kind = rng.choice([b'zTXt', b'iTXt', b'tEXt'])
  if kind == b'tEXt':
    text = b''.join(_chunk(b'tEXt', b'k%d\0' % i + bytes(900_000)) for i in range(size // 8))
  else:
    start = b'k\0\0' if kind == b'zTXt' else b'k\0\1\0\0\0'
    text = _chunk(bytes(kind), start + _zeros(size)) * int(rng.integers(1, 5))
  return _png(7, 5, text, zlib.compress(bytes(5 * 22)))


@maker
def png_profile(rng):
  return _png(7, 5, _chunk(b'iCCP', b'x\0\0' + _zeros(int(rng.integers(2, 600)))))


@maker
def png_chunks(rng):
  many = _chunk(b'abCd', b'') * int(rng.integers(1000, 200_000))
  return _png(7, 5, many, zlib.compress(bytes(5 * 22)))


@maker
def png_frames(rng):
  frames = _chunk(b'acTL', struct.pack('>II', _huge(rng, 31), 0))
  control = struct.pack('>IIIIIHHBB', 0, 7, 5, 0, 0, 1, 1, 0, 0)
  return _png(7, 5, frames + _chunk(b'fcTL', control), zlib.compress(bytes(5 * 22)))


def _gif(w, h, frame_hw, copies=1, comment=0):
  palette = bytes(6)
  notes = (b'\x21\xfe' + (b'\xff' + bytes(255)) * comment + b'\0') if comment else b''
  frame = b'\x2c' + struct.pack('<HHHHB', 0, 0, *frame_hw, 0) + b'\x02\x02\x44\x01\0'
  return (
    b'GIF89a' + struct.pack('<HHBBB', w, h, 0x80, 0, 0) + palette + notes + frame * copies + b';'
  )


@maker
def gif_screen(rng):
  return _gif(*_sizes(rng, 16), (1, 1))


@maker
def gif_frame(rng):
  return _gif(3, 3, _sizes(rng, 16))


@maker
def gif_frames(rng):
  return _gif(9, 9, (1, 1), int(rng.integers(1000, 100_000)))


@maker
def gif_comment(rng):
  return _gif(9, 9, (1, 1), 1, int(rng.integers(1000, 50_000)))


def _tiff(tags, following=0, data=bytes(64)):
  """A TIFF of one directory; values of tags are (type, count, value or offset)."""
  count = len(tags)
  rows = b''.join(struct.pack('<HHII', tag, *tags[tag]) for tag in sorted(tags))
  return struct.pack('<2sHIH', b'II', 42, 8, count) + rows + struct.pack('<I', following) + data


def _tiff_tags(w, h, compression=1, size=64):
  rows = {256: w, 257: h, 258: 8, 259: compression, 262: 1, 277: 1, 278: h, 279: size}
  tags = {tag: (4, 1, value) for tag, value in rows.items()}
  return tags | {273: (4, 1, 8 + 2 + 12 * 9 + 4)}


@maker
def tiff_size(rng):
  return _tiff(_tiff_tags(*_sizes(rng), compression=int(rng.choice([1, 5, 8, 32773]))))


@maker
def tiff_loop(rng):
  tags = _tiff_tags(8, 8)
  tags[int(rng.choice([330, 34665, 34853]))] = (4, 1, 8)  # a directory within this one: itself
  tags[273] = (4, 1, 8 + 2 + 12 * 10 + 4)
  return _tiff(tags, following=8)


@maker
def tiff_counts(rng):
  tags = _tiff_tags(8, 8)
  tag = int(rng.choice([258, 273, 279, 320, 34665]))
  tags[tag] = (int(rng.integers(1, 13)), _huge(rng), int(rng.integers(0, 200)))
  return _tiff(tags)


@maker
def tiff_pixels(rng):
  side = int(rng.integers(2000, 16000))
  data = _zeros((side * side >> 20) + 1)
  return _tiff(_tiff_tags(side, side, 8, len(data)), data=data)


@maker
def tiff_strips(rng):
  h = int(rng.integers(1000, 60_000))  # a strip a row, all of them the same bytes
  tags = _tiff_tags(8, h)
  start = 8 + 2 + 12 * 9 + 4
  tags |= {278: (4, 1, 1), 273: (4, h, start), 279: (4, h, start + 4 * h)}
  return _tiff(tags, data=struct.pack(f'<{2 * h}I', *([start] * h), *([8] * h)))


@maker
def tiff_directories(rng):
  count = int(rng.integers(1000, 30_000))
  first = _tiff(_tiff_tags(8, 8))
  later = b''.join(struct.pack('<HI', 0, len(first) + 6 * (i + 1)) for i in range(count))
  return _tiff(_tiff_tags(8, 8), following=len(first)) + later


def _riff(body):
  return b'RIFF' + struct.pack('<I', len(body) + 4) + b'WEBP' + body


@maker
def webp_canvas(rng):
  w, h = (int(n).to_bytes(3, 'little') for n in rng.integers(1 << 12, 1 << 14, 2))
  frames = b'ANMF' + struct.pack('<I', 16) + bytes(16)
  canvas = b'VP8X' + struct.pack('<I', 10) + b'\x02\0\0\0' + w + h
  loop = b'ANIM' + struct.pack('<I', 6) + bytes(6)
  return _riff(canvas + loop + frames * int(rng.integers(1, 5000)))


@maker
def webp_size(rng):
  bits = int(rng.integers(1 << 12, 1 << 14)) | int(rng.integers(1 << 12, 1 << 14)) << 14
  return _riff(b'VP8L' + struct.pack('<IBI', 64, 0x2F, bits) + bytes(59))


@maker
def ico_png(rng):
  inner = png_size(rng) if rng.random() < 0.5 else png_pixels(rng)
  count = int(rng.integers(1, 200))
  start = 6 + 16 * count
  entry = struct.pack('<BBBBHHII', 0, 0, 0, 0, 1, 32, len(inner), start)
  return struct.pack('<HHH', 0, int(rng.integers(1, 3)), count) + entry * count + inner


@maker
def ico_bmp(rng):
  w, h = _sizes(rng, 31)
  inner = struct.pack('<IIIHHIIIIII', 40, w, h, 1, 32, 0, 0, 0, 0, 0, 0) + bytes(100)
  entry = struct.pack('<BBBBHHII', 0, 0, 0, 0, 1, 32, len(inner), 22)
  return struct.pack('<HHH', 0, 1, 1) + entry + inner


@maker
def icns_inner(rng):
  inner = png_size(rng) if rng.random() < 0.5 else jpeg2000_tiles(rng)
  block = bytes(rng.choice([b'ic08', b'ic09', b'ic10', b'it32'])) + struct.pack(
    '>I', 8 + len(inner)
  )
  return b'icns' + struct.pack('>I', 16 + len(inner)) + block + inner


@maker
def psd(rng):
  w, h = _sizes(rng)
  head = b'8BPS' + struct.pack('>H6xHIIHH', 1, int(rng.integers(1, 60)), h, w, 8, 3)
  layers = struct.pack('>Ih', _huge(rng), int(rng.integers(-32768, 32767))) + bytes(500)
  whole = struct.pack('>II', 0, 0) + struct.pack('>I', len(layers)) + layers
  return head + whole + struct.pack('>H', int(rng.integers(0, 2))) + bytes(200)


@maker
def jpeg2000_tiles(rng):
  w, h = _sizes(rng, 31)
  tile = int(rng.choice([1, 2, 64, 1 << 30]))
  size = struct.pack('>HIIIIIIIIH', 0, w, h, 0, 0, tile, tile, 0, 0, 1) + b'\x07\x01\x01'
  code = b'\xff\x52' + struct.pack('>H', 12) + b'\0\0\0\1\0\5\4\4\0\0'
  quantum = b'\xff\x5c' + struct.pack('>H', 4) + b'\x40\x40'
  part = b'\xff\x90' + struct.pack('>HHIBB', 10, 0, 14, 0, 1) + b'\xff\x93'
  head = b'\xff\x4f\xff\x51' + struct.pack('>H', len(size) + 2) + size
  return head + code + quantum + part + b'\xff\xd9'


@maker
def jpeg_size(rng):
  image = io.BytesIO()
  Image.new('L', (8, 8)).save(image, 'JPEG', progressive=bool(rng.integers(2)))
  data = image.getvalue()
  at = max(data.find(b'\xff\xc0'), data.find(b'\xff\xc2')) + 5
  return data[:at] + struct.pack('>HH', *_sizes(rng, 16)) + data[at + 4 :]


@maker
def jpeg_scans(rng):
  """Every scan visits every block: a file of thousands of empty ones takes minutes to decode."""
  image = io.BytesIO()
  side = int(rng.integers(500, 4000))
  Image.new('L', (side, side)).save(image, 'JPEG', progressive=True)
  data = image.getvalue()
  last = data.rfind(b'\xff\xda')
  return data[:last] + data[last:-2] * int(rng.integers(100, 1000)) + b'\xff\xd9'


@maker
def jpeg_segments(rng):
  image = io.BytesIO()
  Image.new('L', (8, 8)).save(image, 'JPEG')
  data = image.getvalue()
  segment = b'\xff' + bytes([int(rng.integers(0xE0, 0xEF))]) + struct.pack('>H', 2000) + bytes(1998)
  return data[:2] + segment * int(rng.integers(100, 3000)) + data[2:]


@maker
def bmp(rng):
  w, h = _sizes(rng, 31)
  kind = int(rng.integers(0, 4))
  h = -h if rng.random() < 0.3 else h
  info = struct.pack('<IiiHHIIIIII', 40, w, h, 1, 8 if kind < 3 else 24, kind, 0, 0, 0, 256, 0)
  return b'BM' + struct.pack('<IHHI', 2000, 0, 0, 54 + 1024) + info + bytes(1024) + bytes(500)


@maker
def words(rng):
  """Formats whose size is written out, or is the whole of their header."""
  w, h = _sizes(rng)
  texts = [
    f'P6 {w} {h} 255\n',
    f'P1 {w} {h}\n',
    f'P5 {w} {h} 65535\n',
    f'P2 {w} {h} 255\n' + '9' * 1_000_000,
    f'Pf {w} {h} -1.0\n',
    f'#define x_width {w}\n#define x_height {h}\nstatic char x_bits[] = {{\n0x00',
    f'/* XPM */\nstatic char *x[] = {{\n"{w} {h} 2 1",\n"a c #000000",\n"b c #ffffff",\n"ab"}};',
    f'SIMPLE  =  T\nBITPIX = 8\nNAXIS = 2\nNAXIS1 = {w}\nNAXIS2 = {h}\nEND'.ljust(2880),
    f'Image type: L image\r\nImage size (x*y): {w}*{h}\r\nFile size (no of images): 1\r\n'.ljust(
      511, '\0'
    )
    + '\x1a',
  ]
  return texts[int(rng.integers(len(texts)))].encode('latin-1') + bytes(300)


@maker
def changed_sizes(rng):
  """A whole file, some number in whose head is replaced by a huge one."""
  kinds = [k for k in _WRITTEN if features.check('avif') or k != 'AVIF']
  kind = kinds[int(rng.integers(len(kinds)))]
  mode = {'BLP': 'P', 'MSP': '1', 'XBM': '1', 'SPIDER': 'F'}.get(kind, 'RGB')
  out = io.BytesIO()
  with warnings.catch_warnings():
    warnings.simplefilter('ignore', DeprecationWarning)  # of formats that Pillow will drop
    Image.new(mode, (32, 32)).save(out, kind)
  data = bytearray(out.getvalue())
  size = int(rng.choice([2, 4]))
  values = [i for i in range(2, min(300, len(data) - 4))
            if int.from_bytes(data[i : i + size], 'big') == 32
            or int.from_bytes(data[i : i + size], 'little') == 32]  # fmt: skip
  for i in rng.choice(values, 2) if values else []:
    order = 'big' if data[i + size - 1] == 32 else 'little'
    data[i : i + size] = _huge(rng, 8 * size).to_bytes(size, order)
  return bytes(data)
