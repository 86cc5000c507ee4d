"""Pixels, sizes and metadata of strangers' files: the right image, or one clear line."""

import io
import logging
import struct
import threading
import tracemalloc
import warnings
import zlib

import numpy as np
import pytest
from PIL import Image

from tests.support import raises
from vit_jax import console
from vit_jax.data import decode_image, header, parse_transform
from vit_jax.data.decode import pixels_of
from vit_jax.data.depth import to_uint8
from vit_jax.errors import ConfigError, ImageError

RAMP = np.linspace(0, 1, 77).reshape(7, 11)  # black to white


@pytest.fixture(autouse=True)
def warned(monkeypatch, caplog):
  """What is warned of, from none on."""
  monkeypatch.setattr(console, '_told', set())
  caplog.set_level(logging.WARNING)
  return caplog


def png(values, colour_type, bits=16):
  """A PNG of big-endian samples [h, w, c]; Pillow writes no colours of 16 bits."""

  def chunk(kind, body):
    check = struct.pack('>I', zlib.crc32(kind + body))
    return struct.pack('>I', len(body)) + kind + body + check

  h, w, _ = values.shape
  rows = b''.join(b'\0' + row.astype('>u2').tobytes() for row in values)
  head = struct.pack('>IIBBBBB', w, h, bits, colour_type, 0, 0, 0)
  chunks = chunk(b'IHDR', head) + chunk(b'IDAT', zlib.compress(rows)) + chunk(b'IEND', b'')
  return b'\x89PNG\r\n\x1a\n' + chunks


def tiff(values, order='<', sample_format=1, rows=None, **tags):
  """A TIFF of one strip [h, w, c] of any type of number, in either order of bytes."""
  h, w, c = values.shape
  data = values.astype(values.dtype.newbyteorder(order)).tobytes()
  bits = values.dtype.itemsize * 8
  shorts = {258: [bits] * c, 259: [1], 262: [2 if c > 2 else 1], 277: [c]}
  shorts |= {339: [sample_format] * c} | {int(k[1:]): v for k, v in tags.items()}
  longs = {256: [w], 257: [h], 273: [0], 278: [rows or h], 279: [len(data)]}
  entries = sorted([(k, 3, v) for k, v in shorts.items()] + [(k, 4, v) for k, v in longs.items()])
  beside, out = b'', []
  first = 8 + 2 + 12 * len(entries) + 4
  start = first + sum(2 * len(v) for _, kind, v in entries if kind == 3 and len(v) > 2)
  for tag, kind, numbers in entries:
    numbers = [start] if tag == 273 else numbers
    body = struct.pack(f'{order}{len(numbers)}{"H" if kind == 3 else "I"}', *numbers)
    if len(body) > 4:
      body, beside = struct.pack(f'{order}I', first + len(beside)), beside + body
    out.append(struct.pack(f'{order}HHI', tag, kind, len(numbers)) + body.ljust(4, b'\0'))
  head = struct.pack(f'{order}2sHIH', b'II' if order == '<' else b'MM', 42, 8, len(entries))
  return head + b''.join(out) + b'\0\0\0\0' + beside + data


def encode(image, kind, **options):
  out = io.BytesIO()
  image.save(out, kind, **options)
  return out.getvalue()


def ramp(most, channels=1, dtype=np.uint16):
  """Black to `most`, the same in all channels."""
  return np.repeat(np.rint(RAMP[..., None] * most).astype(dtype), channels, axis=2)


def assert_ramp(image):
  """Within the grey level that a shift rounds away."""
  expected = np.repeat(RAMP[..., None] * 255, 3, axis=2)
  np.testing.assert_allclose(image, expected, atol=1.01)


@pytest.mark.parametrize('bits', [8, 10, 12, 14, 16])
@pytest.mark.parametrize(
  'make', ['png 0', 'png 2', 'png 4', 'png 6', 'tiff <', 'tiff >', 'rgb <', 'rgb >']
)
def test_whatever_bits_are_stored_in_16_white_is_white(make, bits, warned):
  kind, how = make.split()
  if kind == 'png':
    values = ramp((1 << bits) - 1, {'0': 1, '2': 3, '4': 2, '6': 4}[how])
    data = png(values, int(how))
  else:
    data = tiff(ramp((1 << bits) - 1, 3 if kind == 'rgb' else 1), how)
  assert_ramp(decode_image(data, f'{bits}.x'))
  assert len(warned.messages) == (bits < 16)
  assert all(f'{bits} bits' in text and f'{bits}.x' in text for text in warned.messages)


@pytest.mark.parametrize('compression', ['tiff_lzw', 'tiff_adobe_deflate', 'packbits'])
def test_12_bits_in_a_compressed_tiff(compression):
  image = Image.fromarray(ramp(4095)[..., 0])
  assert_ramp(decode_image(encode(image, 'TIFF', compression=compression)))


def test_many_images_of_fewer_bits_are_one_warning(warned):
  for name in ('a.png', 'b.png', 'c.png'):
    decode_image(png(ramp(4095), 0), name)
  assert len(warned.messages) == 1


def test_colours_of_few_bits_keep_their_proportions():
  values = np.zeros((2, 3, 3), np.uint16)
  values[0] = [4095, 1600, 33]
  found = decode_image(png(values, 2))
  np.testing.assert_array_equal(found[0, 0], [255, 100, 2])
  assert not found[1].any()


@pytest.mark.parametrize('order', ['<', '>'])
@pytest.mark.parametrize(
  'values, sample_format',
  [
    (ramp(1, dtype=np.float32) * 0 + RAMP[..., None].astype(np.float32), 3),
    ((RAMP[..., None] * 255).astype(np.float32), 3),
    (ramp(255, dtype=np.int32), 2),
    (ramp(4095, dtype=np.int32), 2),
    (ramp(65535, dtype=np.int32), 2),
    (ramp((1 << 30) - 1, dtype=np.int32), 2),
    (ramp(32767, dtype=np.int16) // 2, 2),
  ],
  ids=['0..1', '0..255', 'i32 8', 'i32 12', 'i32 16', 'i32 30', 'i16 14'],
)
def test_floats_and_signed_integers_of_a_tiff(values, sample_format, order):
  assert_ramp(decode_image(tiff(values, order, sample_format)))


def test_unsigned_32_bits_are_not_read_as_negative():
  assert_ramp(decode_image(tiff(ramp((1 << 32) - 1, dtype=np.uint32))))


def test_the_file_says_what_is_white(warned):
  dark = decode_image(tiff(ramp(1000), t281=[4000]))
  np.testing.assert_allclose(dark[..., 0], RAMP * 63.75, atol=1)
  white_is_zero = decode_image(tiff(65535 - ramp(65535), t262=[0]))
  assert_ramp(white_is_zero)
  assert not warned.messages
  assert_ramp(decode_image(tiff(4095 - ramp(4095), t262=[0])))


@pytest.mark.parametrize(
  'values, sample_format, facts',
  [
    (ramp(4095, dtype=np.int16) - np.int16(1024), 2, ['-1024', '3071']),
    (ramp(4095, dtype=np.int32) - np.int32(1024), 2, ['-1024', '3071']),
    (ramp(2, dtype=np.float32), 3, ['0 to 2']),
    (ramp(65535, dtype=np.float32), 3, ['65535']),
    (ramp(2, dtype=np.float32) - np.float32(1), 3, ['-1 to 1']),
    (np.full((3, 5, 1), np.nan, np.float32), 3, ['finite']),
    (np.full((3, 5, 1), np.inf, np.float32), 3, ['finite']),
  ],
)
def test_values_of_no_known_range_are_refused(values, sample_format, facts):
  with raises(ImageError, 'ct.tif', *facts):
    decode_image(tiff(values, sample_format=sample_format), 'ct.tif')


@pytest.mark.parametrize(
  'values',
  [
    ramp(65535)[..., 0],
    ramp(4095)[..., 0],
    ramp(255, dtype=np.int64)[..., 0],
    ramp(255, dtype=np.uint8)[..., 0],
    RAMP,
    RAMP.astype(np.float16),
    RAMP * 1.0001,
    RAMP * 255,
  ],
)
def test_arrays_have_the_same_rule(values):
  np.testing.assert_allclose(to_uint8(values), RAMP * 255, atol=1.01)


@pytest.mark.parametrize('spec', ['decode|resize(7, 11)', 'decode|inception_crop((7, 11), 100)'])
@pytest.mark.parametrize('channels', [1, 3])
def test_arrays_of_a_dataset_have_it_too(channels, spec):
  transform = parse_transform(spec, train=True)
  rng = np.random.default_rng(0)
  for values in (ramp(65535, channels), np.repeat(RAMP[..., None], channels, axis=2)):
    found = transform({'image': values, 'id': 'x'}, rng)['image']
    assert found.dtype == np.uint8 and found.shape == (7, 11, 3) and found.max() > 240


def test_true_is_white():
  np.testing.assert_array_equal(to_uint8(np.array([[True, False]])), [[255, 0]])


def test_lab_becomes_rgb():
  red = Image.new('LAB', (5, 3), (136, 208, 195))  # 53, 80, 67 in CIE's numbers
  assert np.abs(decode_image(encode(red, 'TIFF')).astype(int) - [255, 0, 0]).max() < 15


@pytest.mark.parametrize('mode', ['YCbCr', 'CMYK', 'RGBA', 'RGBX'])
def test_red_of_every_mode_stays_red(mode):
  red = Image.new('RGB', (16, 16), (255, 0, 0)).convert(mode)
  found = decode_image(encode(red, 'TIFF')).astype(int)
  assert np.abs(found - [255, 0, 0]).max() <= 2


@pytest.mark.parametrize('quality', [75, 95])
def test_a_cmyk_jpeg_is_inverted_once(quality):
  """As Adobe's programs store it; Pillow writes and reads the same."""
  white = Image.new('CMYK', (16, 16), (0, 0, 0, 0))
  assert decode_image(encode(white, 'JPEG', quality=quality)).min() > 250


# ---- metadata -----------------------------------------------------------------------------------


def with_exif(block):
  """A JPEG of 16 x 8 pixels with these bytes as its EXIF segment, and the same without."""
  image = Image.fromarray(np.random.default_rng(5).integers(0, 256, (8, 16, 3), np.uint8))
  plain = encode(image, 'JPEG')
  segment = b'\xff\xe1' + struct.pack('>H', len(block) + 2) + block
  return plain[:2] + segment + plain[2:], plain


def exif(value, kind=3, tag=0x0112, count=1, order='<'):
  head = b'II*\0' if order == '<' else b'MM\0*'
  entry = struct.pack(f'{order}HHI', tag, kind, count) + value
  return b'Exif\0\0' + head + struct.pack(f'{order}IH', 8, 1) + entry


BROKEN_EXIF = {
  'ends after the name': b'Exif\0\0',
  'ends after the order': b'Exif\0\0II*\0',
  'no tiff': b'Exif\0\0no tiff at all',
  'ends in the count': b'Exif\0\0II*\0\x08\0\0\0\x01',
  'ends in an entry': exif(b'\6\0\0\0')[:-7],
  'many entries, none there': b'Exif\0\0II*\0\x08\0\0\0\xff\xff',
  'directory far away': b'Exif\0\0II*\0\xff\xff\xff\x7f',
  'ascii': exif(b'6\0\0\0', kind=2),
  'bytes': exif(b'\6\0\0\0', kind=7, count=4),
  'rational by zero': exif(b'\0\0\0\0', kind=5),
  'double': exif(b'\0\0\0\0', kind=12),
  'nine': exif(b'\x09\0\0\0'),
  'zero': exif(b'\0\0\0\0'),
  'unknown type': exif(b'\6\0\0\0', kind=99),
  'pointer to itself': exif(b'\x08\0\0\0', kind=4, tag=0x8769),
}


@pytest.mark.parametrize('what', BROKEN_EXIF)
def test_broken_metadata_says_nothing_about_pixels(what, warned):
  data, plain = with_exif(BROKEN_EXIF[what])
  expected = decode_image(plain)
  np.testing.assert_array_equal(decode_image(data, 'phone.jpg'), expected)
  train = parse_transform('decode|inception_crop(8)', train=True)
  example = {'image': data, 'id': 'x'}
  assert train(example, np.random.default_rng(0))['image'].shape == (8, 8, 3)
  as_png = encode(Image.fromarray(expected), 'PNG', exif=BROKEN_EXIF[what])
  np.testing.assert_array_equal(decode_image(as_png), expected)
  with warnings.catch_warnings():
    warnings.simplefilter('ignore')  # of the caller's own call
    opened = Image.open(io.BytesIO(data))
  np.testing.assert_array_equal(pixels_of(opened), expected)
  assert not warned.messages


@pytest.mark.parametrize('order', ['<', '>'])
@pytest.mark.parametrize('kind', [3, 4])
def test_both_integers_in_both_orders(kind, order):
  value = struct.pack(f'{order}{"H" if kind == 3 else "I"}', 6).ljust(4, b'\0')
  data, plain = with_exif(exif(value, kind, order=order))
  np.testing.assert_array_equal(decode_image(data), np.rot90(decode_image(plain), -1))


def test_an_orientation_behind_padding_and_other_segments():
  data, plain = with_exif(exif(b'\3\0\0\0'))
  end = 2 + 2 + struct.unpack('>H', data[4:6])[0]
  tables = plain[2:]
  comment = b'\xff\xfe\0\5abc\xff'  # and a byte of padding
  quantization = tables.index(b'\xff\xdb')
  length = struct.unpack('>H', tables[quantization + 2 : quantization + 4])[0] + 2
  table = tables[quantization : quantization + length]
  late = data[:2] + comment + table + data[2:end] + data[end:]
  np.testing.assert_array_equal(decode_image(late), np.rot90(decode_image(plain), 2))


@pytest.mark.parametrize('orientation', range(1, 9))
@pytest.mark.parametrize('kind', ['JPEG', 'PNG', 'WEBP', 'TIFF'])
def test_an_opened_image_is_upright_as_its_file_is(kind, orientation):
  pixels = np.random.default_rng(1).integers(0, 256, (7, 11, 3), np.uint8)
  tag = Image.Exif()
  tag[0x0112] = orientation
  data = encode(
    Image.fromarray(pixels), kind, exif=tag, **({'lossless': True} if kind == 'WEBP' else {})
  )
  expected = decode_image(data)
  assert expected.shape[:2] == ((11, 7) if orientation > 4 else (7, 11))
  opened = Image.open(io.BytesIO(data))
  np.testing.assert_array_equal(pixels_of(opened), expected)
  np.testing.assert_array_equal(pixels_of(opened), expected)  # and again, loaded


# ---- sizes --------------------------------------------------------------------------------------


def jpeg_bomb(h=65500, w=65500, mode='RGB'):
  data = bytearray(encode(Image.new(mode, (16, 16)), 'JPEG'))
  at = data.index(b'\xff\xc0')
  data[at + 5 : at + 9] = struct.pack('>HH', h, w)
  return bytes(data)


def webp_bomb(w=16383, h=16383):
  bits = (w - 1) | (h - 1) << 14
  body = b'VP8L' + struct.pack('<I', 10) + b'\x2f' + struct.pack('<I', bits) + bytes(5)
  return b'RIFF' + struct.pack('<I', 4 + len(body)) + b'WEBP' + body


def png_bomb(side=30000):
  data = bytearray(encode(Image.new('1', (8, 8)), 'PNG'))
  data[16:24] = struct.pack('>II', side, side)
  data[29:33] = struct.pack('>I', zlib.crc32(bytes(data[12:29])))
  return bytes(data)


def gif_bomb():
  data = bytearray(encode(Image.new('P', (8, 8)), 'GIF'))
  data[6:10] = struct.pack('<HH', 65535, 65535)
  return bytes(data)


def bmp_bomb():
  data = bytearray(encode(Image.new('RGB', (8, 8)), 'BMP'))
  data[18:26] = struct.pack('<ii', 50000, 50000)
  return bytes(data)


BOMBS = {
  'jpg': jpeg_bomb(),
  'cmyk.jpg': jpeg_bomb(mode='CMYK'),
  'webp': webp_bomb(),
  'webp under the limit': webp_bomb(16383, 8000),
  'png': png_bomb(),
  'png under the limit': png_bomb(10000),
  'gif': gif_bomb(),
  'bmp': bmp_bomb(),
  'tif': tiff(np.zeros((2, 2, 1), np.uint8), t256=[60000], t257=[60000]),
  'ppm': b'P6 40000 40000 255\n' + bytes(99),
}


@pytest.mark.parametrize('spec', ['decode|resize(8)', 'decode|inception_crop(8)|flip_lr'])
@pytest.mark.parametrize('kind', BOMBS)
def test_a_decompression_bomb_is_refused_by_its_header(kind, spec):
  transform = parse_transform(spec, train=True)
  tracemalloc.start()
  try:
    with raises(ImageError, f'bomb {kind}', 'VIT_JAX_MAX_PIXELS'):
      transform({'image': BOMBS[kind], 'id': f'bomb {kind}'}, np.random.default_rng(0))
    assert tracemalloc.get_traced_memory()[1] < 1 << 22
  finally:
    tracemalloc.stop()


def test_the_limit_can_be_raised_and_lowered(monkeypatch):
  data = encode(Image.new('RGB', (30, 20)), 'JPEG')
  monkeypatch.setenv('VIT_JAX_MAX_PIXELS', '599')
  for content in (data, encode(Image.new('RGB', (30, 20)), 'PNG')):
    with raises(ImageError, '30 x 20', '599', 'VIT_JAX_MAX_PIXELS=600'):
      decode_image(content)
  monkeypatch.setenv('VIT_JAX_MAX_PIXELS', '6e2')
  assert decode_image(data).shape == (20, 30, 3)
  monkeypatch.setenv('VIT_JAX_MAX_PIXELS', 'many')
  with raises(ConfigError, 'VIT_JAX_MAX_PIXELS', 'many'):
    decode_image(data)
  monkeypatch.setenv('VIT_JAX_MAX_PIXELS', '1e12')
  with raises(ImageError, 'cannot be decoded'):
    decode_image(png_bomb(100))


def test_large_photographs_pass_and_the_same_pixels_of_few_bytes_do_not():
  header.check_size((12240, 16320), 'x.jpg', 20_000_000)  # a phone's 200 million
  header.check_size((8000, 8000), 'x.png', 9_000)  # an empty page
  with raises(ImageError, '16,320 x 12,240', '1,000,000'):
    header.check_size((12240, 16320), 'x.jpg', 1_000_000)


@pytest.mark.parametrize('kind', ['VP8 ', 'VP8L', 'VP8X'])
def test_the_size_of_a_webp_is_read_from_its_header(kind):
  image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (37, 53, 3), np.uint8))
  tag = Image.Exif()
  tag[0x0112] = 1
  options = {'VP8 ': {}, 'VP8L': {'lossless': True}, 'VP8X': {'exif': tag}}[kind]
  data = encode(image, 'WEBP', **options)
  assert data[12:16] == kind.encode() and header.webp_hw(data) == (37, 53)
  assert header.webp_hw(encode(image, 'PNG')) is None and header.webp_hw(b'RIFF') is None


def test_pillow_is_as_before(monkeypatch):
  monkeypatch.setattr(Image, 'MAX_IMAGE_PIXELS', 7)
  warnings.resetwarnings()  # of this test alone: a thread of another may have left Pillow's
  warnings.simplefilter('error')
  before = list(warnings.filters)
  data = encode(Image.new('RGB', (30, 20)), 'PNG')
  threads = [threading.Thread(target=decode_image, args=(data,)) for _ in range(7)]
  for thread in threads:
    thread.start()
  for thread in threads:
    thread.join()
  with raises(ImageError):
    decode_image(data[:50])
  assert Image.MAX_IMAGE_PIXELS == 7 and list(warnings.filters) == before


def test_a_tiff_without_its_last_strips_is_named():
  with raises(ImageError, 'half.tif', '11 x 3', '11 x 7'):
    decode_image(tiff(ramp(255, dtype=np.uint8), rows=3), 'half.tif')


# ---- aspect ratios ------------------------------------------------------------------------------


@pytest.mark.parametrize('hw', [(2, 997), (997, 2), (1, 641), (3, 331), (1, 1), (5, 79)])
@pytest.mark.parametrize(
  'spec', ['resize_small(23)|central_crop(19)', 'resize_small(13)|central_crop(17)']
)
@pytest.mark.parametrize('method', ['bilinear', 'bicubic'])
def test_the_crop_of_a_strip_is_the_crop_of_the_whole(hw, spec, method):
  y, x = np.mgrid[: hw[0], : hw[1]]
  pixels = (127 + 120 * np.stack([np.sin(x / 7), np.cos(y), np.sin((x + y) / 5)], -1)).astype(
    np.uint8
  )
  transform = parse_transform('decode|' + spec.replace(')|', f', method={method})|'))
  box = {'box': np.array([0.4, 0.5, 0.2, 0.9], np.float32), 'has_box': True}
  whole = {'image': pixels, 'id': 'x', **box}
  for op in transform.ops:
    whole = op(whole, np.random.default_rng(0))
  found = transform({'image': pixels, 'id': 'x', **box})
  assert np.abs(found['image'].astype(int) - whole['image']).max() <= 1
  np.testing.assert_allclose(found['box'], whole['box'], atol=1e-6)


@pytest.mark.parametrize('hw', [(2, 12000), (12000, 2), (1, 65500)])
def test_a_strip_takes_little_memory(hw):
  transform = parse_transform('decode|resize_small(256)|central_crop(224)')
  image = np.zeros((*hw, 3), np.uint8)
  tracemalloc.start()
  try:
    assert transform({'image': image, 'id': 'x'})['image'].shape == (224, 224, 3)
    assert tracemalloc.get_traced_memory()[1] < 1 << 24
  finally:
    tracemalloc.stop()


@pytest.mark.parametrize('spec', ['resize_small(256)|random_crop(224)', 'pad_square|resize(8)'])
def test_what_would_take_the_memory_is_refused(spec):
  transform = parse_transform('decode|' + spec, train=True)
  image = np.zeros((2, 60000, 3), np.uint8)
  with raises(ImageError, 'strip.png', '60000 x 2'):
    transform({'image': image, 'id': 'strip.png'}, np.random.default_rng(0))
