"""The pause between long steps on CPU: how long, and for whom."""

import numpy as np
import pytest

from vit_jax.training import timing

OUTPUTS = {'loss': np.float32(0.5)}


class Time:
  """A clock that moves only when told to."""

  def __init__(self):
    self.now, self.slept = 100.0, []

  def monotonic(self):
    return self.now

  def sleep(self, seconds):
    self.slept.append(seconds)
    self.now += seconds


@pytest.fixture
def time(monkeypatch):
  made = Time()
  monkeypatch.setattr(timing, 'time', made)
  return made


def test_a_long_step_is_followed_by_a_pause_of_a_hundredth(time):
  workspace = timing.OneWorkspace(on_cpu=True)
  for seconds in (1.5, 0.7, 90.0):
    time.now += seconds
    workspace.after(OUTPUTS)
  np.testing.assert_allclose(time.slept, [0.015, 0.007, 0.02])


def test_once_a_step_was_short_none_is_waited_for(time):
  workspace = timing.OneWorkspace(on_cpu=True)
  for seconds in (1.0, 0.1, 3.0, 3.0):
    time.now += seconds
    workspace.after(OUTPUTS)
  np.testing.assert_allclose(time.slept, [0.01, 0.001])


def test_an_accelerator_is_never_waited_for(time):
  workspace = timing.OneWorkspace(on_cpu=False)
  time.now += 5.0
  workspace.after(object())  # not even looked at
  assert time.slept == []
