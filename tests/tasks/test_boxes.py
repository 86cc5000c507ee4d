"""Overlap, box losses and the task of class and box, against answers worked by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vit_jax import tasks
from vit_jax.report import boxes as report_boxes
from vit_jax.tasks import box_losses, metrics

# Centre x, centre y, width, height; 0.1..0.5 both ways, 0.3..0.7 both ways, and one to the right.
ONE, OTHER, AWAY = [0.3, 0.3, 0.4, 0.4], [0.5, 0.5, 0.4, 0.4], [0.7, 0.3, 0.2, 0.4]


def test_overlap_by_hand():
  # Shared 0.2 x 0.2 of 0.16 + 0.16 - 0.04; the hull is 0.6 x 0.6.
  iou, giou = box_losses.iou_and_giou(jnp.array(ONE), jnp.array(OTHER))
  np.testing.assert_allclose([iou, giou], [1 / 7, 1 / 7 - 0.08 / 0.36], rtol=1e-5)
  # Nothing shared; areas 0.16 + 0.08 in a hull of 0.7 x 0.4.
  iou, giou = box_losses.iou_and_giou(jnp.array(ONE), jnp.array(AWAY))
  np.testing.assert_allclose([iou, giou], [0.0, -0.04 / 0.28], rtol=1e-5)
  np.testing.assert_allclose(box_losses.iou_and_giou(jnp.array(ONE), jnp.array(ONE)), [1, 1])


def test_overlap_is_that_of_the_reports():
  rng = np.random.default_rng(3)
  one, other = rng.uniform(-0.2, 1.0, (2, 101, 4))  # some of negative size
  found, _ = box_losses.iou_and_giou(jnp.array(one, jnp.float32), jnp.array(other, jnp.float32))
  np.testing.assert_allclose(found, report_boxes.iou(one, other), atol=1e-5)


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
  loss = box_losses.LOSSES[name]
  np.testing.assert_allclose(loss(jnp.array([ONE]), jnp.array([OTHER])), [wanted], rtol=1e-5)
  np.testing.assert_allclose(loss(jnp.array([ONE]), jnp.array([ONE])), [0.0], atol=1e-6)


@pytest.mark.parametrize('name', sorted(box_losses.LOSSES))
def test_gradients_are_finite_where_boxes_are_empty_or_equal(name):
  gradient = jax.grad(lambda b, t: box_losses.LOSSES[name](b, t).sum())
  boxes = jnp.array([[0.5, 0.5, 0.0, 0.0], [0.5, 0.5, -0.1, 0.2], ONE, ONE])
  targets = jnp.array([[0.5, 0.5, 0.0, 0.0], ONE, ONE, AWAY])
  assert np.isfinite(gradient(boxes, targets)).all()
  assert np.abs(gradient(boxes, targets)[3]).sum() > 0


BATCH = {
  'label': jnp.array([0, 2, 1]),
  'box': jnp.array([OTHER, ONE, [0.0, 0.0, 0.0, 0.0]]),
  'has_box': jnp.array([True, True, False]),
}
OUTPUTS = {
  'logits': jnp.log(jnp.array([[0.5, 0.25, 0.25], [0.6, 0.3, 0.1], [0.2, 0.6, 0.2]])),
  'box': jnp.array([ONE, ONE, ONE]),
}


def test_class_and_box_losses_add_up():
  task = tasks.build('boxes', 3, class_divisor=10.0, box_loss='l1')
  wanted = [-np.log(0.5) / 10 + 0.4, -np.log(0.1) / 10, -np.log(0.6) / 10]  # the last has no box
  np.testing.assert_allclose(task.losses(OUTPUTS, BATCH), wanted, rtol=1e-5)


def test_learned_weights_by_hand():
  task = tasks.build('boxes', 3, box_loss='l1', learned_weights=True)
  outputs = {**OUTPUTS, 'log_variance': jnp.broadcast_to(jnp.array([0.0, np.log(4.0)]), (3, 2))}
  wanted = [-np.log(0.5) + 0.4 / 4 + np.log(4) / 2, -np.log(0.1) + np.log(4) / 2, -np.log(0.6)]
  np.testing.assert_allclose(task.losses(outputs, BATCH), wanted, rtol=1e-5)
  # The best variance of a loss is twice that loss: there its derivative is zero.
  slope = jax.grad(
    lambda s: task.losses(
      {**OUTPUTS, 'log_variance': jnp.stack([jnp.zeros(3), jnp.full(3, s)], -1)}, BATCH
    )[0]
  )
  np.testing.assert_allclose(slope(np.log(2 * 0.4)), 0.0, atol=1e-6)


def test_metrics_leave_out_pictures_without_a_box():
  found = tasks.build('boxes', 3, box_loss='l1').metrics(OUTPUTS, BATCH)
  means = {name: float(metrics.mean(value)) for name, value in found.items()}
  np.testing.assert_allclose(found['accuracy'], [1, 0, 1])
  np.testing.assert_allclose(means['accuracy'], 2 / 3, rtol=1e-6)
  np.testing.assert_allclose(means['iou'], (1 / 7 + 1) / 2, rtol=1e-5)
  np.testing.assert_allclose([means[f'iou{n}'] for n in (50, 75, 90)], [0.5] * 3)
  np.testing.assert_allclose(means['box_loss'], 0.2, rtol=1e-5)


def test_a_mean_over_nothing_is_zero_and_a_nan_is_not_hidden():
  assert metrics.mean((jnp.array([3.0, jnp.nan]), jnp.zeros(2))) == 0
  assert metrics.mean((jnp.array([3.0, jnp.nan]), jnp.array([1.0, 0.0]))) == 3
  assert np.isnan(metrics.mean((jnp.array([3.0, jnp.nan]), jnp.ones(2))))
