"""Memory that is kept between steps, and fragments that are not."""

import json
import subprocess
import sys

import pytest

# A heap like a compiler's: blocks of all sizes, every other one freed.
_FRAGMENTED = """
import ctypes, json
from vit_jax import heap
said = heap.keep()
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
sizes = [20_000 + 997 * i % 80_000 for i in range(4_000)]
blocks = [libc.malloc(size) for size in sizes]
for i, (block, size) in enumerate(zip(blocks, sizes)):
  ctypes.memset(block, i % 251, size)
for block in blocks[::2]:
  libc.free(block)

def resident():
  return int(open('/proc/self/statm').read().split()[1]) * 4096

before = resident()
if hasattr(libc, 'mallinfo2'):
  heap.retire_fragments()
again = [libc.malloc(64 << 10) for _ in range(20)]
kept = all(
  ctypes.string_at(blocks[i], sizes[i]) == bytes([i % 251]) * sizes[i]
  for i in range(1, len(blocks), 2)
)
print(json.dumps({
  'said': said,
  'new': hasattr(libc, 'mallinfo2'),
  'given_back': before - resident(),
  'freed': sum(sizes[::2]),
  'after_all': min(again) > max(blocks),
  'kept': kept,
}))
"""

# Steps that keep a few blocks of what they allocate beside their workspace.
_STEPS = """
import ctypes, json
from vit_jax import heap
said = heap.keep()
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
if hasattr(libc, 'mallinfo2'):
  heap.retire_fragments()
workspaces = []
for step in range(4):
  workspace = libc.malloc((200 << 20) + 64 * step)  # as aligning it would ask for
  kept = [libc.malloc(size) for size in (100, 3_000, 500_000)]
  libc.free(workspace)
  kept += [libc.malloc(size) for size in (40, 80, 1_000)]
  workspaces.append(workspace)
print(json.dumps({
  'said': said, 'new': hasattr(libc, 'mallinfo2'), 'moved': max(workspaces) - min(workspaces)
}))
"""

_THREADS = """
import ctypes
import json
import os
import threading
from vit_jax import heap
said = heap.keep()
libc = ctypes.CDLL(None)
libc.malloc.restype = libc.sbrk.restype = ctypes.c_void_p
libc.malloc.argtypes, libc.sbrk.argtypes = [ctypes.c_size_t], [ctypes.c_ssize_t]
begin = min(libc.malloc(100) for _ in range(1000))
blocks, done = [], threading.Event()
def work():
  blocks.append(libc.malloc(50_000))
  done.wait()
threads = [threading.Thread(target=work) for _ in range(8 * os.cpu_count() + 8)]
for thread in threads:
  thread.start()
done.set()
for thread in threads:
  thread.join()
print(json.dumps({'said': said, 'inside': sum(begin <= block < libc.sbrk(0) for block in blocks)}))
"""

_ENDS = """
import ctypes
import json
import re
import threading
from vit_jax import heap
said = heap.keep()
libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
libc.malloc.argtypes, libc.free.argtypes = [ctypes.c_size_t], [ctypes.c_void_p]
def resident():
  return int(re.search(r'VmRSS:\\s+(\\d+)', open('/proc/self/status').read())[1]) << 10
def work():
  blocks = [libc.malloc(200_000) for _ in range(250)]
  for block in blocks:
    ctypes.memset(block, 1, 200_000)
  for block in blocks:
    libc.free(block)
grown = []
for kept in (False, True):
  heap.keep_ends(kept)
  before = resident()
  thread = threading.Thread(target=work)
  thread.start()
  thread.join()
  libc.malloc_trim(0)
  grown.append(resident() - before)
print(json.dumps({'said': said, 'grown': grown}))
"""

_COMPILING = """
import json
import sys
import threading
from vit_jax import heap
if sys.argv[1:]:
  import resource
  resource.setrlimit(resource.RLIMIT_AS, (64 << 30, resource.RLIM_INFINITY))
heap.keep()
heap._MIN_COMPILE_SECONDS = 1e-9
calls = []
heap.retire_fragments = lambda: calls.append(1)
heap.watch_compilations()
heap.watch_compilations()
import jax
counts = []
jax.jit(lambda x: x + 1)(2.0)
counts.append(len(calls))
thread = threading.Thread(target=jax.jit(lambda x: x + 2), args=(2.0,))
thread.start()
thread.join()
counts.append(len(calls))
heap.after_compilations()
counts.append(len(calls))
print(json.dumps(counts))
"""


def _output(program, *args):
  return subprocess.run(
    [sys.executable, '-c', program, *args], text=True, capture_output=True, check=True, timeout=120
  ).stdout


@pytest.mark.skipif(sys.platform != 'linux', reason='glibc')
def test_fragments_are_given_back_and_not_searched_again():
  found = json.loads(_output(_FRAGMENTED))
  if not (found['said'].startswith('kept') and found['new']):
    pytest.skip('not glibc 2.33 or newer')
  assert found['kept'] and found['after_all']
  assert found['given_back'] > found['freed'] / 2


@pytest.mark.skipif(sys.platform != 'linux', reason='glibc')
def test_every_step_works_in_the_workspace_of_the_first():
  found = json.loads(_output(_STEPS))
  if not (found['said'].startswith('kept') and found['new']):
    pytest.skip('not glibc 2.33 or newer')
  assert found['moved'] < 1 << 20


@pytest.mark.skipif(sys.platform != 'linux', reason='glibc')
def test_no_other_thread_allocates_where_steps_work():
  found = json.loads(_output(_THREADS))
  if not found['said'].startswith('kept'):
    pytest.skip('not glibc')
  assert found['inside'] == 0


@pytest.mark.skipif(sys.platform != 'linux', reason='glibc')
def test_ends_of_the_arenas_of_other_threads_are_given_back_meanwhile():
  found = json.loads(_output(_ENDS))
  if not found['said'].startswith('kept'):
    pytest.skip('not glibc')
  given_back, kept = found['grown']
  assert given_back < 5e6 < 20e6 < kept < 60e6


def test_what_is_compiled_leaves_no_fragments():
  first, in_a_thread, after_it = json.loads(_output(_COMPILING))
  assert in_a_thread == first  # its arena is another one
  assert first >= 1 and after_it == first + 1 or sys.platform != 'linux'
  if sys.platform == 'linux':
    assert json.loads(_output(_COMPILING, 'with a limit of addresses')) == [0, 0, 0]
