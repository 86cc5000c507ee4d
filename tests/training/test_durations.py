"""Lengths in steps of one run, and when something is due."""

import pytest

from vit_jax.training.durations import Durations


@pytest.mark.parametrize(
  'length, steps',
  [('7 steps', 7), ('2 epochs', 15), ('0.5 epochs', 4), ('1e2 examples', 10), ('4 examples', 0)],
)
def test_lengths_are_rounded_to_steps(length, steps):
  assert Durations(batch_size=10, num_examples=75).steps(length) == steps


@pytest.mark.parametrize(
  'every, total, steps',
  [
    ('', 30, 1),  # a twentieth of the run
    ('', 100, 5),
    ('', 10**6, 8),  # an epoch of 7.5 steps
    ('', 3, 1),
    ('5 epochs', 30, 38),
    ('50 steps', 10**6, 50),
  ],
)
def test_a_short_run_has_a_curve_unless_an_interval_is_set(every, total, steps):
  durations = Durations(batch_size=10, num_examples=75)
  assert durations.steps(durations.log_interval(every, total)) == steps
  assert Durations(10, 10**6).log_interval('', 10**6) == '20 steps'


@pytest.mark.parametrize(
  'every, due',
  [
    ('3 steps', [3, 6, 9, 12, 15]),
    ('1 epoch', [8, 15]),  # 7.5 steps: the first step after each whole epoch
    ('4 examples', list(range(1, 17))),  # less than a step: every one
    ('', []),
  ],
)
def test_epochs_need_not_be_whole_steps(every, due):
  durations = Durations(batch_size=10, num_examples=75)
  assert [step for step in range(1, 17) if durations.due(step, every)] == due
