"""Metrics and rates between two reports, and the pause between long steps on CPU."""

import json
import types

import numpy as np
import pytest

from vit_jax.training import timing

CPU = [types.SimpleNamespace(platform='cpu')]
OUTPUTS = {'loss': np.float32(0.5)}


class Time:
  """A clock that moves only when it is moved."""

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
  monkeypatch.setattr(timing.runtime, 'computes_inline', lambda devices: False)
  return made


def _fetch(metrics):
  return {name: (float(total), float(weight)) for name, (total, weight) in metrics.items()}


def _metrics(total, weight=7.0, rate=0.1):
  return {'loss': (np.float32(total), np.float32(weight)), 'learning_rate': (rate, 1.0)}


def test_rates_are_of_the_steps_since_the_last_report(time):
  window = timing.Window(7, _fetch)
  assert window.rates() == {}
  for step in (1, 2, 3):
    with window.waiting():
      time.now += 0.5
    time.now += 1.5
    window.add(step, _metrics(1))
  with window.paused():
    time.now += 100
  assert window.rates() == pytest.approx({'img_sec': 3.5, 'input_wait': 0.25})
  window.restart()
  assert window.rates() == {} and list(window.rows()) == [1, 2, 3]  # of the window before


def test_compilation_is_excluded_from_rates_but_not_its_metrics(time):
  window = timing.Window(7, _fetch)
  time.now += 60
  window.add(1, _metrics(14))
  assert window.end_compilation() == pytest.approx(60)
  assert window.rates() == {}
  time.now += 2
  window.add(2, _metrics(28))
  assert window.rates()['img_sec'] == pytest.approx(3.5)
  assert window.means()['loss'] == pytest.approx(42 / 14)


def test_steps_that_run_on_into_a_pause_are_no_pause(time):
  """Steps are started ahead: a validation begins by waiting for those that were."""

  def fetch(metrics):
    time.now += 3.0  # the device is still busy with the step
    return _fetch(metrics)

  window = timing.Window(7, fetch)
  window.add(1, _metrics(1))
  time.now += 0.5
  with window.paused():
    window.rows()
    time.now += 100  # validation
    window.rows()
  assert window.rates()['img_sec'] == pytest.approx(7 / 3.5)


def test_means_are_weighed_and_the_learning_rate_is_the_last():
  """A metric of no example is not known: an IoU of 0 would say that all boxes were missed."""
  window = timing.Window(7, _fetch)
  for step, (total, weight, rate) in enumerate([(6, 3, 0.1), (0, 0, 0.2), (4, 2, 0.3)], 1):
    window.add(step, _metrics(total, weight, rate) | {'iou': (0.0, 0.0)})
  assert window.means() == {'loss': 2.0, 'learning_rate': 0.3}


@pytest.mark.parametrize('resumed', [False, True])
def test_a_short_last_window_is_filled_up_with_the_steps_before_it(time, resumed):
  """9 steps reported every 4: the last row is of steps 6 to 9, not of step 9 alone."""
  window = timing.Window(7, _fetch)
  for step in range(1, 9):
    time.now += 2.0
    window.add(step, _metrics(7 * step))
    if step % 4 == 0:
      assert window.means()['loss'] == step - 1.5
      window.restart()
  if resumed:
    state = json.loads(json.dumps({'rows': window.rows(), 'reported': window.reported}))
    window = timing.Window(7, _fetch, **state)
  time.now += 1.0
  window.add(9, _metrics(7 * 9))
  assert window.means()['loss'] == 9.0
  assert window.means(least=4)['loss'] == 7.5
  if not resumed:
    assert window.rates() == {'img_sec': 7.0, 'input_wait': 0.0}
    assert window.rates(least=4)['img_sec'] == pytest.approx(7 * 5 / 9)


def test_a_window_is_resumed_from_json():
  """A checkpoint in its middle holds the metrics of the steps before."""
  whole, before = timing.Window(7, _fetch), timing.Window(7, _fetch)
  for step in range(1, 6):
    whole.add(step, _metrics(step**2, step))
  for step in range(1, 4):
    before.add(step, _metrics(step**2, step))
  after = timing.Window(7, _fetch, json.loads(json.dumps(before.rows())))
  for step in range(4, 6):
    after.add(step, _metrics(step**2, step))
  assert after.rows() == whole.rows() and after.means() == whole.means()
  assert after.means()['loss'] == pytest.approx(55 / 15)


def test_a_long_step_is_followed_by_a_pause_of_a_hundredth(time):
  throttle = timing.CpuStepThrottle(CPU)
  for seconds in (1.5, 0.7, 90.0):
    time.now += seconds
    throttle.after(OUTPUTS)
  np.testing.assert_allclose(time.slept, [0.015, 0.007, 0.02])


def test_after_one_short_step_there_are_no_more_pauses(time):
  throttle = timing.CpuStepThrottle(CPU)
  for seconds in (1.0, 0.1, 3.0, 3.0):
    time.now += seconds
    throttle.after(OUTPUTS)
  np.testing.assert_allclose(time.slept, [0.01, 0.001])


def test_steps_that_the_calling_thread_computes_are_not_waited_for(time, monkeypatch):
  monkeypatch.setattr(timing.runtime, 'computes_inline', lambda devices: True)
  throttle = timing.CpuStepThrottle(CPU)
  time.now += 5.0
  throttle.after(object())
  assert time.slept == []


def test_an_accelerator_is_never_waited_for(time):
  throttle = timing.CpuStepThrottle([types.SimpleNamespace(platform='gpu')])
  time.now += 5.0
  throttle.after(object())  # not even looked at
  assert time.slept == []
