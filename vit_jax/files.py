"""Files that appear whole or not at all."""

import csv
import json
import os
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from vit_jax.errors import UserError


def write_text(path: str | pathlib.Path, text: str) -> None:
  """Writes a file whole or not at all: a kill leaves the old one."""
  path = pathlib.Path(path)
  draft = path.with_name(f'.{path.name}.{os.getpid()}')
  draft.write_text(text, encoding='utf-8')
  os.replace(draft, path)


def write_json(path: str | pathlib.Path, value: Any) -> None:
  """Writes a value as indented JSON, whole or not at all."""
  write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + '\n')


def make_workdir(workdir: str) -> pathlib.Path:
  """Makes the folder and proves that it can be written.

  Raises:
    UserError: naming the folder and the system's reason.
  """
  path = pathlib.Path(workdir)
  try:
    path.mkdir(parents=True, exist_ok=True)
    probe = path / f'.probe.{os.getpid()}'
    probe.write_text('')
    probe.unlink()
  except OSError as e:
    raise UserError(f'cannot write to --workdir={workdir}: {e.strerror}') from e
  return path


def write_csv(path: pathlib.Path, header: Sequence[str], rows: Any) -> None:
  """Writes a table; what is not a number stays empty."""
  with open(path, 'w', newline='', encoding='utf-8') as f:
    table = csv.writer(f)
    table.writerow(header)
    table.writerows([_cell(value) for value in row] for row in rows)


def _cell(value: Any) -> Any:
  if isinstance(value, float | np.floating):
    return '' if not np.isfinite(value) else f'{value:.6g}'
  return value
