"""Boxes: how they follow their image, and how much two of them overlap.

A box is `[..., 4]`, named `cxcywh`: centre x, centre y, width and height relative to the image's.
Corners are left, top, right and bottom: relative like the box, or in pixels, named `xyxy`.
`corners`, `intersection_and_union`, `ratio` and `iou` take numpy and jax arrays alike (by
`__array_namespace__`); the others are the data pipeline's and numpy alone.
"""

import math
from typing import Any, Protocol, TypeVar

import numpy as np


class Array(Protocol):
  """An array of numpy or jax, traced ones included."""

  def __array_namespace__(self) -> Any:
    """The module with the array's functions: `numpy` or `jax.numpy`."""


A = TypeVar('A', bound=Array)


def corners(cxcywh: A) -> A:
  """Corners relative to the image: [..., 4] -> [..., 4].

  A negative width or height counts as none. Computed in numpy's float64, or jax's float32.
  """
  xp = cxcywh.__array_namespace__()
  box = xp.asarray(cxcywh, dtype=float)
  half = xp.maximum(box[..., 2:], 0) / 2
  return xp.concatenate([box[..., :2] - half, box[..., :2] + half], axis=-1)


def intersection_and_union(one_corners: A, other_corners: A) -> tuple[A, A]:
  """Areas that boxes in pairs share, and that they cover together: [..., 4] twice -> [...] twice.

  Args:
    one_corners: as `corners` gives them.
    other_corners: likewise.
  """
  xp = one_corners.__array_namespace__()
  one, other = xp.asarray(one_corners), xp.asarray(other_corners)
  low = xp.maximum(one[..., :2], other[..., :2])
  high = xp.minimum(one[..., 2:], other[..., 2:])
  shared = xp.prod(xp.maximum(high - low, 0), axis=-1)
  return shared, _area(one) + _area(other) - shared


def _area(box: Any) -> Any:
  return (box[..., 2] - box[..., 0]) * (box[..., 3] - box[..., 1])


def ratio(part: A, whole: A) -> A:
  """`part / whole`, 0 where the whole is empty; NaN stays NaN: [...], [...] -> [...].

  Gradients are finite for an empty whole: nothing is divided by 0 on the way to the 0.
  """
  xp = part.__array_namespace__()
  total = xp.asarray(whole)
  empty = total <= 0
  return xp.where(empty, 0.0, part / xp.where(empty, 1.0, total))


def iou(one_cxcywh: A, other_cxcywh: A) -> A:
  """Intersection over union of boxes in pairs, 0 to 1: [..., 4], [..., 4] -> [...].

  Args:
    one_cxcywh: boxes of numpy or jax; a negative width or height counts as none.
    other_cxcywh: likewise.

  Returns:
    0 where both boxes are empty, NaN where one is NaN.
  """
  return ratio(*intersection_and_union(corners(one_cxcywh), corners(other_cxcywh)))


def to_xyxy(cxcywh: np.ndarray, hw: tuple[int, int]) -> np.ndarray:
  """Corners in pixels of an image of `hw` pixels: [..., 4] -> float64 [..., 4]."""
  return corners(np.asarray(cxcywh)) * [hw[1], hw[0], hw[1], hw[0]]


def from_xyxy(xyxy: np.ndarray, hw: tuple[int, int]) -> np.ndarray:
  """The inverse of `to_xyxy`, clipped to the image: [..., 4] -> float32 [..., 4]."""
  limits = np.array([hw[1], hw[0], hw[1], hw[0]], np.float64)
  left, top, right, bottom = np.moveaxis(np.clip(xyxy, 0, limits) / limits, -1, 0)
  cxcywh = [(left + right) / 2, (top + bottom) / 2, right - left, bottom - top]
  return np.stack(cxcywh, -1).astype(np.float32)


def crop(
  cxcywh: np.ndarray, hw: tuple[int, int], top: int, left: int, window_hw: tuple[int, int]
) -> np.ndarray:
  """The box within a window; empty where the window misses it.

  Args:
    cxcywh: `[4]`, in the whole image.
    hw: the whole image's height and width in pixels.
    top: first row of the window.
    left: first column of the window.
    window_hw: the window's height and width in pixels.
  """
  return from_xyxy(to_xyxy(cxcywh, hw) - [left, top, left, top], window_hw)


def flip_lr(cxcywh: np.ndarray) -> np.ndarray:
  """The box in the mirrored image."""
  mirrored = np.asarray(cxcywh, np.float32) * np.array([-1, 1, 1, 1], np.float32)
  return mirrored + np.array([1, 0, 0, 0], np.float32)


def turn_upright(cxcywh: np.ndarray, orientation: int) -> np.ndarray:
  """The box after `decode.turn_upright` has turned its image.

  Args:
    cxcywh: `[4]`, in the image as stored.
    orientation: EXIF orientation of the image, 1 to 8.
  """
  x, y, w, h = cxcywh
  if orientation in (5, 6, 7, 8):
    x, y, w, h = y, x, h, w
  if orientation in (2, 3, 6, 7):
    x = 1 - x
  if orientation in (3, 4, 7, 8):
    y = 1 - y
  return np.array([x, y, w, h], np.float32)


def affine(cxcywh: np.ndarray, hw: tuple[int, int], forward: np.ndarray) -> np.ndarray:
  """The upright box around the corners of a rotated or sheared one.

  Args:
    cxcywh: `[4]`.
    hw: height and width of the image, before and after, in pixels.
    forward: `[2, 3]`, from (x, y, 1) in the old image to (x, y) in the new.
  """
  left, top, right, bottom = to_xyxy(cxcywh, hw)
  points = np.array([[left, top, 1], [right, top, 1], [left, bottom, 1], [right, bottom, 1]])
  moved = points @ np.asarray(forward).T
  return from_xyxy(np.concatenate([moved.min(0), moved.max(0)]), hw)


def tighten(cxcywh: np.ndarray, hw: tuple[int, int], degrees: float) -> np.ndarray:
  """The box before `affine` widened it, where only the mean angle is known.

  Rotation by a small angle makes the upright box around a box of w x h pixels wider by h tan(angle)
  and higher by w tan(angle), as does shearing both ways; this solves for w and h.

  Args:
    cxcywh: `[4]`.
    hw: height and width of the image in pixels.
    degrees: sum of the mean absolute angles after each of which the box was drawn anew.

  Returns:
    `[4]` with the same centre, and at least half as wide and high.
  """
  x, y, *relative = np.asarray(cxcywh, np.float64)
  sides = np.array(relative) * [hw[1], hw[0]]
  tangent = math.tan(math.radians(degrees))
  tight = np.maximum((sides - tangent * sides[::-1]) / (1 - tangent**2), sides / 2)
  return np.array([x, y, *tight / [hw[1], hw[0]]], np.float32)


def fraction_inside(
  cxcywh: np.ndarray, hw: tuple[int, int], top: int, left: int, window_hw: tuple[int, int]
) -> float:
  """The fraction of the box's area that lies within a window; 1 for an empty box.

  Args:
    cxcywh: `[4]`, in the whole image.
    hw: the whole image's height and width in pixels.
    top: first row of the window.
    left: first column of the window.
    window_hw: the window's height and width in pixels.
  """
  whole = to_xyxy(cxcywh, hw)
  bottom, right = top + window_hw[0], left + window_hw[1]
  kept = np.clip(whole, [left, top, left, top], [right, bottom, right, bottom])
  area = _area(whole)
  return float(_area(kept) / area) if area > 0 else 1.0
