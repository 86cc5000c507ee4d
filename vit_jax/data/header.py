"""What an image file says of itself before any pixel is read: its size and its orientation."""

import contextlib
import dataclasses
import os
import re
import struct
import zlib
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from PIL import Image

from vit_jax.errors import ConfigError, ImageError

# Any image of so many pixels is read, whatever its file is like. They take 200 MB.
_PIXELS = 1 << 26
# A larger one must be a file that can hold it, up to a limit that lets the largest phone photos in:
# a decompression bomb says thousands of pixels in a byte, a photo one to twenty.
_MAX_PIXELS = 1 << 28
_PIXELS_IN_A_BYTE = 100
# Every scan of a progressive JPEG goes over all pixels, in a nanosecond each, though it be empty.
_SCANNED_PIXELS = 1 << 32
_VARIABLE = 'VIT_JAX_MAX_PIXELS'

_ORIENTATION = 0x0112
_SHORT, _LONG = 3, 4  # types of an EXIF value
# How to undo the eight EXIF orientations, as (transpose first, flip rows, flip columns).
_TURNS = {
  2: (False, False, True),
  3: (False, True, True),
  4: (False, True, False),
  5: (True, False, False),
  6: (True, False, True),
  7: (True, True, True),
  8: (True, True, False),
}
_STAND_ALONE = bytes([0x01, *range(0xD0, 0xD9)])  # JPEG markers without a length
_NO_MORE_METADATA = bytes([0xD9, 0xDA])  # end of the image, start of its pixels
_MARKER = re.compile(b'\xff+([^\x00\xd0-\xd7\xff])')  # but for those within the pixels
_HEAD = 1 << 18  # bytes of a JPEG in which its EXIF block is looked for
_THREADS = 8  # they wait for the storage, not for the processor
_TOGETHER = 64  # files a thread reads at a time


@dataclasses.dataclass(frozen=True)
class Header:
  """What an image file says of itself.

  Args:
    stored_hw: height and width of the pixels as stored.
    orientation: EXIF orientation, 1 (upright) to 8.
  """

  stored_hw: tuple[int, int]
  orientation: int

  @property
  def upright_hw(self) -> tuple[int, int]:
    """Height and width as `decode_image` gives the image."""
    return self.stored_hw[::-1] if self.orientation in (5, 6, 7, 8) else self.stored_hw


def read_header(path: str) -> Header | None:
  """The header of one file; None where it is no image that can be opened."""
  try:
    with open(path, 'rb') as f, Image.open(f) as image:
      hw = image.height, image.width
      if image.format in ('JPEG', 'MPO'):
        f.seek(0)
        orientation = jpeg_orientation(f.read(_HEAD))
      elif image.format == 'TIFF':
        orientation = int(image.getexif().get(_ORIENTATION, 1))
        if orientation in (5, 6, 7, 8):
          hw = hw[::-1]  # Pillow gives the upright size of these alone
      else:
        orientation = exif_orientation(exif_of(image))
  except (OSError, SyntaxError, ValueError, TypeError, KeyError, EOFError, struct.error):
    return None
  except (zlib.error, Image.DecompressionBombError):
    return None
  return Header(hw, orientation if 1 <= orientation <= 8 else 1)


def read_headers(paths: Iterable[str]) -> list[Header | None]:
  """The headers of many files, in order."""
  names = list(paths)
  parts = [names[i : i + _TOGETHER] for i in range(0, len(names), _TOGETHER)]
  with ThreadPoolExecutor(_THREADS) as pool:
    return [header for part in pool.map(_read_each, parts) for header in part]


def _read_each(paths: list[str]) -> list[Header | None]:
  return [read_header(path) for path in paths]


def check_size(hw: tuple[int, int], name: str = '', file_bytes: int | None = None) -> None:
  """Refuses an image whose pixels would take more memory than any real image does.

  Args:
    hw: height and width that the header says, or that an operation would make.
    name: image to name.
    file_bytes: size of the file, where it is known.

  Raises:
    ImageError: too many pixels. $VIT_JAX_MAX_PIXELS sets another limit.
    ConfigError: that variable is no number.
  """
  pixels = hw[0] * hw[1]
  if pixels <= _PIXELS and not os.environ.get(_VARIABLE):
    return
  limit = most_pixels()
  if file_bytes is not None and not os.environ.get(_VARIABLE):
    limit = max(_PIXELS, min(limit, file_bytes * _PIXELS_IN_A_BYTE))
  if pixels > limit:
    source = '' if file_bytes is None else f' in a file of {file_bytes:,} bytes'
    size = f'{hw[1]:,} x {hw[0]:,} pixels{source}, more than the limit of {limit:,}'
    raise too_large(name, size, str(pixels))


def too_large(name: str, size: str, pixels: str = 'PIXELS') -> ImageError:
  """The error for an image that is too large to be decoded, which says how to decode it anyway."""
  return ImageError(
    f'image {name or "without a name"} is too large ({size}): make it smaller, or set '
    f'{_VARIABLE}={pixels} if it is no decompression bomb'
  )


def most_pixels() -> int:
  """Pixels of the largest image that is read, whatever its file is like.

  Raises:
    ConfigError: $VIT_JAX_MAX_PIXELS is no number of pixels.
  """
  given = os.environ.get(_VARIABLE)
  if not given:
    return _MAX_PIXELS
  try:
    limit = int(float(given))
  except (ValueError, OverflowError):
    limit = 0
  if limit < 1:
    raise ConfigError(f'${_VARIABLE} must be a number of pixels, got {given!r}')
  return limit


def check_scans(hw: tuple[int, int], data: bytes, name: str = '') -> None:
  """Refuses a JPEG that would take very long, having thousands of scans where others have ten.

  Raises:
    ImageError: too many. $VIT_JAX_MAX_PIXELS lets it pass.
  """
  most = _SCANNED_PIXELS // max(1, hw[0] * hw[1])
  if len(data) <= 2 * most:  # no room for so many markers of two bytes: nothing is looked for
    return
  if os.environ.get(_VARIABLE) or not _has_scans(data) or data.count(b'\xff\xda') <= most:
    return
  scans, start = 0, 2  # without what stands in metadata and behind the image, a phone's video
  while (found := _MARKER.search(data, start)) and found[1] != b'\xd9':
    scans += found[1] == b'\xda'
    start = found.end()
    if found[1][0] not in _STAND_ALONE:
      start += int.from_bytes(data[start : start + 2])
  if scans > most:
    raise too_large(name, f'{scans:,} scans of {hw[1]:,} x {hw[0]:,} pixels')


def _has_scans(data: bytes) -> bool:
  """Whether a JPEG has its pixels in several scans: progressive, or a colour channel at a time."""
  start, channels = 2, 0
  while data[start : start + 1] == b'\xff' and start + 4 <= len(data):
    marker = data[start + 1]
    if marker == 0xDA:
      return data[start + 4 : start + 5] != bytes([channels])
    if marker in (0xC2, 0xC6, 0xCA, 0xCE):
      return True
    if marker in (0xC0, 0xC1, 0xC3, 0xC9) and start + 9 < len(data):
      channels = data[start + 9]
    alone = marker == 0xFF or marker in _STAND_ALONE
    step = 1 if marker == 0xFF else 2
    start += step if alone else 2 + int.from_bytes(data[start + 2 : start + 4])
  return False


def webp_hw(data: bytes) -> tuple[int, int] | None:
  """Height and width of a WebP file; None for any other."""
  if data[:4] != b'RIFF' or data[8:12] != b'WEBP' or len(data) < 30:
    return None
  kind = data[12:16]
  if kind == b'VP8X':
    return 1 + int.from_bytes(data[27:30], 'little'), 1 + int.from_bytes(data[24:27], 'little')
  if kind == b'VP8L':
    bits = int.from_bytes(data[21:25], 'little')
    return (bits >> 14 & 0x3FFF) + 1, (bits & 0x3FFF) + 1
  width, height = (int.from_bytes(data[i : i + 2], 'little') & 0x3FFF for i in (26, 28))
  return height, width


def icon_hw(data: bytes) -> tuple[int, int] | None:
  """Height and width of the largest PNG in an ICO file; None where there is none.

  The table of an ICO says 256 at most, whatever the size of its images is.
  """
  if data[:4] != b'\0\0\1\0':
    return None
  count = int.from_bytes(data[4:6], 'little')
  starts = {int.from_bytes(data[i + 12 : i + 16], 'little') for i in range(6, 6 + 16 * count, 16)}
  heads = [data[start : start + 24] for start in starts]
  pngs = [head[16:] for head in heads if head[:4] == b'\x89PNG']
  sizes = [(int.from_bytes(png[4:]), int.from_bytes(png[:4])) for png in pngs]
  return max(sizes, key=lambda hw: hw[0] * hw[1], default=None)


def jpeg_orientation(data: bytes) -> int:
  """EXIF orientation of a JPEG, 1 (upright) to 8."""
  start = 2
  while data[start : start + 1] == b'\xff' and start + 4 <= len(data):
    marker = data[start + 1]
    if marker == 0xFF:  # padding
      start += 1
    elif marker in _STAND_ALONE:
      start += 2
    elif marker in _NO_MORE_METADATA:
      break
    else:
      end = start + 2 + int.from_bytes(data[start + 2 : start + 4])
      if marker == 0xE1 and data[start + 4 : start + 10] == b'Exif\x00\x00':
        return exif_orientation(data[start + 10 : end])
      start = end
  return 1


def exif_of(image: Image.Image) -> bytes:
  """The EXIF block of an image that Pillow has opened; none of a TIFF, which it turns itself."""
  exif = image.info.get('exif', b'')
  profile = image.info.get('Raw profile type exif')  # how older programs write it into a PNG
  if profile and not exif:
    with contextlib.suppress(ValueError):
      exif = bytes.fromhex(''.join(profile.split('\n')[3:]))
  return exif


def exif_orientation(exif: bytes) -> int:
  """Orientation that an EXIF block says; upright where it is cut short, damaged or of no sense.

  Broken metadata says nothing about the pixels, so nothing here is an error.

  Args:
    exif: a TIFF header and its first directory, 'Exif' in front of them or not.
  """
  exif = exif.removeprefix(b'Exif\x00\x00')
  order = {b'II*\x00': 'little', b'MM\x00*': 'big'}.get(exif[:4])
  if order is None:
    return 1

  def number(start: int, size: int) -> int:
    return int.from_bytes(exif[start : start + size], order)  # type: ignore[arg-type]

  directory = number(4, 4)
  entries = min(number(directory, 2), (len(exif) - directory - 2) // 12)
  for start in range(directory + 2, directory + 2 + 12 * entries, 12):
    if number(start, 2) == _ORIENTATION:
      size = {_SHORT: 2, _LONG: 4}.get(number(start + 2, 2), 0)
      value = number(start + 8, size)
      return value if value in _TURNS else 1
  return 1


def turn_upright(image: np.ndarray, orientation: int) -> np.ndarray:
  """Undoes an EXIF orientation, for `[h, w, c]`; unknown values count as upright."""
  if orientation not in _TURNS:
    return image
  transpose, rows, columns = _TURNS[orientation]
  if transpose:
    image = image.transpose(1, 0, 2)
  image = image[:: -1 if rows else 1, :: -1 if columns else 1]
  return np.ascontiguousarray(image)
