"""Ops that are done in one go: to the same effect, and faster or in less memory.

The fast path for 'decode|inception_crop|flip_lr' on JPEG files:

Decoding takes most of the time and cannot be avoided, so what follows must cost next to nothing:
the window is drawn before decoding, an image much larger than needed is decoded at a half, a
quarter or an eighth of its size, the resize is vectorised and reads only the window's rows, and a
mirrored image is decoded with its channels swapped, so that reversing the bytes of a row mirrors
it. The random decisions are those of the separate ops; pixels stay within 1 grey level of theirs on
average. Images that are decoded already take the path from there. Ops in between that move no pixel
within the image (a margin, a central crop, a tighter box) shift the window; only a window that
reaches over the image's edge is copied onto black first.

'resize_small|central_crop' of an image of extreme aspect ratio computes the crop alone: the whole
of a strip would take a gigabyte.
"""

import dataclasses
import math
import threading
from collections.abc import Callable, Sequence

import numpy as np

from vit_jax.data.decode import jpeg_header, named_errors, read_jpeg
from vit_jax.data.header import jpeg_orientation
from vit_jax.data.transforms import geometry
from vit_jax.data.transforms.base import Op, image_name
from vit_jax.data.transforms.spatial import (
  CentralCrop,
  Decode,
  FlipLr,
  Framing,
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
_HEADROOM_OF_EDGES = 4  # the same where the edge between image and black margin is seen
_FILTERS = {'bilinear': 'bilinear', 'bicubic': 'catmull_rom', 'lanczos': 'lanczos3'}
_local = threading.local()  # memory that each thread keeps: fresh pages cost a third of a decode


def fuse(ops: tuple[Op, ...]) -> tuple[Op, ...]:
  """Replaces the ops that are done in one go, where they can be."""
  match ops:
    case (op, ResizeSmall() as resize, CentralCrop() as crop, *rest) if not isinstance(
      resize, ResizeLong
    ):
      return (op, ResizeForCrop(resize, crop), crop, *rest)
    case (Decode(channels=3) as decode, *rest) if cykooz_resizer is not None:
      return _fuse_crop(decode, rest) or ops
  return ops


def _fuse_crop(decode: Decode, rest: Sequence[Op]) -> tuple[Op, ...]:
  """`DecodeCropFlip` and what follows it; nothing where it cannot do these ops."""
  between: list[Framing] = []
  while rest and isinstance(rest[0], Framing):
    between.append(rest[0])
    rest = rest[1:]
  frames = tuple(between)
  match rest:
    case (InceptionCrop(method=method) as crop, FlipLr() as flip, *after) if method in _FILTERS:
      return (DecodeCropFlip(decode, frames, crop, flip), *after)
    case (InceptionCrop(method=method) as crop, *after) if method in _FILTERS:
      return (DecodeCropFlip(decode, frames, crop, None), *after)
  return ()


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
    frame = self.crop.frame(scaled)
    return geometry.resize_crop(example, scaled, *frame, self.resize.method)


@dataclasses.dataclass(frozen=True)
class _Plane:
  """Where an image lies once `Framing` ops have been applied.

  Attributes:
    hw: height and width of what is shown.
    top, left: its first row and column in the image, negative in a margin.
    visible: first row, first column, end row and end column of the image's pixels that are shown.
  """

  hw: tuple[int, int]
  top: int
  left: int
  visible: tuple[int, int, int, int]

  def framed(self, top: int, left: int, hw: tuple[int, int]) -> '_Plane':
    """What a further window shows, placed in this one."""
    top, left = self.top + top, self.left + left
    y, x, bottom, right = self.visible
    visible = max(y, top), max(x, left), min(bottom, top + hw[0]), min(right, left + hw[1])
    return _Plane(hw, top, left, visible)

  @property
  def hides(self) -> bool:
    """Whether something that is shown is no pixel of the image."""
    y, x, bottom, right = self.visible
    return (bottom - y, right - x) != self.hw


@dataclasses.dataclass(frozen=True)
class DecodeCropFlip(Op):
  """Decodes, crops and mirrors in one go.

  Args:
    decode: the ops that it replaces.
    frames: likewise, none or several.
    crop: likewise.
    flip: likewise, or None.
  """

  random = True
  decode: Decode
  frames: tuple[Framing, ...]
  crop: InceptionCrop
  flip: FlipLr | None

  def __call__(self, example: dict, rng: np.random.Generator) -> dict:
    data, name = example['image'], image_name(example)
    hw = data.hw if isinstance(data, Kept) else _whole_hw(data, name)
    if hw is None:
      return self._one_by_one(example, rng)
    plane = _Plane(hw, 0, 0, (0, 0, *hw))
    for op in self.frames:
      frame = op.frame(plane.hw)
      geometry.check_room(plane.hw, frame[2], name)
      example = op.follow(example, plane.hw)
      plane = plane.framed(*frame)
    top, left, window_hw = self.crop.window(plane.hw, rng, example.get('box'))
    mirrored = self.flip is not None and rng.random() < self.flip.p
    window = plane.framed(top, left, window_hw)
    factor = 1 if isinstance(data, np.ndarray) else self._factor(window)
    swapped = mirrored and isinstance(data, bytes)  # its channels, by the decoder
    pixels = data.at(factor) if isinstance(data, Kept) else data
    pixels = _decode(data, hw, factor, swapped, name) if isinstance(data, bytes) else pixels
    scaled = tuple(v / factor for v in (window.top, window.left, *window_hw))
    if window.hides:
      visible = tuple(v / factor for v in window.visible)
      pixels, scaled = _on_black(pixels, scaled, visible)
    image = _resize_window(pixels, scaled, self.crop.size, self.crop.method)
    example = geometry.follow_crop({**example, 'image': image}, plane.hw, top, left, window_hw)
    if not mirrored:
      return example
    if swapped:
      return geometry.follow_flip_lr({**example, 'image': _reverse_rows(image)})
    return geometry.flip_lr(example)

  def _factor(self, window: _Plane) -> int:
    """By how much smaller the image may be decoded: the window has pixels to spare."""
    headroom = _HEADROOM_OF_EDGES if window.hides else _HEADROOM
    spare = min(have / want for have, want in zip(window.hw, self.crop.size)) / headroom
    return next((f for f in (8, 4, 2) if f <= spare), 1)

  def _one_by_one(self, example: dict, rng: np.random.Generator) -> dict:
    kept = isinstance(example['image'], Kept)
    if kept:
      example = {**example, 'image': example['image'].pixels}
    for op in (None if kept else self.decode, *self.frames, self.crop, self.flip):
      example = example if op is None else op(example, rng)
    return example

  def beginning(self, take: Callable[[int], bool]) -> 'Keep':
    """An op that does what of this one is the same in every epoch, in a form that this one takes.

    Args:
      take: asks for so many bytes to keep.
    """
    return Keep(self, take)


class Kept:
  """An image whose decoded pixels are kept, for `DecodeCropFlip`; safe in threads.

  Attributes:
    hw: height and width; None where the ops are done one by one.
    data: the file's bytes, decoded again at another scale.
    pixels: as decoded, where the ops are done one by one.

  Args:
    example: with the image.
    decode: used where the ops are done one by one.
    take: asks for so many bytes to keep.
  """

  def __init__(self, example: dict, decode: Decode, take: Callable[[int], bool]):
    self._name, self._take = image_name(example), take
    self._at: dict[int, np.ndarray] = {}  # by how much smaller
    self.hw = _whole_hw(example['image'], self._name)
    self.data = example['image'] if self.hw else b''
    self.pixels = None if self.hw else decode(example, np.random.default_rng(0))['image']

  @property
  def nbytes(self) -> int:
    """Bytes that are kept from the beginning."""
    return len(self.data) if self.pixels is None else self.pixels.nbytes

  @property
  def nbytes_at_most(self) -> int:
    """Bytes when every scale of it was asked for."""
    if self.hw is None:
      return self.nbytes
    whole = 3 * self.hw[0] * self.hw[1]
    return self.nbytes + sum(whole // f**2 for f in (1, 2, 4, 8))

  def at(self, factor: int) -> np.ndarray:
    """The pixels of an image that much smaller `[h, w, 3]`; valid until the thread's next image."""
    assert self.hw is not None
    found = self._at.get(factor)
    if found is None:
      found = _decode(self.data, self.hw, factor, False, self._name)
      if self._take(found.nbytes):
        found = self._at[factor] = found.copy()
    return found


@dataclasses.dataclass(frozen=True)
class Keep(Op):
  """Makes `Kept` images; see `DecodeCropFlip.beginning`."""

  whole: DecodeCropFlip
  take: Callable[[int], bool]

  def __call__(self, example: dict, rng: np.random.Generator) -> dict:
    if _plain_pixels(example['image']):
      return example
    return {**example, 'image': Kept(example, self.whole.decode, self.take)}


def _decode(data: bytes, hw: tuple[int, int], factor: int, swapped: bool, name: str) -> np.ndarray:
  """The whole image, in memory that the thread's next image overwrites."""
  h, w = (math.ceil(s / factor) for s in hw)
  scale = {'min_height': h, 'min_width': w, 'min_factor': factor}
  with named_errors(data, name):
    colorspace = 'BGR' if swapped else 'RGB'
    return read_jpeg(data, colorspace, fastupsample=True, buffer=_buffer(h * w * 3), **scale)


def _buffer(size: int) -> np.ndarray:
  """The thread's own `size` bytes."""
  if getattr(_local, 'buffer', None) is None or len(_local.buffer) < size:
    _local.buffer = np.empty(size, np.uint8)
  return _local.buffer


def _plain_pixels(data: bytes | np.ndarray) -> bool:
  """Whether these are decoded pixels, uint8 `[h, w, 3]`."""
  if not isinstance(data, np.ndarray):
    return False
  return data.ndim == 3 and data.shape[2] == 3 and data.dtype == np.uint8


def _whole_hw(data: bytes | np.ndarray, name: str) -> tuple[int, int] | None:
  """Height and width of plain pixels or of an upright JPEG of a common colour space, else None."""
  if isinstance(data, np.ndarray):
    return data.shape[:2] if _plain_pixels(data) else None
  if jpeg_orientation(data) != 1:
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


def _on_black(
  pixels: np.ndarray, window: tuple[float, ...], visible: tuple[float, ...]
) -> tuple[np.ndarray, tuple[float, ...]]:
  """A part of an image on black, and a window in it.

  Args:
    pixels: uint8 `[h, w, 3]`.
    window: top, left, height and width in these pixels, which may be fractions.
    visible: first row, first column, end row and end column outside of which all is black,
      likewise; pixels that are cut through become darker.

  Returns:
    Pixels that hold all of the window, and the window in them.
  """
  top, left, height, width = window
  first, start = math.floor(top), math.floor(left)
  hw = math.ceil(top + height) - first, math.ceil(left + width) - start
  y, x = max(math.floor(visible[0]), first), max(math.floor(visible[1]), start)
  bottom = max(min(math.ceil(visible[2]), first + hw[0]), y)
  right = max(min(math.ceil(visible[3]), start + hw[1]), x)
  inside = pixels[y:bottom, x:right]
  canvas = np.zeros((*hw, 3), np.uint8)
  canvas[y - first : bottom - first, x - start : right - start] = inside
  for rows, one, low, high in (
    (canvas, first, visible[0], visible[2]),
    (canvas.swapaxes(0, 1), start, visible[1], visible[3]),
  ):
    numbers = np.arange(one, one + len(rows))
    share = np.minimum(numbers + 1, high) - np.maximum(numbers, low)
    for i in np.flatnonzero((share > 0) & (share < 1)):
      rows[i] = np.rint(rows[i] * share[i])
  return canvas, (top - first, left - start, height, width)


def _reverse_rows(image: np.ndarray) -> np.ndarray:
  """Reverses the bytes of each row: mirrors the image and swaps red and blue back.

  Args:
    image: uint8 `[h, w, 3]`, channels in the order blue, green, red.
  """
  rows = image.reshape(image.shape[0], -1)
  if rows.shape[1] % 8 == 0:  # eight bytes at a time, ten times as fast
    return rows.view(np.uint64)[:, ::-1].byteswap().view(np.uint8).reshape(image.shape)
  return np.ascontiguousarray(rows[:, ::-1]).reshape(image.shape)
