"""The time budget: when a run stops, and that it resumes as if nothing had happened."""

import pytest

from tests.support import raises
from tests.training.runs import options, timeless_rows
from vit_jax import checkpoint, machine
from vit_jax.errors import InterruptedRunError
from vit_jax.training import budget, loop


class Clock:
  """Wall time that passes when it is told to."""

  def __init__(self):
    self.now = 100.0

  def __call__(self):
    return self.now


def _steps(
  hours,
  *,
  step=2.0,
  validation=0.0,
  every=10**9,
  save=0.0,
  state_bytes=0,
  passed=0.0,
  batches=0,
):
  """Steps that are made before the budget ends; the first takes a minute to compile."""
  clock = Clock()
  limit = budget.TimeBudget(hours, state_bytes, {'validation': batches}, clock, passed)

  def due(n):
    return ['validation'] if n % every == 0 else []

  for n in range(1, 10**4):
    clock.now += 60.0 if n == 1 else step
    limit.after(())
    stopping = limit.spent(due(n + 1), save)
    with limit.pause(due(n)):
      clock.now += validation if due(n) else 0.0
    if stopping:
      return n, clock.now - 100.0
  return None


def test_it_stops_while_there_is_time_for_what_is_left():
  """Three steps of 2 s may be under way, and a save takes 10 s: 1.25 x 16 s = 20 s before 195 s."""
  n, seconds = _steps(200 / 3600, save=10.0)
  assert (n, seconds) == (59, 176.0)
  # 30 s of the 200 had passed when it began.
  assert _steps(200 / 3600, save=10.0, passed=30.0) == (44, 146.0)
  # No checkpoint was written yet: as the first step, and 500 MB at 50 MB/s: 1.25 x (6 + 60 + 10).
  assert _steps(200 / 3600, state_bytes=500 * 10**6) == (21, 100.0)


def test_a_validation_that_would_take_too_long_is_left_to_the_next_attempt():
  """After 30 steps, 118 s, comes one of 40 s; another, after step 60, would end at 258 s."""
  n, seconds = _steps(240 / 3600, validation=40.0, every=30, save=2.0)
  # Before step 60: 1.25 x (6 + 40 + 2) = 60 s are needed, and step 59 ends at 216 s.
  assert (n, seconds) == (59, 216.0)
  # A shorter one fits, and is not in the way: 1.25 x (6 + 2) = 10 s before the end.
  assert _steps(240 / 3600, validation=1.0, every=30, save=2.0) == (83, 226.0)
  # The first counts as the first step, 60 s, and so many steps: 1.25 x (6 + 60 + 10 x 2 + 2) s.
  assert _steps(180 / 3600, validation=40.0, every=30, save=2.0, batches=10) == (29, 116.0)
  assert _steps(240 / 3600, validation=40.0, every=30, save=2.0, batches=10)[0] == 59


@pytest.mark.parametrize('validation', [0.0, 17.0, 59.0])
@pytest.mark.parametrize('saving', [1.0, 31.0, 59.0])
def test_what_was_never_done_before_ends_in_time_too(validation, saving):
  for limit in range(160, 500, 13):
    n, seconds = _steps(limit / 3600, validation=validation, every=7)
    assert n > 1 or limit < 250
    assert n == 1 or seconds + saving + 5.0 <= limit


def test_the_test_of_a_run_that_is_trained_is_made_in_time_or_left_to_the_next_attempt():
  clock = Clock()
  limit = budget.TimeBudget(200 / 3600, 0, {'test': 7}, clock, 0.0)
  assert limit.leaves_test()  # no step is left to make: whatever the budget
  for seconds in (60.0, 2.0):
    clock.now += seconds
    limit.after(())
    with limit.pause([]):
      pass
  # 1.25 x (60 + 7 x 2 + 20) = 117.5 s before 195 s.
  clock.now = 100.0 + 77.0
  assert limit.leaves_test()
  clock.now += 1.0
  assert not limit.leaves_test()


def test_one_step_is_made_whatever_the_budget():
  assert _steps(1e-6)[0] == 1
  assert _steps(0.0) is None


@pytest.mark.parametrize('parallel', ['data', pytest.param('pmap', marks=pytest.mark.slow)])
def test_a_run_that_is_out_of_time_is_resumed_as_if_it_had_not_been(
  tmp_path, monkeypatch, parallel
):
  named = {'parallel': parallel, 'total': '6 steps', 'checkpoint__every': '100 steps'}
  loop.train(options(**named), str(tmp_path / 'whole'))
  # All has passed when the run begins: each attempt makes one step.
  monkeypatch.setattr(machine, 'process_seconds', lambda: 3600.0)
  broken = tmp_path / 'broken'
  for step in (1, 2):
    with raises(InterruptedRunError, '--max_hours=0.5', f'step {step},', broken) as caught:
      loop.train(options(**named), str(broken), max_hours=0.5)
    assert (caught.value.status, caught.value.number) == (75, 0)
    assert checkpoint.load_run(broken, 'last').step == step
  monkeypatch.setattr(budget.TimeBudget, 'leaves_test', lambda self: False)
  with raises(InterruptedRunError, 'trained and saved', broken, 'tests it') as caught:
    loop.train(options(**named), str(broken), max_hours=9.0)
  assert caught.value.status == 75
  monkeypatch.undo()
  loop.train(options(**named), str(broken))
  assert timeless_rows(broken) == timeless_rows(tmp_path / 'whole')
