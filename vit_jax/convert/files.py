"""Opens weight files of any format: which one it is, and what else it says."""

import dataclasses
import pathlib
from typing import Any

from vit_jax.convert import npz, tables
from vit_jax.convert.tensors import Tensors, what_is_it
from vit_jax.errors import UserError, did_you_mean


@dataclasses.dataclass
class Weights:
  """A weights file that is open: names and shapes are known, arrays are read when looked up.

  Args:
    format: one of `tables.FORMATS`.
    tensors: foreign names to arrays.
    config: what the file says of its model, or None.
    classes: names of the classes in order, () where it says none.
    preprocess: a `vit_jax.data.Preprocess`, or None.
  """

  format: str
  tensors: Tensors
  config: dict[str, Any] | None = None
  classes: tuple[str, ...] = ()
  preprocess: Any = None


def read(path_or_name: str | pathlib.Path, format: str = 'auto') -> Weights:
  """Opens a weights file without reading its arrays.

  Args:
    path_or_name: a file.
    format: one of `tables.FORMATS`, or 'auto' to recognise it.

  Raises:
    UserError: no such file, or no weights in it.
  """
  if format not in ('auto', *tables.FORMATS):
    raise UserError(f'unknown format {format!r}: {did_you_mean(format, tables.FORMATS)}')
  path = pathlib.Path(path_or_name)
  if not path.exists():
    raise UserError(f'no weights at {path}')
  return _open_npz(path, format)


def _open_npz(path: pathlib.Path, format: str) -> Weights:
  tensors = npz.Npz(path)
  if not tensors:
    raise UserError(f'{path} holds no arrays: {what_is_it(path)}')
  if format == 'auto':
    # big_vision keeps position embeddings at the top, the official code in a module.
    stacked = any('Transformer/encoderblock/' in name for name in tensors)
    top = any(
      name.split('/')[-1] == 'pos_embedding' and 'posembed_input' not in name for name in tensors
    )
    format = 'big_vision' if stacked or top else 'npz'
  return Weights(format, tensors)
