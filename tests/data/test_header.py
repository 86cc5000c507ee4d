"""Sizes and orientations of image files agree with the decoded images."""

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from vit_jax.data.decode import decode_image
from vit_jax.data.header import Header, read_header, read_headers


@pytest.mark.parametrize('ending', ['jpg', 'png', 'webp', 'tif', 'bmp', 'gif', 'ppm'])
@pytest.mark.parametrize('orientation', range(1, 10))
def test_headers_agree_with_decoding(tmp_path, ending, orientation):
  path = tmp_path / f'a.{ending}'
  exif = Image.Exif()
  exif[0x0112] = orientation
  keep = {'exif': exif} if ending in ('jpg', 'png', 'webp', 'tif') else {}
  Image.new('RGB', (5, 3)).save(path, **keep)
  header = read_header(str(path))
  assert header.stored_hw == (3, 5)
  assert header.orientation == (orientation if keep and orientation < 9 else 1)
  assert header.upright_hw == decode_image(path.read_bytes()).shape[:2]


def test_an_orientation_in_xmp_alone_turns_neither_pixels_nor_boxes(tmp_path):
  xmp = '<x tiff:Orientation="6"/>'
  info = PngImagePlugin.PngInfo()
  info.add_itxt('XML:com.adobe.xmp', xmp)
  Image.new('RGB', (5, 3)).save(tmp_path / 'a.png', pnginfo=info)
  Image.new('RGB', (5, 3)).save(tmp_path / 'a.webp', xmp=xmp.encode())
  for path in (tmp_path / 'a.png', tmp_path / 'a.webp'):
    with Image.open(path) as image:
      assert Image.Image.getexif(image).get(0x0112) == 6  # as Pillow takes it
    assert read_header(str(path)) == Header((3, 5), 1)
    assert decode_image(path.read_bytes()).shape == (3, 5, 3)


def test_files_that_cannot_be_opened_have_none(tmp_path):
  Image.fromarray(np.zeros((3, 5, 3), np.uint8)).save(tmp_path / 'a.png')
  (tmp_path / 'b.png').write_bytes(b'no image')
  (tmp_path / 'c.jpg').write_bytes(b'\xff\xd8\xff')
  names = ['a.png', 'b.png', 'c.jpg', 'd.png', '']
  found = read_headers(str(tmp_path / name) for name in names)
  assert found == [Header((3, 5), 1), None, None, None, None]
