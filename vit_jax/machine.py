"""What this machine is and has; every question that operating systems answer differently."""

import glob
import hashlib
import os
import pathlib
import platform
import shlex
import subprocess
import sys
import time
from collections.abc import Sequence

from vit_jax import __version__

_IMPORTED = time.monotonic()

# Whose versions results depend on.
_PACKAGES = (
  'jax',
  'jaxlib',
  'flax',
  'optax',
  'orbax-checkpoint',
  'numpy',
  'grain',
  'tensorflow-datasets',
  'pillow',
  'simplejpeg',
  'scikit-learn',
  'matplotlib',
)

_MEMBERSHIP = '/proc/self/cgroup'  # lines 'NUMBER:CONTROLLERS:/GROUP'
# Of a control group's memory, that of a container or of a scheduler's job: the controller in
# `_MEMBERSHIP`, where the groups are, the limit, the use, and what of that are files that can be
# read again; as versions 2 and 1 name them.
_CGROUPS = (
  ('', '/sys/fs/cgroup', 'memory.max', 'memory.current', 'inactive_file'),
  (
    'memory',
    '/sys/fs/cgroup/memory',
    'memory.limit_in_bytes',
    'memory.usage_in_bytes',
    'total_inactive_file',
  ),
)


def cores() -> int:
  """Cores that this process may use, at least 1."""
  if hasattr(os, 'sched_getaffinity'):  # Linux; a container or a scheduler may have set fewer
    return len(os.sched_getaffinity(0))
  return os.cpu_count() or 1


def gpus() -> list[str]:
  """GPUs that this process may use, as $CUDA_VISIBLE_DEVICES names them."""
  visible = os.environ.get('CUDA_VISIBLE_DEVICES')
  if visible is not None:
    return [word for word in visible.split(',') if word.strip()]
  return [str(i) for i in range(len(glob.glob('/dev/nvidia[0-9]*')))]


def process_seconds() -> float:
  """Wall time since this process started; where the system does not say it, since this import."""
  try:
    started = int(pathlib.Path('/proc/self/stat').read_text('utf-8').rpartition(')')[2].split()[19])
    up = float(pathlib.Path('/proc/uptime').read_text('utf-8').split()[0])
    return max(0.0, up - started / os.sysconf('SC_CLK_TCK'))
  except (OSError, ValueError, IndexError):  # not Linux
    return time.monotonic() - _IMPORTED


def peak_memory_bytes() -> int | None:
  """Most memory that this process has had at once; None where the system does not say it."""
  try:
    import resource
  except ImportError:  # Windows
    return None
  peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
  return peak if sys.platform == 'darwin' else peak * 1024  # Linux counts in KiB


def free_memory_bytes() -> int | None:
  """Memory that new work may take, within the limits of a container; None where nobody says it."""
  try:
    text = pathlib.Path('/proc/meminfo').read_text('utf-8', 'replace')
  except OSError:  # not Linux: half of what is built in
    try:
      return os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE') // 2
    except (AttributeError, ValueError, OSError):  # Windows
      return None
  lines = dict(line.split(':', 1) for line in text.splitlines() if ':' in line)
  free = [int(lines['MemAvailable'].split()[0]) * 1024] if 'MemAvailable' in lines else []
  free += _left_of_limits()
  for controller, root, limit, used, files in _CGROUPS:
    for folder in _groups(controller, pathlib.Path(root)):
      try:
        stat = dict(
          line.split() for line in (folder / 'memory.stat').read_text('utf-8').splitlines()
        )
        taken = int((folder / used).read_text('utf-8')) - int(stat[files])
        free.append(int((folder / limit).read_text('utf-8')) - taken)
      except (OSError, ValueError, KeyError):  # no such file, or 'max'
        continue
  return max(0, min(free)) if free else None


def _groups(controller: str, root: pathlib.Path) -> list[pathlib.Path]:
  """This process's control group and all around it, whose limits it is under too."""
  try:
    lines = pathlib.Path(_MEMBERSHIP).read_text('utf-8', 'replace').splitlines()
  except OSError:
    return [root]
  found = [
    fields[2]
    for fields in (line.split(':', 2) for line in lines)
    if len(fields) == 3 and controller in fields[1].split(',')
  ]
  group = pathlib.PurePosixPath(found[0] if found else '/')
  return [root / folder.relative_to('/') for folder in (group, *group.parents)]


def _left_of_limits() -> list[int]:
  """Bytes that `ulimit -v` and `ulimit -d` leave this process, where there are such limits."""
  import resource

  found = []
  try:
    text = pathlib.Path('/proc/self/status').read_text('utf-8', 'replace')
    used = dict(line.split(':', 1) for line in text.splitlines() if ':' in line)
    for limit, name in ((resource.RLIMIT_AS, 'VmSize'), (resource.RLIMIT_DATA, 'VmData')):
      most = resource.getrlimit(limit)[0]
      if most != resource.RLIM_INFINITY:
        found.append(max(0, most - int(used[name].split()[0]) * 1024))
  except (OSError, KeyError, ValueError):
    pass
  return found


def processor_name() -> str:
  """What the processor is called, for people."""
  try:
    for line in pathlib.Path('/proc/cpuinfo').read_text('utf-8', 'replace').splitlines():
      if line.startswith('model name'):
        return line.partition(':')[2].strip()
  except OSError:
    pass
  return platform.processor() or platform.machine()


def processor() -> str:
  """A name for this kind of processor: programs compiled for another one would not run here."""
  try:
    text = pathlib.Path('/proc/cpuinfo').read_text('utf-8', 'replace')
    lines = text.splitlines()
    kind = [line for line in lines if line.startswith(('model name', 'flags', 'Features'))][:2]
  except OSError:
    kind = [platform.processor()]
  return hashlib.sha256(repr((platform.machine(), kind)).encode()).hexdigest()[:12]


def versions() -> dict[str, str]:
  """Versions of Python and of the packages that results depend on."""
  import importlib.metadata  # a third of a quick command's start

  found = {'python': platform.python_version(), 'vit_jax': __version__}
  for name in _PACKAGES:
    try:
      found[name] = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
      continue
  return found


def shell_line(words: Sequence[str]) -> str:
  """Words as one line that this system's shell takes apart again."""
  return subprocess.list2cmdline(words) if sys.platform == 'win32' else shlex.join(words)
