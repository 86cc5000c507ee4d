"""Overlap and box losses, against values worked by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vit_jax.data import boxes
from vit_jax.tasks import BOX_LOSSES, box_losses

# Centre x, centre y, width, height; 0.1..0.5 both ways, 0.3..0.7 both ways, and one to the right.
ONE, OTHER, AWAY = [0.3, 0.3, 0.4, 0.4], [0.5, 0.5, 0.4, 0.4], [0.7, 0.3, 0.2, 0.4]


@pytest.mark.parametrize(
  'other, iou, giou',
  [
    (OTHER, 1 / 7, 1 / 7 - 0.08 / 0.36),  # shared 0.2 x 0.2 of 0.16 + 0.16 - 0.04; hull 0.6 x 0.6
    (AWAY, 0.0, -0.04 / 0.28),  # nothing shared; areas 0.16 + 0.08 in a hull of 0.7 x 0.4
    (ONE, 1.0, 1.0),
  ],
)
def test_overlap_by_hand(other, iou, giou):
  one, other = jnp.array(ONE), jnp.array(other)
  np.testing.assert_allclose(boxes.iou(one, other), iou, rtol=1e-5)
  np.testing.assert_allclose(box_losses.generalized_iou(one, other), giou, rtol=1e-5)


@pytest.mark.parametrize(
  'name, wanted',
  [
    ('l1', 0.4),
    ('l2', 0.08),
    ('giou', 1 - 1 / 7 + 0.08 / 0.36),
    ('l1_giou', 5 * 0.4 + 2 * (1 - 1 / 7 + 0.08 / 0.36)),
  ],
)
def test_losses_by_hand(name, wanted):
  loss = BOX_LOSSES[name]
  np.testing.assert_allclose(loss(jnp.array([ONE]), jnp.array([OTHER])), [wanted], rtol=1e-5)
  np.testing.assert_allclose(loss(jnp.array([ONE]), jnp.array([ONE])), [0.0], atol=1e-6)


@pytest.mark.parametrize('name', sorted(BOX_LOSSES))
def test_gradients_are_finite_where_boxes_are_empty_or_equal(name):
  gradient = jax.grad(lambda b, t: BOX_LOSSES[name](b, t).sum())
  boxes = jnp.array([[0.5, 0.5, 0.0, 0.0], [0.5, 0.5, -0.1, 0.2], ONE, ONE])
  targets = jnp.array([[0.5, 0.5, 0.0, 0.0], ONE, ONE, AWAY])
  assert np.isfinite(gradient(boxes, targets)).all()
  assert np.abs(gradient(boxes, targets)[3]).sum() > 0
