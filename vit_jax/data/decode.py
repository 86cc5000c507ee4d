"""File bytes to pixels: libjpeg-turbo for JPEG, Pillow for everything else."""

import contextlib
import io
from collections.abc import Iterator

import numpy as np
import simplejpeg
from PIL import Image, ImageOps

from vit_jax.errors import ImageError

_ORIENTATION = 0x0112  # EXIF tag
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
_METADATA = bytes([*range(0xE0, 0xF0), 0xFE])  # second bytes of APPn and comment markers
# libjpeg reports these although every pixel could be read; cameras and old editors write them.
_HARMLESS = ('extraneous bytes before marker', 'unknown JFIF revision', 'Unknown Adobe color')


def decode_image(data: bytes, name: str = '', channels: int = 3) -> np.ndarray:
  """Decodes one image of any common format, upright.

  An animation or a file of several pages gives its first image.

  Grey becomes three equal channels; transparency is dropped as `Image.convert('RGB')` drops it
  (what timm, torchvision and Hugging Face do); 16-bit values keep their high byte. The EXIF
  orientation is applied. JPEG pixels equal Pillow's bit for bit.

  Args:
    data: the file's bytes; their first bytes, not the name, say the format.
    name: file to name in errors.
    channels: 3, or 1 for grey.

  Returns:
    uint8 `[h, w, c]`.

  Raises:
    ImageError: truncated, corrupt, or not an image.
  """
  with named_errors(data, name):
    if data[:2] == b'\xff\xd8':
      image = _decode_jpeg(data, channels)
      if image is not None:
        return image
    return _decode_pillow(data, channels)


@contextlib.contextmanager
def named_errors(data: bytes, name: str) -> Iterator[None]:
  """Turns a decoder's error into an `ImageError` that names the image."""
  try:
    yield
  except (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError) as e:
    what = 'is empty' if not data else f'cannot be decoded ({_reason(e)})'
    raise ImageError(
      f"image {name or 'without a name'} {what}; replace or remove it, or pass on_error='skip'"
    ) from None


def _reason(error: Exception) -> str:
  if isinstance(error, Image.UnidentifiedImageError):
    return 'no known image format'
  return ' '.join(str(error).split())


def _decode_jpeg(data: bytes, channels: int) -> np.ndarray | None:
  """Decodes RGB and grey JPEGs; None for colour spaces that Pillow decodes."""
  colorspace = 'GRAY' if channels == 1 else 'RGB'
  try:
    header = simplejpeg.decode_jpeg_header(data, strict=False)
  except (ValueError, KeyError):
    return None  # a layout that the binding does not know, or no JPEG: Pillow decides
  if header[2] not in ('YCbCr', 'Gray', 'RGB') or (header[2] == 'RGB' and channels == 1):
    return None
  image = read_jpeg(data, colorspace)
  return turn_upright(image, jpeg_orientation(data))


def read_jpeg(data: bytes, colorspace: str, fastupsample: bool = False, **scale) -> np.ndarray:
  """Pixels of a JPEG as stored; warnings that leave every pixel readable are ignored.

  Args:
    data: the file's bytes.
    colorspace: 'RGB', 'BGR' or 'GRAY'.
    fastupsample: take colours from the nearest sample instead of blending; some 6 % faster.
    **scale: the binding's `min_height`, `min_width` and `min_factor`.

  Returns:
    uint8 `[h, w, c]`.

  Raises:
    ValueError: truncated or damaged.
  """
  options = {'fastdct': False, 'fastupsample': fastupsample, **scale}
  try:
    return simplejpeg.decode_jpeg(data, colorspace, **options)
  except ValueError as e:
    if not any(h in str(e) for h in _HARMLESS):
      raise
    return simplejpeg.decode_jpeg(data, colorspace, **options, strict=False)


def jpeg_orientation(data: bytes) -> int:
  """EXIF orientation of a JPEG, 1 (upright) to 8."""
  start = 2
  while data[start : start + 1] == b'\xff' and data[start + 1 : start + 2] in _METADATA:
    end = start + 2 + int.from_bytes(data[start + 2 : start + 4])
    if data[start + 4 : start + 10] == b'Exif\x00\x00':
      exif = Image.Exif()
      try:
        exif.load(data[start + 4 : end])
        return int(exif.get(_ORIENTATION, 1))
      except (SyntaxError, ValueError, TypeError, KeyError):
        return 1  # broken metadata says nothing about the pixels
    start = end
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


def _decode_pillow(data: bytes, channels: int) -> np.ndarray:
  with Image.open(io.BytesIO(data)) as file:
    file.load()
    image: Image.Image = ImageOps.exif_transpose(file)
    mode = 'L' if channels == 1 else 'RGB'
    if image.mode.startswith('I'):  # 16-bit grey; convert() would clip it to white
      high_byte = np.asarray(image).astype(np.uint32) >> 8
      image = Image.fromarray(high_byte.astype(np.uint8))
    elif image.mode == 'P' and 'transparency' in image.info:
      image = image.convert('RGBA')  # Pillow warns when it has to drop this in one go
    pixels = np.array(image.convert(mode))
  return pixels[:, :, None] if channels == 1 else pixels


def with_channels(image: np.ndarray, channels: int) -> np.ndarray:
  """Gives an array from an array source (`[h, w]` or `[h, w, c]`) this number of channels."""
  if image.ndim == 2:
    image = image[:, :, None]
  have = image.shape[2]
  if have == channels:
    return image
  if have == 1:
    return np.repeat(image, channels, axis=2)
  if have == 4:
    return with_channels(np.ascontiguousarray(image[:, :, :3]), channels)
  if have == 3 and channels == 1:
    return np.asarray(Image.fromarray(image).convert('L'))[:, :, None]
  raise ImageError(f'image has {have} channels, expected 1, 3 or 4')
