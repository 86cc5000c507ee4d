"""Boxes that follow their picture: centre x, centre y, width, height as shares of the picture.

Everything is float32 `[..., 4]`, named `cxcywh`; corners in pixels are `xyxy`.
"""

import math

import numpy as np


def to_xyxy(cxcywh: np.ndarray, hw: tuple[int, int]) -> np.ndarray:
  """Corners (left, top, right, bottom) in pixels of a picture of `hw` pixels."""
  cx, cy, w, h = np.moveaxis(np.asarray(cxcywh, np.float64), -1, 0)
  corners = np.stack([cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2], -1)
  return corners * [hw[1], hw[0], hw[1], hw[0]]


def from_xyxy(xyxy: np.ndarray, hw: tuple[int, int]) -> np.ndarray:
  """The inverse of `to_xyxy`, cut off at the picture's edges."""
  limits = np.array([hw[1], hw[0], hw[1], hw[0]], np.float64)
  left, top, right, bottom = np.moveaxis(np.clip(xyxy, 0, limits) / limits, -1, 0)
  cxcywh = [(left + right) / 2, (top + bottom) / 2, right - left, bottom - top]
  return np.stack(cxcywh, -1).astype(np.float32)


def crop(
  cxcywh: np.ndarray, hw: tuple[int, int], top: int, left: int, window_hw: tuple[int, int]
) -> np.ndarray:
  """The box within a window; of no size where the window misses it.

  Args:
    cxcywh: `[4]`, in the whole picture.
    hw: the whole picture's height and width in pixels.
    top: first row of the window.
    left: first column of the window.
    window_hw: the window's height and width in pixels.
  """
  return from_xyxy(to_xyxy(cxcywh, hw) - [left, top, left, top], window_hw)


def flip_lr(cxcywh: np.ndarray) -> np.ndarray:
  """The box in the mirrored picture."""
  return np.asarray(cxcywh, np.float32) * np.float32([-1, 1, 1, 1]) + np.float32([1, 0, 0, 0])


def affine(cxcywh: np.ndarray, hw: tuple[int, int], forward: np.ndarray) -> np.ndarray:
  """The upright box around the corners of a turned or sheared one.

  Args:
    cxcywh: `[4]`.
    hw: height and width of the picture, before and after, in pixels.
    forward: `[2, 3]`, from (x, y, 1) in the old picture to (x, y) in the new.
  """
  left, top, right, bottom = to_xyxy(cxcywh, hw)
  corners = np.array([[left, top, 1], [right, top, 1], [left, bottom, 1], [right, bottom, 1]])
  moved = corners @ np.asarray(forward).T
  return from_xyxy(np.concatenate([moved.min(0), moved.max(0)]), hw)


def tighten(cxcywh: np.ndarray, hw: tuple[int, int], degrees: float) -> np.ndarray:
  """The box before `affine` widened it, where only the mean angle is known.

  Turning by a small angle makes the upright box around a box of w x h pixels wider by h tan(angle)
  and higher by w tan(angle), as does shearing both ways; this solves for w and h.

  Args:
    cxcywh: `[4]`.
    hw: height and width of the picture in pixels.
    degrees: sum of the mean absolute angles after each of which the box was drawn anew.

  Returns:
    `[4]` with the same centre, and at least half as wide and high.
  """
  x, y, *shares = np.asarray(cxcywh, np.float64)
  sides = np.array(shares) * [hw[1], hw[0]]
  tangent = math.tan(math.radians(degrees))
  tight = np.maximum((sides - tangent * sides[::-1]) / (1 - tangent**2), sides / 2)
  return np.float32([x, y, *tight / [hw[1], hw[0]]])


def share_inside(
  cxcywh: np.ndarray, hw: tuple[int, int], top: int, left: int, window_hw: tuple[int, int]
) -> float:
  """How much of the box's area lies within a window, 0 to 1; 1 for a box of no size."""
  whole = to_xyxy(cxcywh, hw)
  bottom, right = top + window_hw[0], left + window_hw[1]
  kept = np.clip(whole, [left, top, left, top], [right, bottom, right, bottom])
  area = (whole[2] - whole[0]) * (whole[3] - whole[1])
  return float((kept[2] - kept[0]) * (kept[3] - kept[1]) / area) if area > 0 else 1.0
