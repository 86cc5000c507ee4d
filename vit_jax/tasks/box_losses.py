"""Losses of boxes, for each example, in float32.

Boxes are `[..., 4]`: centre x, centre y, width, height as shares of the image.
"""

import jax
import jax.numpy as jnp

from vit_jax.data import boxes
from vit_jax.tasks.losses import BOX_LOSSES


def generalized_iou(one_cxcywh: jax.Array, other_cxcywh: jax.Array) -> jax.Array:
  """Generalisation of the IoU to boxes that do not touch, -1 to 1; 0 for two equal empty boxes.

  Args:
    one_cxcywh, other_cxcywh: boxes in pairs [..., 4] -> [...].

  Source: Rezatofighi et al. 2019 (1902.09630), algorithm 2.
  """
  one, other = boxes.corners(one_cxcywh), boxes.corners(other_cxcywh)
  shared, union = boxes.intersection_and_union(one, other)
  low = jnp.minimum(one[..., :2], other[..., :2])
  high = jnp.maximum(one[..., 2:], other[..., 2:])
  hull = jnp.prod(high - low, axis=-1)
  return boxes.ratio(shared, union) - boxes.ratio(hull - union, hull)


@BOX_LOSSES.register('l1')
def l1(one_cxcywh: jax.Array, other_cxcywh: jax.Array) -> jax.Array:
  """Sum of the four absolute differences: [..., 4], [..., 4] -> [...]."""
  return jnp.abs(one_cxcywh.astype(jnp.float32) - other_cxcywh).sum(axis=-1)


@BOX_LOSSES.register('l2')
def l2(one_cxcywh: jax.Array, other_cxcywh: jax.Array) -> jax.Array:
  """Sum of the four squared differences: [..., 4], [..., 4] -> [...]."""
  return jnp.square(one_cxcywh.astype(jnp.float32) - other_cxcywh).sum(axis=-1)


@BOX_LOSSES.register('giou')
def giou(one_cxcywh: jax.Array, other_cxcywh: jax.Array) -> jax.Array:
  """One minus the generalised IoU, 0 to 2: [..., 4], [..., 4] -> [...]."""
  return 1.0 - generalized_iou(one_cxcywh, other_cxcywh)


@BOX_LOSSES.register('l1_giou')
def l1_giou(one_cxcywh: jax.Array, other_cxcywh: jax.Array) -> jax.Array:
  """Five of `l1` and two of `giou`: [..., 4], [..., 4] -> [...].

  Source: Carion et al. 2020 (2005.12872, DETR), section A.2 and its lambdas in A.4.
  """
  return 5.0 * l1(one_cxcywh, other_cxcywh) + 2.0 * giou(one_cxcywh, other_cxcywh)
