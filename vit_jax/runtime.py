"""What a command sets before JAX starts: memory, XLA flags, the compilation cache.

Never imports JAX but in `prepare_jax`.
"""

import atexit
import contextlib
import gc
import glob
import logging
import os
import pathlib
import re
import sys
import threading
import warnings
from collections.abc import Callable, Sequence
from typing import Any

from vit_jax import heap
from vit_jax.console import exit_now, warn_once
from vit_jax.errors import UserError
from vit_jax.files import cache_folder
from vit_jax.machine import processor

# Programs that compile quicker than this are not worth a file.
_MIN_COMPILE_SECONDS = 0.3

# XLA ends the program at a flag that it does not know, so that it is set where it is known.
_SCHEDULER, _SCHEDULER_VERSION = 'xla_cpu_enable_concurrency_optimized_scheduler', '0.10.'

_CACHE_FAILED = re.compile(
  r"Error (reading|writing) persistent compilation cache entry for '(?P<program>[^']*)': "
  r'(?P<reason>.*)',
  re.DOTALL,
)

log = logging.getLogger(__name__)

# Imports and tracing make millions of objects that stay. With Python's own thresholds (700, 10, 10)
# looking through them for garbage takes an eighth of the time to a run's first step.
_GC_THRESHOLDS = 50_000, 20, 50

_settings: dict[str, str] = {}
_background: list[threading.Thread] = []


def start(alone: bool = True) -> None:
  """Prepares this process for fast steps; called by every command, a second call does nothing.

  Compiled programs are kept in the cache folder (see `files.cache_folder`) unless JAX's own
  $JAX_COMPILATION_CACHE_DIR or $JAX_ENABLE_COMPILATION_CACHE say otherwise, $VIT_JAX_KEEP_MEMORY=0
  leaves the allocator as it is, and a flag in $XLA_FLAGS is never changed.
  Nothing here can fail a run, and nothing changes a result.

  Args:
    alone: whether this process computes by itself, not as one of several.
  """
  if not _settings:
    _settings['allocator'] = _keep_memory(one_arena=not alone or _simulates_devices())
    _settings['scheduler'] = _spare_memory()
    _settings['cache'] = _keep_compilations()
    gc.set_threshold(*_GC_THRESHOLDS)
    atexit.register(gc.freeze)  # Python would look through all once more as it ends: half a second


def prepare_jax() -> None:
  """Goes on where `start` was called, once JAX is imported and before it computes anything.

  On CPU, the thread that calls a step then computes it. In a thread of XLA's own a step's outputs
  are ready a moment before its workspace is free, so that the next step may get a second one.
  """
  if not _settings or has_accelerator():
    return
  import jax

  with contextlib.suppress(AttributeError):  # another version of JAX
    jax.config.update('jax_cpu_enable_async_dispatch', False)
    _settings['dispatch'] = 'the thread that calls a step computes it, on one device'
  heap.watch_compilations()


def in_background(work: Callable[[], None]) -> Callable[[], None]:
  """Does in a thread what a command need not wait for when it ends; returns what waits for it."""
  thread = threading.Thread(target=work)
  _background.append(thread)
  thread.start()
  return thread.join


def leave(status: int) -> None:
  """Ends the process here if something is done `in_background`: nothing stops XLA's compiler."""
  if any(thread.is_alive() for thread in _background):
    exit_now(status)


def computes_inline(devices: Sequence[Any]) -> bool:
  """Whether steps on these devices have freed their memory when they return."""
  return 'dispatch' in _settings and len(devices) == 1 and devices[0].platform == 'cpu'


def describe() -> dict[str, str]:
  """What `start` and `prepare_jax` did, by topic; empty where it was not called."""
  return dict(_settings)


def has_accelerator() -> bool:
  """Whether JAX may find a GPU or TPU here, judged without starting it."""
  if os.environ.get('JAX_PLATFORMS') == 'cpu':
    return False
  return bool(glob.glob('/dev/nvidia[0-9]*') + glob.glob('/dev/accel*') + glob.glob('/dev/kfd'))


def _keep_memory(one_arena: bool) -> str:
  if has_accelerator():
    return 'as the C library has it (the steps run on an accelerator)'
  return heap.keep(one_arena)


def _simulates_devices() -> bool:
  """Whether this process has several devices on CPU, each with threads of its own."""
  flag = '--xla_force_host_platform_device_count='
  return flag in os.environ.get('XLA_FLAGS', '') or 'JAX_NUM_CPU_DEVICES' in os.environ


def _spare_memory() -> str:
  """Has XLA order a step on CPU for little memory instead of for many cores at once.

  A step of ViT-S/16 takes as long, and an eighth less workspace (docs/speed.md).
  """
  given = os.environ.get('XLA_FLAGS', '')
  if _SCHEDULER in given:
    return 'as $XLA_FLAGS says'
  if given and not given.lstrip().startswith('-'):  # a file of flags, which XLA takes alone
    return 'as XLA or the file of $XLA_FLAGS has it'
  if has_accelerator():
    return 'as XLA has it (the steps run on an accelerator)'
  if not _has_jaxlib(_SCHEDULER_VERSION):
    return f'as XLA has it (jaxlib is not {_SCHEDULER_VERSION})'
  os.environ['XLA_FLAGS'] = f'{given} --{_SCHEDULER}=false'.strip()
  return 'little memory'


def _has_jaxlib(version: str) -> bool:
  import importlib.metadata  # a third of a quick command's start

  try:
    return importlib.metadata.version('jaxlib').startswith(version)
  except importlib.metadata.PackageNotFoundError:
    return False


def _keep_compilations() -> str:
  """Turns on JAX's persistent compilation cache, in a folder that can be written."""
  theirs = os.environ.get('JAX_COMPILATION_CACHE_DIR')
  if theirs is not None:
    return f'{theirs or "off"} ($JAX_COMPILATION_CACHE_DIR)'
  enabled = os.environ.get('JAX_ENABLE_COMPILATION_CACHE', '')
  if enabled.lower() in ('false', 'off', 'no', 'n', '0'):
    return f'off ($JAX_ENABLE_COMPILATION_CACHE={enabled})'
  try:
    folder = cache_folder() / f'xla-{processor()}'
    folder.mkdir(parents=True, exist_ok=True)
    if not os.access(folder, os.W_OK):
      raise PermissionError(13, 'Permission denied', str(folder))
  except (OSError, UserError) as e:
    return f'off ({e})'
  values = {
    'jax_compilation_cache_dir': str(folder),
    'jax_persistent_cache_min_compile_time_secs': _MIN_COMPILE_SECONDS,
  }
  for name, value in values.items():
    os.environ.setdefault(name.upper(), str(value))  # for JAX, and for processes started later
    if 'jax' in sys.modules:
      sys.modules['jax'].config.update(name, value)
  _watch_cache(folder)
  return str(folder)


def _watch_cache(folder: pathlib.Path) -> None:
  """Says once that the cache fails, where JAX warns for each program, and removes what is damaged.

  A full disk leaves entries of half a program, which JAX would find damaged, and leave, every time.
  """
  show = warnings.showwarning

  def show_once(message: Any, *args: Any, **kwargs: Any) -> None:
    found = _CACHE_FAILED.match(str(message))
    if not found:
      return show(message, *args, **kwargs)
    for entry in folder.glob(f'{glob.escape(found["program"])}-*-cache'):
      with contextlib.suppress(OSError):
        entry.unlink()
    return warn_once(
      log,
      f'the compilation cache {folder} fails, and programs are compiled again ({found["reason"]}): '
      'VIT_JAX_CACHE names another folder',
    )

  warnings.showwarning = show_once
