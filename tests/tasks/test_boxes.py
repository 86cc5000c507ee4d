"""The task of class and box, against values worked by hand."""

import jax
import jax.numpy as jnp
import numpy as np

from vit_jax import tasks
from vit_jax.tasks import metrics

# Centre x, centre y, width, height: 0.1..0.5 both ways, and 0.3..0.7 both ways.
ONE, OTHER = [0.3, 0.3, 0.4, 0.4], [0.5, 0.5, 0.4, 0.4]
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


def test_box_metrics_exclude_images_without_a_box():
  found = tasks.build('boxes', 3, box_loss='l1').metrics(OUTPUTS, BATCH)
  totals = {name: metrics.batch_total(value) for name, value in found.items()}
  means = {name: float(total / weight) for name, (total, weight) in totals.items()}
  np.testing.assert_allclose(found['accuracy'], [1, 0, 1])
  np.testing.assert_allclose(means['accuracy'], 2 / 3, rtol=1e-6)
  np.testing.assert_allclose(means['iou'], (1 / 7 + 1) / 2, rtol=1e-5)
  np.testing.assert_allclose([means[f'iou{n}'] for n in (50, 75, 90)], [0.5] * 3)
  np.testing.assert_allclose(means['box_loss'], 0.2, rtol=1e-5)


def test_metric_names_are_those_that_it_computes():
  task = tasks.build('boxes', 3)
  assert set(task.metric_names) == set(task.metrics(OUTPUTS, BATCH))
  assert task.metric_names[0] == 'loss' and 'top5' not in task.metric_names
