"""Every image format is decoded to the pixels that a person sees."""

import io

import numpy as np
import pytest
from PIL import Image

from tests.support import SHARED, needs_shared, raises
from vit_jax.data import decode_image
from vit_jax.errors import ImageError

H, W = 7, 13


def noise(mode='RGB', seed=0, hw=(H, W)):
  channels = len(Image.new(mode, (1, 1)).getbands())
  pixels = np.random.default_rng(seed).integers(0, 256, (*hw, channels), np.uint8)
  return Image.fromarray(pixels[..., 0] if channels == 1 else pixels)


def encode(image, kind, **options):
  out = io.BytesIO()
  image.save(out, kind, **options)
  return out.getvalue()


@pytest.mark.parametrize(
  'options',
  [
    {'quality': 95, 'subsampling': 0},
    {'quality': 60, 'subsampling': 2},
    {'quality': 75, 'subsampling': 1, 'progressive': True},
  ],
)
def test_jpeg_pixels_equal_pillows(options):
  data = encode(noise(), 'JPEG', **options)
  np.testing.assert_array_equal(decode_image(data), np.asarray(Image.open(io.BytesIO(data))))
  grey = decode_image(data, channels=1)
  assert grey.shape == (H, W, 1)
  expected = np.asarray(Image.open(io.BytesIO(data)).convert('L'), np.int32)[..., None]
  assert np.abs(grey - expected).mean() <= 1  # it is the file's luma, before clipping in RGB


def test_grey_jpeg_has_three_equal_channels():
  image = decode_image(encode(noise('L'), 'JPEG'))
  assert image.shape == (H, W, 3)
  assert (image[..., 0] == image[..., 1]).all()
  assert (image[..., 0] == image[..., 2]).all()


def test_cmyk_jpeg_is_converted():
  red = encode(Image.new('RGB', (16, 8), (200, 10, 30)).convert('CMYK'), 'JPEG', quality=95)
  image = decode_image(red)
  assert image.shape == (8, 16, 3)
  assert np.abs(image.astype(int) - [200, 10, 30]).max() <= 3


@pytest.mark.parametrize('kind', ['PNG', 'WEBP', 'BMP', 'TIFF', 'PPM'])
def test_lossless_formats_are_exact(kind):
  pil_image = noise()
  options = {'lossless': True} if kind == 'WEBP' else {}
  np.testing.assert_array_equal(
    decode_image(encode(pil_image, kind, **options)), np.asarray(pil_image)
  )


def test_transparency_is_dropped_like_convert_rgb():
  image = decode_image(encode(Image.new('RGBA', (W, H), (10, 20, 30, 0)), 'PNG'))
  assert (image == [10, 20, 30]).all()


def test_grey_with_alpha():
  image = decode_image(encode(Image.new('LA', (W, H), (77, 0)), 'PNG'))
  assert image.shape == (H, W, 3)
  assert (image == 77).all()


@pytest.mark.parametrize('transparency', [None, 0, bytes([0, 128, 255])])
def test_palette(transparency):
  pil_image = Image.new('P', (3, 1))
  pil_image.putpalette([1, 2, 3, 40, 50, 60, 250, 251, 252])
  pil_image.putdata([0, 1, 2])
  options = {} if transparency is None else {'transparency': transparency}
  image = decode_image(encode(pil_image, 'PNG', **options))
  np.testing.assert_array_equal(image, [[[1, 2, 3], [40, 50, 60], [250, 251, 252]]])


def test_one_bit_png():
  pil_image = Image.new('1', (3, 1))
  pil_image.putdata([0, 1, 0])
  np.testing.assert_array_equal(decode_image(encode(pil_image, 'PNG'))[0, :, 0], [0, 255, 0])


@pytest.mark.parametrize('kind', ['PNG', 'TIFF'])
def test_16_bit_grey_keeps_the_high_byte(kind):
  deep = np.array([[0, 255, 256, 0x1234, 0xFFFF]], np.uint16)
  image = decode_image(encode(Image.fromarray(deep), kind))
  np.testing.assert_array_equal(image[0, :, 0], [0, 0, 1, 0x12, 0xFF])
  assert decode_image(encode(Image.fromarray(deep), kind), channels=1).shape == (1, 5, 1)


@pytest.mark.parametrize('kind', ['GIF', 'WEBP', 'PNG', 'TIFF'])
def test_animations_and_pages_give_the_first_image(kind):
  first, second = (Image.new('RGB', (W, H), color) for color in ((200, 0, 0), (0, 0, 200)))
  options = {'lossless': True} if kind == 'WEBP' else {}
  data = encode(first, kind, save_all=True, append_images=[second], **options)
  with Image.open(io.BytesIO(data)) as pil_image:
    assert pil_image.n_frames == 2
  np.testing.assert_array_equal(decode_image(data), np.asarray(first))


# What a 2x3 image stored with each orientation looks like upright, by the EXIF standard, whose
# entries give the edges of the scene that row 0 and column 0 are.
STORED = np.array([[1, 2, 3], [4, 5, 6]], np.uint8) * 40
UPRIGHT = {
  1: [[1, 2, 3], [4, 5, 6]],
  2: [[3, 2, 1], [6, 5, 4]],
  3: [[6, 5, 4], [3, 2, 1]],
  4: [[4, 5, 6], [1, 2, 3]],
  5: [[1, 4], [2, 5], [3, 6]],
  6: [[4, 1], [5, 2], [6, 3]],
  7: [[6, 3], [5, 2], [4, 1]],
  8: [[3, 6], [2, 5], [1, 4]],
}


@pytest.mark.parametrize('orientation', UPRIGHT)
@pytest.mark.parametrize('kind', ['JPEG', 'PNG'])
def test_exif_orientation(orientation, kind):
  exif = Image.Exif()
  exif[0x0112] = orientation
  big = Image.fromarray(np.kron(STORED, np.ones((8, 8), np.uint8)))
  options = {'quality': 100} if kind == 'JPEG' else {}
  image = decode_image(encode(big, kind, exif=exif, **options))
  got = np.round(image[4::8, 4::8, 0] / 40)
  np.testing.assert_array_equal(got, UPRIGHT[orientation])


def test_the_first_bytes_decide_the_format():
  assert decode_image(encode(noise(), 'PNG'), name='wrong.jpg').shape == (H, W, 3)


@pytest.mark.parametrize('kind', ['JPEG', 'PNG', 'WEBP', 'BMP', 'GIF', 'TIFF', 'PPM'])
@pytest.mark.parametrize('keep', [0.9, 0.5, 0.02])
def test_truncated_is_named(kind, keep):
  data = encode(noise(hw=(67, 71)), kind)
  with raises(ImageError, 'cat/bad.x cannot be decoded') as e:
    decode_image(data[: int(len(data) * keep)], name='cat/bad.x')
  assert '\n' not in str(e.value)


def test_damaged_middle_of_a_jpeg_is_named():
  data = bytearray(encode(noise(hw=(67, 71)), 'JPEG'))
  middle = len(data) // 2
  data[middle : middle + 40] = b'\xff\xd9' * 20
  with raises(ImageError, 'bad.jpg'):
    decode_image(bytes(data), name='bad.jpg')


def test_extra_bytes_do_no_harm():
  data = encode(noise(), 'JPEG')
  np.testing.assert_array_equal(decode_image(data + b'\0\0 tail'), decode_image(data))
  with_gap = data[:-2] + b'\x00\x11\x22' + data[-2:]
  np.testing.assert_array_equal(decode_image(with_gap), decode_image(data))


@pytest.mark.parametrize('data, fact', [(b'', 'is empty'), (b'no image', 'no known image format')])
def test_no_image(data, fact):
  with raises(ImageError, 'x.png', fact):
    decode_image(data, name='x.png')


@needs_shared
def test_real_images_equal_pillow():
  paths = sorted((SHARED / 'pets3' / 'images').rglob('*.jpg'))[::13]
  paths += sorted((SHARED / 'dogs6').rglob('*.JPEG'))[::211]
  for path in paths:
    data = path.read_bytes()
    with Image.open(io.BytesIO(data)) as pil_image:
      if pil_image.mode == 'P':
        pil_image = pil_image.convert('RGBA')
      expected = np.asarray(pil_image.convert('RGB'))
    np.testing.assert_array_equal(decode_image(data, str(path)), expected)
