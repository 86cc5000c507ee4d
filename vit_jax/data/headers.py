"""Size and EXIF orientation of image files, without decoding their pixels."""

import dataclasses
import struct
import zlib
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor

from PIL import Image

from vit_jax.data.decode import jpeg_orientation

_ORIENTATION = 0x0112  # EXIF tag
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
      else:  # of a PNG, its own `getexif` would decode all pixels to see what comes after them
        orientation = int(Image.Image.getexif(image).get(_ORIENTATION, 1))
        if image.format == 'TIFF' and orientation in (5, 6, 7, 8):
          hw = hw[::-1]  # Pillow gives the upright size of these alone
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
