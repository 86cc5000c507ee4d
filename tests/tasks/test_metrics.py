"""Metrics against values worked by hand."""

import jax.numpy as jnp
import numpy as np

from vit_jax.tasks import metrics


def test_top_k_needs_more_classes_than_k():
  """The true class is ranked third of four."""
  outputs, batch = {'logits': jnp.array([[0.1, 0.4, 0.3, 0.2]])}, {'label': jnp.array([3])}
  found = {m.name: m.compute(outputs, batch)[0] for m in metrics.metrics_of(('label',), 4)}
  assert found == {'accuracy': 0, 'top3': 1}
  assert [m.name for m in metrics.metrics_of(('label',), 3)] == ['accuracy']
  assert 'top5' in [m.name for m in metrics.metrics_of(('label',), 6)]


def test_metrics_of_several_kinds_each_have_a_title():
  every = metrics.metrics_of(('label', 'labels', 'box'), 1000)
  assert {'top5', 'map', 'iou90'} <= {m.name for m in every}
  assert all(m.title for m in every)


def test_totals_count_each_example_by_its_weight():
  assert metrics.batch_total(jnp.array([3.0, 4.0])) == (7, 2)
  assert metrics.batch_total((jnp.array([3.0, 4.0]), jnp.array([1.0, 0.5]))) == (5, 1.5)


def test_a_nan_counts_unless_its_weight_is_zero():
  values = jnp.array([3.0, jnp.nan])
  assert metrics.batch_total((values, jnp.zeros(2))) == (0, 0)
  assert metrics.batch_total((values, jnp.array([1.0, 0.0]))) == (3, 1)
  assert np.isnan(metrics.batch_total((values, jnp.ones(2)))[0])
