"""Overlap of boxes and losses of boxes, for each example, in float32.

Boxes are `[..., 4]`: centre x, centre y, width, height as shares of the picture.
"""

import jax
import jax.numpy as jnp


def corners(boxes_cxcywh: jax.Array) -> jax.Array:
  """Left, top, right, bottom [..., 4]; a negative width or height counts as none."""
  boxes = boxes_cxcywh.astype(jnp.float32)
  half = jnp.maximum(boxes[..., 2:], 0.0) / 2
  return jnp.concatenate([boxes[..., :2] - half, boxes[..., :2] + half], axis=-1)


def iou_and_giou(one_cxcywh: jax.Array, other_cxcywh: jax.Array) -> tuple[jax.Array, jax.Array]:
  """Intersection over union, and its generalisation to boxes that do not touch.

  Args:
    one_cxcywh, other_cxcywh: boxes in pairs [..., 4].

  Returns:
    IoU [...] from 0 to 1, and GIoU [...] from -1 to 1; 0 and 0 for two empty boxes at one place.

  Source: Rezatofighi et al. 2019 (1902.09630), algorithm 2.
  """
  one, other = corners(one_cxcywh), corners(other_cxcywh)

  def area(box):
    return (box[..., 2] - box[..., 0]) * (box[..., 3] - box[..., 1])

  def share(part, whole):  # the inner `where` keeps the gradient of an empty box from being NaN
    return jnp.where(whole > 0, part / jnp.where(whole > 0, whole, 1.0), 0.0)

  low = jnp.maximum(one[..., :2], other[..., :2])
  high = jnp.minimum(one[..., 2:], other[..., 2:])
  shared = jnp.prod(jnp.maximum(high - low, 0.0), axis=-1)
  union = area(one) + area(other) - shared
  low = jnp.minimum(one[..., :2], other[..., :2])
  high = jnp.maximum(one[..., 2:], other[..., 2:])
  hull = jnp.prod(high - low, axis=-1)
  iou = share(shared, union)
  return iou, iou - share(hull - union, hull)


def l1(one_cxcywh: jax.Array, other_cxcywh: jax.Array) -> jax.Array:
  """Sum of the four absolute differences: [..., 4], [..., 4] -> [...]."""
  return jnp.abs(one_cxcywh.astype(jnp.float32) - other_cxcywh).sum(axis=-1)


def l2(one_cxcywh: jax.Array, other_cxcywh: jax.Array) -> jax.Array:
  """Sum of the four squared differences: [..., 4], [..., 4] -> [...]."""
  return jnp.square(one_cxcywh.astype(jnp.float32) - other_cxcywh).sum(axis=-1)


def giou(one_cxcywh: jax.Array, other_cxcywh: jax.Array) -> jax.Array:
  """One minus the generalised IoU, 0 to 2: [..., 4], [..., 4] -> [...]."""
  return 1.0 - iou_and_giou(one_cxcywh, other_cxcywh)[1]


def l1_giou(one_cxcywh: jax.Array, other_cxcywh: jax.Array) -> jax.Array:
  """Five of `l1` and two of `giou`: [..., 4], [..., 4] -> [...].

  Source: Carion et al. 2020 (2005.12872, DETR), section A.2 and its lambdas in A.4.
  """
  return 5.0 * l1(one_cxcywh, other_cxcywh) + 2.0 * giou(one_cxcywh, other_cxcywh)


LOSSES = {'l1': l1, 'l2': l2, 'giou': giou, 'l1_giou': l1_giou}
