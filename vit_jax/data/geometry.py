"""The few ways in which an op may change a picture's geometry.

Ops go through these, so whatever is attached to places in the picture follows in one spot.
"""

import numpy as np
from PIL import Image

_FILTERS = {
  'bilinear': Image.Resampling.BILINEAR,
  'bicubic': Image.Resampling.BICUBIC,
  'lanczos': Image.Resampling.LANCZOS,
  'nearest': Image.Resampling.NEAREST,
}


def resize_pixels(image: np.ndarray, hw: tuple[int, int], method: str = 'bilinear') -> np.ndarray:
  """Resizes with antialiasing, exactly as Pillow (and so timm, torchvision on PIL, HF) does.

  Args:
    image: uint8 `[h, w, c]`, c 1 or 3.
    hw: new height and width in pixels.
    method: 'bilinear', 'bicubic', 'lanczos' or 'nearest'.

  Returns:
    uint8 `[hw[0], hw[1], c]`.
  """
  if image.shape[:2] == tuple(hw):
    return image
  grey = image.shape[2] == 1
  picture = Image.fromarray(image[:, :, 0] if grey else image)
  pixels = np.asarray(picture.resize((hw[1], hw[0]), _FILTERS[method]))
  return pixels[:, :, None] if grey else pixels


def resize(example: dict, hw: tuple[int, int], method: str = 'bilinear') -> dict:
  """Scales the whole picture to `hw` pixels."""
  return {**example, 'image': resize_pixels(example['image'], hw, method)}


def crop(example: dict, top: int, left: int, hw: tuple[int, int]) -> dict:
  """Cuts a window out; where it reaches over the edge, the outside is black.

  Args:
    example: has 'image' `[h, w, c]`.
    top: first row, negative above the picture.
    left: first column, negative left of it.
    hw: height and width of the window in pixels.
  """
  image = example['image']
  h, w = image.shape[:2]
  bottom, right = top + hw[0], left + hw[1]
  inside = image[max(top, 0) : max(bottom, 0), max(left, 0) : max(right, 0)]
  if top < 0 or left < 0 or bottom > h or right > w:
    whole = np.zeros((*hw, image.shape[2]), image.dtype)
    y, x = max(-top, 0), max(-left, 0)
    whole[y : y + inside.shape[0], x : x + inside.shape[1]] = inside
    inside = whole
  return {**example, 'image': inside}


def flip_lr(example: dict) -> dict:
  """Mirrors left and right."""
  image = example['image']
  mirrored = np.empty_like(image)
  for c in range(image.shape[2]):  # numpy copies a reversed [h, w, c] six times as slowly
    mirrored[:, :, c] = image[:, ::-1, c]
  return {**example, 'image': mirrored}
