"""Learning-rate schedules against numbers worked by hand."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

from tests.support import raises
from vit_jax import optimizers
from vit_jax.errors import ConfigError
from vit_jax.optimizers import SCHEDULES, Schedule
from vit_jax.options import Length, option
from vit_jax.training.durations import Durations


def _rate(name, total=103, peak=2.0, **options):
  options = {'warmup': '0 steps', 'cooldown': '0 steps', **options}
  steps_of = Durations(batch_size=10, num_examples=50).steps
  schedule = optimizers.make_schedule(name, options, peak, total, steps_of)
  return lambda step: float(schedule(jnp.int32(step)))


def test_cosine_with_warmup():
  rate = _rate('cosine', warmup='3 steps')
  np.testing.assert_allclose([rate(0), rate(1), rate(2)], [2 / 3, 4 / 3, 2.0], rtol=1e-6)
  np.testing.assert_allclose(rate(3 + 50), 1.0, rtol=1e-6)  # half of the 100 steps that decay
  np.testing.assert_allclose(rate(103), 0.0, atol=1e-6)


def test_cosine_ends_at_a_fraction_of_the_peak():
  rate = _rate('cosine', end=0.1, total=100)
  np.testing.assert_allclose([rate(0), rate(50), rate(100)], [2.0, 1.1, 0.2], rtol=1e-6)


def test_linear_ends_at_a_fraction_of_the_peak():
  rate = _rate('linear', end=0.1, total=100)
  np.testing.assert_allclose([rate(0), rate(50), rate(100)], [2.0, 1.1, 0.2], rtol=1e-6)


def test_rsqrt_and_cooldown():
  rate = _rate('rsqrt', timescale='10 steps', cooldown='20 steps', total=100)
  np.testing.assert_allclose([rate(0), rate(30)], [2.0, 1.0], rtol=1e-6)
  np.testing.assert_allclose(rate(90), 2.0 / np.sqrt(10) / 2, rtol=1e-6)


def test_lengths_are_in_steps_epochs_or_examples():
  rate = _rate('rsqrt', warmup='1 epoch', timescale='4 epochs', cooldown='50 examples', total=70)
  np.testing.assert_allclose([rate(0), rate(4), rate(5)], [0.4, 2.0, 2.0], rtol=1e-6)
  np.testing.assert_allclose(rate(65), 1.0, rtol=1e-6)  # 60 steps after the warm-up
  np.testing.assert_allclose(rate(69), 2 / np.sqrt(1 + 64 / 20) / 5, rtol=1e-6)


def test_a_timescale_below_one_step_is_one_step():
  rate = _rate('rsqrt', timescale='4 examples')
  assert rate(3) == pytest.approx(1.0)


def test_constant_stays_at_the_peak_after_warmup():
  rate = _rate('constant', warmup='4 steps', end=0.1)  # 'end' is an option of other schedules
  np.testing.assert_allclose([rate(0), rate(3), rate(4), rate(102)], [0.5, 2, 2, 2], rtol=1e-6)


def test_an_unknown_schedule_names_the_nearest():
  with raises(ConfigError, "'cosin'", "'cosine'"):
    _rate('cosin')


@dataclasses.dataclass(frozen=True)
class _Steps(Schedule):
  """Its text options are a length and a word."""

  shape: str = option('down', 'direction', choices=('down', 'up'))
  every: str = option('1 epoch', 'between steps', parse=Length.parse_positive)

  def __call__(self, since, decay_steps):
    assert self.shape == 'up'
    return since // float(self.every)


def test_text_options_that_are_no_lengths_stay_text(monkeypatch):
  monkeypatch.setitem(SCHEDULES._entries, 'steps', _Steps)
  rate = _rate('steps', shape='up', every='2 epochs')
  assert [rate(9), rate(10), rate(25)] == [0, 2, 4]


def test_schedules_that_are_not_ours_may_exceed_their_peak(monkeypatch):
  assert all(
    optimizers.keeps_below_peak(name) for name in ('cosine', 'linear', 'rsqrt', 'constant')
  )
  monkeypatch.setitem(SCHEDULES._entries, 'steps', _Steps)
  assert not optimizers.keeps_below_peak('steps')
