"""Metrics against values worked by hand."""

import jax.numpy as jnp
import numpy as np

from vit_jax.tasks import metric_text, metrics, metrics_text


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


def test_people_read_shares_in_percent_and_other_metrics_with_four_digits():
  for name, value, text in (
    ('accuracy', 0.76667, '76.7 %'),
    ('top5', 1.0, '100.0 %'),
    ('iou50', 0.9999, '> 99.9 %'),
    ('exact', 0.0, '0.0 %'),
    ('fewshot_10', 0.5, '50.0 %'),
    ('knn_20', 0.25, '25.0 %'),
    ('iou', 0.91649, '0.9165'),
    ('loss', 1.23456, '1.2346'),
    ('loss', 12345.6, '1.235e+04'),
  ):
    assert metric_text(name, value) == text
  metrics = {'loss': 2.0, 'accuracy': 0.125}
  assert metrics_text(metrics) == 'loss 2.0000  accuracy 12.5 %'
  assert metrics_text(metrics, ('accuracy', 'gone')) == 'accuracy 12.5 %'
