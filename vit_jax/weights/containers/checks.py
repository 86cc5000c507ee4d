"""Errors for files that came from elsewhere: damaged, cut off, or something else altogether."""

import contextlib
import json
import pathlib
import zipfile
from collections.abc import Iterator
from typing import Any

from vit_jax.errors import UserError, WeightsError

# Weights hardly compress. A file that claims to unpack to far more than this is not weights.
_MAX_EXPANSION = 100
_FREE_BYTES = 64 << 20
_MAX_JSON = 64 << 20


@contextlib.contextmanager
def damaged(path: str | pathlib.Path, what: str = '') -> Iterator[None]:
  """Turns whatever a parser makes of a broken file into one line that names it.

  Args:
    path: the file.
    what: the part of it that is being read.
  """
  try:
    yield
  except UserError:
    raise
  except OSError as e:
    raise WeightsError(f'cannot read {path}: {e.strerror or e}') from e
  except Exception as e:
    where = f' at {what!r}' if what else ''
    why = str(e).splitlines()[0][:160] if str(e) else type(e).__name__
    raise WeightsError(
      f'{path} is damaged or not a weights file{where} ({why}); fetch or copy it again'
    ) from e


def check_expansion(path: pathlib.Path, claimed: int) -> None:
  """Refuses a compressed file that claims far more bytes than weights of its size can hold."""
  held = path.stat().st_size
  if claimed > _FREE_BYTES + _MAX_EXPANSION * held:
    raise WeightsError(
      f'{path} holds {held:,} bytes and claims to unpack to {claimed:,}: not a weights file'
    )


def zip_has(path: pathlib.Path, file: str) -> bool:
  """Whether a file is a whole zip with a file of that name, in whatever folder of it."""
  with damaged(path):
    if not zipfile.is_zipfile(path):
      return False
    with zipfile.ZipFile(path) as archive:
      return any(name.split('/')[-1] == file for name in archive.namelist())


def what_is_it(path: pathlib.Path) -> str:
  """A guess for the error message of a file that is no weights file."""
  with damaged(path), open(path, 'rb') as f:
    start = f.read(200)
  if not start:
    return 'it is empty'
  if start.startswith(b'version https://git-lfs'):
    return 'it is a Git LFS pointer: fetch the file itself (git lfs pull)'
  if start.lstrip()[:5].lower() in (b'<html', b'<!doc', b'<?xml'):
    return 'it is a web page: the download got an error page'
  return 'it may have been cut off: fetch or copy it again'


def read_json(path: pathlib.Path) -> dict[str, Any]:
  """The JSON object in a file; {} where there is no such file.

  Raises:
    WeightsError: naming the file, where it is damaged or holds something else.
  """
  if not path.is_file():
    return {}
  with damaged(path):
    if path.stat().st_size > _MAX_JSON:
      raise WeightsError(f'{path} is too large to be a config')
    content = json.loads(path.read_text('utf-8'))
    if not isinstance(content, dict):
      raise WeightsError(f'{path} should hold a JSON object')
    return content
