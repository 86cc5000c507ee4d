"""Signals that ask a run to stop."""

import signal

import pytest

from tests.support import raises
from vit_jax.errors import InterruptedRunError
from vit_jax.training.signals import NUMBERS, StopSignal


@pytest.fixture(params=NUMBERS, ids=lambda n: signal.Signals(n).name)
def received(request):
  """(a signal's number, list of those that came through to the handler there was before)."""
  found = []
  before = signal.signal(request.param, lambda n, _: found.append(n))
  yield request.param, found
  signal.signal(request.param, before)


def test_the_first_signal_is_a_request_and_the_second_acts_as_usual(received):
  number, found = received
  with StopSignal() as stop, stop.deferred():
    assert not stop.requested
    signal.raise_signal(number)
    assert stop.requested and stop.number == number and found == []
    signal.raise_signal(number)
    assert found == [number]
  signal.raise_signal(number)  # and so it does afterwards
  assert found == [number] * 2


def test_elsewhere_it_ends_the_run_with_the_status_of_shells(received):
  number, found = received
  with raises(InterruptedRunError, 'same command') as caught, StopSignal():
    try:
      signal.raise_signal(number)
    except Exception:
      pytest.fail('taken for a failure')
  assert caught.value.status == 128 + number and found == []
  signal.raise_signal(number)
  assert found == [number]
