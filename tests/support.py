"""What several tests share: where real data lies, who skips without it, and `raises`."""

import contextlib
import os
import pathlib
from collections.abc import Iterator

import pytest

from vit_jax.errors import UserError

_ROOT = pathlib.Path(__file__).resolve().parents[1]
_DATA = pathlib.Path(os.environ.get('VIT_JAX_SHARED_DATA', _ROOT.parent / 'shared' / 'data'))

SHARED: pathlib.Path | None = _DATA if _DATA.is_dir() else None

needs_shared = pytest.mark.skipif(
  SHARED is None, reason='real images and weights are not here (set VIT_JAX_SHARED_DATA)'
)


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
