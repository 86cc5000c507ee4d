"""Ops that are done in one go: to the same effect, and faster or in less memory.

The fast path for 'decode|inception_crop|flip_lr' on JPEG files:

Decoding takes most of the time and cannot be avoided, so what follows must cost next to nothing:
the window is drawn before decoding, an image much larger than needed is decoded at a half, a
quarter or an eighth of its size, the resize is vectorised and reads only the window's rows, and a
mirrored image is decoded with its channels swapped, so that reversing the bytes of a row mirrors
it. The random decisions are those of the separate ops; pixels stay within 1 grey level of theirs on
average. Images that are decoded already take the path from there.

'resize_small|central_crop' of an image of extreme aspect ratio computes the crop alone: the whole
of a strip would take a gigabyte.
"""

import dataclasses
import math
import threading

import numpy as np

from vit_jax.data.decode import jpeg_header, named_errors, read_jpeg
from vit_jax.data.header import jpeg_orientation
from vit_jax.data.transforms import geometry
from vit_jax.data.transforms.base import Op, image_name
from vit_jax.data.transforms.spatial import (
  CentralCrop,
  Decode,
  FlipLr,
  InceptionCrop,
  ResizeLong,
  ResizeSmall,
)

try:
  import cykooz_resizer
except ImportError:  # it has no wheels for some processors: the ops are done one by one
  cykooz_resizer = None

_EXTREME = 16  # aspect ratio of strips
_HEADROOM = 2  # how much larger than the result a scaled decode must stay to be close enough
_FILTERS = {'bilinear': 'bilinear', 'bicubic': 'catmull_rom', 'lanczos': 'lanczos3'}
_local = threading.local()  # memory that each thread keeps: fresh pages cost a third of a decode


def fuse(ops: tuple[Op, ...]) -> tuple[Op, ...]:
  """Replaces the ops that are done in one go, where they can be."""
  match ops:
    case (op, ResizeSmall() as resize, CentralCrop() as crop, *rest) if not isinstance(
      resize, ResizeLong
    ):
      return (op, ResizeForCrop(resize, crop), crop, *rest)
    case (Decode(channels=3) as decode, InceptionCrop() as crop, *rest):
      if cykooz_resizer is None or crop.method not in _FILTERS:
        return ops
      if rest and isinstance(rest[0], FlipLr):
        return (DecodeCropFlip(decode, crop, rest[0]), *rest[1:])
      return (DecodeCropFlip(decode, crop, None), *rest)
  return ops


@dataclasses.dataclass(frozen=True)
class ResizeForCrop(Op):
  """Resizes; of a strip only what the crop shows is computed, which the crop then leaves as it is.

  Args:
    resize: the op that it replaces.
    crop: the op that follows.
  """

  resize: ResizeSmall
  crop: CentralCrop

  def __call__(self, example: dict, rng: np.random.Generator) -> dict:
    hw = example['image'].shape[:2]
    if max(hw) <= _EXTREME * min(hw):
      return self.resize(example, rng)
    scaled = self.resize.scaled(hw)
    corner = self.crop.corner(scaled)
    return geometry.resize_crop(example, scaled, *corner, self.crop.size, self.resize.method)


@dataclasses.dataclass(frozen=True)
class DecodeCropFlip(Op):
  """Decodes, crops and mirrors in one go.

  Args:
    decode: the ops that it replaces.
    crop: likewise.
    flip: likewise, or None.
  """

  decode: Decode
  crop: InceptionCrop
  flip: FlipLr | None

  def __call__(self, example: dict, rng: np.random.Generator) -> dict:
    data = example['image']
    decoded = isinstance(data, np.ndarray) and data.ndim == 3 and data.shape[2] == 3
    decoded = decoded and data.dtype == np.uint8
    hw = data.shape[:2] if decoded else _upright_jpeg_hw(data, image_name(example))
    if hw is None:
      return self._one_by_one(example, rng)
    top, left, window_hw = self.crop.window(hw, rng, example.get('box'))
    mirrored = self.flip is not None and rng.random() < self.flip.p
    factor = 1 if decoded else self._factor(window_hw)
    pixels = data if decoded else self._decode(data, hw, factor, mirrored, example)
    window = tuple(v / factor for v in (top, left, *window_hw))
    image = _resize_window(pixels, window, self.crop.size, self.crop.method)
    example = geometry.follow_crop({**example, 'image': image}, hw, top, left, window_hw)
    if not mirrored:
      return example
    if decoded:
      return geometry.flip_lr(example)
    return geometry.follow_flip_lr({**example, 'image': _reverse_rows(image)})

  def _one_by_one(self, example: dict, rng: np.random.Generator) -> dict:
    for op in (self.decode, self.crop, self.flip):
      example = example if op is None else op(example, rng)
    return example

  def _factor(self, window_hw: tuple[int, int]) -> int:
    """By how much smaller the image may be decoded: the window has pixels to spare."""
    spare = min(have / want for have, want in zip(window_hw, self.crop.size)) / _HEADROOM
    return next((f for f in (8, 4, 2) if f <= spare), 1)

  def _decode(
    self, data: bytes, hw: tuple[int, int], factor: int, mirrored: bool, example: dict
  ) -> np.ndarray:
    """The whole image, in memory that the thread's next image overwrites."""
    h, w = (math.ceil(s / factor) for s in hw)
    scale = {'min_height': h, 'min_width': w, 'min_factor': factor}
    with named_errors(data, image_name(example)):
      colorspace = 'BGR' if mirrored else 'RGB'
      return read_jpeg(data, colorspace, fastupsample=True, buffer=_buffer(h * w * 3), **scale)


def _buffer(size: int) -> np.ndarray:
  """The thread's own `size` bytes."""
  if getattr(_local, 'buffer', None) is None or len(_local.buffer) < size:
    _local.buffer = np.empty(size, np.uint8)
  return _local.buffer


def _upright_jpeg_hw(data: bytes | np.ndarray, name: str) -> tuple[int, int] | None:
  """Height and width of an upright JPEG of a common colour space; None for any other image."""
  if isinstance(data, np.ndarray) or jpeg_orientation(data) != 1:
    return None
  found = jpeg_header(data, name)
  return found and found[:2]


def _resize_window(
  pixels: np.ndarray, window: tuple[float, ...], size: tuple[int, int], method: str
) -> np.ndarray:
  """Scales a window of an image.

  Args:
    pixels: uint8 `[h, w, 3]`.
    window: top, left, height and width in these pixels, which may be fractions.
    size: height and width of the result.
    method: filter.

  Returns:
    uint8 `[size[0], size[1], 3]`.
  """
  if not hasattr(_local, 'resizer'):
    _local.resizer = cykooz_resizer.Resizer()
  top, left, height, width = window
  first, end = math.floor(top), min(math.ceil(top + height), pixels.shape[0])
  height, width = min(height, end - top), min(width, pixels.shape[1] - left)
  kind = cykooz_resizer.PixelType.U8x3
  filter_type = getattr(cykooz_resizer.FilterType, _FILTERS[method])
  rows = pixels[first:end]
  source = cykooz_resizer.ImageData(rows.shape[1], rows.shape[0], kind, rows.tobytes())
  result = cykooz_resizer.ImageData(size[1], size[0], kind)
  options = cykooz_resizer.ResizeOptions(
    resize_alg=cykooz_resizer.ResizeAlg.convolution(filter_type),
    crop_box=cykooz_resizer.CropBox(left, top - first, width, height),
    use_alpha=False,
  )
  _local.resizer.resize(source, result, options)
  return np.frombuffer(result.get_buffer(), np.uint8).reshape(*size, 3)


def _reverse_rows(image: np.ndarray) -> np.ndarray:
  """Reverses the bytes of each row: mirrors the image and swaps red and blue back.

  Args:
    image: uint8 `[h, w, 3]`, channels in the order blue, green, red.
  """
  rows = image.reshape(image.shape[0], -1)
  if rows.shape[1] % 8 == 0:  # eight bytes at a time, ten times as fast
    return rows.view(np.uint64)[:, ::-1].byteswap().view(np.uint8).reshape(image.shape)
  return np.ascontiguousarray(rows[:, ::-1]).reshape(image.shape)
