"""The few ways in which an op may move an image's pixels.

Ops go through these functions, so that what is attached to positions in the image (boxes) follows
in one place.
"""

from collections.abc import Sequence

import numpy as np
from PIL import Image

from vit_jax.data import boxes
from vit_jax.data.transforms.base import image_name
from vit_jax.errors import ImageError

# What an operation may make of any image, and how many times its pixels of a large one. Only images
# of extreme aspect ratios grow further: a strip of 12,000 x 2 whose shorter side becomes 256.
_PIXELS, _GROWTH = 1 << 26, 4

_FILTERS = {
  'bilinear': Image.Resampling.BILINEAR,
  'bicubic': Image.Resampling.BICUBIC,
  'lanczos': Image.Resampling.LANCZOS,
  'nearest': Image.Resampling.NEAREST,
}


def resize_pixels(
  image: np.ndarray,
  hw: tuple[int, int],
  method: str = 'bilinear',
  part: tuple[int, int, int, int] | None = None,
) -> np.ndarray:
  """Resizes with antialiasing, exactly as Pillow (and so timm, torchvision on PIL, HF) does.

  Args:
    image: uint8 `[h, w, c]`, c 1 or 3.
    hw: new height and width in pixels.
    method: 'bilinear', 'bicubic', 'lanczos' or 'nearest'.
    part: top, left, height and width of what is wanted of the result; nothing else is computed.
      A grey level may differ by 1 from what is cut out of the whole.

  Returns:
    uint8 `[hw[0], hw[1], c]`, or of the size of the part.

  Raises:
    ImageError: that is too large for memory.
  """
  if image.shape[:2] == tuple(hw) and part is None:
    return image
  top, left, height, width = part or (0, 0, *hw)
  check_room(image.shape[:2], (height, width))
  y, x = image.shape[0] / hw[0], image.shape[1] / hw[1]
  bottom, right = min((top + height) * y, image.shape[0]), min((left + width) * x, image.shape[1])
  box = (left * x, top * y, right, bottom) if part else None
  grey = image.shape[2] == 1
  pil_image = Image.fromarray(image[:, :, 0] if grey else image)
  pixels = np.asarray(pil_image.resize((width, height), _FILTERS[method], box))
  return pixels[:, :, None] if grey else pixels


def check_room(old_hw: tuple[int, int], hw: tuple[int, int], name: str = '') -> None:
  """Refuses to make an image of `hw` pixels of one of `old_hw` where memory may not hold it.

  Raises:
    ImageError: it is too large.
  """
  h, w = old_hw
  if hw[0] * hw[1] > max(_PIXELS, _GROWTH * h * w):
    raise ImageError(
      f'image {name or "without a name"} of {w} x {h} pixels would become {hw[1]} x {hw[0]} '
      'pixels, too many for memory: cut it to an ordinary aspect ratio, or use another transform'
    )


def resize(example: dict, hw: tuple[int, int], method: str = 'bilinear') -> dict:
  """Scales the whole image to `hw` pixels; boxes are relative and stay."""
  check_room(example['image'].shape[:2], hw, image_name(example))
  return {**example, 'image': resize_pixels(example['image'], hw, method)}


def resize_crop(
  example: dict, hw: tuple[int, int], top: int, left: int, size: tuple[int, int], method: str
) -> dict:
  """`resize` to `hw` and then `crop`, computing the window alone.

  Args:
    example: has 'image' `[h, w, c]`.
    hw: size of the whole in pixels.
    top, left, size: of the window in it, as in `crop`.
    method: filter.
  """
  y, x = max(top, 0), max(left, 0)
  height, width = min(top + size[0], hw[0]) - y, min(left + size[1], hw[1]) - x
  part = resize_pixels(example['image'], hw, method, (y, x, height, width))
  image = crop({'image': part}, top - y, left - x, size)['image']
  return follow_crop({**example, 'image': image}, hw, top, left, size)


def crop(example: dict, top: int, left: int, hw: tuple[int, int]) -> dict:
  """Cuts a window out; where it extends beyond the image, it is black.

  Args:
    example: has 'image' `[h, w, c]`.
    top: first row, negative above the image.
    left: first column, negative left of it.
    hw: height and width of the window in pixels.
  """
  image = example['image']
  h, w = image.shape[:2]
  bottom, right = top + hw[0], left + hw[1]
  inside = image[max(top, 0) : max(bottom, 0), max(left, 0) : max(right, 0)]
  if top < 0 or left < 0 or bottom > h or right > w:
    check_room((h, w), hw, image_name(example))
    whole = np.zeros((*hw, image.shape[2]), image.dtype)
    y, x = max(-top, 0), max(-left, 0)
    whole[y : y + inside.shape[0], x : x + inside.shape[1]] = inside
    inside = whole
  return follow_crop({**example, 'image': inside}, (h, w), top, left, hw)


def follow_crop(
  example: dict, hw: tuple[int, int], top: int, left: int, window_hw: tuple[int, int]
) -> dict:
  """Moves the boxes alone, for an op that cropped the pixels itself."""
  if 'box' not in example:
    return example
  return _with_box(example, boxes.crop(example['box'], hw, top, left, window_hw))


def _with_box(example: dict, box: np.ndarray) -> dict:
  """The example with its box moved; a box that has left the image no longer counts as one."""
  return {**example, 'box': box, 'has_box': bool(example['has_box'] and box[2] * box[3] > 0)}


def flip_lr(example: dict) -> dict:
  """Mirrors left and right."""
  image = example['image']
  mirrored = np.empty_like(image)
  for c in range(image.shape[2]):  # numpy copies a reversed [h, w, c] six times as slowly
    mirrored[:, :, c] = image[:, ::-1, c]
  return follow_flip_lr({**example, 'image': mirrored})


def follow_flip_lr(example: dict) -> dict:
  """Moves the boxes alone, for an op that mirrored the pixels itself."""
  return _with_box(example, boxes.flip_lr(example['box'])) if 'box' in example else example


def affine(example: dict, forward: Sequence[Sequence[float]], fill: int = 128) -> dict:
  """Turns, shears or shifts; the size stays.

  Args:
    example: has 'image' `[h, w, c]`.
    forward: `[2, 3]`, from (x, y, 1) in the old image to (x, y) in the new, in pixels.
    fill: grey value of what comes in from outside.
  """
  image = example['image']
  h, w, c = image.shape
  matrix = np.asarray(forward, np.float64)
  turn = np.linalg.inv(matrix[:, :2])
  back = np.concatenate([turn, -turn @ matrix[:, 2:]], 1)  # Pillow maps new positions to old ones
  pil_image = Image.fromarray(image[:, :, 0] if c == 1 else image)
  pixels = np.asarray(
    pil_image.transform(
      (w, h),
      Image.Transform.AFFINE,
      tuple(back.ravel()),
      Image.Resampling.BILINEAR,
      fillcolor=fill if c == 1 else (fill, fill, fill),
    )
  )
  example = {**example, 'image': pixels[:, :, None] if c == 1 else pixels}
  if 'box' in example:
    return _with_box(example, boxes.affine(example['box'], (h, w), matrix))
  return example
