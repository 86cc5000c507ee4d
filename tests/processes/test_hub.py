"""What the hub tells of processes that end, fall silent or stand still."""

import contextlib
import json
import os
import socket
import threading
import time

import pytest

from vit_jax.processes.hub import Hub

TIMEOUT = 1.0


class _Peer:
  """A process, as the hub sees one."""

  def __init__(self, address, index, token='secret'):
    with socket.create_connection(address, timeout=10) as link:
      self._file = link.makefile('rwb')
    self.say({'token': token, 'index': index, 'who': f'pid {index} on host'})

  def say(self, message):
    self._file.write(json.dumps(message).encode() + b'\n')
    self._file.flush()

  def beat(self, ticks, seconds, busy=False):
    until = time.monotonic() + seconds
    while time.monotonic() < until:
      self.say({'ticks': ticks, 'busy': busy})
      time.sleep(0.1)

  def hear(self):
    """What it is told of an end."""
    while True:
      found = json.loads(self._file.readline())
      if 'index' in found:
        return found

  def end(self):
    with contextlib.suppress(OSError):
      self._file.close()


@pytest.fixture
def hub():
  """hub(count, launched) -> connect(index, token) -> a process."""
  with contextlib.ExitStack() as stack:

    def start(count, launched=False):
      listener = stack.enter_context(socket.create_server(('127.0.0.1', 0)))
      read, write = os.pipe()
      stack.callback(os.close, read)
      serving = Hub(listener, count, TIMEOUT, 'secret', launched)
      thread = threading.Thread(target=serving.serve, args=(read,))
      thread.start()
      stack.callback(thread.join)
      lifeline = stack.enter_context(open(write, 'wb'))

      def connect(*args):
        peer = _Peer(listener.getsockname(), *args)
        stack.callback(peer.end)
        return peer

      connect.address = listener.getsockname()
      connect.end_process_0 = lifeline.close
      return connect

    yield start


def test_an_end_without_a_word_is_told_at_once(hub):
  connect = hub(3)
  peers = [connect(i) for i in range(3)]
  began = time.monotonic()
  peers[0].beat(0, 0.2)
  peers[0].end()
  told = [peer.hear() for peer in peers[1:]]
  assert time.monotonic() - began < TIMEOUT
  assert told[0] == told[1]
  assert told[0]['index'] == 0 and told[0]['who'] == 'pid 0 on host'
  assert told[0]['speaker'] == 1 and not told[0]['own'] and told[0]['status'] == 1


def test_who_connects_after_the_end_of_process_0_hears_of_it(hub):
  connect = hub(2)
  first = connect(0)
  first.beat(0, 0.2)
  first.end()
  connect.end_process_0()
  time.sleep(1.0)
  told = connect(1).hear()
  assert told['index'] == 0 and 'without a word' in told['text']


def test_where_a_launcher_says_it_nobody_else_does(hub):
  connect = hub(2, launched=True)
  first, second = connect(0), connect(1)
  first.beat(0, 0.2)
  second.end()
  assert first.hear()['speaker'] == -1


def test_the_first_error_is_what_all_are_told(hub):
  connect = hub(2)
  first, second = connect(0), connect(1)
  second.say({'ended': 'no such image', 'status': 143})
  told = first.hear()
  assert told['text'] == 'no such image' and told['own'] and told['status'] == 143
  assert second.hear() == told
  second.end()  # which is no other end
  assert connect(1).hear() == told


def test_a_process_that_leaves_has_not_ended_without_a_word(hub):
  connect = hub(2)
  first, second = connect(0), connect(1)
  second.say({'bye': True})
  second.end()
  first.beat(0, 0.3)
  first.say({'ended': 'own', 'status': 1})
  assert first.hear()['text'] == 'own'


def test_a_silent_process_is_named_after_the_timeout(hub):
  connect = hub(2)
  first, second = connect(0), connect(1)
  first.beat(0, TIMEOUT + 1.0)
  told = first.hear()
  assert told['index'] == 1 and f'{TIMEOUT:.0f} s' in told['text'] and told['speaker'] == 0
  second.end()


def test_a_process_that_stands_still_is_named_unless_it_is_busy(hub):
  connect = hub(2)
  first, second = connect(0), connect(1)

  def beat(busy):
    threads = [
      threading.Thread(target=first.beat, args=(7, 1.8 * TIMEOUT)),
      threading.Thread(target=second.beat, args=(6, 1.8 * TIMEOUT, busy)),
    ]
    for thread in threads:
      thread.start()
    for thread in threads:
      thread.join()

  beat(busy=True)
  beat(busy=False)
  told = first.hear()
  assert told['index'] == 1 and 'stood still' in told['text']


def test_a_stranger_changes_nothing(hub):
  connect = hub(1)
  first = connect(0)
  connect(0, 'guess').end()
  with socket.create_connection(connect.address) as link:
    link.sendall(b'GET / HTTP/1.1\r\n\r\n')
    assert link.recv(100) == b''
  first.beat(0, 0.3)
  first.say({'ended': 'own', 'status': 1})
  assert first.hear()['text'] == 'own'
