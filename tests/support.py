"""What several tests share: where real data lies, who skips without it, `raises`, `made_once`,
and how programs of tests are compiled.
"""

import contextlib
import os
import pathlib
import time
from collections.abc import Callable, Iterator

import pytest

from vit_jax import files
from vit_jax.errors import UserError

_ROOT = pathlib.Path(__file__).resolve().parents[1]
_DATA = pathlib.Path(os.environ.get('VIT_JAX_SHARED_DATA', _ROOT.parent / 'shared' / 'data'))

SHARED: pathlib.Path | None = _DATA if _DATA.is_dir() else None

needs_shared = pytest.mark.skipif(
  SHARED is None, reason='real images and weights are not here (set VIT_JAX_SHARED_DATA)'
)

# Little optimization: most of the time would be LLVM's work on programs that run in milliseconds.
# JAX_DISABLE_MOST_OPTIMIZATIONS=0 tests the programs that users have.
os.environ.setdefault('JAX_DISABLE_MOST_OPTIMIZATIONS', '1')


def xla_flags(devices: int = 1) -> str:
  """$XLA_FLAGS of a program of tests on simulated devices, to be set before JAX is imported."""
  flags = f'--xla_force_host_platform_device_count={devices}' if devices > 1 else ''
  if os.environ['JAX_DISABLE_MOST_OPTIMIZATIONS'] == '1':
    # The older emitters make less code, which takes a third of the time where it stays as it is;
    # in one module instead of 32 it takes a fifth less again.
    flags += ' --xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1'
  return flags


@contextlib.contextmanager
def raises(kind: type[UserError], *facts: object) -> Iterator[pytest.ExceptionInfo[UserError]]:
  """Checks that an error is of just this type and that its message holds the facts.

  Args:
    kind: a type of `vit_jax.errors`.
    facts: names, numbers, paths and the like that the message must have, whatever its wording.
  """
  with pytest.raises(UserError) as caught:
    yield caught
  assert type(caught.value) is kind, f'{type(caught.value).__name__}: {caught.value}'
  missing = [fact for fact in map(str, facts) if fact not in str(caught.value)]
  assert not missing, f'{missing} not in: {caught.value}'


def error_line(status: int | None, stderr: str) -> str:
  """The one line in which a command says why it failed; the caller checks its facts.

  Args:
    status: of the command's end.
    stderr: what it wrote; warnings may stand before the line.
  """
  assert status == 1, stderr
  lines = stderr.splitlines()
  assert [line for line in lines if line.startswith('error:')] == lines[-1:], stderr
  return lines[-1]


def made_once(
  tmp_path_factory: pytest.TempPathFactory, name: str, make: Callable[[pathlib.Path], object]
) -> pathlib.Path:
  """A folder that the first test process to need it fills, for all of them.

  Args:
    tmp_path_factory: pytest's.
    name: of the folder.
    make: called with the empty folder.
  """
  base = tmp_path_factory.getbasetemp()
  folder = (base.parent if 'PYTEST_XDIST_WORKER' in os.environ else base) / name
  descriptor = os.open(folder.with_suffix('.lock'), os.O_CREAT | os.O_RDWR)
  try:
    while not files.try_lock(descriptor):
      time.sleep(0.2)
    if not folder.is_dir():
      unfinished = folder.with_suffix('.unfinished')
      unfinished.mkdir(exist_ok=True)
      make(unfinished)
      unfinished.rename(folder)
  finally:
    os.close(descriptor)
  return folder
