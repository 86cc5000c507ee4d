"""Distillation losses worked by hand."""

import jax.numpy as jnp
import numpy as np
import pytest

from vit_jax import tasks

LN3 = float(np.log(3.0))
LABEL = {'label': jnp.array([1])}
TEACHER = {'teacher': jnp.array([[2 * LN3, 0.0]])}


def test_soft_divergence_at_a_temperature():
  """At temperature 2 the teacher predicts (3/4, 1/4) and the student (1/2, 1/2)."""
  task = tasks.build('distill', 2, temperature=2.0, alpha=1.0)
  expected = 4 * (0.75 * np.log(1.5) + 0.25 * np.log(0.5))
  loss = task.losses(jnp.zeros((1, 2)), LABEL | TEACHER)
  np.testing.assert_allclose(loss, [expected], rtol=1e-6)
  same = task.losses(TEACHER['teacher'], LABEL | TEACHER)
  np.testing.assert_allclose(same, [0.0], atol=1e-6)


def test_hard_distillation_learns_the_prediction_and_alpha_weighs():
  """Logits (ln 3, 0) cost ln 4/3 for the teacher's class 0 and ln 4 for the label 1."""
  logits = jnp.array([[LN3, 0.0]])
  task = tasks.build('distill', 2, distillation='hard', alpha=0.25)
  expected = 0.75 * np.log(4) + 0.25 * np.log(4 / 3)
  np.testing.assert_allclose(task.losses(logits, LABEL | TEACHER), [expected], rtol=1e-6)


def test_two_heads_learn_one_each():
  heads = jnp.array([[LN3, 0.0]]), jnp.array([[0.0, LN3]])
  task = tasks.build('distill', 2, distillation='hard', alpha=0.5)
  np.testing.assert_allclose(task.losses(heads, LABEL | TEACHER), [np.log(4)], rtol=1e-6)


def test_without_a_teacher_it_is_classification():
  logits = jnp.array([[LN3, 0.0]])
  for name in ('distill', 'classify'):
    metrics = tasks.build(name, 2).metrics(logits, LABEL)
    assert float(metrics['loss'][0]) == pytest.approx(np.log(4))
    assert float(metrics['accuracy'][0]) == 0.0


def test_it_needs_a_teacher():
  (problem,) = tasks.build('distill', 2).problems()
  assert 'config.task.teacher' in problem
  assert not tasks.build('distill', 2, teacher='runs/teacher').problems()
