"""Signals that ask a run to stop."""

import signal

import pytest

from vit_jax.training.signals import StopSignal


@pytest.mark.parametrize('number', [signal.SIGTERM, signal.SIGINT])
def test_the_first_signal_is_a_request_and_the_second_acts_as_usual(number):
  received = []
  before = signal.signal(number, lambda n, _: received.append(n))
  try:
    with StopSignal() as stop:
      assert not stop.requested
      signal.raise_signal(number)
      assert stop.requested and received == []
      signal.raise_signal(number)
      assert received == [number]
    signal.raise_signal(number)  # and so it does afterwards
    assert received == [number] * 2
  finally:
    signal.signal(number, before)
