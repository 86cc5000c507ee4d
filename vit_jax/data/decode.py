"""File bytes to pixels: libjpeg-turbo for JPEG, Pillow for everything else."""

import contextlib
import io
import re
import sys
import threading
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import simplejpeg
from PIL import Image, ImageFile

from vit_jax.data import header
from vit_jax.data.depth import to_uint8
from vit_jax.errors import ImageError, UserError

# TIFF tags.
_WIDTH, _HEIGHT, _BITS, _PHOTOMETRIC, _MAX_VALUE, _SAMPLE_FORMAT = 256, 257, 258, 262, 281, 339
# libjpeg reports these although every pixel could be read; cameras and old editors write them.
_HARMLESS = ('extraneous bytes before marker', 'unknown JFIF revision', 'Unknown Adobe color')


def decode_image(data: bytes, name: str = '', channels: int = 3) -> np.ndarray:
  """Decodes one image of any common format, upright.

  An animation or a file of several pages gives its first image.

  Grey becomes three equal channels; transparency is dropped as `Image.convert('RGB')` drops it
  (what timm, torchvision and Hugging Face do), and is composited over nothing. Of 16-bit and 32-bit
  integers and of floats see `depth.to_uint8`. The EXIF orientation is applied. JPEG pixels equal
  Pillow's bit for bit.

  Args:
    data: the file's bytes; their first bytes, not the name, say the format.
    name: file to name in errors.
    channels: 3, or 1 for grey.

  Returns:
    uint8 `[h, w, c]`.

  Raises:
    ImageError: truncated, corrupt, not an image, of no known range of values, or larger than
      `header.check_size` lets pass.
  """
  with named_errors(data, name):
    image = _decode_jpeg(data, name, channels)
    return _decode_pillow(data, name, channels) if image is None else image


@contextlib.contextmanager
def named_errors(data: bytes, name: str) -> Iterator[None]:
  """Turns a decoder's error into an `ImageError` that names the image."""
  try:
    yield
  except UserError:
    raise
  except Image.DecompressionBombError as e:
    pixels = re.findall(r'\d+', str(e))[0]  # of a file within the file, or of a frame
    raise header.too_large(name, f'{int(pixels):,} pixels', pixels) from None
  except Exception as e:  # of whatever type: damaged files take decoders to places nobody has seen
    what = 'is empty' if not data else f'cannot be decoded ({_reason(e)})'
    raise ImageError(f'image {name or "without a name"} {what}; replace or remove it') from None


def _reason(error: Exception) -> str:
  if isinstance(error, Image.UnidentifiedImageError):
    return 'no known image format, or a kind of it that Pillow does not read'
  text = ' '.join(str(error).split())
  plain = isinstance(error, OSError | SyntaxError | ValueError) and text
  return text if plain else f'{type(error).__name__}: {text}'.rstrip(': ')


def jpeg_header(data: bytes, name: str) -> tuple[int, int, str] | None:
  """Height, width and colour space of a JPEG that libjpeg-turbo decodes; None for any other image.

  Raises:
    ImageError: it is too large.
  """
  if data[:2] != b'\xff\xd8':
    return None
  try:
    height, width, colorspace, _ = simplejpeg.decode_jpeg_header(data, strict=False)
  except (ValueError, KeyError):
    return None  # a layout that the binding does not know, or no JPEG: Pillow decides
  header.check_size((height, width), name, len(data))
  header.check_scans((height, width), data, name)
  return (height, width, colorspace) if colorspace in ('YCbCr', 'Gray', 'RGB') else None


def _decode_jpeg(data: bytes, name: str, channels: int) -> np.ndarray | None:
  """Decodes RGB and grey JPEGs; None for what Pillow decodes."""
  found = jpeg_header(data, name)
  if found is None or (found[2] == 'RGB' and channels == 1):
    return None
  image = read_jpeg(data, 'GRAY' if channels == 1 else 'RGB')
  return header.turn_upright(image, header.jpeg_orientation(data))


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


def _decode_pillow(data: bytes, name: str, channels: int) -> np.ndarray:
  hw = header.webp_hw(data) or header.icon_hw(data)
  if hw is not None:  # Pillow has the memory of its pixels allocated when it opens one
    header.check_size(hw, name, len(data))
  with _quiet_pillow, _open(data) as file:
    header.check_size((file.height, file.width), name, len(data))
    _check_strips(file)
    layout = _deep_layout(file)
    file.load()
    image = _eight_bits(file, name)
    if layout:
      image = _of_fewer_bits(data, layout, image, name)
    return _upright(image, header.exif_of(file), channels)


class _QuietPillow:
  """Pillow with our limit of pixels and without its warnings, while any thread decodes with it.

  What it warns of is a file's metadata, by no name, or its own limit of pixels.
  """

  def __init__(self) -> None:
    self._lock = threading.Lock()
    self._inside = 0
    self._limit: int | None = None
    self._filter: Any = None

  def __enter__(self) -> None:
    half = (header.most_pixels() + 1) // 2  # Pillow raises at twice its limit
    with self._lock:
      self._inside += 1
      if self._inside == 1:
        self._limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, half
        warnings.filterwarnings('ignore', module='PIL')
        self._filter = warnings.filters[0]

  def __exit__(self, *unused: object) -> None:
    with self._lock:
      self._inside -= 1
      if not self._inside:
        Image.MAX_IMAGE_PIXELS = self._limit
        with contextlib.suppress(ValueError):
          warnings.filters.remove(self._filter)  # type: ignore[attr-defined]


_quiet_pillow = _QuietPillow()


def _open(data: bytes) -> ImageFile.ImageFile:
  return Image.open(io.BytesIO(data))


def pixels_of(image: Image.Image, name: str = '', channels: int = 3) -> np.ndarray:
  """The pixels of an image that Pillow has opened or made, as `decode_image` gives them.

  Of colours of 16 bits an image that has been loaded holds the high bytes alone.

  Raises:
    ImageError: as `decode_image`.
  """
  header.check_size((image.height, image.width), name)
  with named_errors(b'opened', name), _quiet_pillow:
    if isinstance(image, ImageFile.ImageFile) and image.fp and _deep_layout(image):
      position = image.fp.tell()
      image.fp.seek(0)
      data = image.fp.read()
      image.fp.seek(position)
      return _decode_pillow(data, name, channels)
    image.load()
    return _upright(_eight_bits(image, name), header.exif_of(image), channels)


def _upright(image: Image.Image, exif: bytes, channels: int) -> np.ndarray:
  pixels = np.array(image.convert('L' if channels == 1 else 'RGB'))
  pixels = pixels[:, :, None] if channels == 1 else pixels
  return header.turn_upright(pixels, header.exif_orientation(exif))


def _eight_bits(image: Image.Image, name: str) -> Image.Image:
  """The same in a mode that Pillow converts to grey and RGB without loss of meaning."""
  if image.mode[0] in 'IF':  # convert() would clip integers to 0..255, and floats too
    return Image.fromarray(_grey_values(image, name))
  if image.mode == 'P' and 'transparency' in image.info:
    return image.convert('RGBA')  # Pillow warns when it has to drop this in one go
  if image.mode in ('RGBa', 'La'):
    return image.convert(image.mode.upper())
  return image


def _grey_values(image: Image.Image, name: str) -> np.ndarray:
  """Pixels `[h, w]` of a grey image whose values are no bytes, as uint8."""
  values = np.asarray(image)
  tags: Any = getattr(image, 'tag_v2', {})
  bits = tags.get(_BITS, (0,))[0]
  white = None
  if image.mode != 'F':
    said = tags.get(_MAX_VALUE) or ((1 << bits) - 1 if bits % 8 else None)
    white = int(np.max(said)) if said else None
    if bits == 32 and tags.get(_SAMPLE_FORMAT, (1,))[0] == 1:  # unsigned, read as if it were not
      values = values.view(np.uint32)
  pixels = to_uint8(values, name, white)
  return 255 - pixels if tags.get(_PHOTOMETRIC) == 0 else pixels  # 0: zero is white


def _check_strips(file: ImageFile.ImageFile) -> None:
  """Refuses a TIFF that holds a part of its pixels, of which Pillow makes the others black."""
  if file.format == 'TIFF' and file.tile:
    right, bottom = (max(tile.extents[i] for tile in file.tile if tile.extents) for i in (2, 3))
    tags: Any = getattr(file, 'tag_v2', {})
    width, height = tags[_WIDTH], tags[_HEIGHT]  # as stored; `file.size` is upright
    if right < width or bottom < height:
      raise ValueError(f'holds {right} x {bottom} of its {width} x {height} pixels')


def _deep_layout(image: Image.Image) -> str:
  """How a file stores colours of 16 bits, of which Pillow reads the high byte; '' for 8 bits."""
  tile = getattr(image, 'tile', None)
  args = tile[0][3] if tile else ''
  layout = args[0] if isinstance(args, tuple) and args else args
  return layout if isinstance(layout, str) and image.mode[0] != 'I' and ';16' in layout else ''


def _of_fewer_bits(data: bytes, layout: str, image: Image.Image, name: str) -> Image.Image:
  """Colours that were stored in 16 bits, of however many bits they are.

  Args:
    data: the file's bytes.
    layout: of `_deep_layout`.
    image: the high bytes.
    name: image to name.
  """
  high = np.asarray(image)
  if high.max() >= 64:  # 15 or 16 bits
    return image
  # Read in the other order of bytes, it gives the low ones; grey with alpha is two bytes and two.
  other = {'L': 'B', 'B': 'L', 'N': 'B' if sys.byteorder == 'little' else 'L'}[layout[-1]]
  grey = layout.startswith('LA')
  wanted = 'RGBA' if grey else layout[:-1] + other
  with _open(data) as file:
    file.tile = [tile._replace(args=_with_layout(tile.args, wanted)) for tile in file.tile]
    file.load()
    low = np.asarray(file)
  low = np.repeat(low[..., 1:2], 3, axis=-1) if grey else low[..., :3]
  values = np.asarray(image)[..., :3].astype(np.uint16) << 8 | low
  return Image.fromarray(to_uint8(values, name))


def _with_layout(args: Any, layout: str) -> Any:
  return (layout, *args[1:]) if isinstance(args, tuple) else layout


def with_channels(image: np.ndarray, channels: int) -> np.ndarray:
  """Gives an array from an array source (`[h, w]` or `[h, w, c]`) this number of channels."""
  if image.ndim == 2:
    image = image[:, :, None]
  have = image.shape[2]
  if have == channels:
    return image
  if have == 1:
    return np.repeat(image, channels, axis=2)
  if have in (2, 4):  # with transparency, which is dropped
    return with_channels(np.ascontiguousarray(image[:, :, : have - 1]), channels)
  if have == 3 and channels == 1:
    return np.asarray(Image.fromarray(image).convert('L'))[:, :, None]
  raise ImageError(f'image has {have} channels, expected 1 to 4')
