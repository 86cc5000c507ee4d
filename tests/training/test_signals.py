"""Signals that ask a run to stop."""

import contextlib
import hashlib
import os
import signal
import threading
import time

import pytest

from tests.support import raises
from vit_jax import console
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


@pytest.mark.parametrize('deferred', [True, False])
def test_what_a_signal_waits_for_is_said_while_python_cannot_run(capsys, deferred):
  with console.Console(information=False) as shown, contextlib.ExitStack() as stack:
    told = []
    say = shown.say
    shown.say = lambda *words, **how: (say(*words, **how), told.append(time.monotonic()))
    if not deferred:
      stack.enter_context(raises(InterruptedRunError, 'same command'))
    stop = stack.enter_context(StopSignal())
    if deferred:
      stack.enter_context(stop.deferred())
    with console.phase('compiling it'):
      threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGTERM)).start()
      ended = []
      try:
        while not told and len(ended) < 20:
          hashlib.pbkdf2_hmac('sha256', b'', b'', 2_000_000)  # in C, as a compiler is
          ended.append(time.monotonic())
      finally:
        ended.append(time.monotonic())
        assert told and told[0] < ended[0]
  (line,) = shown.warnings
  assert line == 'stopping after compiling it' + ': saving a checkpoint' * deferred


def test_a_signal_that_has_been_told_has_all_phases_told_after_a_second(capsys):
  with console.Console(live=False) as shown, StopSignal() as stop, stop.deferred():
    with console.phase('before', told_after=None):
      pass
    signal.raise_signal(signal.SIGTERM)
    while not shown.warnings:
      time.sleep(0.01)
    with console.phase('after', told_after=None):
      time.sleep(1.05)
  out, err = capsys.readouterr()
  assert out.splitlines()[0] == 'after ...' and 'before' not in out
  assert err == 'warning: stopping after this step: saving a checkpoint\n'
