"""The task of one class per image."""

import jax.numpy as jnp
import numpy as np

from tests.support import raises
from vit_jax import tasks
from vit_jax.errors import ConfigError


def test_two_heads_share_loss_and_average_prediction():
  task = tasks.build('classify', 3)
  batch = {'label': jnp.array([2])}
  one, other = jnp.array([[0.0, 3.0, 1.0]]), jnp.array([[0.0, 0.0, 5.0]])
  both = task.losses((one, other), batch)
  np.testing.assert_allclose(both, (task.losses(one, batch) + task.losses(other, batch)) / 2)
  assert task.metrics((one, other), batch)['accuracy'][0] == 1.0


def test_the_loss_is_chosen_by_name_and_sets_the_activation():
  logits, batch = jnp.zeros((1, 3)), {'label': jnp.array([2])}
  softmax, sigmoid = (tasks.build('classify', 3, loss=name) for name in ('softmax', 'sigmoid'))
  np.testing.assert_allclose(softmax.losses(logits, batch), [np.log(3)], rtol=1e-6)
  np.testing.assert_allclose(sigmoid.losses(logits, batch), [3 * np.log(2)], rtol=1e-6)
  assert (softmax.activation, sigmoid.activation) == ('softmax', 'sigmoid')


def test_mixed_targets_replace_labels():
  task = tasks.build('classify', 2, label_smoothing=0.5)
  batch = {'label': jnp.array([0]), 'target': jnp.array([[0.5, 0.5]])}
  found = task.losses(jnp.log(jnp.array([[0.25, 0.75]])), batch)
  np.testing.assert_allclose(found, [-(np.log(0.25) + np.log(0.75)) / 2], rtol=1e-6)


def test_options_of_other_tasks_are_passed_over():
  assert tasks.build('classify', 3, teacher='x', head_hidden=7) == tasks.build('classify', 3)


def test_metric_names_depend_on_the_number_of_classes():
  assert tasks.build('classify', 3).metric_names == ['loss', 'accuracy']
  assert tasks.build('classify', 4).metric_names == ['loss', 'accuracy', 'top3']


def test_an_unknown_task_names_the_nearest():
  with raises(ConfigError, "'classifi'", "'classify'"):
    tasks.build('classifi', 3)


def test_what_a_run_learned_is_read_from_its_options():
  known = tasks.of_config({'task': {'name': 'classify', 'loss': 'sigmoid'}}, 3)
  assert known == tasks.build('classify', 3, loss='sigmoid')
  assert tasks.of_config({}, 3) == tasks.build('classify', 3)
