"""glibc's heap where steps run on the CPU: kept from step to step, without a compiler's fragments.

Never imports JAX but in `watch_compilations`.
"""

import ctypes
import functools
import os
import threading

# mallopt(3)'s numbers.
_TRIM_THRESHOLD, _MMAP_MAX, _ARENA_MAX = -1, -4, -8

# Free blocks between them are taken out of use: XLA's matmuls ask for blocks of these sizes, and a
# step's workspace is larger.
_MIN_FRAGMENT, _MAX_FRAGMENT = 16 << 10, 4 << 20

# Free bytes kept apart for what a step allocates beside its workspace.
_SPARE = 64 << 20

# More than there are threads. With eight for each core, glibc's limit, some would share that of the
# main thread, and what they allocate during a step keeps the next one from the same place.
_ARENAS = 1024

# Free bytes at the end of an arena that stay while `keep_ends(False)` holds.
_END = 1 << 20

_MIN_COMPILE_SECONDS = 0.25

_kept = False
_compiled = 0.0  # seconds, since fragments were retired
_spare = 0  # address of the spare block made last


class _Info(ctypes.Structure):
  """struct mallinfo2 of mallinfo(3): ten counts and sums of bytes."""

  # `keepcost` is the size of the free block at the end.
  _fields_ = [(f'field{i}', ctypes.c_size_t) for i in range(9)] + [('keepcost', ctypes.c_size_t)]


def keep(one_arena: bool = False) -> str:
  """Makes the C library keep freed memory for the next step, and says in words whether it does.

  XLA allocates the whole workspace of a step anew each time. glibc would give it back to the
  system and get zeroed pages again: 2 GB, half a million page faults a step of ViT-S/16.

  Args:
    one_arena: for workspaces that are allocated in other threads than the main one. Their arenas
      would get large blocks from mmap whatever _MMAP_MAX says; but a compiler's threads wait for
      each other in a single one.
  """
  global _kept
  if os.environ.get('VIT_JAX_KEEP_MEMORY') == '0':
    return 'given back after each step ($VIT_JAX_KEEP_MEMORY=0)'
  try:
    mallopt = ctypes.CDLL(None).mallopt
  except (OSError, AttributeError, TypeError):  # TypeError: Windows, which takes no None
    return 'as the C library has it (not glibc)'
  settings = {_MMAP_MAX: 0, _TRIM_THRESHOLD: -1}
  if one_arena:
    settings[_ARENA_MAX] = 1
  elif not _addresses_are_limited():  # an arena takes tens of MB of them
    settings[_ARENA_MAX] = _ARENAS
  if not all(mallopt(*setting) for setting in settings.items()):
    return 'as the C library has it (mallopt refused)'
  _kept = True
  return 'kept from step to step' + (', in one arena' if one_arena else '')


def keep_ends(kept: bool) -> None:
  """Whether free memory at the end of an arena is kept, as `keep` has it, or given back at once.

  While another thread compiles it need not be kept, and could not be given back later: the ends of
  a compiler's arenas are what `malloc_trim` does not reach.
  """
  if _kept:
    ctypes.CDLL(None).mallopt(_TRIM_THRESHOLD, -1 if kept else _END)


@functools.cache
def watch_compilations() -> None:
  """Lets JAX call `after_compilations` whenever it has compiled, if `keep` took effect.

  Where a program was compiled in this process, not read from the cache, steps of CNNs took
  1.05 to 1.2 times as long: glibc walked the list of what the compiler had left for each block that
  a matmul asked for (docs/speed.md). Reading one from the cache leaves 100 to 200 MiB of such
  blocks too, and counts as compiling here.
  """
  if not _kept or _addresses_are_limited():
    return
  import jax.monitoring

  def compiled(event: str, duration_secs: float, **_: str | int) -> None:
    global _compiled
    if event == '/jax/core/compile/backend_compile_duration':
      _compiled += duration_secs
      after_compilations()

  jax.monitoring.register_event_duration_secs_listener(compiled)


def after_compilations() -> None:
  """Calls `retire_fragments` where enough was compiled since the last time.

  In another thread than the main one, which has an arena of its own, it does nothing: whoever waits
  for what was compiled there calls it.
  """
  global _compiled
  if _compiled >= _MIN_COMPILE_SECONDS and threading.current_thread() is threading.main_thread():
    _compiled = 0.0
    retire_fragments()


def _addresses_are_limited() -> bool:
  """Whether `ulimit -v` or `ulimit -d` counts what is out of use too."""
  try:
    import resource
  except ImportError:  # Windows has none
    return False
  limits = (resource.RLIMIT_AS, resource.RLIMIT_DATA)
  return any(resource.getrlimit(limit)[0] != resource.RLIM_INFINITY for limit in limits)


def retire_fragments() -> None:
  """Gives free memory back to the system, and keeps the addresses of small blocks out of use.

  Large ones, which steps work in, are used again, and so is the end of the heap, which it grows
  from. Before that end a free block of `_SPARE` bytes is left for what a step allocates beside its
  workspace: behind the workspace, that would keep the next step, which asks for a few bytes more
  than the last one freed, from the same place, and there would be two. A C library without
  mallinfo2 (glibc before 2.33) is left alone.
  """
  global _spare
  libc = ctypes.CDLL(None)
  try:
    mallinfo = libc.mallinfo2
  except AttributeError:
    return
  mallinfo.restype = _Info
  libc.sbrk.restype = libc.malloc.restype = ctypes.c_void_p
  libc.sbrk.argtypes = [ctypes.c_ssize_t]
  libc.malloc.argtypes = libc.malloc_trim.argtypes = [ctypes.c_size_t]
  libc.free.argtypes = [ctypes.c_void_p]
  libc.malloc_trim(1 << 62)  # so much stays at the end
  end = libc.sbrk(0) - mallinfo().keepcost - 4096  # where the last free block begins, or a bit less

  def taken(most: int, least: int) -> dict[int, int]:
    """All free blocks of at least `least` bytes, in pieces of at most `most`: their sizes."""
    blocks, size = {}, most
    while size >= least:
      block = libc.malloc(size)  # of the smallest free block that holds it
      if block is not None and block < end:
        blocks[block] = size
      else:
        libc.free(block)
        size //= 2
    return blocks

  large = taken(1 << 28, _MAX_FRAGMENT)
  taken(_MAX_FRAGMENT // 2, _MIN_FRAGMENT)
  left = sum(size for block, size in large.items() if _spare <= block < _spare + _SPARE)
  if left < _SPARE // 2:
    _spare = libc.malloc(_SPARE) or 0
    libc.malloc(_MIN_FRAGMENT)  # parts it from the end, for good
    libc.free(_spare)
  for block in large:
    libc.free(block)


def give_back() -> None:
  """Gives all free memory back to the system, where no step follows that would work in it."""
  if _kept:
    ctypes.CDLL(None).malloc_trim(0)
